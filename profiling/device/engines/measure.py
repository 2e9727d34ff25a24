"""``gkt profile engines``: times, memory and the machine's bound as one document."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE
from gkt_core.config.run_config import check_image_size
from gkt_core.errors import ConfigError, RunFailedError
from gkt_core.networks import EDGE_NETWORKS, check_network
from profiling.device.bundles import export_compared
from profiling.device.engines.device_memory import device_run_peak_bytes
from profiling.device.engines.names import CHANNELS_LAST, MEMORY_TARGETS_BYTES, PYTORCH, TARGETS
from profiling.device.peak_memory import engine_peak_bytes, pytorch_peak_bytes
from profiling.frame.machine import describe_machine
from profiling.frame.step_time import StepTime, noise_report

SCHEMA = "gkt-profile-engines/1"
NETWORK = "resnet8"
# What PyTorch is fastest with on the CPU: memory that was freed stays with the process. Values are bytes.
TUNED_ALLOCATOR = {
    "MALLOC_TOP_PAD_": str(2**29),
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
_SMALL_BATCH = 16
NOT_MEASURED = (
    "torch.compile, and PyTorch in bfloat16",
    "loading and augmenting images, uploads, the server's share of the time",
    "the full networks on any engine but PyTorch (gkt profile compare has them on ONNX Runtime training)",
    "any machine but this one",
)


@dataclass(frozen=True, slots=True)
class EnginesOptions:
    """What to measure, and how long.

    Attributes:
        batch_size: Samples in a timed step.
        image_size: Pixels; a multiple of 4.
        num_classes: Width of the logits.
        steps: Measured steps of each candidate.
        warmup: Steps of each before measuring.
        threads: Threads of every candidate.
        with_memory: Whether to measure peak memory, in fresh processes.
        with_device_run: Whether to measure the memory of a whole ``gkt edge run``, server and all.
    """

    batch_size: int = 64
    image_size: int = 32
    num_classes: int = 10
    steps: int = 30
    warmup: int = 3
    threads: int = 1
    with_memory: bool = True
    with_device_run: bool = True

    def __post_init__(self) -> None:
        """Refuse values that nothing can be measured with.

        Raises:
            ConfigError: Names the option, what was found and what is expected.
        """
        check_network(NETWORK, EDGE_NETWORKS, self.num_classes)
        check_image_size(self.image_size)
        for name, low in (("batch_size", 2), ("steps", 1), ("warmup", 0), ("threads", 1)):
            value = getattr(self, name)
            if value < low:
                raise ConfigError(f"{name.replace('_', ' ')} is {value}, expected at least {low}")


def measure_engines(
    options: EnginesOptions, on_phase: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Time and weigh ResNet-8's training step on each engine, beside PyTorch's and the machine's bound.

    Args:
        options: What to measure.
        on_phase: Told what happens now, for a progress display.

    Returns:
        The document; profiling/README.md describes every key.

    Raises:
        RunFailedError: A measuring process died.
    """
    from profiling.counted.network_cost import count_network  # noqa: PLC0415 - imports torch
    from profiling.device.training_steps import TEMPERATURE  # noqa: PLC0415

    cost = count_network(NETWORK, num_classes=options.num_classes, image_size=options.image_size)
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        on_phase(f"exporting {NETWORK} for both engines")
        bundle = export_compared(
            (NETWORK,),
            Path(folder),
            num_classes=options.num_classes,
            image_size=options.image_size,
            temperature=TEMPERATURE,
        )[NETWORK]
        found = _timed(options, bundle, machine["num_usable_cores"], on_phase)
        memory = _memory(options, bundle, on_phase) if options.with_memory else None
        if options.with_device_run:
            on_phase("memory of gkt edge run, with a server of its own")
            device_peak = device_run_peak_bytes(Path(folder, "run"), options)
        else:
            device_peak = None
    sgemm = _bound(found, cost.train_flops * options.batch_size)
    document = {
        "schema": SCHEMA,
        "step_ms": found["step_ms"],
        "pytorch_layouts": found["layouts"],
        "sgemm": sgemm,
        "extraction_ms": found["extraction_ms"],
        "batch_sizes": found["batch_sizes"],
        "threads": found["threads"],
        "peak_memory_bytes": memory and memory["by_engine"],
        "portable_peak_memory_bytes_by_batch_size": memory and memory["by_batch_size"],
        "edge_run_peak_memory_bytes": device_peak,
    }
    return {
        **document,
        "targets": _targets(document),
        "noise": noise_report(
            {f"{name}'s step": StepTime(**time) for name, time in found["step_ms"].items()}
        ),
        "not_measured": [
            *NOT_MEASURED,
            *([] if options.with_memory else ["peak memory (--no-memory)"]),
            *([] if device_peak is not None else ["memory of gkt edge run"]),
            *([] if found["threads"] else ["two threads: this process may use one core"]),
        ],
        "settings": {
            **dataclasses.asdict(options),
            "network": NETWORK,
            "step": "forward, loss with distillation (ResNet-56 and -110: cross entropy), backward, Adam; "
            "float32, interleaved round-robin",
            "allocator": TUNED_ALLOCATOR,
            "memory": "peak of a fresh process with the default allocator, three steps",
        },
        "machine": machine,
    }


