"""Credentials and enrolments in both databases, and with several who ask at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gkt_core.errors import AuthenticationError, GKTError, RoundError
from gkt_core.wire.credentials import secret_sha256
from server_app.rounds.state import RunState
from server_app.store import RunStore
from tests.conftest import LONGEST_SECONDS
from tests.server_app.waiting import at_once

A, B = secret_sha256("a"), secret_sha256("b")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunStore]:
    is_file = request.param == "sqlite"
    database = tmp_path / "run.sqlite" if is_file else request.getfixturevalue("postgres_url")
    with contextlib.closing(RunStore.create(database, "run-1", {}, RunState(2, 2))) as opened:
        yield opened


def test_enrolling_rotating_and_ending(store: RunStore) -> None:
    known = store.credentials
    link = known.open_enrolment(LONGEST_SECONDS)
    assert known.find("client-a") is None and known.devices() == {}
    for _ in range(2):
        known.enrol(link, "client-a", A, "")
    credential = known.find("client-a")
    assert credential is not None and credential.fits("a") and not credential.fits("b")
    with pytest.raises(AuthenticationError, match="all 1 uses"):
        known.enrol(link, "client-b", B, "")
    known.ask_rotation("client-a")
    assert known.devices()["client-a"].rotates
    known.replace("client-a", "a", B)
    known.replace("client-a", "b", B)
    assert known.devices()["client-a"].fits("b") and not known.devices()["client-a"].rotates
    again = known.open_enrolment(LONGEST_SECONDS, client_id="client-a")
    known.end("client-a", revoked=True)
    assert not known.devices()["client-a"].fits("b")
    # What was for it alone has ended with it.
    with pytest.raises(AuthenticationError, match="none of this run"):
        known.check_enrolment(again)


def test_a_credential_that_was_ended_fits_nothing(store: RunStore) -> None:
    store.credentials.end("client-a", revoked=False)
    credential = store.credentials.find("client-a")
    assert credential is not None
    assert not any(credential.fits(secret) for secret in ("", "a", credential.secret_sha256))


def test_of_many_who_ask_at_once_one_gets_the_last_use_or_the_name(store: RunStore) -> None:
    known, link = store.credentials, store.credentials.open_enrolment(LONGEST_SECONDS)

    def enrol(client_id: str, secret: str) -> type[GKTError] | None:
        try:
            known.enrol(link, client_id, secret_sha256(secret), "")
        except GKTError as error:
            return type(error)
        return None

    answers = at_once(*(lambda n=n: enrol(f"client-{n}", "s") for n in range(8)))
    assert sorted(answers, key=str) == [AuthenticationError] * 7 + [None]
    link = known.open_enrolment(LONGEST_SECONDS, uses=8)
    answers = at_once(*(lambda n=n: enrol("same-name", f"s{n}") for n in range(8)))
    assert sorted(answers, key=str) == [RoundError] * 7 + [None]


def test_runs_that_share_a_database_share_no_credential(store: RunStore, tmp_path: Path) -> None:
    link = store.credentials.open_enrolment(LONGEST_SECONDS)
    store.credentials.enrol(link, "client-a", A, "")
    url = store._engine.url
    database = Path(str(url.database)) if url.get_backend_name() == "sqlite" else url.render_as_string(False)
    with contextlib.closing(RunStore.create(database, "run-2", {}, RunState(2, 2))) as other:
        assert other.credentials.find("client-a") is None
        with pytest.raises(AuthenticationError, match="none of this run"):
            other.credentials.check_enrolment(link)
