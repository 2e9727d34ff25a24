"""A server that means harm gets nothing of a page that no other device gives it; the cases are theirs."""

from __future__ import annotations

import functools
import gzip
import json
import mimetypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Response
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from gkt_core.bundle.manifest import INITIAL_STATE, PREDICT, Bundle, manifest_sha256
from server_app.web.routes.joining import secured_page
from tests.conftest import ROOT
from tests.edge_runtime.hostile import (
    changed_bundle,
    concatenated,
    copied_by_convolution,
    copying_weights,
    external_data,
    hidden_in_features,
)
from tests.edge_runtime.hostile_cases import (
    BODIES,
    MODELS,
    RUN_IDS,
    TASKS,
    TEXT,
    WORK,
    bad_model,
    instead,
    other_model,
    other_run_id,
    other_work,
    says,
    straight,
    task,
)
from tests.edge_runtime.hostile_server import (
    Answer,
    Bend,
    HostileServer,
    file,
    session_of,
)
from tests.edge_runtime.javascript.browser.phone import LONGEST, kept_files, phone
from tests.server_app.server_fixtures import run_config

pytestmark = pytest.mark.system

CONFIG = run_config(num_clients=1, rounds=2)
NAMED = {"class_names": ["ant", "bee", "cat"]}
BUILT = ROOT / "server_app" / "web" / "static" / "join"


@functools.cache
def page_file(path: str) -> Answer | None:
    """The page's files, with the headers of the real server."""
    name = {"/join": "index.html"}.get(path, path.removeprefix("/join/"))
    if not path.startswith("/join") or not name:
        return None
    kept, packed = BUILT / name, BUILT / f"{name}.gz"
    body = gzip.decompress(packed.read_bytes()) if packed.is_file() else kept.read_bytes()
    kind = mimetypes.guess_type(name)[0] or "text/javascript"
    secured = secured_page(Response()).headers
    headers = {
        name: value for name, value in secured.items() if name not in ("Content-Type", "Content-Length")
    }
    return Answer(body, "text/javascript" if name.endswith("mjs") else kind, headers=headers)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(8)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return paths


@dataclass
class Ran:
    """What came of a page, and what the server saw of it."""

    said: str
    kept: dict[str, bytes]
    html: str
    server: HostileServer

    def counted(self, name: str) -> int:
        return self.server.counted(name)

    @property
    def uploads(self) -> int:
        return self.server.uploads


Take = Callable[..., Ran]


@pytest.fixture
def take_part(chromium: Browser, template: bytes, pictures: list[Path]) -> Iterator[Take]:
    """Opens the page of a server, and takes part as far as it lets a phone."""

    def run(bundle: Bundle, bend: Bend = straight, pin: str = "") -> Ran:
        server = HostileServer(lambda number: session_of(bundle, template, CONFIG, bend, **NAMED), page_file)
        wanted = pin or manifest_sha256(bundle.manifest.to_dict() | NAMED)
        with server.listening() as url, phone(chromium) as context:
            page = context.new_page()
            page.goto(f"{url}/join#enroll=0123abcd.{'t' * 43}&bundle=sha256:{wanted}")
            said = ended(page, pictures)
            return Ran(said, kept_files(page), page.content(), server)

    yield run


def ended(page: Page, pictures: list[Path]) -> str:
    """Go on until there is nothing to press any more: the end, a failure, or a server that is asked again."""
    first, second = (page.get_by_role("heading", name=name) for name in ("1. Your photos", "2. What would"))
    done = page.get_by_role("heading", name="4. Done")
    alert, away = page.get_by_role("alert"), page.get_by_text("The server does not answer. It is asked again")
    expect(first.or_(alert)).to_be_visible(timeout=LONGEST)
    if alert.is_visible():
        return alert.inner_text()
    for label in range(2):
        page.locator(f'input[data-add="{label}"]').set_input_files(pictures[4 * label : 4 * label + 4])
    expect(page.locator("fieldset li")).to_have_count(len(pictures), timeout=LONGEST)
    page.get_by_role("button", name="Show what would be sent").click()
    expect(second.or_(alert)).to_be_visible(timeout=LONGEST)
    if alert.is_visible():
        return alert.inner_text()
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Take part").click()
    expect(done.or_(alert).or_(away)).to_be_visible(timeout=LONGEST)
    return alert.inner_text() if alert.is_visible() else away.inner_text() if away.is_visible() else ""


