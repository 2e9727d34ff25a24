"""``gkt serve`` as a process with its trainer beside it: it starts, stops, dies and goes on."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from click.testing import CliRunner

from gkt_core.bundle.manifest import load_bundle, write_manifest
from gkt_core.cli import gkt
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import GKTError
from gkt_core.wire.join_link import read_join_link
from gkt_core.wire.protocol import ErrorBody, RunStatus, from_json
from server_app import RunContext, create_run, open_run
from server_app.cli.options import ServeOptions
from server_app.cli.serve import change_rules, new_config, run_of
from server_app.rounds.state import Failed, Phase
from server_app.trainer import supervisor
from tests.conftest import LONGEST_SECONDS
from tests.server_app.served import Serve, is_gone
from tests.server_app.server_fixtures import TOKEN, closing_runs, open_store, run_config
from tests.server_app.waiting import until

RUN_OPTIONS = ("--clients", "2", "--rounds", "2", "--shard-samples", "8")


@pytest.mark.system
def test_a_server_starts_stops_dies_and_goes_on(serve: Callable[..., Serve], server_bundle: Path) -> None:
    """Three processes, one run: the first is stopped, the second killed, the third's run fails."""
    first = serve("--artifacts", server_bundle, "--json", *RUN_OPTIONS)
    assert int(first.info["pid"]) == first.process.pid
    assert first.info["url"].startswith("http://127.0.0.1:")
    token, link = first.operator(), (first.data_dir / "join").read_text().strip()
    shown = first.wait_for(first.out, "}\n")
    assert json.loads(shown) == {
        "url": first.info["url"],
        "run_id": first.info["run_id"],
        "join": link,
        "page": link.removeprefix("gkt+").replace("/#", "/join#"),
        "operator_secret_file": str(first.data_dir / "operator_secret"),
    }
    assert read_join_link(link).url == first.info["url"]
    assert stat.S_IMODE(first.data_dir.stat().st_mode) == 0o700

    # It answers, also to what is wrong.
    assert first.get("/v1/health").json() == {"status": "ok"}
    root = f"/v1/runs/{first.info['run_id']}"
    refused = first.get(root)
    assert refused.status_code == 401
    assert from_json(ErrorBody, refused.content).error == "AuthenticationError"
    with httpx.Client(trust_env=False, timeout=LONGEST_SECONDS) as http:
        # More than a shard can have, and less than what is not read at all.
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{first.info['url']}{root}/operator/enrolments"
        refused = http.post(url, content=bytes(120_000), headers=headers)
    assert refused.status_code == 413
    assert from_json(ErrorBody, refused.content).error == "RequestEntityTooLarge"

    # The trainer runs beside it, and ends with it.
    trainer = first.trainer()

    def seen() -> bool:
        answer = first.get(f"{root}/status", Authorization=f"Bearer {token}")
        # Seconds since the epoch, until there is a sign.
        return from_json(RunStatus, answer.content).trainer_idle_seconds < 1e6

    until(seen, "the trainer's first sign of life")
    assert first.end() == 130
    assert is_gone(trainer)
    assert first.err.read_text().strip().endswith("interrupted")
    assert not (first.data_dir / "server.json").exists()

    # The folder alone is enough to go on; settings that the run has may be repeated.
    second = serve("--rounds", "2", "--round-deadline", "60")
    assert (second.info["run_id"], second.operator()) == (first.info["run_id"], token)
    # The same link at the new address, as not all devices may have used it.
    again = dataclasses.replace(read_join_link(link), url=second.info["url"]).text()
    second.wait_for(second.out, again)
    second.wait_for(second.out, "gkt edge run --join join.txt --data FILE")
    config = second.get(root, Authorization=f"Bearer {token}").json()["config"]
    assert (config["codec"], config["shard_samples"]) == ("uint8", 8)
    with contextlib.closing(open_store(second.data_dir / "run.sqlite")) as store:
        assert (store.state().deadline_seconds, store.state().min_clients) == (60, 1)

    # Another trainer takes the place of one that is killed, and ends without its server.
    killed = second.trainer()
    killed.kill()
    trainer = second.trainer(other_than=killed)
    second.wait_for(second.err, "the trainer ended with exit code -9")
    until(lambda: second.get("/v1/health").status_code == 200, "the other one's first sign of life")
    assert second.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: is_gone(trainer), "the end of the trainer without its server")

    # What the killed one left lying about hinders nobody.
    assert (second.data_dir / "server.json").exists()
    third = serve()
    assert third.info["run_id"] == first.info["run_id"]
    # A trainer that ends because the run has failed is not started again.
    trainer = third.trainer()
    with contextlib.closing(open_store(third.data_dir / "run.sqlite")) as store:
        store.apply(Failed("disk full"))
    until(lambda: is_gone(trainer), "the end of the trainer")
    third.wait_for(third.err, "the run failed: disk full")
    until(lambda: not psutil.Process(third.process.pid).children(), "the supervisor hears of its end")
    assert third.get("/v1/health/live").status_code == 200, "devices still learn why"
    assert third.get("/v1/health").status_code == 503
    assert third.end() == 130