def _timed(
    options: EnginesOptions, bundle: Path, num_cores: int, on_phase: Callable[[str], None]
) -> dict[str, Any]:
    """All timings, from a process with the tuned allocator."""
    spec = {
        "bundle": str(bundle),
        "batch_size": options.batch_size,
        "image_size": options.image_size,
        "num_classes": options.num_classes,
        "steps": options.steps,
        "warmup": options.warmup,
        "threads": options.threads,
        "max_threads": min(2, num_cores),
    }
    threads = str(options.threads)
    environment = {
        **os.environ,
        **TUNED_ALLOCATOR,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
    }
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        subprocess.Popen(
            [sys.executable, "-m", "profiling.device.engines.probe", json.dumps(spec)],
            env=environment,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        last = ""
        try:
            assert process.stderr is not None
            for line in process.stderr:
                last = line.strip() or last
                on_phase(last)
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            raise RunFailedError(
                f"the timing process ended with exit code {process.returncode}: {last[-300:]}: "
                "try a smaller --batch-size"
            )
        out.seek(0)
        found: dict[str, Any] = json.load(out)
        return found


def _memory(
    options: EnginesOptions, bundle: Path, on_phase: Callable[[str], None]
) -> dict[str, dict[str, int]]:
    def engine(name: str, batch_size: int) -> int:
        on_phase(f"memory of {name} with {batch_size} samples, in a fresh process")
        return engine_peak_bytes(bundle, engine=name, batch_size=batch_size, threads=options.threads)

    by_engine = {name: engine(name, options.batch_size) for name in (PORTABLE, ORT_TRAINING)}
    on_phase("memory of pytorch, in a fresh process")
    by_engine[PYTORCH] = pytorch_peak_bytes(
        NETWORK,
        batch_size=options.batch_size,
        image_size=options.image_size,
        num_classes=options.num_classes,
        threads=options.threads,
    )
    sizes = sorted({_SMALL_BATCH, options.batch_size})
    by_batch_size = {
        str(size): by_engine[PORTABLE] if size == options.batch_size else engine(PORTABLE, size)
        for size in sizes
    }
    return {"by_engine": by_engine, "by_batch_size": by_batch_size}


def _bound(found: dict[str, Any], flops: int) -> dict[str, Any]:
    """What a step would take if all of it were one large matrix product, by the faster library here."""
    library, time = min(found["sgemm_ms"].items(), key=lambda item: item[1]["median_ms"])
    flops_per_second = found["sgemm_flops"] / time["median_ms"] * 1e3
    return {
        "library": library,
        "product_ms": time,
        "gflops_per_second": flops_per_second / 1e9,
        "step_gflops": flops / 1e9,
        "bound_ms": flops / flops_per_second * 1e3,
    }


def _targets(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Each quantity that has a target: value, at most, aim, and whether it is met."""
    median = {name: time["median_ms"] for name, time in document["step_ms"].items()}
    extraction = {name: time["median_ms"] for name, time in document["extraction_ms"].items()}
    fastest = min(extraction[PYTORCH], extraction[CHANNELS_LAST])
    over = {
        "ort_training": median[ORT_TRAINING],
        CHANNELS_LAST: median[CHANNELS_LAST],
        "pytorch_resnet110": median["pytorch_resnet110"],
        "sgemm_bound": document["sgemm"]["bound_ms"],
    }
    values = {f"portable_over_{name}": median[PORTABLE] / value for name, value in over.items()}
    values["extraction_over_pytorch"] = extraction[PORTABLE] / fastest
    rows = [_target(name, value, *TARGETS[name]) for name, value in values.items()]
    if document["threads"]:
        worst = max(entry["two_over_one"] for entry in document["threads"])
        rows.append(_target("two_threads_over_one", worst, 1.0, None))
    for size, peak in (document["portable_peak_memory_bytes_by_batch_size"] or {}).items():
        if int(size) in MEMORY_TARGETS_BYTES:
            limit, aim = MEMORY_TARGETS_BYTES[int(size)]
            rows.append(_target(f"portable_peak_memory_bytes_batch_{size}", peak, limit, aim))
    return rows


def _target(name: str, value: float, limit: float | None, aim: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "at_most": limit,
        "aim": aim,
        "is_met": None if limit is None else value <= limit,
        "is_aim_met": None if aim is None else value <= aim,
    }
