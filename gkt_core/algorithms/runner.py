"""Running any algorithm: rounds, metrics, checkpoints, resume, and one look at the test set at the end.

A run is saved after each round and, within one, after each epoch and every so many minutes; killed at any
moment it ends with the numbers of one that was left alone.

::

    settings.json            what is run; a resumed run must want the same
    metrics.jsonl            one line a round, the same for the same seed on the same machine
    timings.jsonl            one line a round, different every time
    checkpoint.safetensors   everything that the rest of the run needs, and the metrics so far
    result.json              the end
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gkt_core.algorithms.base import Algorithm, Evaluation, OnSamples, RoundResult, evaluate_images
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.algorithms.simulation.saving import Place, Saves
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError
from gkt_core.files import write_atomically
from gkt_core.nn.checkpoint import below, load_state, read_extra, save_state
from gkt_core.rounds.learning_rate import learning_rate_scale

SETTINGS_NAME = "settings.json"
METRICS_NAME = "metrics.jsonl"
TIMINGS_NAME = "timings.jsonl"
CHECKPOINT_NAME = "checkpoint.safetensors"
RESULT_NAME = "result.json"
_WITHIN = "within/"
# Between two saves within an epoch.
SAVE_MINUTES = 10.0


@dataclass(frozen=True, slots=True)
class Listener:
    """Hears how a run goes.

    Attributes:
        on_samples: Phase and number of samples just trained on.
        on_round: Round number and its result; also for rounds of an earlier process.
    """

    on_samples: OnSamples = lambda phase, num: None
    on_round: Callable[[int, RoundResult], None] = lambda round_num, result: None


def check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Begin a run in a folder, or go on with the same one.

    Raises:
        ConfigError: The folder holds a run with other settings.
    """
    path = out / SETTINGS_NAME
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    if not path.is_file():
        write_atomically(path, text.encode())
        return
    # What an earlier version had no option for is as it was then.
    before = RunConfig().to_dict() | json.loads(path.read_text(encoding="utf-8"))
    wanted = RunConfig().to_dict() | json.loads(text)
    differing = sorted(name for name in before.keys() | wanted.keys() if before.get(name) != wanted.get(name))
    if differing:
        listed = ", ".join(
            f"{name} {wanted.get(name)!r} instead of {before.get(name)!r}" for name in differing
        )
        raise ConfigError(f"{out} holds a run with other settings ({listed}): choose another --out")


def run_algorithm(
    algorithm: Algorithm,
    federation: Federation,
    out: Path,
    *,
    config: RunConfig,
    settings: dict[str, Any],
    listener: Listener,
    save_minutes: float = SAVE_MINUTES,
) -> dict[str, Any]:
    """Run to the end, from wherever an earlier process stopped; the test set is looked at once, at the end.

    The settings are JSON-compatible, and go into the result as ``config``. Besides after every epoch the run
    is saved every ``save_minutes``; 0 for after every step.

    Returns:
        What ``result.json`` holds.

    Raises:
        ConfigError: The folder holds a run with other settings.
        ArtifactError: Its checkpoint is damaged.
    """
    check_settings(out, settings)
    checkpoint, metrics = out / CHECKPOINT_NAME, list[dict[str, Any]]()
    earlier_seconds, started = 0.0, time.perf_counter()

    def save(place: Place) -> None:
        arrays = {**algorithm.arrays(), **{_WITHIN + name: each for name, each in place.arrays.items()}}
        extra: dict[str, Any] = {"metrics": metrics}
        if place.values:
            extra |= {"place": dict(place.values), "seconds": earlier_seconds + time.perf_counter() - started}
        save_state(checkpoint, algorithm.modules(), algorithm.optimizers(), arrays, extra)

    algorithm.saves = Saves(save, save_minutes)
    if checkpoint.is_file():
        extra = read_extra(checkpoint)
        algorithm.prepare(Place(extra.get("place", {})))
        arrays, extra = load_state(checkpoint, algorithm.modules(), algorithm.optimizers())
        algorithm.restore_arrays(arrays)
        algorithm.go_on(Place(extra.get("place", {}), below(arrays, _WITHIN)))
        metrics, earlier_seconds = extra["metrics"], extra.get("seconds", 0.0)
        for line in metrics:
            values = {name: value for name, value in line.items() if name != "round_num"}
            listener.on_round(line["round_num"], RoundResult(**values))
    for round_num in range(len(metrics) + 1, config.rounds + 1):
        started = time.perf_counter()
        history = [line["validation_accuracy"] for line in metrics]
        scale = learning_rate_scale(config, round_num, history)
        result = algorithm.run_round(round_num, scale, listener.on_samples)
        seconds, earlier_seconds = earlier_seconds + time.perf_counter() - started, 0.0
        metrics.append({"round_num": round_num, **asdict(result)})
        save(Place())
        write_atomically(out / METRICS_NAME, _lines(metrics))
        with (out / TIMINGS_NAME).open("a", encoding="utf-8") as timings:
            timings.write(json.dumps({"round_num": round_num, "seconds": seconds}) + "\n")
        listener.on_round(round_num, result)
    write_atomically(out / METRICS_NAME, _lines(metrics))
    final = {**_final_accuracies(algorithm, federation, metrics), "config": settings}
    write_atomically(out / RESULT_NAME, (json.dumps(final, indent=2) + "\n").encode())
    return final


def _lines(metrics: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in metrics).encode()


def _hash_of(model: nn.Module) -> str:
    """Name all that a model's answers follow from: its layers and their values."""
    digest = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _final_accuracies(
    algorithm: Algorithm, federation: Federation, metrics: list[dict[str, Any]]
) -> dict[str, Any]:
    confusion = np.zeros((federation.num_classes, federation.num_classes), np.int64)
    accuracies: dict[str, float] = {}
    # Devices that share an extractor have one model, and one pass over the test set is enough.
    tested: dict[str, Evaluation] = {}
    for owner, model in algorithm.models().items():
        weights = _hash_of(model)
        if weights not in tested:
            tested[weights] = evaluate_images(model, federation.test, federation.num_classes)
        evaluation = tested[weights]
        accuracies[owner] = evaluation.accuracy
        assert evaluation.confusion is not None
        confusion += evaluation.confusion
    hits, shown = np.diag(confusion).tolist(), confusion.sum(axis=1).tolist()
    return {
        "test_accuracy": sum(accuracies.values()) / len(accuracies),
        "test_accuracies": accuracies,
        "validation_accuracy": metrics[-1]["validation_accuracy"],
        "upload_bytes": sum(line["upload_bytes"] for line in metrics),
        "download_bytes": sum(line["download_bytes"] for line in metrics),
        "rounds": len(metrics),
        "num_test_examples": len(federation.test),
        # None for a class that no test image shows.
        "per_class_accuracy": {
            name: right / num if num else None
            for name, right, num in zip(federation.class_names, hits, shown, strict=True)
        },
        # Summed over the models where there is one a device.
        "confusion_matrix": confusion.tolist(),
    }
