"""The formulas of a plan, each with its words beside it: what is printed is what is computed.

Sizes are of one device or of the fleet as the names say; a round is synchronous, so it takes as long as its
slowest part: devices compute and upload at the same time, then the server trains. Devices of one machine
(``slots``) take turns on its cores, slow each other down by the factor ``contention``, and share the cores
with the server that takes their samples in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gkt_core.errors import ConfigError
from profiling.counted.message_sizes import encoded_feature_bytes
from profiling.counted.traffic import Deployment, fedgkt_bytes
from profiling.plan.constants import FORWARD_SHARE, Constant
from profiling.plan.options import Fleet

MEGABIT = 1e6 / 8


@dataclass(frozen=True, slots=True)
class Result:
    """One line of a plan.

    Attributes:
        name: What it is, unit included.
        value: The number; None where a constant is missing.
        formula: How it was computed, in words.
    """

    name: str
    value: float | None
    formula: str


def plan_fleet(fleet: Fleet, constants: Mapping[str, Constant]) -> list[Result]:
    """Compute a plan.

    Args:
        fleet: What to plan.
        constants: By name. Needed: ``train_step_images_per_second``, ``extract_images_per_second``,
            ``pack_images_per_second``, ``compression_ratio``, ``server_samples_per_second``,
            ``server_overhead_seconds``. Optional: ``augment_images_per_second``, and for devices of one
            machine ``contention`` and ``handled_samples_per_second``; results are None without:
            ``ingest_mbps`` of one server, and prices ``gpu_hour_price``, ``server_hour_price``,
            ``egress_gb_price``, ``storage_gb_month_price``.

    Raises:
        ConfigError: A needed constant is missing or not positive.
    """
    value = {name: constant.value for name, constant in constants.items()}
    _check(value)
    one = _deployment(fleet, value, devices=1, rounds=1, uploads=1)
    kept = fleet.samples + fleet.validation_samples
    compute = (
        fleet.samples * fleet.local_epochs / value["train_step_images_per_second"]
        + kept / value["extract_images_per_second"]
        + kept / value["pack_images_per_second"]
    )
    if "augment_images_per_second" in value:
        views = fleet.samples * (fleet.local_epochs + 1)
        compute += views / value["augment_images_per_second"]
    up_bytes, down_bytes = fedgkt_bytes(one)["upload"], fleet.samples * one.download_bytes_per_sample
    upload, download = up_bytes / (fleet.uplink_mbps * MEGABIT), down_bytes / (fleet.downlink_mbps * MEGABIT)
    turns, handling = _sharing(fleet, value)
    # The last of n devices that ask once a period notices the new round after n/(n+1) of it.
    wait = fleet.poll_seconds * fleet.active / (fleet.active + 1)
    edge = turns * compute + handling + upload + download + wait
    passes = fleet.samples * (fleet.server_epochs + FORWARD_SHARE) + fleet.validation_samples * FORWARD_SHARE
    server = (
        fleet.active * passes / (value["server_samples_per_second"] * fleet.trainers)
        + value["server_overhead_seconds"]
    )
    fleet_bytes = fedgkt_bytes(
        _deployment(fleet, value, devices=fleet.active, rounds=fleet.rounds, uploads=fleet.uploads)
    )
    bytes_in, bytes_out = fleet_bytes["upload"], fleet_bytes["download"]
    stored = fleet.active * kept * encoded_feature_bytes(fleet.codec, one.feature_shape)
    run_seconds = fleet.uploads * (edge + server) + (fleet.rounds - fleet.uploads) * turns * compute
    gpu_hours = fleet.uploads * fleet.trainers * server / 3600
    servers = _per(fleet.active * up_bytes, value.get("ingest_mbps", 0.0) * MEGABIT * max(upload, 1e-9))
    servers = None if servers is None else float(math.ceil(servers))
    results = [
        Result(
            "device compute, s a round",
            compute,
            "samples x E_c / train rate + (samples + validation) x (1 / extract rate + 1 / pack rate) "
            "+ samples x (E_c + 1) / augment rate",
        ),
        Result("device upload, s a round", upload, "(samples + validation) x bytes a sample / uplink"),
        Result("device download, s a round", download, "samples x (logits + id) / downlink"),
        Result(
            "device part, s a round",
            edge,
            "compute + upload + download + poll x n / (n + 1); on one machine compute x max(1, active "
            "devices / slots) x contention, + active devices x (samples + validation) / handling rate",
        ),
        Result(
            "server part, s a round",
            server,
            "active devices x (samples x (E_s + 1/4) + validation / 4) / (server rate x trainers) + "
            "overhead; a quarter: a forward pass beside a training pass",
        ),
        Result("round, s", edge + server, "device part + server part"),
        Result(
            "run, hours",
            run_seconds / 3600,
            "(uploads x round + (rounds - uploads) x compute of all turns) / 3600",
        ),
        Result(
            "device hours",
            fleet.active * fleet.rounds * compute / 3600,
            "active devices x rounds x compute / 3600",
        ),
        Result(
            "upload, bytes a device and round",
            up_bytes,
            "(samples + validation) x (features x ratio + logits + label + id)",
        ),
        Result("bytes in, all", bytes_in, "uploads x active devices x upload"),
        Result("bytes out, all", bytes_out, "(uploads - 1) x active devices x samples x (logits + id)"),
        Result(
            "storage, bytes",
            stored,
            "active devices x (samples + validation) x features: one round, kept until it is trained on",
        ),
        Result(
            "ingest servers",
            servers,
            "upload of the fleet / (upload time x ingest rate of a server), rounded up",
        ),
        Result(
            "GPU hours",
            gpu_hours,
            "uploads x trainers x server part / 3600, on what the server rate was measured on",
        ),
    ]
    results += _costs(value, gpu_hours, servers, run_seconds, bytes_out, stored)
    return results


def _sharing(fleet: Fleet, value: Mapping[str, float]) -> tuple[float, float]:
    """Count turns of a machine's devices that are waited for, and seconds of handing samples over."""
    if fleet.slots is None:
        return 1.0, 0.0
    at_once = min(fleet.slots, fleet.active)
    contention = value.get("contention", 1.0) if at_once > 1 else 1.0
    turns = max(1.0, fleet.active / fleet.slots) * contention
    samples = fleet.active * (fleet.samples + fleet.validation_samples)
    return turns, samples / value.get("handled_samples_per_second", math.inf)


