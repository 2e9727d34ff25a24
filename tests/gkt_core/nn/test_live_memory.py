"""Live bytes, counted by hand and by PyTorch's own allocator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gkt_core.nn import build_edge_network, build_server_network
from gkt_core.nn.live_memory import live_bytes


class Halves(nn.Module):
    """Makes a value of the input's size, and drops it for its mean before it makes another."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, F]`` to ``[N, 1]``."""
        for _ in range(3):
            mean = (x * 2).mean(dim=1, keepdim=True)
        return mean


def test_what_nobody_holds_any_more_does_not_count() -> None:
    # The input, one value of its size and two means: never three values.
    assert live_bytes(Halves(), (1000,), 2, training=False) == 4 * (2 * 2 * 1000 + 2 * 2)


def test_what_the_way_back_needs_is_held() -> None:
    network = nn.Sequential(nn.Linear(10, 1000, bias=False), nn.ReLU(), nn.Linear(1000, 10, bias=False))

    def grows(*, training: bool) -> float:
        small, large = (live_bytes(network, (10,), num, training=training) for num in (64, 128))
        return (large - small) / (4 * 64)

    # What the ReLU made, and gradients behind and before it; forward alone, what is before and behind it.
    assert grows(training=True) == pytest.approx(3 * 1000, rel=0.02)
    assert grows(training=False) == pytest.approx(2 * 1000, rel=0.02)


@pytest.mark.parametrize("name", ["resnet8", "resnet8-stride2", "resnet55"])
def test_it_is_what_pytorch_allocates(name: str) -> None:
    """PyTorch's profiler sees each allocation on the CPU: the same sum, taken where there is memory."""
    network = build_server_network(name, 10) if name == "resnet55" else build_edge_network(name, 10)
    shape = (16, 16, 16) if name == "resnet55" else (3, 16, 16)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    # Once in dozens of suites a value lived on for a moment, in a process that had run other tests.
    counted = min(live_bytes(network, shape, 4) for _ in range(3))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiled:
        made = network.train()(torch.rand((4, *shape)))
        logits = made if isinstance(made, Tensor) else made[1]
        # The features are dropped, as a step drops them.
        del made
        logits.sum().backward()
        del logits
    allocated = most = 0
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            most = max(most, allocated)
    assert counted == pytest.approx(most, rel=0.03)


def test_it_grows_with_batch_and_pixels_and_takes_no_memory() -> None:
    network = build_server_network("resnet55", 10)
    two, four = (live_bytes(network, (16, 224, 224), num) for num in (2, 4))
    assert two > 900e6 and four == pytest.approx(2 * two, rel=0.01)
    image = live_bytes(network, (16, 32, 32), 4) - live_bytes(network, (16, 32, 32), 2)
    assert (four - two) / image == pytest.approx((224 / 32) ** 2, rel=0.01)
