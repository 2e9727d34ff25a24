"""All timings of ``gkt profile engines``, in one process: ``python -m profiling.device.engines.probe SPEC``.

A process of its own because the allocator that PyTorch is fastest with is set by the environment, before a
program starts. All candidates take one step in turn, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE
from gkt_core.errors import RunFailedError
from gkt_core.nn import build_edge_network
from profiling.counted.network_cost import build_trainable
from profiling.device.engines.names import CHANNELS_LAST, EXTRACTED, FULL_STEPS, PYTORCH, SGEMM
from profiling.device.training_steps import ALPHA, TrainingBatch, engine_step, open_engine, pytorch_step
from profiling.frame.measuring.fresh_process import answer, say
from profiling.frame.measuring.step_time import time_interleaved

Step = Callable[[], object]
_SGEMM_SIZE = 1024
# Around every power of two, where chunks and vectors of an implementation end.
BATCH_SIZES = sorted({2**power + step for power in range(9) for step in (-1, 0, 1)} - {0, 257})
THREADED_BATCH_SIZES = (1, 16, 64)


def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Time everything.

    Args:
        spec: ``bundle``, ``edge_network``, ``batch_size``, ``image_size``, ``num_classes``, ``steps``,
            ``warmup``, ``threads`` and ``max_threads`` (to compare one thread with two).

    Returns:
        ``step_ms``, ``layouts``, ``extraction_ms``, ``sgemm_ms``, ``batch_sizes``, ``threads``.

    Raises:
        GKTError: The bundle cannot be used, or a batch size does not work.
    """
    bundle = Path(spec["bundle"])
    torch.set_num_threads(spec["threads"])
    batch = TrainingBatch.random(spec["batch_size"], spec["image_size"], spec["num_classes"])
    turns = spec["warmup"] + spec["steps"]

    def timed(steps: Mapping[str, Step], what: str) -> dict[str, dict[str, Any]]:
        times = time_interleaved(
            steps,
            num_steps=spec["steps"],
            num_warmup=spec["warmup"],
            on_turn=lambda turn: say(f"timing {what}: {turn} of {turns}"),
        )
        return {name: step.to_dict() for name, step in times.items()}

    steps, layouts = _training_steps(spec, bundle, batch)
    times = timed(steps | _sgemm_steps(), "training steps in turn")
    sgemm = {name: times.pop(name) for name in SGEMM}
    return {
        "step_ms": times,
        "layouts": layouts,
        "sgemm_ms": sgemm,
        "sgemm_flops": 2 * _SGEMM_SIZE**3,
        "extraction_ms": timed(_extractions(spec, bundle, batch), "eval forward passes in turn"),
        "batch_sizes": _batch_sizes(spec, bundle),
        "threads": _threads(spec, bundle) if spec["max_threads"] > 1 else None,
    }


def _training_steps(
    spec: Mapping[str, Any], bundle: Path, batch: TrainingBatch
) -> tuple[dict[str, Step], dict[str, str]]:
    """Candidates by name, and the layout in which each full network is faster."""
    steps: dict[str, Step] = {
        engine: engine_step(bundle, batch, engine=engine, num_threads=spec["threads"], alpha=ALPHA)
        for engine in (PORTABLE, ORT_TRAINING)
    }
    for name, is_last in ((PYTORCH, False), (CHANNELS_LAST, True)):
        network = build_edge_network(spec["edge_network"], spec["num_classes"])
        steps[name] = pytorch_step(network, batch, is_channels_last=is_last)
    layouts = {}
    for name, network_name in FULL_STEPS.items():
        say(f"which layout {network_name} is faster in")
        either = {
            layout: pytorch_step(
                build_trainable(network_name, spec["num_classes"]),
                batch,
                is_channels_last=layout == "channels_last",
            )
            for layout in ("contiguous", "channels_last")
        }
        tried = time_interleaved(either, num_steps=2, num_warmup=1)
        layouts[name] = min(tried, key=lambda layout: tried[layout].median_ms)
        steps[name] = either[layouts[name]]
    return steps, layouts