def _costs(
    value: Mapping[str, float],
    gpu_hours: float,
    servers: float | None,
    run_seconds: float,
    bytes_out: float,
    stored: float,
) -> list[Result]:
    hours = run_seconds / 3600
    parts = [
        Result("cost of GPUs", _times(value.get("gpu_hour_price"), gpu_hours), "GPU hours x price an hour"),
        Result(
            "cost of ingest servers",
            _times(value.get("server_hour_price"), None if servers is None else servers * hours),
            "servers x hours of the run x price an hour",
        ),
        Result(
            "cost of traffic",
            _times(value.get("egress_gb_price"), bytes_out / 1e9),
            "bytes out / 10^9 x price; bytes in are free with most providers",
        ),
        Result(
            "cost of storage",
            _times(value.get("storage_gb_month_price"), stored / 1e9 * hours / 730),
            "storage / 10^9 x hours / 730 x price a month",
        ),
    ]
    known = [part.value for part in parts if part.value is not None]
    return [*parts, Result("cost, all known parts", sum(known) if known else None, "sum of the above")]


def _times(price: float | None, amount: float | None) -> float | None:
    return None if price is None or amount is None else price * amount


def _per(amount: float, rate: float) -> float | None:
    return amount / rate if rate > 0 else None


def _check(value: Mapping[str, float]) -> None:
    needed = {
        "train_step_images_per_second": "--edge edge.json or --train-rate",
        "extract_images_per_second": "--edge edge.json or --extract-rate",
        "pack_images_per_second": "--edge edge.json or --pack-rate",
        "compression_ratio": "--run DEMO_DIR or --compression-ratio",
        "server_samples_per_second": "--run DEMO_DIR or --server-rate",
        "server_overhead_seconds": "--run DEMO_DIR or --server-overhead",
    }
    for name, remedy in needed.items():
        if name not in value:
            raise ConfigError(f"{name.replace('_', ' ')} is neither measured nor given: give {remedy}")
    for name, number in value.items():
        low_allowed = name.endswith(("overhead_seconds", "_price"))
        if not math.isfinite(number) or number < 0 or (number == 0 and not low_allowed):
            raise ConfigError(f"{name.replace('_', ' ')} is {number}, expected a positive number")


def _deployment(
    fleet: Fleet, value: Mapping[str, float], *, devices: int, rounds: int, uploads: int
) -> Deployment:
    return Deployment(
        num_examples=devices * fleet.samples,
        num_validation_examples=devices * fleet.validation_samples,
        num_clients=devices,
        rounds=rounds,
        uploads=uploads,
        codec=fleet.codec,
        compression_ratio=value["compression_ratio"],
        image_size=fleet.image_size,
        num_classes=fleet.num_classes,
    )
