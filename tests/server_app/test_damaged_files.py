"""Files of a run that are damaged, cut short or gone: asked for again, or restored, and never trained on.

Real servers, trainers and devices; the bundle is small, of an earlier version (tests/house/make_before.py).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.server_app.served import SMALL, FinishedSmall, Serve, SmallFederation, StartServer, two_devices
from tests.server_app.waiting import until

WEIGHTS, TEMPLATE = "blobs/model/server.safetensors", "blobs/model/combined_template.onnx"


def flip_a_bit(path: Path, place: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def damages(server: Serve) -> list[str]:
    return [each.text for each in server.status().history if each.kind == "damaged"]


@pytest.mark.system
def test_damaged_shards_are_sent_again_and_the_run_ends_with_the_same_bytes(
    serve: StartServer, small: SmallFederation, finished_small: FinishedSmall, tmp_path: Path
) -> None:
    server = serve("--artifacts", small.bundle, "--clients", "2", "--rounds", "2", *SMALL)
    trainer = server.trainer()
    until(lambda: server.status().trainer_idle_seconds < 1e6, "the trainer's first sign of life")
    os.kill(trainer.pid, signal.SIGSTOP)
    ended = two_devices(server, small, tmp_path)
    until(lambda: server.status().phase == "ready", "both devices report")
    train, validation = (
        sorted((server.data_dir / "blobs" / "rounds" / "000001").rglob(f"{split}-*.safetensors"))
        for split in ("train", "validation")
    )
    flip_a_bit(train[0])
    os.truncate(train[-1], 1000)
    validation[0].unlink()
    os.kill(trainer.pid, signal.SIGCONT)
    ended()
    told = damages(server)
    assert len(told) == 2 and all(text.startswith("asked for again: ") for text in told), told
    assert any("its bytes have changed" in text for text in told)
    assert len(server.status().history) == 2, "both devices are asked at once, and no trainer died of it"
    assert server.status().phase == "finished"
    for name in (WEIGHTS, TEMPLATE):
        assert (server.data_dir / name).read_bytes() == (finished_small.run / name).read_bytes()

    # The trained model: what can be made of the rest is made at once, the rest by a trainer.
    whole = {name: (server.data_dir / name).read_bytes() for name in (WEIGHTS, TEMPLATE)}
    flip_a_bit(server.data_dir / TEMPLATE)
    model = f"/v1/runs/{server.info['run_id']}/model"
    authorization = {"Authorization": f"Bearer {server.operator()}"}
    assert server.get(f"{model}/template", **authorization).content == whole[TEMPLATE]
    assert server.get("/v1/health").status_code == 200
    for damage in (flip_a_bit, Path.unlink):
        damage(server.data_dir / WEIGHTS)
        refused: httpx.Response = server.get(f"{model}/template", **authorization)
        assert refused.status_code == 503 and "the trained model is damaged: it is made again" in refused.text
        assert server.get("/v1/health").json()["message"] == "the trained model is damaged"
        # Nobody starts the server again: a trainer makes it, and devices ask until it is there.
        until(lambda: server.get(f"{model}/server", **authorization).status_code == 200, "it is made again")
        assert server.get(f"{model}/server", **authorization).content == whole[WEIGHTS]
        assert server.get("/v1/health").status_code == 200
    assert sum("made again from the checkpoint" in text for text in damages(server)) == 2
    # Where there is nothing to make it from, that is said, and tried no second time.
    for path in (server.data_dir / "checkpoints").iterdir():
        flip_a_bit(path)
    flip_a_bit(server.data_dir / WEIGHTS)
    assert "it is made again" in server.get(f"{model}/server", **authorization).text
    until(
        lambda: "put one of them back" in server.get(f"{model}/server", **authorization).text,
        "it cannot be made",
    )
    assert sum("the trained model, and " in text for text in damages(server)) == 1
    assert server.get("/v1/health").status_code == 503
    # What is said is done: with the checkpoint there the next server makes it.
    for path in (server.data_dir / "checkpoints").iterdir():
        flip_a_bit(path)
    assert server.end() == 130
    again = serve()
    until((again.data_dir / WEIGHTS).is_file, "the model is made again")
    until(lambda: again.get(f"{model}/server", **authorization).status_code == 200, "the model is whole")
    assert (again.data_dir / WEIGHTS).read_bytes() == whole[WEIGHTS]


@pytest.mark.system
def test_a_run_goes_on_from_what_stood_before_a_damaged_checkpoint(
    serve: StartServer, small: SmallFederation, finished_small: FinishedSmall, tmp_path: Path
) -> None:
    finished_small.copy_to(tmp_path)
    checkpoints = tmp_path / "run" / "checkpoints"
    kept = sorted(path.name for path in checkpoints.iterdir())
    assert kept == ["round-000001.safetensors", "round-000002.safetensors"]
    flip_a_bit(checkpoints / kept[1])
    soft_labels = tmp_path / "run" / "blobs" / "soft_labels" / "000002"
    flip_a_bit(soft_labels / "client-000.safetensors")
    (soft_labels / "client-001.safetensors").unlink()

    server = serve("--rounds", "3")
    two_devices(server, small, tmp_path)()
    assert server.status().phase == "finished"
    told = damages(server)
    assert (
        sum("is damaged" in text and "going on from what stood before round 2" in text for text in told) == 1
    )
    assert sum("it trains a round without them" in text for text in told) == 2
    assert len(told) == 3 and not any(str(tmp_path) in text for text in told)
    assert server.get("/v1/health").status_code == 200
