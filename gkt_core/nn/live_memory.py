"""What a network in PyTorch holds at once, counted without taking it: tensors on ``meta`` have no memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own has no types
    """Counts the bytes of what operators make, from then until nobody holds it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._live = 0
        self._known: set[int] = set()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_iter(made):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self._live += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self._live)
        return made

    def _gone(self, storage: int, num_bytes: int) -> None:
        self._known.discard(storage)
        self._live -= num_bytes


def live_bytes(network: nn.Module, shape: tuple[int, ...], batch_size: int, *, training: bool = True) -> int:
    """Count what lives at once in a step, at the moment at which it is most; weights are not counted.

    It is what an allocator is asked for. What it takes from the system for that, and what a kernel needs in
    passing, comes on top.

    Args:
        network: Gives logits ``[N, classes]``, perhaps as the last of several; left as it was.
        shape: Of one sample.
        batch_size: N.
        training: Forward and backward with batch statistics, or forward in eval mode.

    Raises:
        Exception: The network looks at values, or has operators without a ``meta`` kernel.
    """
    model = copy.deepcopy(network).to("meta").train(training)

    def step() -> None:
        made = model(torch.empty((batch_size, *shape), device="meta"))
        if training:
            logits = made if isinstance(made, Tensor) else made[-1]
            logits.sum().backward()

    return _most(step) if training else _most(torch.no_grad()(step))


def _most(step: Callable[[], None]) -> int:
    with _LiveBytes() as counted:
        step()
    return int(counted.most)
