"""Batches of a new run that memory holds, by the estimate of the bundle."""

from __future__ import annotations

from gkt_core.bundle.machine_memory import machine_bytes
from gkt_core.bundle.manifest import Manifest
from gkt_core.bundle.memory import TRAINER, MemoryPlan, megabytes
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError
from server_app.cli.options import ServeOptions

_OPTIONS = {"batch_size": "--batch-size", "server_batch_size": "--server-batch-size"}


def fitting_batches(plan: MemoryPlan | None, shard_samples: int, *, on_cpu: bool) -> dict[str, int]:
    """Choose ``batch_size`` and ``server_batch_size`` of a run, the usual ones where they fit.

    A GPU's memory is its own affair: the estimate is of the CPU's.
    """
    if plan is None:
        return {}
    sizes = plan.usual_batches(shard_samples)
    return {name: size for name, size in sizes.items() if on_cpu or name == "batch_size"}


def check_memory(manifest: Manifest, config: RunConfig, options: ServeOptions) -> list[str]:
    """Say which batches are smaller than usual, and which take more than the bundle was exported for.

    Raises:
        ConfigError: The trainer needs more than its machine has.
    """
    plan, usual, lines = manifest.memory, RunConfig(), []
    if plan is None:
        return []
    for name, process in (("batch_size", plan.engine), ("server_batch_size", TRAINER)):
        if process not in plan.needs or (process == TRAINER and options.device != "cpu"):
            continue
        size, most = getattr(config, name), plan.most_images(process, config.shard_samples)
        needed = plan.needs[process].of(size, config.shard_samples)
        if process == TRAINER and options.num_procs:
            # Processes share a batch, and each is one.
            needed += (options.num_procs - 1) * plan.needs[process].fixed_bytes
            if needed > machine_bytes():
                raise ConfigError(
                    f"the trainer needs {megabytes(needed)} MB by estimate for batches of {size} images of "
                    f"{manifest.image_size} px, this machine has {megabytes(machine_bytes())}: give "
                    f"--server-batch-size {max(2, most)}, or export with --model resnet8-stride4"
                )
        whose, limit = "the trainer" if process == TRAINER else "a device", plan.limit_mb(process)
        if size > most:
            lines.append(
                f"{whose} takes {megabytes(needed)} MB by estimate with batches of {size} images of "
                f"{manifest.image_size} px, the bundle was exported for {limit:,}: "
                f"{_OPTIONS[name]} {max(2, most)} fits"
            )
        elif size < getattr(usual, name) and size == most:
            lines.append(
                f"{whose} has batches of {size} instead of {getattr(usual, name)} images of "
                f"{manifest.image_size} px, as {limit:,} MB hold: {_OPTIONS[name]} takes others, and a "
                "network with a strided stem (gkt export --model resnet8-stride4) needs less"
            )
    return lines