def test_an_honest_server_is_served(take_part: Take, honest: Bundle) -> None:
    ran = take_part(honest)
    assert ran.said == "" and ran.uploads == 2 * 2 and "model.onnx" in ran.kept


@pytest.mark.parametrize(
    "change", [concatenated, copied_by_convolution, hidden_in_features], ids=lambda each: each.__name__
)
def test_images_do_not_pass_through(
    take_part: Take, server_bundle: Path, tmp_path: Path, change: Any
) -> None:
    ran = take_part(changed_bundle(server_bundle, tmp_path / "hostile", PREDICT, change))
    assert "does not do. Nothing was sent." in ran.said and "private images through" in ran.said
    assert ran.uploads == 0 and ran.counted("join") == 0 and ran.counted("credential") == 0


def test_weights_that_copy_are_seen(take_part: Take, server_bundle: Path, tmp_path: Path) -> None:
    ran = take_part(copying_weights(server_bundle, tmp_path / "hostile"))
    assert "can be read off its features" in ran.said and ran.uploads == 0 and ran.counted("join") == 0


def test_no_file_becomes_a_tensor(take_part: Take, server_bundle: Path, tmp_path: Path) -> None:
    change = external_data(Path("/etc/passwd"))
    ran = take_part(changed_bundle(server_bundle, tmp_path / "hostile", PREDICT, change))
    assert "external data" in ran.said and ran.uploads == 0


def test_another_bundle_than_the_links(take_part: Take, honest: Bundle) -> None:
    ran = take_part(honest, pin="0" * 64)
    assert "not the one that was agreed upon" in ran.said and ran.counted("credential") == 0


def test_a_file_that_is_not_the_manifests_is_not_kept(take_part: Take, honest: Bundle) -> None:
    ran = take_part(honest, instead("artifact", lambda _: file(b"another")))
    assert "not the file that the server's own manifest names" in ran.said
    assert not any(name.startswith("bundle/") for name in ran.kept)


@pytest.mark.parametrize(
    ("kind", "request_name"),
    [each for each in BODIES if each[1] in ("soft labels", "model")],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_bodies_without_measure(
    take_part: Take, honest: Bundle, request_name: str, kind: Callable[[Answer], Answer]
) -> None:
    ran = take_part(honest, instead(request_name, kind))
    assert "It is asked again and again" in ran.said
    assert sum(map(len, ran.kept.values())) < 2_000_000


@pytest.mark.parametrize("changes", TASKS[::3], ids=str)
def test_numbers_that_no_task_has(take_part: Take, honest: Bundle, changes: dict[str, Any]) -> None:
    ran = take_part(honest, instead("join", task(**changes)))
    assert "make no sense to this page" in ran.said and ran.uploads == 0
    assert "\x1b" not in ran.html


@pytest.mark.parametrize("run_id", RUN_IDS)
def test_ids_that_no_run_has(take_part: Take, honest: Bundle, run_id: str) -> None:
    ran = take_part(honest, other_run_id(run_id))
    assert "make no sense to this page" in ran.said and "the server's run is" in ran.said


@pytest.mark.parametrize("changes", WORK, ids=str)
def test_work_without_measure(take_part: Take, honest: Bundle, changes: dict[str, Any]) -> None:
    ran = take_part(honest, other_work(CONFIG.told() | changes, honest.manifest.to_dict() | NAMED))
    assert f"the run asks for {next(iter(changes))}" in ran.said


@pytest.mark.parametrize("status", [200, 409])
def test_texts_are_shown_as_texts(take_part: Take, honest: Bundle, status: int) -> None:
    """Nothing of a server's becomes an element, a script, or a line that reads backwards."""
    ran = take_part(honest, says(f"<img src=x onerror='document.title=1'>{TEXT}", status))
    assert "<img src=x" in ran.said and "all is well" in ran.said
    assert "<img" not in ran.html and "\u202e" not in ran.html and "\x1b" not in ran.html


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_is_none_is_not_kept(
    take_part: Take, honest: Bundle, template: bytes, kind: str
) -> None:
    ran = take_part(honest, other_model(bad_model(kind, honest, template)))
    assert ran.said and "model.onnx" not in ran.kept
    assert json.loads(ran.kept["state.json"])["trained_round"] == 2 and INITIAL_STATE in str(ran.kept.keys())
