"""``gkt serve`` as a process with its trainer beside it: it starts, stops, dies and goes on."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types

import httpx
import psutil
import pytest

from gkt_core.wire.protocol import ErrorBody, RunStatus, from_json
from server_app import open_run, serving
from server_app.rounds.state import Failed, Phase
from server_app.store import SqlRunStore

pytest_plugins = ["tests.server_app.server_fixtures"]

# Long enough for any machine: nothing here waits that long unless it fails.
LONGEST_SECONDS = 240
RUN_OPTIONS = ("--clients", "2", "--rounds", "2", "--codec", "uint8", "--shard-samples", "8")


def until(condition, what):
    """Wait for something, and return it."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if found := condition():
                return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen in {LONGEST_SECONDS} s")


def is_gone(process):
    """Whether a process has ended; one that nobody waited for has, too."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Serve:
    """One ``gkt serve``."""

    def __init__(self, folder, data_dir, *options):
        folder.mkdir()
        self.data_dir, self.out, self.err = data_dir, folder / "stdout", folder / "stderr"
        command = [sys.executable, "-m", "gkt_core.cli", "serve", "--data-dir", str(data_dir)]
        environment = {name: value for name, value in os.environ.items() if name != "GKT_TOKEN"}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--threads", "1", *map(str, options)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment,
            )

    def wait_until_ready(self):
        def ready():
            assert self.process.poll() is None, self.err.read_text()
            return (self.data_dir / "server.json").is_file()

        until(ready, "server.json")
        self.info = json.loads((self.data_dir / "server.json").read_text())
        return self

    def trainer(self, other_than=None):
        """The trainer process, once it is there."""

        def find():
            for child in psutil.Process(self.process.pid).children():
                if "server_app.trainer" in child.cmdline() and child != other_than and not is_gone(child):
                    return child
            return None

        return until(find, "the start of a trainer")

    def get(self, path, **headers):
        with httpx.Client(trust_env=False, timeout=LONGEST_SECONDS) as http:
            return http.get(self.info["url"] + path, headers=headers)

    def token(self):
        return (self.data_dir / "token").read_text().strip()

    def end(self, number=signal.SIGTERM):
        """Stop it, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=LONGEST_SECONDS)


@pytest.fixture
def serve(tmp_path):
    """Starts ``gkt serve`` on a free port of the loopback address; nothing survives the test."""
    started = []

    def start(*options, data_dir=tmp_path / "run"):
        started.append(Serve(tmp_path / f"process-{len(started)}", data_dir, *options))
        return started[-1]

    yield start
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(each.process.pid).children(recursive=True):
                process.kill()
        each.process.kill()
        each.process.wait()


def test_a_server_starts_stops_and_goes_on(serve, server_bundle):
    first = serve("--artifacts", server_bundle, "--json", *RUN_OPTIONS).wait_until_ready()
    assert first.info["pid"] == first.process.pid
    assert first.info["url"].startswith("http://127.0.0.1:")
    token = first.token()
    shown = until(first.out.read_text, "the output of --json")
    assert json.loads(shown) == {"url": first.info["url"], "run_id": first.info["run_id"], "token": token}

    # It answers, also to what is wrong.
    assert first.get("/v1/health").json() == {"status": "ok"}
    root = f"/v1/runs/{first.info['run_id']}"
    refused = first.get(root)
    assert refused.status_code == 401
    assert from_json(ErrorBody, refused.content).error == "AuthenticationError"
    with httpx.Client(trust_env=False, headers={"Authorization": f"Bearer {token}"}) as http:
        # More than a shard can have, and less than what is not read at all.
        refused = http.put(f"{first.info['url']}{root}/clients/client-a", content=bytes(120_000))
    assert refused.status_code == 413
    assert from_json(ErrorBody, refused.content).error == "RequestEntityTooLarge"

    # The trainer runs beside it, and ends with it.
    trainer = first.trainer()

    def status():
        answer = first.get(f"{root}/status", Authorization=f"Bearer {token}")
        return from_json(RunStatus, answer.content)

    until(lambda: status().trainer_idle_seconds < LONGEST_SECONDS, "the trainer's first sign of life")
    assert first.end() == 130
    assert is_gone(trainer)
    assert first.err.read_text().strip().endswith("interrupted")
    assert not (first.data_dir / "server.json").exists()

    # The folder alone is enough to go on; settings that the run has may be repeated.
    again = serve("--rounds", "2", "--round-deadline", "60").wait_until_ready()
    assert (again.info["run_id"], again.token()) == (first.info["run_id"], token)
    assert f"gkt edge run --server {again.info['url']} --token {token}" in again.out.read_text()
    assert again.get(root, Authorization=f"Bearer {token}").status_code == 200
    trainer = again.trainer()
    assert again.end() == 130
    assert is_gone(trainer)
    store = SqlRunStore.open(again.data_dir / "run.sqlite")
    assert (store.state().deadline_seconds, store.state().min_clients) == (60, 1)
    store.close()


