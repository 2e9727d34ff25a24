"""Train in a fresh process, as OpenMP reads its environment once: alone, then beside a busy core."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from profiling.experiments.busy.spinning import one_busy_core
from profiling.frame.measuring.fresh_process import answer

_WARM_UP_STEPS = 3
_NUM_CLASSES = 10


def rates(spec: Mapping[str, Any]) -> dict[str, float]:
    """Samples a second, ``alone`` and ``beside_a_busy_core``; the same network goes on."""
    step = _training_step(spec["batch_size"], spec["image_size"], spec["threads"])
    for _ in range(_WARM_UP_STEPS):
        step()
    alone = _rate(step, spec["batch_size"], spec["seconds"])
    with one_busy_core():
        step()
        beside = _rate(step, spec["batch_size"], spec["seconds"])
    return {"alone": alone, "beside_a_busy_core": beside}


def _rate(step: Callable[[], None], batch_size: int, seconds: float) -> float:
    started, num_steps = time.perf_counter(), 0
    while not num_steps or time.perf_counter() - started < seconds:
        step()
        num_steps += 1
    return num_steps * batch_size / (time.perf_counter() - started)


def _training_step(batch_size: int, image_size: int, threads: int) -> Callable[[], None]:
    import torch  # noqa: PLC0415 - the parent needs none

    from gkt_core.config.run_config import RunConfig  # noqa: PLC0415 - as above
    from gkt_core.networks import TAP_CHANNELS  # noqa: PLC0415 - as above
    from gkt_core.nn import build_server_network  # noqa: PLC0415 - as above
    from gkt_core.nn.execution import prepare_torch  # noqa: PLC0415 - as above
    from gkt_core.nn.losses import server_loss  # noqa: PLC0415 - as above
    from gkt_core.nn.optimizers import large_network_optimizer  # noqa: PLC0415 - as above

    prepare_torch("cpu", threads)
    generator, config = torch.Generator().manual_seed(0), RunConfig()
    features = torch.randn(batch_size, TAP_CHANNELS, image_size, image_size, generator=generator).relu()
    features = features.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, _NUM_CLASSES, (batch_size,), generator=generator)
    network = build_server_network("resnet55", _NUM_CLASSES)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = large_network_optimizer(network.parameters(), config, config.server_lr)
    network.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = server_loss(network(features), labels, torch.zeros(()), 0.0, config.temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return step


if __name__ == "__main__":
    answer(rates)
