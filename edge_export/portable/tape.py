"""Reverse-mode differentiation over ONNX values: who made what, and how gradients flow back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_export.portable.graph import Graph


@dataclass(frozen=True, slots=True)
class Value:
    """A value for each sample of the batch.

    Attributes:
        name: In the graph.
        shape: Without the batch: ``(C, H, W)`` or ``(C,)``.
        needs_gradient: Whether any parameter lies before it.
        centre: Graph name of what was taken from each channel, ``[C]``; only a batch norm may follow.
    """

    name: str
    shape: tuple[int, ...]
    needs_gradient: bool = True
    centre: str | None = None


Backward = Callable[[str], None]


class Tape:
    """Collects how to go back, then goes back.

    Gradients of parameters end up in :attr:`parameter_gradients`; where several paths meet, they add up.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parameter_gradients: dict[str, str] = {}
        self._steps: list[tuple[Value, Backward, bool]] = []
        self._gradients: dict[str, str] = {}
        self._narrow: set[str] = set()

    def record(self, output: Value, backward: Backward, *, takes_narrow: bool = False) -> Value:
        """Remember that ``backward``, given the gradient of ``output``, hands on those of its inputs.

        ``takes_narrow`` says that it may be ``[N, C, 1, 1]``, the same for all pixels of a channel.
        """
        if output.needs_gradient:
            self._steps.append((output, backward, takes_narrow))
        return output

    def give(self, value: Value, gradient: str, *, narrow: bool = False) -> None:
        """Add to the gradient of a value; ``narrow`` if it is ``[N, C, 1, 1]``."""
        if not value.needs_gradient:
            return
        before = self._gradients.get(value.name)
        total = self._added(before, gradient)
        if narrow and (before is None or before in self._narrow):
            self._narrow.add(total)
        self._gradients[value.name] = total

    def give_parameter(self, name: str, gradient: str) -> None:
        """Add to the gradient of a parameter."""
        self.parameter_gradients[name] = self._added(self.parameter_gradients.get(name), gradient)

    def backward(self) -> None:
        """Run all recorded steps, last first."""
        for output, step, takes_narrow in reversed(self._steps):
            gradient = self._gradients.pop(output.name, None)
            if gradient is None:
                continue
            if gradient in self._narrow and not takes_narrow:
                ones = self.graph.constant(np.ones((1, 1, *output.shape[1:])))
                gradient = self.graph.op("Mul", gradient, ones)
            step(gradient)

    def _added(self, before: str | None, gradient: str) -> str:
        return gradient if before is None else self.graph.add(before, gradient)
