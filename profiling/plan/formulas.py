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
from profiling.counted.traffic import Deployment
from profiling.plan.constants import FORWARD_SHARE, Constant
from profiling.plan.options import Fleet

MEGABIT = 1e6 / 8
# What is printed beside each value that plan_fleet computes under this name.
FORMULAS = {
    "device compute, s a round": "samples x E_c / train rate + (samples + validation) x (1 / extract rate + "
    "1 / pack rate) + samples x (E_c + 1) / augment rate",
    "device upload, s a round": "(samples + validation) x bytes a sample / uplink",
    "device download, s a round": "samples x (logits + id) / downlink",
    "device part, s a round": "compute + upload + download + poll x n / (n + 1); on one machine compute x "
    "max(1, active devices / slots) x contention, + active devices x (samples + validation) / handling rate",
    "server part, s a round": "active devices x (samples x (E_s + 1/4) + validation / 4) / (server rate x "
    "trainers) + overhead; a quarter: a forward pass beside a training pass",
    "round, s": "device part + server part",
    "run, hours": "(uploads x round + (rounds - uploads) x compute of all turns) / 3600",
    "device hours": "active devices x rounds x compute / 3600",
    "upload, bytes a device and round": "(samples + validation) x (features x ratio + logits + label + id)",
    "bytes in, all": "uploads x active devices x upload",
    "bytes out, all": "(uploads - 1) x active devices x samples x (logits + id)",
    "storage, bytes": "active devices x (samples + validation) x features: one round, kept until it is "
    "trained on",
    "ingest servers": "upload of the fleet / (upload time x ingest rate of a server), rounded up",
    "GPU hours": "uploads x trainers x server part / 3600, on what the server rate was measured on",
    "cost of GPUs": "GPU hours x price an hour",
    "cost of ingest servers": "servers x hours of the run x price an hour",
    "cost of traffic": "bytes out / 10^9 x price; bytes in are free with most providers",
    "cost of storage": "storage / 10^9 x hours / 730 x price a month",
    "cost, all known parts": "sum of the above",
}


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
    sizes = Deployment(
        rounds=fleet.rounds,
        uploads=fleet.uploads,
        codec=fleet.codec,
        compression_ratio=value["compression_ratio"],
        image_size=fleet.image_size,
        edge_network=fleet.edge_network,
        num_classes=fleet.num_classes,
    )
    kept = fleet.samples + fleet.validation_samples
    compute = (
        fleet.samples * fleet.local_epochs / value["train_step_images_per_second"]
        + kept / value["extract_images_per_second"]
        + kept / value["pack_images_per_second"]
    )
    if "augment_images_per_second" in value:
        views = fleet.samples * (fleet.local_epochs + 1)
        compute += views / value["augment_images_per_second"]
    up_bytes = kept * sizes.upload_bytes_per_sample
    down_bytes = fleet.samples * sizes.download_bytes_per_sample
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
    bytes_out = (fleet.uploads - 1) * fleet.active * down_bytes
    stored = fleet.active * kept * encoded_feature_bytes(fleet.codec, sizes.feature_shape)
    run_seconds = fleet.uploads * (edge + server) + (fleet.rounds - fleet.uploads) * turns * compute
    hours, gpu_hours = run_seconds / 3600, fleet.uploads * fleet.trainers * server / 3600
    ingest = value.get("ingest_mbps", 0.0) * MEGABIT * max(upload, 1e-9)
    servers = float(math.ceil(fleet.active * up_bytes / ingest)) if ingest > 0 else None
    costs = {
        "cost of GPUs": _times(value.get("gpu_hour_price"), gpu_hours),
        "cost of ingest servers": _times(value.get("server_hour_price"), _times(servers, hours)),
        "cost of traffic": _times(value.get("egress_gb_price"), bytes_out / 1e9),
        "cost of storage": _times(value.get("storage_gb_month_price"), stored / 1e9 * hours / 730),
    }
    known = [cost for cost in costs.values() if cost is not None]
    values: dict[str, float | None] = {
        "device compute, s a round": compute,
        "device upload, s a round": upload,
        "device download, s a round": download,
        "device part, s a round": edge,
        "server part, s a round": server,
        "round, s": edge + server,
        "run, hours": hours,
        "device hours": fleet.active * fleet.rounds * compute / 3600,
        "upload, bytes a device and round": up_bytes,
        "bytes in, all": fleet.uploads * fleet.active * kept * sizes.upload_bytes_per_sample,
        "bytes out, all": bytes_out,
        "storage, bytes": stored,
        "ingest servers": servers,
        "GPU hours": gpu_hours,
        **costs,
        "cost, all known parts": sum(known) if known else None,
    }
    return [Result(name, values[name], formula) for name, formula in FORMULAS.items()]


def _sharing(fleet: Fleet, value: Mapping[str, float]) -> tuple[float, float]:
    """Count turns of a machine's devices that are waited for, and seconds of handing samples over."""
    if fleet.slots is None:
        return 1.0, 0.0
    at_once = min(fleet.slots, fleet.active)
    contention = value.get("contention", 1.0) if at_once > 1 else 1.0
    turns = max(1.0, fleet.active / fleet.slots) * contention
    samples = fleet.active * (fleet.samples + fleet.validation_samples)
    return turns, samples / value.get("handled_samples_per_second", math.inf)


def _times(price: float | None, amount: float | None) -> float | None:
    return None if price is None or amount is None else price * amount


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
