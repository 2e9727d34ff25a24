"""Whole runs: what an undisturbed one leaves, orders of arrival, and devices that are drawn or late."""

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edge_runtime import open_engine
from edge_runtime.device import DeviceResult
from gkt_core.bundle.manifest import load_bundle
from gkt_core.data.augment import to_float_nchw
from gkt_core.nn import CombinedNetwork, build_edge_network, build_server_network
from gkt_core.nn.averaging import deployed, trained_with
from gkt_core.nn.checkpoint import load_checkpoint
from gkt_core.rounds.sampling import sample_clients
from gkt_core.wire.protocol import ErrorBody, JoinRequest, from_json, to_json
from server_app import create_run
from server_app.rounds.state import Phase, RulesChanged, RunState
from server_app.status import run_status
from tests.server_app.server_fixtures import CLIENTS, NUM_CLASSES, TOKEN, run_config
from tests.server_app.trainer.whole_run import DATA, WAIT_SECONDS, Exchange, FinishedRun, RunOfTwo
from tests.server_app.waiting import until


def test_the_run_is_finished_and_the_devices_know_it(undisturbed: FinishedRun) -> None:
    assert undisturbed.state.phase is Phase.FINISHED
    for client_id, result in zip(CLIENTS, undisturbed.results, strict=True):
        assert (result.client_id, result.rounds) == (client_id, 2)
        assert result.run_id == undisturbed.of.run.store.run_id
        assert result.model == str(undisturbed.of.devices / client_id / "model.onnx")


def test_each_devices_model_is_its_extractor_and_the_servers_network(undisturbed: FinishedRun) -> None:
    manifest = undisturbed.of.run.bundle.manifest
    config = undisturbed.of.run.config
    network = build_server_network(manifest.server_network, NUM_CLASSES)
    trained, optimizer = trained_with(network, config, config.server_lr)
    extra = load_checkpoint(undisturbed.of.run.checkpoint_path(2), trained, optimizer)
    server = deployed(trained)
    assert extra == {"round_num": 2, "run_id": undisturbed.of.run.store.run_id}
    logits = {}
    for client_id, data in DATA.items():
        folder = undisturbed.of.devices / client_id
        engine = open_engine(
            load_bundle(folder / "bundle", manifest.engine_files("portable")),
            checkpoint=folder / "checkpoint-000002",
            num_threads=1,
            learning_rate=1e-3,
        )
        edge = build_edge_network(manifest.edge_network, NUM_CLASSES)
        parameters = {name: torch.from_numpy(value) for name, value in engine.parameters().items()}
        found = edge.load_state_dict(parameters, strict=False)
        assert not found.unexpected_keys
        assert all(name.endswith("num_batches_tracked") for name in found.missing_keys)
        combined = CombinedNetwork(edge.extractor, server, edge.normalise).eval()
        images = to_float_nchw(data.validation.images)
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        (logits[client_id],) = session.run(["logits"], {"images": images})
        with torch.no_grad():
            expected = combined(torch.from_numpy(images)).numpy()
        assert np.isfinite(logits[client_id]).all() and logits[client_id].shape == (5, NUM_CLASSES)
        assert np.abs(logits[client_id] - expected).max() < 1e-4
    assert undisturbed.of.models()[0] != undisturbed.of.models()[1], "each device keeps its own extractor"


def test_what_no_later_round_needs_is_gone(undisturbed: FinishedRun) -> None:
    folder = undisturbed.of.run.folder
    files = {
        str(path.relative_to(folder / "blobs")) for path in (folder / "blobs").rglob("*") if path.is_file()
    }
    assert files == {
        "model/combined_template.onnx",
        "model/server.safetensors",
        "soft_labels/000002/client-a.safetensors",
        "soft_labels/000002/client-a.safetensors.sha256",
        "soft_labels/000002/client-b.safetensors",
        "soft_labels/000002/client-b.safetensors.sha256",
        "watch/000002/client-a.safetensors",
        "watch/000002/client-b.safetensors",
        "watch/first/client-a.safetensors",
        "watch/first/client-b.safetensors",
        "watch/validation/000002/client-a.safetensors",
        "watch/validation/000002/client-b.safetensors",
        "watch/validation/first/client-a.safetensors",
        "watch/validation/first/client-b.safetensors",
    }
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["round-000001.safetensors", "round-000002.safetensors"]
    for client_id in CLIENTS:
        found = {path.name for path in (undisturbed.of.devices / client_id).iterdir()}
        assert found == {
            "bundle",
            # Should the server come back from a backup.
            "checkpoint-000001",
            "checkpoint-000002",
            "lock",
            "model.onnx",
            "samples.npz",
            "state.json",
        }


def test_the_metrics_of_a_run_are_plausible(undisturbed: FinishedRun) -> None:
    status = run_status(undisturbed.of.run.store)
    assert [metrics.round_num for metrics in status.finished_rounds] == [1, 2]
    for metrics in status.finished_rounds:
        assert metrics.num_examples == 12 + 15
        for name in ("train_accuracy", "validation_accuracy", "edge_accuracy"):
            assert 0 <= getattr(metrics, name) <= 1
        for name in ("train_loss", "validation_loss", "edge_loss"):
            assert 0.2 < getattr(metrics, name) < 20
        assert metrics.server_samples_per_second > 0 and metrics.edge_images_per_second > 0
        assert metrics.seconds == pytest.approx(metrics.edge_seconds + metrics.server_seconds)
        assert metrics.edge_seconds > 0 and metrics.server_seconds > 0
    assert [client.last_reported_round for client in status.clients] == [2, 2]