def test_trainers_and_servers_that_are_killed(serve, server_bundle):
    server = serve("--artifacts", server_bundle, *RUN_OPTIONS).wait_until_ready()
    first = server.trainer()
    first.kill()
    second = server.trainer(other_than=first)
    until(lambda: "the trainer ended with exit code -9" in server.err.read_text(), "the news of its end")
    assert server.get("/v1/health").status_code == 200
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: is_gone(second), "the end of the trainer without its server")
    # What the killed one left lying about hinders nobody.
    assert (server.data_dir / "server.json").exists()
    (server.data_dir / "server.json").unlink()
    again = serve().wait_until_ready()
    assert again.info["run_id"] == server.info["run_id"]

    # A trainer that ends because the run has failed is not started again.
    trainer = again.trainer()
    store = SqlRunStore.open(again.data_dir / "run.sqlite")
    store.apply(Failed("disk full"))
    store.close()
    until(lambda: is_gone(trainer), "the end of the trainer")
    until(lambda: "the run failed: disk full" in again.err.read_text(), "the news of the failure")
    assert psutil.Process(again.process.pid).children() == []
    assert again.get("/v1/health").status_code == 200, "devices still learn why"
    assert again.end() == 130


@pytest.fixture
def dying(empty_run, tmp_path, monkeypatch):
    """A trainer that exits at once, and what the server says about it."""
    shutil.copytree(empty_run, tmp_path / "run")
    run = open_run(tmp_path / "run")
    said, spawned = [], []

    def spawn(self):
        # It may get somewhere before it dies.
        run.epoch_checkpoint_path.write_bytes(b"")
        moment = min(len(spawned), getting_on[0])
        os.utime(run.epoch_checkpoint_path, ns=(moment, moment))
        spawned.append(moment)
        return subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])

    getting_on = [0]
    monkeypatch.setattr(serving.TrainerProcess, "_spawn", spawn)
    monkeypatch.setattr(serving, "MAX_TRAINER_RESTARTS", 2)
    yield types.SimpleNamespace(run=run, said=said, spawned=spawned, getting_on=getting_on)
    run.store.close()


@pytest.mark.parametrize("getting_on", [0, 3])
def test_a_trainer_that_dies_again_and_again_at_the_same_place(dying, getting_on):
    dying.getting_on[0] = getting_on
    trainer = serving.TrainerProcess(dying.run, 1, dying.said.append)
    trainer.start()
    try:
        until(lambda: dying.run.store.state().phase is Phase.FAILED, "the end of patience")
    finally:
        trainer.stop()
    assert "died 3 times without getting any further" in dying.run.store.state().error
    assert len(dying.spawned) == 3 + getting_on, "one that gets on may die as often as it likes"
    assert sum("exit code 3" in line for line in dying.said) == len(dying.spawned)


def test_what_cannot_be_served_is_refused_and_nothing_is_written(serve, server_bundle, empty_run, tmp_path):
    existing = tmp_path / "existing"
    shutil.copytree(empty_run, existing)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    shutil.copytree(server_bundle, tmp_path / "damaged" / "artifacts")
    (tmp_path / "damaged" / "artifacts" / "checkpoint").write_bytes(b"damaged")
    before = sorted(path.relative_to(existing) for path in existing.rglob("*"))
    database = (existing / "run.sqlite").read_bytes()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        new, bundle = tmp_path / "new", ("--artifacts", server_bundle)
        cases = [
            (new, (*bundle, "--port", port), [f"port {port} of 127.0.0.1 is in use", "--port"]),
            (new, (*bundle, "--port", 99999), ["--port is 99999, expected 0 to 65535"]),
            (new, (*bundle, "--host", "192.0.2.1"), ["cannot listen on 192.0.2.1"]),
            (new, (), ["holds no run", "--artifacts"]),
            (new, ("--artifacts", tmp_path / "none"), ["is no artifact bundle", "gkt export"]),
            (new, ("--artifacts", tmp_path / "damaged" / "artifacts"), ["checkpoint", "manifest says"]),
            (new, (*bundle, "--temperature", "2"), ["temperature 2.0", "exported with 3.0"]),
            (new, (*bundle, "--rounds", "0"), ["rounds is 0, expected at least 1"]),
            (new, (*bundle, "--token", "short"), ["at least 8"]),
            (new, (*bundle, "--clients", 2, "--min-clients", 3), ["--min-clients is 3", "1 to 2"]),
            (new, (*bundle, "--round-deadline", "-1"), ["--round-deadline is -1"]),
            (new, (*bundle, "--mode", "async", "--client-fraction", "0.5"), ["client_fraction", "mode sync"]),
            (new, (*bundle, "--poll-seconds", "0"), ["--poll-seconds is 0.0, expected 0.01 to 3600"]),
            (tmp_path / "full", bundle, ["already exists and is not empty"]),
            (existing, ("--rounds", "7"), ["other settings", '{"rounds": "7 instead of 2"}']),
            (existing, ("--token", "another-token"), ["another token", "leave out --token"]),
        ]
        # All at once: each spends a second on importing.
        processes = [serve(*options, data_dir=folder) for folder, options, _ in cases]
        for process, (folder, options, words) in zip(processes, cases, strict=True):
            code = process.process.wait(timeout=LONGEST_SECONDS)
            said = process.err.read_text()
            assert code == 2, f"{folder} {options}: {code} {said}"
            assert said.startswith("error: ") and len(said.splitlines()) == 1, said
            assert all(word in said for word in words), said
    assert not new.exists()
    assert list((tmp_path / "full").iterdir()) == [tmp_path / "full" / "something"]
    left = {path.relative_to(existing) for path in existing.rglob("*")} - set(before)
    assert {path.name for path in left} <= {"run.sqlite-shm", "run.sqlite-wal"}
    assert (existing / "run.sqlite").read_bytes() == database