def _sgemm_steps() -> dict[str, Step]:
    left = np.random.default_rng(0).standard_normal((_SGEMM_SIZE, _SGEMM_SIZE), dtype=np.float32)
    right, out = left.T.copy(), np.empty_like(left)
    torch_left, torch_right, torch_out = map(torch.from_numpy, (left, right, out.copy()))
    return {
        SGEMM[0]: lambda: np.matmul(left, right, out=out),
        SGEMM[1]: lambda: torch.mm(torch_left, torch_right, out=torch_out),
    }


def _extractions(spec: Mapping[str, Any], bundle: Path, batch: TrainingBatch) -> dict[str, Step]:
    """Features and logits in eval mode, as a device makes them for an upload."""
    engine = open_engine(bundle, PORTABLE, spec["threads"])
    steps: dict[str, Step] = {PORTABLE: lambda: engine.predict(batch.images)}
    for name, memory_format in zip(
        EXTRACTED[1:], (torch.contiguous_format, torch.channels_last), strict=True
    ):
        network = build_edge_network(spec["edge_network"], spec["num_classes"]).eval()
        network = network.to(memory_format=memory_format)  # type: ignore[call-overload]
        images = torch.from_numpy(batch.images).contiguous(memory_format=memory_format)
        steps[name] = _forward(network, images)
    return steps


def _forward(network: torch.nn.Module, images: torch.Tensor) -> Step:
    def step() -> object:
        with torch.inference_mode():
            return network(images)

    return step


def _batch_sizes(spec: Mapping[str, Any], bundle: Path) -> list[dict[str, float]]:
    """Take one portable step of each batch size, in one session; a loss that is not finite is an error."""
    say("portable steps of batch sizes from 1 to 256")
    engine = open_engine(bundle, PORTABLE, spec["threads"])
    entries = []
    for batch_size in BATCH_SIZES:
        batch = TrainingBatch.random(batch_size, spec["image_size"], spec["num_classes"])
        started = time.perf_counter()
        loss, logits = engine.train_step(batch.images, batch.labels, batch.server_logits, ALPHA)
        milliseconds = (time.perf_counter() - started) * 1e3
        if not np.isfinite(loss) or logits.shape != batch.server_logits.shape:
            raise RunFailedError(
                f"a portable step of {batch_size} samples gave the loss {loss} and logits {logits.shape}, "
                f"expected a finite loss and {batch.server_logits.shape}: please report it"
            )
        entries.append({"batch_size": batch_size, "first_ms": round(milliseconds, 4)})
    return entries


# Samples of a row of steps: a short step meets a burst of other work whole or not at all.
_ROW_SAMPLES = 64


def _threads(spec: Mapping[str, Any], bundle: Path) -> list[dict[str, Any]]:
    """Time one thread and two of the portable engine, interleaved."""
    entries = []
    for batch_size in THREADED_BATCH_SIZES:
        say(f"portable steps of {batch_size} samples with one thread and with two")
        batch = TrainingBatch.random(batch_size, spec["image_size"], spec["num_classes"])
        steps = {
            threads: engine_step(bundle, batch, engine=PORTABLE, num_threads=threads, alpha=ALPHA)
            for threads in (1, 2)
        }
        times = time_interleaved(
            steps,
            num_steps=spec["steps"],
            num_warmup=spec["warmup"],
            repeats=max(1, _ROW_SAMPLES // batch_size),
            # The other session's threads may still be spinning down.
            num_settling=1,
        )
        entries.append(
            {
                "batch_size": batch_size,
                "one_thread_ms": times[1].to_dict(),
                "two_threads_ms": times[2].to_dict(),
                "two_over_one": times[2].median_ms / times[1].median_ms,
            }
        )
    return entries


if __name__ == "__main__":
    answer(measure)