def test_what_a_new_run_has_unless_it_is_told(server_bundle: Path, tmp_path: Path) -> None:
    """Shards are small on the wire and many proxies let them through; a run file and options win."""
    (tmp_path / "run.toml").write_text('codec = "fp16"\nshard_samples = 100\n')
    givens: list[dict[str, Any]] = [{}, {"codec": "fp32"}, {"shard_samples": 500}]
    chosen = [
        new_config(ServeOptions(data_dir=tmp_path, config_file=file), server_bundle, given)
        for file in (None, tmp_path / "run.toml")
        for given in givens
    ]
    assert [(each.codec, each.shard_samples) for each in chosen] == [
        ("uint8", 64), ("fp32", 64), ("uint8", 500), ("fp16", 100), ("fp32", 100), ("fp16", 500),
    ]  # fmt: skip
    # Crops that suit 32 px move images of 8 px out of themselves.
    size = load_bundle(server_bundle).manifest.image_size
    assert chosen[0].crop_padding == size // 8
    few = new_config(ServeOptions(data_dir=tmp_path), server_bundle, {"horizontal_flip": False})
    assert few.crop_padding == max(1, size // 16)
    # A bundle of digits, which mirrored are none, says so.
    digits = tmp_path / "digits"
    shutil.copytree(server_bundle, digits)
    write_manifest(digits, dataclasses.replace(load_bundle(server_bundle).manifest, horizontal_flip=False))
    plain = new_config(ServeOptions(data_dir=tmp_path), digits, {})
    assert (plain.horizontal_flip, plain.crop_padding) == (False, max(1, size // 16))
    mirrored = new_config(ServeOptions(data_dir=tmp_path), digits, {"horizontal_flip": True})
    assert (mirrored.horizontal_flip, mirrored.crop_padding) == (True, size // 8)
    # One of an earlier version does not, and is mirrored as before.
    write_manifest(digits, dataclasses.replace(load_bundle(server_bundle).manifest, horizontal_flip=None))
    assert new_config(ServeOptions(data_dir=tmp_path), digits, {}) == chosen[0]
    # What devices were promised is what they are asked for.
    for bits, codec in ((4, "uint4"), (16, "uint8"), (7, "uint4"), (None, "uint8")):
        write_manifest(digits, dataclasses.replace(load_bundle(server_bundle).manifest, max_bits=bits))
        assert new_config(ServeOptions(data_dir=tmp_path), digits, {}).codec == codec
    # A simulation's stay as they are: committed results were made with them.
    assert (RunConfig().codec, RunConfig().shard_samples) == ("fp32", 64)


def test_a_new_run_waits_two_days_for_who_is_late(server_bundle: Path, tmp_path: Path) -> None:
    options = ServeOptions(data_dir=tmp_path / "run", artifacts=server_bundle)
    run, _ = run_of(options, {"num_clients": 5}, None)
    with contextlib.closing(run.store):
        assert (run.store.state().deadline_seconds, run.store.state().min_clients) == (2 * 24 * 3600, 3)
    waits = ServeOptions(data_dir=tmp_path / "waits", artifacts=server_bundle, deadline_seconds=0.0)
    run, _ = run_of(waits, {"num_clients": 5}, None)
    with contextlib.closing(run.store):
        assert (run.store.state().deadline_seconds, run.store.state().min_clients) == (0, 1)


@pytest.mark.parametrize(("deadline", "least"), [(None, 1), (60.0, 3), (0.0, 1)])
def test_a_round_with_a_deadline_needs_half_of_the_devices(
    server_bundle: Path, tmp_path: Path, deadline: float | None, least: int
) -> None:
    run = create_run(tmp_path / "run", server_bundle, run_config(num_clients=5), TOKEN)
    options = ServeOptions(data_dir=tmp_path / "run", deadline_seconds=deadline)
    with contextlib.closing(run.store):
        change_rules(run.store, options)
        assert run.store.state().min_clients == least
        # What was said once stays.
        change_rules(run.store, ServeOptions(data_dir=tmp_path / "run", min_clients=2))
        change_rules(run.store, ServeOptions(data_dir=tmp_path / "run", deadline_seconds=90.0))
        assert run.store.state().min_clients == 2


class Dying:
    """A trainer that exits at once, and what the server says about it."""

    def __init__(self, run: RunContext, getting_on: int) -> None:
        self.run, self.getting_on = run, getting_on
        self.said: list[str] = []
        self.spawned: list[int] = []

    def spawn(self) -> subprocess.Popen[bytes]:
        # It may get somewhere before it dies.
        path, moment = self.run.epoch_checkpoint_path, min(len(self.spawned), self.getting_on)
        path.write_bytes(b"")
        os.utime(path, ns=(moment, moment))
        self.spawned.append(moment)
        return subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize("getting_on", [0, 3])
def test_a_trainer_that_dies_again_and_again_at_the_same_place(
    empty_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, getting_on: int
) -> None:
    shutil.copytree(empty_run, tmp_path / "run")
    dying = Dying(open_run(tmp_path / "run"), getting_on)
    monkeypatch.setattr(supervisor.TrainerProcess, "_spawn", dying.spawn)
    monkeypatch.setattr(supervisor, "MAX_TRAINER_RESTARTS", 2)
    trainer = supervisor.TrainerProcess(dying.run, 1, dying.said.append)
    trainer.start()
    try:
        until(lambda: dying.run.store.state().phase is Phase.FAILED, "the end of patience")
    finally:
        trainer.stop()
    assert "died 3 times without getting any further" in dying.run.store.state().error
    assert len(dying.spawned) == 3 + getting_on, "one that gets on may die as often as it likes"
    assert sum("ended with exit code 3" in line for line in dying.said) == len(dying.spawned)
    dying.run.store.close()


def test_what_cannot_be_served_is_refused_and_nothing_is_written(
    server_bundle: Path, empty_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: how an error becomes a line and an exit code is the same for all commands."""
    monkeypatch.delenv("GKT_TOKEN", raising=False)
    existing = tmp_path / "existing"
    shutil.copytree(empty_run, existing)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    shutil.copytree(server_bundle, tmp_path / "damaged" / "artifacts")
    (tmp_path / "damaged" / "artifacts" / "checkpoint").write_bytes(b"damaged")
    weights, other_bundle = tmp_path / "weights.safetensors", tmp_path / "other"
    weights.write_bytes(b"weights")
    shutil.copytree(server_bundle, other_bundle)
    manifest = json.loads((other_bundle / "manifest.json").read_text())
    manifest["files"].pop("combined_template.onnx")
    (other_bundle / "manifest.json").write_text(json.dumps(manifest))
    before = sorted(path.relative_to(existing) for path in existing.rglob("*"))
    database = (existing / "run.sqlite").read_bytes()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        new = tmp_path / "new"
        bundle: tuple[object, ...] = ("--artifacts", server_bundle)
        cases: list[tuple[Path, tuple[object, ...], list[str]]] = [
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
            (existing, ("--seed", "7"), ["other settings", "--seed 7 instead of 0", "what can: --rounds"]),
            (existing, ("--codec", "fp32"), ["cannot change", "--codec fp32 instead of uint8"]),
            (existing, ("--rounds", "1"), ["--rounds is 1, the run has 2: it can only grow"]),
            (existing, ("--clients", "1"), ["--clients is 1, the run has 2: it can only grow"]),
            (existing, ("--artifacts", other_bundle), ["not the bundle of the run", "--artifacts"]),
            (existing, ("--server-init", weights), ["--server-init", "began from other weights"]),
            (existing, ("--blobs", "s3://elsewhere/x"), ["--blobs is not where the run"]),
            (existing, ("--token", "another-token"), ["another token", "leave out --token"]),
            (
                new,
                (*bundle, "--token", "long enough", "--host", "0.0.0.0"),
                ["--token", "join with the link"],
            ),
            (
                new,
                (*bundle, "--public-url", "gkt.example.org"),
                ["--public-url", "expected one such as https:"],
            ),
        ]
        for folder, options, words in cases:
            arguments = ["serve", "--data-dir", str(folder), "--port", "0", "--threads", "1"]
            with closing_runs():
                error = CliRunner().invoke(gkt, [*arguments, *map(str, options)]).exception
            assert isinstance(error, GKTError) and error.exit_code == 2, (folder, options, error)
            assert len(str(error).splitlines()) == 1 and all(word in str(error) for word in words), error
    assert not new.exists()
    assert list((tmp_path / "full").iterdir()) == [tmp_path / "full" / "something"]
    left = {path.relative_to(existing) for path in existing.rglob("*")} - set(before)
    assert {path.name for path in left} <= {"run.sqlite-shm", "run.sqlite-wal"}
    assert (existing / "run.sqlite").read_bytes() == database
