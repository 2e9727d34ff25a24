"""The page in a browser, of real servers with real devices: a good run and bad ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page, expect

from gkt_core.errors import RoundError
from server_app.rounds.state import Quarantined
from server_app.run_folder import DATABASE_NAME
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.server_app.page.browsing import PHONE, OpenPage, check_readable, picture
from tests.server_app.served import SMALL, Serve, SmallFederation, StartServer, two_devices
from tests.server_app.server_fixtures import open_store
from tests.server_app.waiting import until

pytestmark = pytest.mark.system
TWO = ("--clients", "2", "--rounds", "2", "--poll-seconds", "0.1", *SMALL)
expect.set_options(timeout=1000 * LONGEST_SECONDS)


def status(gkt: Gkt, server: Serve) -> dict[str, Any]:
    shown = gkt("status", "--data-dir", server.data_dir, "--json")
    document: dict[str, Any] = json.loads(shown.stdout)
    return document


def cells(page: Page, client_id: str) -> dict[str, str]:
    """What the table says of a device, by heading."""
    row = page.locator(f"#rows tr[data-key='{client_id}']")
    heads = page.locator("#devices thead th").all_text_contents()
    return dict(zip(heads, row.locator("th, td").all_text_contents(), strict=True))


def test_a_run_from_its_beginning_to_its_end_without_a_reload(
    serve: StartServer, small: SmallFederation, open_page: OpenPage, tmp_path: Path, gkt: Gkt
) -> None:
    server = serve("--artifacts", small.bundle, *TWO)
    page = open_page(server.info["url"])
    expect(page.locator("#headline")).to_have_text("Round 0 of 2: joining")
    expect(page.locator("#findings")).to_contain_text("2 of 2 devices have never joined")
    picture(page, "nobody-yet")
    page.evaluate("window.isTheSamePage = true")
    two_devices(server, small, tmp_path)()
    expect(page.locator("#headline")).to_have_text("Round 2 of 2: finished")
    assert page.evaluate("window.isTheSamePage") is True

    document = status(gkt, server)
    expect(page.locator("#next")).to_contain_text(document["next_step"])
    expect(page.locator("#run")).to_have_text(document["run_id"])
    expect(page.locator("#log")).to_contain_text("round 2/2: validation accuracy")
    for device in document["devices"]:
        shown = cells(page, device["client_id"])
        assert shown["State"] == device["state"]
        assert shown["Samples"] == str(device["num_examples"])
        # 31.25 is written as 31.3 by JavaScript and as 31.2 by Python.
        assert float(shown["Accuracy"].removesuffix(" %")) == pytest.approx(
            100 * device["accuracy"], abs=0.051
        )
        assert shown["Last round"] == str(device["last_round"]) == "2"
    last = document["finished_rounds"][-1]
    expect(page.get_by_role("img", name="Accuracy, rounds 1 to 2")).to_be_visible()
    legend = page.locator("#curves figure").nth(1).locator(".legend")
    expect(legend).to_contain_text(f"server, validation {last['validation_loss']:.3f}")
    assert page.locator("#curves polyline.series-1").first.get_attribute("points", timeout=0)
    check_readable(page)
    picture(page, "good")

    phone = open_page(server.info["url"], PHONE, "dark")
    expect(phone.locator("#headline")).to_have_text("Round 2 of 2: finished")
    check_readable(phone)
    assert phone.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    picture(phone, "good-phone")


def quarantined(server: Serve, client_id: str, reason: str) -> bool:
    """Exclude a device as a trainer does; False where the run was in another phase, or went on meanwhile."""
    with contextlib.closing(open_store(server.data_dir / DATABASE_NAME)) as store:
        try:
            store.apply(Quarantined(client_id, max(1, store.state().round_num), reason))
        except RoundError:
            return False
    return True


@pytest.mark.system
def test_an_operator_pauses_resumes_releases_and_revokes_and_is_asked_once(
    serve: StartServer, small: SmallFederation, open_page: OpenPage, tmp_path: Path, gkt: Gkt
) -> None:
    # More rounds than there is time for: the run is not to end under the operator's hands.
    server = serve("--artifacts", small.bundle, *TWO, "--rounds", "2000")
    server.device(small.data(0), tmp_path / "a")
    until(lambda: server.status().clients, "the device joins")
    # A secret that does not hold is refused, which the browser's console says as well.
    page = open_page(server.info["url"], may_fail=True)
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    expect(page.get_by_role("button", name="Revoke client-000")).to_be_hidden()
    secret = page.get_by_label("Operator's secret")
    for wrong, words in (("short", "no operator's secret"), ("x" * 43, "does not hold")):
        secret.fill(wrong)
        secret.press("Enter")
        expect(page.locator("#sign-in-trouble")).to_contain_text(words)
    secret.fill((server.data_dir / "operator_secret").read_text())
    secret.press("Enter")
    pause = page.get_by_role("button", name="Pause")
    pause.click()
    confirm = page.get_by_role("dialog")
    expect(confirm).to_contain_text("Pause the run?")
    check_readable(page)
    # Asked, and not done.
    confirm.get_by_role("button", name="Cancel").click()
    assert status(gkt, server)["halt"] == ""
    pause.click()
    confirm.get_by_label("Reason").fill("lunch")
    confirm.get_by_role("button", name="Pause").click()
    expect(page.locator("#findings")).to_contain_text("a person has paused the run (lunch)")
    assert (status(gkt, server)["halt"], status(gkt, server)["halt_reason"]) == ("paused", "lunch")
    # From the keyboard alone.
    page.get_by_role("button", name="Resume").press("Enter")
    confirm.get_by_role("button", name="Resume").press("Enter")
    until(lambda: status(gkt, server)["halt"] == "", "the run is resumed")
    expect(pause).to_be_visible()

    server.device(small.data(1), tmp_path / "b")
    expect(page.locator("#rows tr")).to_have_count(2)
    until(lambda: quarantined(server, "client-001", "its features are noise"), "the device is quarantined")
    expect(page.locator("#findings")).to_contain_text("client-001 is quarantined: its features are noise")
    expect(page.locator("#rows tr[data-key='client-001']")).to_contain_text("its features are noise")
    picture(page, "quarantined")
    page.get_by_role("button", name="Release client-001").click()
    confirm.get_by_role("button", name="Release").click()
    expect(page.locator("#rows")).not_to_contain_text("quarantined")
    page.get_by_role("button", name="Revoke client-001").click()
    confirm.get_by_role("button", name="Revoke").click()
    expect(page.locator("#rows tr[data-key='client-001']")).to_contain_text("revoked")
    page.get_by_role("button", name="Forget the secret").click()
    expect(page.get_by_role("button", name="Use it")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_trainer_that_hangs_and_a_disk_that_is_nearly_full(
    serve: StartServer, small: SmallFederation, open_page: OpenPage, tmp_path: Path
) -> None:
    half_mb = shutil.disk_usage(tmp_path).free // 2_000_000
    server = serve("--artifacts", small.bundle, *TWO, "--trainer-silence", "5", "--reserve-disk", half_mb)
    trainer = server.trainer()
    page, phone = open_page(server.info["url"]), open_page(server.info["url"], PHONE, "dark")
    for each in (page, phone):
        expect(each.locator("#findings")).to_contain_text("the disk is nearly full")
    picture(phone, "disk-phone")
    check_readable(phone)
    expect(page.locator("#facts")).to_contain_text("waiting for devices, last sign of life")
    os.kill(trainer.pid, signal.SIGSTOP)
    until(lambda: trainer.status() == psutil.STATUS_STOPPED, "the signal reaches it")
    expect(page.locator("#log")).to_contain_text("the trainer hangs: silent for")
    picture(page, "trainer-hangs")


def test_a_server_that_goes_is_told_of(
    serve: StartServer, small: SmallFederation, open_page: OpenPage
) -> None:
    server = serve("--artifacts", small.bundle, *TWO)
    page = open_page(server.info["url"], may_fail=True)
    expect(page.locator("#headline")).to_be_visible()
    assert server.end() == 130
    expect(page.get_by_role("alert").first).to_contain_text("The server does not answer")
    picture(page, "server-gone")
