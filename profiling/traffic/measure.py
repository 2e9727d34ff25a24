"""Bytes by formula, and beside them those of a real run."""

from __future__ import annotations

import dataclasses
from typing import Any

from gkt_core.errors import ConfigError
from profiling.counted.network_cost import build_trainable, count_parameters
from profiling.counted.traffic import Deployment, predict
from profiling.frame.measurement import Announce
from profiling.traffic.measured import measure_demo
from profiling.traffic.options import TrafficOptions


def measure_traffic(options: TrafficOptions, announce: Announce) -> dict[str, Any]:
    """Count by formula, and read what a run counted beside it.

    Raises:
        InputError: An option cannot be used, or there is no finished run in the folder.
    """
    measured = None if options.demo_dir is None else measure_demo(options.demo_dir)
    values = {} if measured is None else _run_values(measured)
    for field in dataclasses.fields(Deployment):
        if (given := getattr(options, field.name, None)) is not None:
            values[field.name] = given
    if options.edge_network is not None or options.image_size is not None:
        # Of what was given, and not of the run.
        values.pop("features", None)
    values.setdefault("uploads", values.get("rounds", Deployment().rounds))
    network = build_trainable(options.network, values.get("num_classes", Deployment().num_classes))
    values["num_parameters"] = count_parameters(network)
    if options.statistics:
        # Batch counters are whole numbers that nobody averages.
        buffers = [buffer.numel() for buffer in network.buffers() if buffer.is_floating_point()]
        values["num_statistics"] = sum(buffers)
    return {
        "prediction": predict(Deployment(**values)),
        "measured": measured,
        "not_measured": [
            *([] if measured else ["bytes of a real run: give --demo-dir"]),
            *(["HTTP heads of that run: gkt demo --meter-wire"] if measured and not measured["wire"] else []),
        ],
    }


def _run_values(measured: dict[str, Any]) -> dict[str, Any]:
    """The run's own numbers as a deployment; bundle and model included."""
    counted = {kind["kind"]: kind["counted_bytes"] for kind in measured["kinds"]}
    once = counted.get("download/bundle", 0) + counted.get("download/model", 0)
    if measured["compression_ratio"] > 1:
        raise ConfigError("the run's shards grew under compression: give --compression-ratio 1")
    same = (
        *("num_examples", "num_validation_examples", "num_clients", "codec", "compression_ratio"),
        *("image_size", "num_classes", "features"),
    )
    return {
        **{name: measured[name] for name in same},
        "rounds": measured["rounds_run"],
        "device_once_bytes": once // measured["num_clients"],
    }
