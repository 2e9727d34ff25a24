"""Two processes that show one secret: sure before anybody is ended, and a restart is none."""

from __future__ import annotations

import dataclasses
import logging

import httpx
import pytest

from edge_runtime.server_client import ServerClient
from gkt_core.errors import ForbiddenError
from server_app import create_app
from server_app.members.copies import Copies
from server_app.members.inviting import enrolled
from server_app.overview.document import Witness, overview
from server_app.overview.messages import INFO, WARNING, Finding
from server_app.overview.seen import Ledger
from server_app.run_folder import RunContext
from tests.server_app.server_fixtures import CLIENTS
from tests.server_app.web.api_fixtures import JOIN, Api

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

A, B, C = (letter * 16 for letter in "abc")


def heard(*processes: str) -> tuple[list[str], list[str]]:
    """Who was ended, in order, and of whom it was told."""
    told: list[str] = []
    copies, ended = Copies(told.append), []
    for process in processes:
        try:
            copies.hear("client-a", process)
        except ForbiddenError as error:
            assert "a state folder was copied; this one began later and is ended" in str(error)
            ended.append(process)
    return ended, told


@pytest.mark.parametrize(
    "processes",
    [
        (A, A, A),
        # Restarted, and again; with a request of the one before that was on its way.
        (A, B, B, C, C),
        (A, B, A, B, B, B),
        (A, B, A, C, B, C, C),
        # Of an earlier version, which does not say.
        ("", A, "", B, "", A, ""),
        ("no number", A, "no number"),
    ],
    ids=str,
)
def test_restarts_are_no_copies(processes: tuple[str, ...]) -> None:
    assert heard(*processes) == ([], [])


def test_of_two_that_take_turns_the_younger_one_is_ended() -> None:
    assert heard(A, B, A, B, A) == ([], ["client-a"])
    assert heard(A, B, A, B, A, B, A, B) == ([B, B], ["client-a"])
    assert heard(A, B, B, A, A, A, B, A, B, A) == ([B], ["client-a"])
    # Of three, the two younger ones, one after the other.
    assert heard(*(A, B, C) * 4) == ([C, C, B, C], ["client-a", "client-a"])
    # Its next start is another process, and is found out as well.
    assert heard(A, B, A, B, A, B, C, A, C, A, C) == ([B, C], ["client-a", "client-a"])


def findings(run: RunContext, kind: str, ledger: Ledger | None = None) -> list[Finding]:
    seen = ledger.devices() if ledger else {}
    return [each for each in overview(run, Witness(seen, "http://here", 1.0)).findings if each.kind == kind]


def test_a_device_on_a_copied_folder_is_ended_by_name(
    run: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(run)
    bearer, name = enrolled(run, CLIENTS[0]), CLIENTS[0]
    with httpx.Client(
        transport=httpx.WSGITransport(app),
        base_url="http://server",
        headers={"Authorization": f"Bearer {bearer}"},
    ) as http:
        assert Api(http, run).join(name).status_code == 200
    first, second, restarted = (
        ServerClient("http://server", bearer, transport=httpx.WSGITransport(app), patience_seconds=0.0)
        for _ in range(3)
    )
    for client in (first, second, restarted):
        client.find_run()
    with pytest.raises(ForbiddenError, match=f"show the secret of {name} by turns.*another --state-dir"):
        for client in (first, second) * 4:
            client.task(name)
    first.task(name)
    # What is ended stays so, and whoever stops the other one may go on.
    with pytest.raises(ForbiddenError):
        second.task(name)
    first.close()
    for _ in range(3):
        restarted.task(name)
    said = [each.getMessage() for each in caplog.records if each.name == "gkt.run"]
    assert said == [
        f"two processes show the secret of {name} by turns: a state folder was copied; the one that began "
        "later is ended"
    ]
    sight = app.extensions["gkt"].sight
    (finding,) = findings(run, "copied", sight.ledger)
    assert (finding.severity, finding.client_id) == (WARNING, name)
    assert "give it another --state-dir" in finding.remedy
    sight.ledger.save()
    assert Ledger(run.folder).devices()[name].copied_at > 0
    for client in (second, restarted):
        client.close()


def test_one_file_on_two_devices_is_said_once_and_shown(
    api: Api, run: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gkt.server")
    first, second = CLIENTS
    same = dataclasses.replace(JOIN, samples_sha256="7" * 64)
    assert api.join(first, same).status_code == 200
    assert findings(run, "same-samples") == []
    for _ in range(2):
        assert api.join(second, same).status_code == 200
    words = f"{second} and {first} say the same samples: one file, or two whose sample ids count alike"
    assert [each.getMessage() for each in caplog.records if "same samples" in each.getMessage()] == [words]
    (finding,) = findings(run, "same-samples")
    assert (finding.severity, finding.client_id) == (INFO, first)
    assert "leave one of the two out" in finding.remedy
    # Of devices that do not say, and of others, nothing is said.
    assert api.join(second, dataclasses.replace(JOIN, samples_sha256="8" * 64)).status_code == 200
    assert findings(run, "same-samples") == []
