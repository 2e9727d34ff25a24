"""Steps and memory of the portable engine in three places, in turn, each in a fresh process."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_runtime.machine.process_status import status_bytes
from gkt_core.bundle.manifest import PORTABLE
from gkt_core.errors import InputError, RunFailedError
from profiling.device.browser.options import BrowserOptions
from profiling.device.edge.probe import PROBE, ProbeSpec
from profiling.frame import Announce
from profiling.frame.measuring.fresh_process import measure_fresh
from profiling.frame.measuring.step_time import noise_report, summarise

JAVASCRIPT = Path(__file__).resolve().parents[3] / "edge_runtime" / "javascript"
# Chromium's own sandbox wants privileges that containers do not give; the page is ours.
_FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
_SECONDS = 3600.0
# Without both, a page has no memory that threads share.
_HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}
_TRAIN = """(spec) => new Promise((resolve) => {
  const worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = (event) => resolve({ error: event.message || "the worker cannot be loaded" });
  worker.postMessage(spec);
})"""
Taken = dict[str, Any]


def measure_browser(options: BrowserOptions, announce: Announce) -> dict[str, Any]:
    """Measure them.

    Raises:
        InputError: The TypeScript package is not there.
        RunFailedError: One of them failed.
    """
    if not (JAVASCRIPT / "node_modules" / "esbuild").is_dir():
        raise InputError(
            f"{JAVASCRIPT} is not there with its packages: measure in a clone of the repository, "
            "after make js-install"
        )
    with tempfile.TemporaryDirectory(prefix="gkt-browser-") as name:
        folder = Path(name)
        announce("exporting and building")
        bundle = _exported(options, folder)
        # Within the package, where Node finds what it needs.
        with tempfile.TemporaryDirectory(dir=JAVASCRIPT, prefix=".measure-") as inside:
            built = Path(inside)
            _node(JAVASCRIPT / "build-measure.mjs", built)
            shutil.copytree(bundle, built / "bundle")
            versions: dict[str, str] = {}
            places: dict[str, Callable[[], Taken]] = {
                "python": functools.partial(_in_python, bundle, options),
                "node": functools.partial(_in_node, built, options),
                "chromium": functools.partial(_in_chromium, built, options, versions),
            }
            taken: dict[str, list[Taken]] = {place: [] for place in places}
            for turn in range(options.turns):
                for place, measure in places.items():
                    announce(f"{place}, turn {turn + 1} of {options.turns}")
                    taken[place].append(measure())
    times = {
        place: summarise([ms for each in turns for ms in each["samples_ms"]])
        for place, turns in taken.items()
    }
    return {
        "step_ms": {place: time.to_dict() for place, time in times.items()},
        "over_python": {
            place: round(time.median_ms / times["python"].median_ms, 4) for place, time in times.items()
        },
        "peak_memory_bytes": {
            place: max((each["peak_bytes"] for each in turns if each["peak_bytes"]), default=None)
            for place, turns in taken.items()
        },
        "empty_page_memory_bytes": min(
            (each["before_bytes"] for each in taken["chromium"] if each["before_bytes"]), default=None
        ),
        "noise": noise_report(times),
        "settings": {"node": _node("--version").strip().removeprefix("v"), **versions},
    }


def _exported(options: BrowserOptions, folder: Path) -> Path:
    spec = dataclasses.asdict(options) | {"folder": str(folder / "bundle")}
    measure_fresh("profiling.device.browser.export", spec, what="the export")
    return folder / "bundle"


def _in_python(bundle: Path, options: BrowserOptions) -> Taken:
    spec = ProbeSpec(
        bundle=str(bundle),
        engine=PORTABLE,
        batch_size=options.batch_size,
        threads=options.threads,
        warmup=options.warmup,
        steps=options.steps,
    )
    answered = measure_fresh(PROBE, dataclasses.asdict(spec), what="the training in Python")
    return {"samples_ms": answered["warm_ms"], "peak_bytes": answered["memory"]["peak_bytes"]}


def _steps(options: BrowserOptions) -> dict[str, int]:
    return {
        "batch_size": options.batch_size,
        # The first call is cold everywhere.
        "warmup": options.warmup + 1,
        "steps": options.steps,
        "threads": options.threads,
    }


def _in_node(built: Path, options: BrowserOptions) -> Taken:
    taken: Taken = json.loads(_node(built / "node.mjs", built / "bundle", json.dumps(_steps(options))))
    return taken


def _node(*arguments: str | Path) -> str:
    command = [shutil.which("node") or "node", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_SECONDS, cwd=JAVASCRIPT
    )
    if done.returncode:
        raise RunFailedError(f"{' '.join(command)[:200]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def _in_chromium(built: Path, options: BrowserOptions, versions: dict[str, str]) -> Taken:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only here, and not in every install

    with _served(built) as url, sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        versions["chromium"] = browser.version
        try:
            page = browser.new_page()
            page.goto(url)
            before = _renderer_bytes(browser, "VmRSS")
            page.set_default_timeout(1000 * _SECONDS)
            answered: Taken = page.evaluate(_TRAIN, _steps(options))
            if "error" in answered:
                raise RunFailedError(f"the page could not train: {answered['error']}")
            return {**answered, "before_bytes": before, "peak_bytes": _renderer_bytes(browser, "VmHWM")}
        finally:
            browser.close()


def _renderer_bytes(browser: Any, what: str) -> int | None:
    """Memory of the process that holds the page and its worker; None where the system does not tell."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = [status_bytes(what, each["id"]) for each in processes if each["type"] == "renderer"]
    return max((size for size in sizes if size is not None), default=None)


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Give out a folder's files on this machine, in a page of its own."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def guess_type(self, path: Any) -> str:
            return _TYPES.get(Path(path).suffix) or super().guess_type(path)

        def end_headers(self) -> None:
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a measurement is not a server."""

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        finally:
            server.shutdown()
            thread.join()
