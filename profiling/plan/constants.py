"""Constants of a plan and where each comes from: measured by a command, or given by the user."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.errors import ConfigError, InputError
from profiling.frame.registry import read_document
from profiling.traffic.measured import measure_demo

GIVEN = "given"
_WORKLOADS = ("train_step", "extract", "pack", "augment")
# A forward pass beside a training pass: a soft label, or a validated sample, costs so much. A third by FLOPs;
# measured 0.23 for ResNet-55, as training also updates weights and batch statistics.
FORWARD_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Constant:
    """One number and its source.

    Attributes:
        value: In the unit that its name says.
        source: ``given``, or what measured it.
    """

    value: float
    source: str


def edge_constants(path: Path, image_size: int) -> dict[str, Constant]:
    """Read how fast a device is from ``gkt profile edge --out FILE.json``.

    Raises:
        InputError: The file is something else.
    """
    document = read_document(path)
    if document["schema"] != "gkt-profile-edge/1":
        raise InputError(f"{path} is a {document['schema']}, expected a file of gkt profile edge")
    check_size(path, document["settings"]["image_size"], image_size)
    rates = {workload["name"]: workload["images_per_second"] for workload in document["workloads"]}
    source = f"gkt profile edge ({path.name}: {document['machine']['cpu_model']})"
    constants = {
        f"{name}_images_per_second": Constant(rates[name], source) for name in _WORKLOADS if name in rates
    }
    if document.get("contention"):
        constants["contention"] = Constant(document["contention"]["factor"], source)
    return constants


def run_constants(demo_dir: Path, image_size: int) -> dict[str, Constant]:
    """Read what a run on this machine tells about the server and the codec.

    The first round is left out where there are more: it holds the start of the trainer. The rate is that of
    forward and backward passes: what soft labels took is taken out.

    Raises:
        InputError: The folder holds no finished ``gkt demo``.
    """
    report, measured = read_report(demo_dir, image_size), measure_demo(demo_dir)
    config, rounds = report["config"], later_rounds(report)
    source = f"gkt demo ({demo_dir.name})"
    epochs = config["server_epochs"]
    # The run's rate counts trained samples, while the clock also ran for their soft labels.
    passes = epochs + (FORWARD_SHARE if config["soft_labels"] == "last_epoch" else 0.0)
    rate = statistics.median(each["server_samples_per_second"] for each in rounds) * passes / epochs
    validated = sum(client["num_validation_examples"] for client in report["clients"])
    overheads = [
        each["server_seconds"]
        - (each["num_examples"] * (epochs + FORWARD_SHARE) + validated * FORWARD_SHARE) / rate
        for each in rounds
    ]
    return {
        "server_samples_per_second": Constant(rate, source),
        "server_overhead_seconds": Constant(max(0.0, statistics.median(overheads)), source),
        "compression_ratio": Constant(measured["compression_ratio"], source),
    }


def check_size(path: Path, measured_size: int, image_size: int) -> None:
    """Refuse constants that were measured on images of another size: every rate depends on it.

    Raises:
        ConfigError: Names both sizes.
    """
    if measured_size != image_size:
        raise ConfigError(
            f"{path} was measured with images of {measured_size} px, the plan has {image_size}: "
            f"measure again, or plan with --image-size {measured_size}"
        )


def read_report(demo_dir: Path, image_size: int) -> dict[str, Any]:
    """Read what ``gkt demo`` reported of images of this size.

    Raises:
        ConfigError: Its images have another size.
        InputError: There is no report, or it is another thing.
    """
    path = demo_dir / "report.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        complete = {"config", "rounds", "clients", "image_size", "class_names"} <= set(report)
        if not complete or not report["rounds"]:
            raise ValueError("it lacks rounds")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{demo_dir} holds no finished gkt demo ({error}): run gkt demo --out {demo_dir}"
        ) from error
    check_size(demo_dir, report["image_size"], image_size)
    return report


def later_rounds(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rounds without the first, which holds the start of the trainer and of PyTorch."""
    rounds: list[dict[str, Any]] = report["rounds"]
    return rounds[1:] or rounds