KINDS = {
    "upload/shards": r"PUT .*/shards/\w+/\d+",
    "upload/reports": r"PUT .*/report",
    "download/bundle": r"GET .*/artifacts/[\w.]+",
    "download/soft_labels": r"GET .*/soft-labels",
    "download/model": r"GET .*/model/template",
}


def test_the_servers_traffic_is_what_the_devices_counted(undisturbed: FinishedRun) -> None:
    exchanges = [each for client_id in CLIENTS for each in undisturbed.of.exchanges[client_id]]
    assert all(each.status == 200 for each in exchanges)
    expected = dict.fromkeys(KINDS, 0)
    for each in exchanges:
        for kind, pattern in KINDS.items():
            if re.fullmatch(pattern, f"{each.method} {each.path}".replace(".onnx", "")):
                expected[kind] += len(each.sent if kind.startswith("upload") else each.received)
    assert run_status(undisturbed.of.run.store).traffic == expected
    for client_id, result in zip(CLIENTS, undisturbed.results, strict=True):
        passed = undisturbed.of.exchanges[client_id]
        counted = sum(len(each.sent) for each in passed), sum(len(each.received) for each in passed)
        assert (result.upload_bytes, result.download_bytes) == undisturbed.of.counted[client_id] == counted
    joins = 0
    for data in DATA.values():
        names, digest = list(data.class_names), 64 * "0"
        request = JoinRequest(1, len(data.train), 5, NUM_CLASSES, "portable", names, samples_sha256=digest)
        joins += len(to_json(request))
    sent = sum(sent for sent, _ in undisturbed.of.counted.values())
    assert expected["upload/shards"] + expected["upload/reports"] + joins == sent


@pytest.mark.parametrize(
    "order",
    [lambda parts: parts[::-1], lambda parts: parts[::2] + parts[1::2]],
    ids=["reversed", "interleaved"],
)
def test_the_order_of_uploads_changes_nothing(
    undisturbed: FinishedRun, copied: RunOfTwo, order: Callable[[Sequence[Exchange]], Sequence[Exchange]]
) -> None:
    copied.together(undisturbed.replay(copied, order))
    assert copied.outcome() == undisturbed.of.outcome()


def test_devices_that_are_drawn_keep_their_last_soft_labels(server_bundle: Path, tmp_path: Path) -> None:
    """Each device distils from the answer to the very view that it sent when it was last drawn."""
    config = run_config(client_fraction=0.5, rounds=5, seed=4)
    create_run(tmp_path / "run", server_bundle, config, TOKEN).store.close()
    drawn = [sample_clients(CLIENTS, 0.5, seed=4, round_num=each)[0] for each in range(1, 6)]
    assert any(first == second for first, second in itertools.pairwise(drawn)) and len(set(drawn)) == 2
    sampled = RunOfTwo(tmp_path / "run", tmp_path / "devices")
    state, _ = sampled.train()
    last = {each: 5 - drawn[::-1].index(each) for each in CLIENTS}
    assert dict(state.answered) == last
    for client_id in CLIENTS:
        passed = sampled.exchanges[client_id]
        asked = [each.path.split("/")[5] for each in passed if each.path.endswith("/soft-labels")]
        rounds = [number for number, each in enumerate(drawn, start=1) if each == client_id]
        assert asked == [str(number) for number in rounds[:-1]], "each answer once, in the round after"
        sent = {each.path.split("/")[5] for each in passed if "/shards/" in each.path}
        assert sent == {str(number) for number in rounds}
        assert all(each.status == 200 for each in passed)
    left = {
        str(path.relative_to(tmp_path / "run" / "blobs"))
        for path in (tmp_path / "run").rglob("soft_labels/*/*")
    }
    kept = [f"soft_labels/{last[each]:06d}/{each}.safetensors" for each in CLIENTS]
    assert left == {*kept, *(f"{name}.sha256" for name in kept)}
    assert all(len(model) > 1000 for model in sampled.models())
    sampled.run.store.close()


def test_a_round_goes_on_without_a_device_that_is_late(copied: RunOfTwo) -> None:
    """It vanishes in the middle of its upload, comes back after the deadline, and ends with a model."""
    vanished: list[str] = []

    def state() -> RunState:
        return copied.run.store.state()

    def cut(when: str, call: str) -> None:
        if when == "before" and "/rounds/1/" in call and call.endswith("/shards/train/1"):
            vanished.append(call)
            # A deadline of this round alone: both have joined, and from the next round on it has time.
            copied.run.store.apply(RulesChanged(1, 0.01))
            until(lambda: state().overdue or state().round_num > 1, "the deadline", WAIT_SECONDS)
            copied.run.store.apply(RulesChanged(1, 0.0))
            until(lambda: state().round_num > 1, "the end of round 1", WAIT_SECONDS)

    def late() -> DeviceResult:
        return copied.device("client-a", cut)

    last, results = copied.together(late, lambda: copied.device("client-b"))
    assert len(vanished) == 1
    assert last.phase is Phase.FINISHED and dict(last.answered)["client-b"] == 2
    refused = [each for each in copied.exchanges["client-a"] if each.status != 200]
    assert [each.status for each in refused] == [409]
    assert from_json(ErrorBody, refused[0].received).error == "RoundClosedError"
    first = run_status(copied.run.store).finished_rounds[0]
    assert first.num_examples == len(DATA["client-b"].train), "half an upload is none"
    assert [result.rounds for result in results] == [2, 2]
    assert len(copied.models()[0]) > 1000
