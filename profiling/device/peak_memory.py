"""Peak memory of training, each network and engine in a fresh process.

For PyTorch this module is that process; an engine of a device has :mod:`profiling.device.edge.probe`, where
nothing imports PyTorch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiling.device.edge.probe import PROBE, ProbeSpec
from profiling.device.step_options import StepOptions
from profiling.frame.measuring.fresh_process import answer, measure_fresh

# The first step takes the most: later ones find their memory taken.
NUM_STEPS = 3
_WHAT = "a memory measurement"
_ADVICE = "try a smaller --batch-size, or --no-memory"


def engine_peak_bytes(
    bundle: Path, *, engine: str | None = None, batch_size: int, rest_size: int = 0, threads: int
) -> int:
    """Weigh a process that opens a bundle on the device's engine and trains a few steps.

    With a ``rest_size`` there is a smaller batch after them, and one of the full size again.

    Raises:
        InputError: The bundle cannot be used.
        RunFailedError: The process died, of too little memory perhaps.
    """
    spec = ProbeSpec(
        bundle=str(bundle),
        engine=engine,
        batch_size=batch_size,
        rest_size=rest_size,
        threads=threads,
        steps=NUM_STEPS,
    )
    answered = measure_fresh(PROBE, dataclasses.asdict(spec), what=_WHAT, advice=_ADVICE)
    return int(answered["memory"]["peak_bytes"])


def pytorch_peak_bytes(name: str, options: StepOptions) -> int:
    """Weigh a process that imports PyTorch, builds a network and trains a few steps.

    Raises:
        RunFailedError: The process died, of too little memory perhaps.
    """
    batch = (options.batch_size, options.image_size, options.num_classes)
    spec = {"name": name, "threads": options.threads, "batch": batch}
    return int(measure_fresh("profiling.device.peak_memory", spec, what=_WHAT, advice=_ADVICE))


def pytorch_peak(spec: Mapping[str, Any]) -> int:
    """Train the network ``name`` on a random ``batch``, in the fresh process; its peak in bytes."""
    import torch  # noqa: PLC0415 - the parent does not need it

    from profiling.device.edge.memory import peak_bytes  # noqa: PLC0415
    from profiling.device.training_steps import TrainingBatch, network_step  # noqa: PLC0415

    torch.set_num_threads(spec["threads"])
    step = network_step(spec["name"], TrainingBatch.random(*spec["batch"]))
    for _ in range(NUM_STEPS):
        step()
    return peak_bytes()


if __name__ == "__main__":
    answer(pytorch_peak)
