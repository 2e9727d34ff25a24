"""Runs that grow, that fail and are taken up again, and what is refused before anything starts.

Real servers, trainers and devices; the bundle is small, of an earlier version (tests/house/make_before.py).
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gkt_core.errors import ConfigError
from server_app import open_run
from server_app.cli.options import ServeOptions
from server_app.cli.serve import opened
from tests.server_app.served import SMALL, FinishedSmall, SmallFederation, StartServer
from tests.server_app.server_fixtures import open_store
from tests.server_app.waiting import until

ONE = ("--clients", "1", "--rounds", "1", *SMALL)


@pytest.mark.system
def test_a_finished_run_grows_and_its_device_takes_part_again(
    serve: StartServer, small: SmallFederation, tmp_path: Path
) -> None:
    first = serve("--artifacts", small.bundle, *ONE)
    assert first.device(small.data(0), tmp_path / "a").ended() == 0
    status = first.status()
    assert (status.phase, status.history) == ("finished", [])
    assert first.end() == 130

    second = serve(
        "--rounds", "3", "--clients", "2", "--server-lr", "0.0005", "--edge-lr", "0.0002",
        "--artifacts", small.bundle,
    )  # fmt: skip
    second.wait_for(second.err, "from here on: ")
    other = second.device(small.data(1), tmp_path / "b")
    until(lambda: len(second.status().clients) == 2, "the second device joins")
    again = second.device(small.data(0), tmp_path / "a")
    assert again.ended() == 0, again.log.read_text()
    assert other.ended() == 0, other.log.read_text()
    status = second.status()
    assert (status.phase, status.rounds, status.num_clients) == ("finished", 3, 2)
    assert [each.round_num for each in status.finished_rounds] == [1, 2, 3]
    (changed,) = (each for each in status.history if each.kind == "changed")
    assert changed.round_num == 1 and changed.at > 1e9
    for words in (
        "rounds 1 -> 3",
        "num_clients 1 -> 2",
        "server_lr 0.001 -> 0.0005",
        "edge_lr 0.001 -> 0.0002",
    ):
        assert words in changed.text
    assert second.err.read_text().count("rounds 1 -> 3") == 1, "it is said once"
    # A device that was told the first rate is given the new one with its task.
    run = open_run(second.data_dir)
    with contextlib.closing(run.store):
        assert (run.config.edge_lr, run.config.server_lr, run.config.rounds) == (0.0002, 0.0005, 3)
        assert run.told_config.edge_lr == 0.001
        assert run.edge_learning_rate_scale(run.store.state()) == pytest.approx(0.2)
    stands = [json.loads((tmp_path / name / "state.json").read_text()) for name in "ab"]
    assert [stand["trained_round"] for stand in stands] == [3, 3]


@pytest.mark.system
def test_a_run_that_diverged_goes_on_at_another_rate(
    serve: StartServer, small: SmallFederation, tmp_path: Path
) -> None:
    first = serve("--artifacts", small.bundle, "--server-lr", "1e30", *ONE)
    assert first.device(small.data(0), tmp_path / "a").ended() == 7
    first.wait_for(first.err, "the run failed: ")
    assert first.status().phase == "failed"
    answer = first.get("/v1/health")
    assert (answer.status_code, answer.json()["message"]) == (503, "the run has failed")
    live = first.get("/v1/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert first.end() == 130

    # As it is, it tells everybody so, and how it goes on.
    assert "When the cause is gone: gkt serve --resume-failed" in said_of(first.data_dir)[-1]

    second = serve("--resume-failed", "--server-lr", "0.001")
    device = second.device(small.data(0), tmp_path / "a")
    assert device.ended() == 0, device.log.read_text()
    status = second.status()
    assert (status.phase, status.error) == ("finished", "")
    told = [each for each in status.history if each.kind != "trainer"]
    assert [each.kind for each in told] == ["failed", "changed", "resumed"]
    assert all("lower server_lr" in told[number].text for number in (0, 2)), "the cause is kept"
    assert second.get("/v1/health").status_code == 200
    assert second.end() == 130
    (said,) = said_of(first.data_dir, resumes_failed=True)
    assert "the run has not failed, it is finished" in said


def said_of(data_dir: Path, **options: Any) -> list[str]:
    """What ``gkt serve`` says of a run before it starts anything."""
    said: list[str] = []
    with opened(ServeOptions(data_dir=data_dir, port=0, **options), {}, said.append) as server:
        server.run.store.close()
    return said


@pytest.mark.system
def test_a_trainer_that_dies_is_told_with_its_reason(serve: StartServer, small: SmallFederation) -> None:
    server = serve("--artifacts", small.bundle, *ONE)
    trainer = server.trainer()
    # The next one cannot begin.
    (server.data_dir / "artifacts" / "train_step.onnx").write_bytes(b"damaged")
    trainer.kill()
    server.wait_for(server.err, "the trainer ended with exit code -9 (SIGKILL): killed from outside")
    server.wait_for(server.err, "the trainer ended with exit code 2: error: ")
    first, second = until(lambda: (notes := server.status().history)[1:] and notes[:2], "two notes")
    assert {first.kind, second.kind} == {"trainer"} and first.round_num == 0
    assert "SIGKILL" in first.text and "train_step.onnx" in second.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named_before_anything_starts(
    small: SmallFederation, finished_small: FinishedSmall, tmp_path: Path
) -> None:
    finished_small.copy_to(tmp_path)
    for name, artifacts in (("new", small.bundle), ("run", None)):
        options = ServeOptions(data_dir=tmp_path / name, port=0, device="cuda", artifacts=artifacts)
        with pytest.raises(ConfigError, match="PyTorch sees no GPU"), opened(options, {"rounds": 3}, print):
            pass
    assert not (tmp_path / "new").exists()
    with contextlib.closing(open_store(tmp_path / "run" / "run.sqlite")) as store:
        assert (str(store.state().phase), store.state().rounds) == ("finished", 2), "nothing has changed"


@pytest.mark.system
def test_a_server_network_begins_from_weights(
    serve: StartServer, small: SmallFederation, finished_small: FinishedSmall, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.safetensors"
    save_file({"elsewhere": torch.zeros(3)}, wrong)
    options = ServeOptions(data_dir=tmp_path / "new", port=0, artifacts=small.bundle, server_init=wrong)
    with pytest.raises(ConfigError, match="weights of another network"), opened(options, {}, print):
        pass
    assert not (tmp_path / "new").exists()

    # What one run has learned is what another begins from. At such a rate nothing is learned.
    good = finished_small.run / "blobs" / "model" / "server.safetensors"
    first = serve("--artifacts", small.bundle, "--server-lr", "1e-30", "--server-init", good, *ONE)
    assert first.device(small.data(0), tmp_path / "b").ended() == 0
    learned, kept = load_file(good), load_file(first.data_dir / "blobs" / "model" / "server.safetensors")
    weights = [name for name in learned if name.endswith(("weight", "bias"))]
    assert weights and all(torch.equal(kept[name], learned[name]) for name in weights)
