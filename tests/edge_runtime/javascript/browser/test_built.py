"""What is committed of the page at /join is what its sources give, and as small as was promised."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LONGEST_SECONDS, ROOT
from tests.edge_runtime.javascript.node_package import PACKAGE, missing

BUILT = ROOT / "server_app" / "web" / "static" / "join"
MOST_FIRST_LOAD, MOST_LIBRARY = 6_000_000, 60_000


def unpacked(folder: Path) -> dict[str, bytes]:
    """Each file by name; versions of zlib compress the same otherwise."""
    return {
        path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes())
        if path.suffix == ".gz"
        else path.read_bytes()
        for path in folder.iterdir()
    }


def compressed(*names: str) -> int:
    """Bytes of files as they are sent."""
    files = unpacked(BUILT)
    return sum(len(gzip.compress(files[name])) for name in names)


def named(pattern: str) -> str:
    (name,) = (name for name in unpacked(BUILT) if re.fullmatch(pattern, name))
    return name


def node(*arguments: str | Path) -> None:
    """Run a script of the package in Node; skipped loudly where there is none."""
    reason = missing()
    if not reason and not (PACKAGE / "node_modules" / "esbuild").is_dir():
        reason = "esbuild is not there: make js-install"
    if reason:
        pytest.skip(f"the page at /join is NOT BUILT: {reason}")
    done = subprocess.run(
        [shutil.which("node") or "", *arguments],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_committed_is_what_the_sources_give(tmp_path: Path) -> None:
    node("build-web.mjs", tmp_path / "join")
    fresh, committed = unpacked(tmp_path / "join"), unpacked(BUILT)
    assert fresh.keys() == committed.keys(), "make web, if the change is meant"
    assert [name for name in fresh if fresh[name] != committed[name]] == []


def test_its_types_hold() -> None:
    node(PACKAGE / "node_modules" / "typescript" / "bin" / "tsc", "-p", "tsconfig.browser.json", "--noEmit")


def test_the_first_load_is_small() -> None:
    assert (
        compressed(*(name for name in unpacked(BUILT) if not re.search(r"licen|third", name)))
        < MOST_FIRST_LOAD
    )


def test_the_library_is_small(tmp_path: Path) -> None:
    """A page of one's own, with everything but ONNX Runtime."""
    esbuild = PACKAGE / "node_modules" / "esbuild" / "bin" / "esbuild"
    out = tmp_path / "library.js"
    node(
        esbuild,
        "src/index.ts",
        "--bundle",
        "--minify",
        "--format=esm",
        "--platform=browser",
        f"--outfile={out}",
    )
    assert 10_000 < len(gzip.compress(out.read_bytes())) < MOST_LIBRARY


def test_it_asks_nobody_but_the_server() -> None:
    """No address of another host is in what a browser runs or shows."""
    files = unpacked(BUILT)
    shown = [name for name in files if not name.endswith((".txt", ".wasm", ".mjs")) and "worker-" not in name]
    assert len(shown) >= 5
    for name in shown:
        hosts = set(re.findall(rb"https?://[\w.-]+", files[name])) - {b"http://www.w3.org", b"https://HOST"}
        assert not hosts, name


def test_both_languages_say_everything() -> None:
    """The compiler holds that no sentence is missing; here, that none is the same but for names."""
    texts = PACKAGE / "src" / "browser" / "page" / "texts"
    sentence = r'"([^"\n]{25,})"|`([^`\n]{25,})`'
    english, german = (
        {one or other for one, other in re.findall(sentence, (texts / name).read_text(encoding="utf-8"))}
        for name in ("en.ts", "de.ts")
    )
    assert len(english) > 25 and not english & german
