"""Files of a run that are damaged, cut short or gone: asked for again, or restored, and never trained on.

Real servers, trainers and devices; the bundle is small, of an earlier version (tests/house/make_before.py).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.conftest import LONGEST_SECONDS
from tests.server_app.served import SMALL, Serve, SmallFederation, StartServer
from tests.server_app.waiting import until

WEIGHTS, TEMPLATE = "blobs/model/server.safetensors", "blobs/model/combined_template.onnx"


def flip_a_bit(path: Path, place: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def damages(server: Serve) -> list[str]:
    return [each.text for each in server.status().history if each.kind == "damaged"]


def two_devices(server: Serve, small: SmallFederation, folder: Path) -> Callable[[], None]:
    """Start both devices; what is returned waits for their good ends."""
    devices = [server.device(small.data(number), folder / f"device-{number}") for number in (0, 1)]

    def ended() -> None:
        for device in devices:
            assert device.ended() == 0, device.log.read_text()

    return ended


def test_damaged_shards_are_sent_again_and_the_run_ends_with_the_same_bytes(
    serve: StartServer, small: SmallFederation, tmp_path: Path
) -> None:
    options = ("--artifacts", small.bundle, "--clients", "2", "--rounds", "2", *SMALL)
    undisturbed = serve(*options)
    (tmp_path / "first").mkdir()
    two_devices(undisturbed, small, tmp_path / "first")()
    assert undisturbed.end() == 130 and (undisturbed.data_dir / WEIGHTS).is_file()
    undisturbed.data_dir.rename(tmp_path / "undisturbed")

    server = serve(*options)
    trainer = server.trainer()
    until(lambda: server.status().trainer_idle_seconds < 1e6, "the trainer's first sign of life")
    os.kill(trainer.pid, signal.SIGSTOP)
    (tmp_path / "second").mkdir()
    ended = two_devices(server, small, tmp_path / "second")
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
        assert (server.data_dir / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()

    # The trained model: what can be made of the rest is made at once, the rest by the next trainer.
    whole = {name: (server.data_dir / name).read_bytes() for name in (WEIGHTS, TEMPLATE)}
    flip_a_bit(server.data_dir / TEMPLATE)
    model = f"/v1/runs/{server.info['run_id']}/model"
    authorization = {"Authorization": f"Bearer {server.token()}"}
    assert server.get(f"{model}/template", **authorization).content == whole[TEMPLATE]
    assert server.get("/v1/health").status_code == 200
    for damage in (flip_a_bit, lambda path: os.truncate(path, 5), Path.unlink):
        damage(server.data_dir / WEIGHTS)
        for part in ("server", "template"):
            refused: httpx.Response = server.get(f"{model}/{part}", **authorization)
            assert refused.status_code == 503 and "the trained model is damaged" in refused.text
    assert server.get("/v1/health").json()["message"] == "the trained model is damaged"
    assert server.end() == 130
    again = serve()
    until((again.data_dir / WEIGHTS).is_file, "the model is made again")
    assert (again.data_dir / WEIGHTS).read_bytes() == whole[WEIGHTS]
    assert again.get(f"{model}/server", **authorization).content == whole[WEIGHTS]
    assert any("the trained model" in text for text in damages(again))


def test_a_run_goes_on_from_what_stood_before_a_damaged_checkpoint(
    serve: StartServer, small: SmallFederation, tmp_path: Path
) -> None:
    first = serve("--artifacts", small.bundle, "--clients", "2", "--rounds", "2", *SMALL)
    two_devices(first, small, tmp_path)()
    assert first.end() == 130
    kept = sorted(path.name for path in (first.data_dir / "checkpoints").iterdir())
    assert kept == ["round-000001.safetensors", "round-000002.safetensors"]
    flip_a_bit(first.data_dir / "checkpoints" / kept[1])
    flip_a_bit(first.data_dir / "blobs" / "soft_labels" / "000002" / "client-000.safetensors")
    (first.data_dir / "blobs" / "soft_labels" / "000002" / "client-001.safetensors").unlink()

    second = serve("--rounds", "3")
    two_devices(second, small, tmp_path)()
    assert second.status().phase == "finished"
    told = damages(second)
    assert (
        sum("is damaged" in text and "going on from what stood before round 2" in text for text in told) == 1
    )
    assert sum("it trains a round without them" in text for text in told) == 2
    assert len(told) == 3
    with httpx.Client(trust_env=False, timeout=LONGEST_SECONDS) as http:
        assert http.get(second.info["url"] + "/v1/health").status_code == 200
