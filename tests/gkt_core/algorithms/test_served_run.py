"""A served run and its simulation are one algorithm: the same soft labels and weights, to the last bit.

Real devices talk to the real application and the real trainer works beside them; only what trains on the
devices is PyTorch, as in the simulation, and everything computes on one thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from edge_runtime import device as device_module
from edge_runtime.device import Device
from edge_runtime.server_client import ServerClient
from edge_runtime.state.state_dir import StateDir
from gkt_core.algorithms import TorchEngine
from gkt_core.algorithms.base import RoundResult
from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.bundle.manifest import Bundle, Manifest
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import PrivateData
from gkt_core.errors import RoundError
from gkt_core.nn import averaging, build_edge_network
from gkt_core.nn.checkpoint import save_state
from gkt_core.rounds.learning_rate import learning_rate_scale
from gkt_core.wire.shards import write_soft_labels
from server_app import create_app, create_run
from server_app.rounds.state import Failed, Phase, RunState
from server_app.run_folder import SERVER_WEIGHTS_BLOB, RunContext, soft_labels_blob
from server_app.status import run_status
from server_app.store import BlobStore
from server_app.trainer.trainer import Trainer
from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.device_fixtures import Silent
from tests.server_app.server_fixtures import TOKEN, private_data, run_config

pytest_plugins = ["tests.server_app.server_fixtures"]

DATA = {f"client-{letter}": private_data(seed, 12 + 3 * seed) for seed, letter in enumerate("abc")}


class PyTorchDevice(TorchEngine):
    """The simulation's engine behind the interface of a device's engine."""

    name = "pytorch"

    def __init__(self, manifest: Manifest, config: RunConfig) -> None:
        network = build_edge_network(
            manifest.edge_network,
            manifest.num_classes,
            pixel_mean=tuple(manifest.pixel_mean),
            pixel_std=tuple(manifest.pixel_std),
            seed=manifest.seed,
        )
        super().__init__(network, config)

    def save(self, path: Path) -> None:
        save_state(path, {"edge": self.network}, {"edge": self.optimizer}, {}, {})

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        return {}

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        return {
            name: value.numpy().copy()
            for name, value in self.network.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }


class Served:
    """A run of three devices over the application, and what it sent them.

    Attributes:
        engines: What trained on each device; of a class that a test may choose.
        folder: Where devices keep their state.
        blobs: Everything that the trainer stored, by name.
    """

    def __init__(
        self,
        bundle: Path,
        folder: Path,
        config: RunConfig,
        patch: pytest.MonkeyPatch,
        *,
        data: Mapping[str, PrivateData] = DATA,
        engine_class: type[PyTorchDevice] = PyTorchDevice,
    ) -> None:
        self._data = data
        self.run: RunContext = create_run(folder / "run", bundle, config, TOKEN)
        self.engines: dict[str, PyTorchDevice] = {}
        self.blobs: dict[str, bytes] = {}
        self._app = create_app(self.run, TOKEN, poll_seconds=0.01)
        self.folder, put = folder, BlobStore.put

        def recorded(store: BlobStore, name: str, data: bytes) -> None:
            self.blobs[name] = data
            put(store, name, data)

        def open_pytorch(opened: Bundle, **options: Any) -> PyTorchDevice:
            # Each device trains in a thread of its own, which has its name.
            engine = engine_class(opened.manifest, config)
            self.engines[threading.current_thread().name] = engine
            return engine

        patch.setattr(BlobStore, "put", recorded)
        patch.setattr(device_module, "open_engine", open_pytorch)

    def to_the_end(self) -> None:
        state, errors = self.until_it_stops()
        assert (state.phase, state.error, errors) == (Phase.FINISHED, "", {})

    def until_it_stops(self) -> tuple[RunState, dict[str, BaseException]]:
        """The last state, and what devices ended with that did not finish."""
        with ThreadPoolExecutor(len(self._data)) as threads:
            results = {client_id: threads.submit(self._device, client_id) for client_id in self._data}
            with self._failing("the trainer"):
                state = Trainer(self.run).run_until_done()
            errors = {client_id: result.exception() for client_id, result in results.items()}
        return state, {client_id: error for client_id, error in errors.items() if error is not None}

    def _device(self, client_id: str) -> None:
        threading.current_thread().name = client_id
        wire = httpx.WSGITransport(app=self._app)
        server = ServerClient("http://server", TOKEN, transport=wire, patience_seconds=LONGEST_SECONDS)
        folder = StateDir(self.folder / client_id)
        with self._failing(client_id), contextlib.closing(server), contextlib.closing(folder):
            Device(
                server,
                self._data[client_id],
                folder,
                client_id=client_id,
                num_threads=1,
                listener=Silent(),
                sleep=lambda seconds: time.sleep(0.005),
            ).run()

    @contextlib.contextmanager
    def _failing(self, who: str) -> Iterator[None]:
        """End the run when one of its parts ends: the others would wait for ever."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(RoundError):
                self.run.store.apply(Failed(f"{who} ended: {error!r}"))
            raise


