"""A PostgreSQL whose processes are stopped: nobody waits for long, health is red, all goes on afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa

from server_app import create_app, create_run, database_waits
from server_app.run_folder import RunContext, Storage
from server_app.serving import bind
from server_app.web.gunicorn_server import WEB_THREADS, WebServer
from tests.conftest import LONGEST_SECONDS
from tests.server_app.server_fixtures import OPERATOR_SECRET, TOKEN, operator, run_config
from tests.server_app.waiting import until


class Cluster:
    """All processes of a PostgreSQL server, which can be stopped as a machine in trouble would."""

    def __init__(self, url: str) -> None:
        folder = sa.make_url(url).query["host"]
        assert isinstance(folder, str)
        self._postmaster = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])

    def signal(self, number: signal.Signals) -> None:
        for process in (psutil.Process(self._postmaster), *psutil.Process(self._postmaster).children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


@pytest.fixture
def cluster(postgres_url: str) -> Iterator[Cluster]:
    made = Cluster(postgres_url)
    yield made
    made.signal(signal.SIGCONT)


@pytest.fixture
def run(postgres_url: str, server_bundle: Path, tmp_path: Path) -> Iterator[RunContext]:
    made = create_run(tmp_path / "run", server_bundle, run_config(), storage=Storage(postgres_url))
    yield made
    made.store.close()


@pytest.fixture
def url(run: RunContext) -> Iterator[str]:
    """The run, behind the real web server."""
    listener = bind("127.0.0.1", 0)
    server = WebServer(create_app(run, TOKEN, operator_secret=OPERATOR_SECRET), listener)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.stop()
    thread.join(LONGEST_SECONDS)


def get(url: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=LONGEST_SECONDS) as http:
        return http.get(url, headers={"Authorization": f"Bearer {operator()}"})


def test_a_database_that_hangs_takes_no_thread_for_long(
    run: RunContext, url: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = f"{url}/v1/runs/{run.store.run_id}/status"
    assert get(status).status_code == get(f"{url}/v1/health").status_code == 200
    # What is waited for is only longer or shorter.
    monkeypatch.setattr(database_waits, "ANSWER_SECONDS", 2.0)
    cluster.signal(signal.SIGSTOP)
    with ThreadPoolExecutor(3 * WEB_THREADS) as threads:
        asked = [threads.submit(get, status) for _ in range(3 * WEB_THREADS)]
        # Among them: with all threads taken it would wait behind every one of them.
        health = get(f"{url}/v1/health")
        assert health.status_code == 503 and "database does not answer" in health.json()["message"]
        assert get(f"{url}/v1/health/live").status_code == 200
        for each in as_completed(asked, timeout=LONGEST_SECONDS):
            answer = each.result()
            assert answer.status_code == 503 and answer.json()["error"] == "StorageUnavailableError"
            assert "database" in answer.json()["message"] and int(answer.headers["Retry-After"]) >= 1
    cluster.signal(signal.SIGCONT)
    until(lambda: get(status).status_code == 200, "the database answers again")
    until(lambda: get(f"{url}/v1/health").status_code == 200, "health is green again")


def test_one_caller_finds_out_and_the_others_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("server_app.database_waits.time.monotonic", lambda: now[0])
    silence = database_waits.Silence()
    silence.check()
    silence.note(True)
    with pytest.raises(sa.exc.OperationalError):
        silence.check()
    now[0] += 1.5
    silence.check()
    with pytest.raises(sa.exc.OperationalError):
        silence.check()
    # It did not come back, and ended as nobody knows.
    now[0] += 6
    silence.check()
    silence.note(False)
    silence.check()
    silence.check()
