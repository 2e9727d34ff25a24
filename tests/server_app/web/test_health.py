"""Health: whether the server answers, and whether the run can go on; asked by anybody, answered at once."""

from __future__ import annotations

import threading

import httpx
import pytest
from flask import Flask

from server_app import RunContext, create_app
from server_app.rounds.state import Failed, RunState
from server_app.web import health
from tests.server_app.server_fixtures import TOKEN
from tests.server_app.web.api_fixtures import refused

READY, LIVE = "/v1/health", "/v1/health/live"


def asked(app: Flask, path: str) -> httpx.Response:
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://server") as http:
        return http.get(path)


def test_a_run_that_failed_is_not_ready_and_the_server_is_live(app: Flask, run: RunContext) -> None:
    assert asked(app, READY).json() == asked(app, LIVE).json() == {"status": "ok"}
    run.store.apply(Failed("of something with a secret name"))
    error = refused(asked(app, READY), 503, "ServiceUnavailable", "the run has failed")
    assert "secret" not in error.message, "anybody may ask"
    assert asked(app, LIVE).json() == {"status": "ok"}


def test_what_the_trainer_suffers_is_told(run: RunContext) -> None:
    trouble = [""]
    app = create_app(run, TOKEN, trainer_trouble=lambda: trouble[0])
    assert asked(app, READY).status_code == 200
    trouble[0] = "the trainer hangs"
    refused(asked(app, READY), 503, "ServiceUnavailable", "the trainer hangs")


def test_health_waits_for_no_database(run: RunContext, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, calls = threading.Event(), [0]

    def hang() -> RunState:
        calls[0] += 1
        let_go.wait()
        raise OSError("gone")

    monkeypatch.setattr(health, "_DATABASE_SECONDS", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(run.store, "read_state", hang)
        for _ in range(3):
            refused(asked(app, READY), 503, "ServiceUnavailable", "the database does not answer")
        assert calls == [1], "one that hangs is asked no second time"
        assert asked(app, LIVE).status_code == 200
        let_go.set()
        refused(asked(app, READY), 503, "ServiceUnavailable", "the database does not answer")
    monkeypatch.setattr(health, "_DATABASE_SECONDS", 900.0)
    while asked(app, READY).status_code != 200:
        pass