RUNS: dict[str, dict[str, Any]] = {
    "everybody": {"rounds": 2, "lr_schedule": "cosine", "lr_warmup": 0.3},
    "one-cycle": {"rounds": 2, "local_epochs": 2, "lr_schedule": "one_cycle"},
    "averaged": {
        "rounds": 2,
        "server_ema": 0.8,
        "decay_norms": False,
        "weight_decay": 0.1,
        "label_smoothing": 0.1,
    },
    "sampled": {"rounds": 3, "client_fraction": 0.7, "direction": "both", "soft_labels": "evaluation"},
    "views of features": {"rounds": 2, "feature_augmentation": "crop+flip", "codec": "uint4"},
    "two uploads": {
        "rounds": 5,
        "uploads": "rounds=2,4",
        "client_fraction": 0.7,
        "feature_augmentation": "crop",
    },
    "shared extractor": {"rounds": 3, "client_fraction": 0.7, "share_extractor": "every", "codec": "uint2"},
    "narrow tap": {"rounds": 2, "codec": "uint4", "feature_augmentation": "crop+flip"},
    "uploads by drift": {"rounds": 4, "uploads": "drift=0.15", "direction": "both"},
}
IN_SYSTEM = ("narrow tap", "two uploads", "one-cycle", "averaged", "views of features", "uploads by drift")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, marks=pytest.mark.system if name in IN_SYSTEM else (), id=name)
        for name, options in RUNS.items()
    ],
)
def test_a_served_run_is_its_simulation(
    options: dict[str, Any],
    server_bundle: Path,
    narrow_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = run_config(num_clients=3, server_epochs=2, quarantine=False, **options)
    assert torch.get_num_threads() == 1
    bundle = narrow_bundle if options is RUNS["narrow tap"] else server_bundle
    served = Served(bundle, tmp_path, config, monkeypatch)
    with contextlib.closing(served.run.store):
        served.to_the_end()
        metrics = run_status(served.run.store).finished_rounds
    manifest = served.run.bundle.manifest
    federation = Federation(
        DATA,
        DATA["client-a"].validation,
        DATA["client-a"].class_names,
        tuple(manifest.pixel_mean),
        tuple(manifest.pixel_std),
    )
    simulated = FedGKT(
        federation,
        config,
        edge_network=manifest.edge_network,
        server_network=manifest.server_network,
        device=torch.device("cpu"),
    )
    accuracies: list[float] = []
    results: list[RoundResult] = []
    for round_num in range(1, config.rounds + 1):
        scale = learning_rate_scale(config, round_num, accuracies)
        result = simulated.run_round(round_num, scale, lambda phase, num: None)
        accuracies.append(result.validation_accuracy)
        results.append(result)
        answered = {
            client_id: write_soft_labels(client_id, round_num, client._soft_labels)
            for client_id, client in simulated._clients.items()
            if client.last_round == round_num and client._soft_labels is not None
        }
        assert len(answered) == (2 if "client_fraction" in options else 3)
        for client_id, soft_labels in answered.items():
            assert served.blobs[soft_labels_blob(round_num, client_id)] == soft_labels, (round_num, client_id)
        finished = metrics[round_num - 1]
        assert (finished.train_loss, finished.validation_loss, finished.validation_accuracy) == (
            result.train_loss,
            result.validation_loss,
            result.validation_accuracy,
        )
    weights = load_file(served.run.blobs.local_path(SERVER_WEIGHTS_BLOB))
    expected = averaging.deployed(simulated.modules()["server"]).state_dict()
    for name, value in weights.items():
        assert torch.equal(value, expected[name.removeprefix("server.")]), name
    assert len(weights) == sum(not name.endswith("num_batches_tracked") for name in expected)
    for client_id, network in simulated.edge_models().items():
        for name, tensor in served.engines[client_id].network.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name]), (client_id, name)
    held = served.run.store.state().answered_uploads()
    for client_id, model in simulated.models().items():
        client = simulated._clients[client_id]
        assert held.get(client_id, 0) == client.uploaded_round
        session = onnxruntime.InferenceSession(tmp_path / client_id / "model.onnx")
        images = to_float_nchw(DATA[client_id].validation.images)
        (logits,) = session.run(["logits"], {"images": images})
        with torch.no_grad():
            expected_logits = model.eval()(torch.from_numpy(images)).numpy()
        assert np.allclose(logits, expected_logits, atol=1e-3)
        if "uploads" in options:
            assert client.uploaded_round > 0
            deployed = client.deployed.extractor.state_dict(), client.engine.network.extractor.state_dict()
            same = all(torch.equal(value, deployed[1][name]) for name, value in deployed[0].items())
            assert same is (client.uploaded_round == client.last_round)
    if "uploads" in options:
        assert len({result.upload_bytes for result in results}) > 1
