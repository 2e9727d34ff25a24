"""Peak memory of training, each network and engine in a fresh process.

``python -m profiling.device.peak_memory SPEC`` is such a process for PyTorch; an engine of a device has
:mod:`profiling.device.edge.probe`, where nothing imports PyTorch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gkt_core.errors import RunFailedError

# The first step takes the most: later ones find their memory taken.
NUM_STEPS = 3


def engine_peak_bytes(bundle: Path, *, engine: str | None = None, batch_size: int, threads: int) -> int:
    """Peak of a process that opens a bundle on the device's engine and trains a few steps.

    Raises:
        RunFailedError: The process died, of too little memory perhaps.
    """
    from profiling.device.edge.probe import ProbeSpec, spec_json  # noqa: PLC0415

    spec = ProbeSpec(
        bundle=str(bundle),
        engine=engine,
        workload="train_step",
        batch_size=batch_size,
        threads=threads,
        warmup=0,
        steps=NUM_STEPS,
        sustained_seconds=0.0,
        codec="fp32",
        is_pinned=False,
    )
    return int(_run("profiling.device.edge.probe", spec_json(spec))["memory"]["peak_bytes"])


def pytorch_peak_bytes(name: str, *, batch_size: int, image_size: int, num_classes: int, threads: int) -> int:
    """Peak of a process that imports PyTorch, builds a network and trains a few steps.

    Raises:
        RunFailedError: The process died, of too little memory perhaps.
    """
    spec = {
        "name": name,
        "batch_size": batch_size,
        "image_size": image_size,
        "num_classes": num_classes,
        "threads": threads,
    }
    return int(_run("profiling.device.peak_memory", json.dumps(spec))["peak_bytes"])


def _run(module: str, spec: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, spec], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode != 0:
        raise RunFailedError(
            f"a memory measurement ended with exit code {done.returncode}: {done.stderr.strip()[-300:]}: "
            "try a smaller --batch-size, or --no-memory"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Train what the first argument says, and print the peak."""
    import torch  # noqa: PLC0415 - the parent does not need it

    from profiling.device.compare.measure import network_step  # noqa: PLC0415
    from profiling.device.edge.memory import peak_bytes  # noqa: PLC0415
    from profiling.device.training_steps import TrainingBatch  # noqa: PLC0415

    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    batch = TrainingBatch.random(spec["batch_size"], spec["image_size"], spec["num_classes"])
    step = network_step(spec["name"], batch)
    for _ in range(NUM_STEPS):
        step()
    sys.stdout.write(json.dumps({"peak_bytes": peak_bytes()}) + "\n")


if __name__ == "__main__":
    main()
