"""Reverse-mode differentiation over ONNX values: who made what, and how gradients flow back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_export.portable.graph import Graph


@dataclass(frozen=True, slots=True)
class Value:
    """A value for each sample of the batch.

    Attributes:
        name: In the graph.
        shape: Without the batch: ``(C, H, W)`` or ``(C,)``.
        needs_gradient: Whether any parameter lies before it.
    """

    name: str
    shape: tuple[int, ...]
    needs_gradient: bool = True


Backward = Callable[[str], None]


class Tape:
    """Collects how to go back, then goes back.

    Gradients of parameters end up in :attr:`parameter_gradients`; where several paths meet, they add up.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parameter_gradients: dict[str, str] = {}
        self._steps: list[tuple[Value, Backward]] = []
        self._gradients: dict[str, str] = {}

    def record(self, output: Value, backward: Backward) -> Value:
        """Remember that ``backward``, given the gradient of ``output``, hands on those of its inputs."""
        if output.needs_gradient:
            self._steps.append((output, backward))
        return output

    def give(self, value: Value, gradient: str) -> None:
        """Add to the gradient of a value."""
        if value.needs_gradient:
            self._gradients[value.name] = self._added(self._gradients.get(value.name), gradient)

    def give_parameter(self, name: str, gradient: str) -> None:
        """Add to the gradient of a parameter."""
        self.parameter_gradients[name] = self._added(self.parameter_gradients.get(name), gradient)

    def backward(self) -> None:
        """Run all recorded steps, last first."""
        for output, step in reversed(self._steps):
            gradient = self._gradients.pop(output.name, None)
            if gradient is not None:
                step(gradient)

    def _added(self, before: str | None, gradient: str) -> str:
        return gradient if before is None else self.graph.add(before, gradient)
