"""``gkt data pack``: for a bundle or for the server of a run, into a file of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from werkzeug.serving import make_server

from gkt_core.bundle.manifest import Bundle, Manifest, load_bundle
from gkt_core.data.command import data
from gkt_core.data.private_data import load_private_data
from gkt_core.errors import InputError
from gkt_core.wire.join_link import JoinLink
from server_app import RunContext, create_app, create_run
from server_app.members.membership import bundle_sha256
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.edge_runtime.in_thread import answering
from tests.gkt_core.data.test_pack import CLASSES, by_id, names_in, photos
from tests.server_app.server_fixtures import TOKEN, run_config

pytest_plugins = ["tests.server_app.server_fixtures"]


@pytest.fixture
def bundle(tmp_path: Path, digits_bundle: Bundle) -> Path:
    """A manifest of three classes at 8 px: packing reads nothing else of a bundle."""
    values = json.loads((digits_bundle.path / "manifest.json").read_text())
    changed: dict[str, Any] = {"class_names": list(CLASSES)}
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(values | changed))
    return tmp_path / "bundle"


def run(*arguments: Any) -> Any:
    result = CliRunner().invoke(data, ["pack", *map(str, arguments)])
    if result.exception:
        raise result.exception
    return result.output


def test_the_command_packs_says_what_it_did_and_keeps_ids(tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "mine.npz"
    size = Manifest.from_dict(json.loads((bundle / "manifest.json").read_text())).image_size
    photos(tmp_path / "photos", ("cat", "dog", "wolves"))
    text = run(tmp_path / "photos", "--for", bundle, "--out", out)
    assert "no class of the bundle: wolves/" in text
    assert "owl 0, cat 10, dog 10" in text
    first = load_private_data(out)
    assert first.image_size == size and first.class_names == CLASSES
    with Image.open(tmp_path / "mine-contact-sheet.png") as sheet:
        assert {(60,) * 3, (120,) * 3} <= {colour for _, colour in sheet.getcolors(1 << 24) or []}
    photos(tmp_path / "photos", ("owl",))
    described = json.loads(
        run(
            tmp_path / "photos",
            "--for",
            bundle / "manifest.json",
            "--out",
            out,
            "--map",
            "wolves=dog",
            "--json",
        )
    )
    assert described["class_counts"] == {"owl": 10, "cat": 10, "dog": 20}
    assert described["num_examples"] + described["num_validation_examples"] == 40
    assert by_id(first).items() <= by_id(load_private_data(out)).items()


@pytest.mark.parametrize("kind", ["device", "text"])
def test_the_command_replaces_nothing_that_it_did_not_make(
    tmp_path: Path, bundle: Path, kind: str, digits_split: Path
) -> None:
    out = tmp_path / "mine.npz"
    content = (digits_split / "clients" / "client-000.npz").read_bytes() if kind == "device" else b"mine"
    out.write_bytes(content)
    photos(tmp_path / "photos")
    with pytest.raises(InputError, match="is there and was not made by gkt data pack: choose another --out"):
        run(tmp_path / "photos", "--for", bundle, "--out", out)
    assert out.read_bytes() == content
    with pytest.raises(InputError, match=r"--out is .*mine, expected a name such as mine\.npz"):
        run(tmp_path / "photos", "--for", bundle, "--out", tmp_path / "mine")


@pytest.fixture
def run_of_named_classes(server_bundle: Path, tmp_path: Path) -> Iterator[RunContext]:
    run = create_run(tmp_path / "run", server_bundle, run_config(), TOKEN)
    bundle = load_bundle(server_bundle, ())
    manifest = dataclasses.replace(bundle.manifest, class_names=list(CLASSES))
    object.__setattr__(run, "bundle", dataclasses.replace(bundle, manifest=manifest))
    yield run
    run.store.close()


@contextlib.contextmanager
def served(run: RunContext) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, create_app(run, TOKEN), threaded=True)
    with answering(server) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_server_says_what_its_run_wants(run_of_named_classes: RunContext, gkt: Gkt, tmp_path: Path) -> None:
    photos(tmp_path / "photos", ("dog", "cat", "wolves"))
    out = tmp_path / "mine.npz"
    arguments = ["data", "pack", tmp_path / "photos", "--out", out, "--patience-seconds", "0"]
    with served(run_of_named_classes) as url:
        done = gkt(*arguments, "--for", url, "--token", TOKEN, "--json")
        assert done.returncode == 0, done.stderr
        described = json.loads(done.stdout)
        assert described["class_counts"] == {"owl": 0, "cat": 10, "dog": 10}
        assert described["reading"]["left_out"] == {
            "no class of the bundle: wolves/": names_in(tmp_path / "photos", "wolves")
        }
        private = load_private_data(out)
        assert private.class_names == CLASSES
        assert private.image_size == run_of_named_classes.bundle.manifest.image_size
        no_token = gkt(*arguments, "--for", url)
        assert no_token.returncode == 2
        assert f"--for {url} is a server: give the join link that it prints instead" in no_token.stderr
        bundle = bundle_sha256(run_of_named_classes)
        guest = run_of_named_classes.store.credentials.open_enrolment(LONGEST_SECONDS)
        link = JoinLink(url, guest.name, guest.secret, bundle).text()
        invited = gkt(*arguments, "--for", link, "--json")
        assert invited.returncode == 0, invited.stderr
        assert json.loads(invited.stdout)["class_counts"] == described["class_counts"]
        (tmp_path / "join.txt").write_text(link)
        from_file = gkt(*arguments, "--for", tmp_path / "join.txt")
        assert from_file.returncode == 0, from_file.stderr
        other = JoinLink(url, guest.name, guest.secret, "0" * 64).text()
        changed = gkt(*arguments, "--for", other)
        assert changed.returncode == 2 and "is not the one that was agreed upon" in changed.stderr
        wrong = gkt(*arguments, "--for", url, "--token", "another")
        assert wrong.returncode == 5
    gone = gkt(*arguments, "--for", url, "--token", TOKEN)
    assert gone.returncode == 4 and f"{url} did not answer" in gone.stderr
    # Whatever failed, the file is as it was.
    assert by_id(load_private_data(out)) == by_id(private)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere", "there is no nowhere: expected the folder of gkt export, or the link that gkt serve"),
        # A server that was started in the background a moment ago.
        ("run/join", "there is no run/join: expected the folder of gkt export, or the link that gkt serve"),
        ("served", "served is the folder of a server: give the link that it keeps, served/join"),
        ("photos", "photos is no artifact bundle (manifest.json cannot be read): make one with gkt export"),
        ("https://", "server URL is 'https://', expected one such as http://10.0.0.5:8080"),
        ("ftp://server", "there is no ftp://server: expected the folder of gkt export, or the link"),
    ],
)
def test_a_place_that_names_no_classes(gkt: Gkt, tmp_path: Path, place: str, words: str) -> None:
    photos(tmp_path / "photos")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "join").write_text("a link")
    done = gkt("data", "pack", "photos", "--for", place, "--token", "t", "--out", "mine.npz")
    assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "mine.npz").exists()
