"""Compile a large network's training step where that pays, and go on without where it cannot be done.

What is compiled computes the same to a rounding, so ``auto`` leaves float32 alone: there a run has the same
numbers wherever it goes on. Only passes of whole batches in training are compiled; evaluations and an epoch's
last batch are not.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gkt_core.nn.averaging import Averaged
from gkt_core.nn.execution import training_precision

log = logging.getLogger("gkt.compile")

Forward = Callable[[Tensor], Any]
# Making the code takes a minute or two, and a run that ends within this is over before it pays.
LEAST_SECONDS = 900.0
_LEAST_GAIN, _TIMED_STEPS = 1.03, 3


class Compiler:
    """Decides once a process, by measuring; one for all networks of a layout.

    Args:
        how: ``on`` where PyTorch can, ``auto`` where it is faster and exactness is not asked for, ``off``.
        precision: Of the training.
        num_steps: Steps that the process is going to take, as far as is known.
    """

    def __init__(self, how: str = "off", *, precision: str = "fp32", num_steps: int = 0) -> None:
        self._precision, self._num_steps = precision, num_steps
        self._wants = how == "on" or (how == "auto" and precision == "bf16")
        self._is_forced = how == "on"
        self._compiled: Forward | None = None
        self._of: nn.Module | None = None
        self._shape: torch.Size | None = None

    def forward(self, network: nn.Module, features: Tensor) -> Forward:
        """Give what the training pass of a batch goes through; the first one decides.

        Args:
            network: In training mode; as it was afterwards.
            features: Of the batch.
        """
        if not self._wants:
            return network
        if self._of is not network:
            self._of, self._shape = network, features.shape
            self._compiled = self._choose(network, features)
            self._wants = self._compiled is not None
        return self._compiled if self._compiled is not None and features.shape == self._shape else network

    def _choose(self, network: nn.Module, features: Tensor) -> Forward | None:
        trained = network.live if isinstance(network, Averaged) else network
        kept = {name: value.clone() for name, value in trained.state_dict().items()}
        try:
            with warnings.catch_warnings():
                # PyTorch's compiler uses what PyTorch has deprecated; nobody here can help it.
                warnings.simplefilter("ignore")
                return self._faster(trained, features)
        # Of the compiler below: none installed, one that is too old, a file system that lets nothing be run.
        except Exception as error:
            line = " ".join(str(error).split())[:200]
            log.warning("training goes on without torch.compile: %s (%s)", line, type(error).__name__)
            return None
        finally:
            trained.load_state_dict(kept)
            for parameter in trained.parameters():
                parameter.grad = None

    def _faster(self, trained: nn.Module, features: Tensor) -> Forward | None:
        if not self._is_forced:
            eager = self._seconds(trained, features)
            if eager * self._num_steps < LEAST_SECONDS:
                log.info("not compiled: this training is over before it would pay")
                return None
        compiled: Forward = torch.compile(trained, dynamic=False)
        started = time.perf_counter()
        self._step(compiled, trained, features)
        log.info("compiled in %.0f s", time.perf_counter() - started)
        if self._is_forced:
            return compiled
        gain = eager / self._seconds(compiled, features, trained)
        log.info("a compiled step is %.2f times as fast", gain)
        return compiled if gain >= _LEAST_GAIN else None

    def _seconds(self, forward: Forward, features: Tensor, trained: nn.Module | None = None) -> float:
        """Median seconds of a step, after one that does not count."""
        module = trained if trained is not None else forward
        assert isinstance(module, nn.Module)
        seconds = []
        for _ in range(_TIMED_STEPS + 1):
            started = time.perf_counter()
            self._step(forward, module, features)
            seconds.append(time.perf_counter() - started)
        return sorted(seconds[1:])[_TIMED_STEPS // 2]

    def _step(self, forward: Forward, module: nn.Module, features: Tensor) -> None:
        for parameter in module.parameters():
            parameter.grad = None
        with training_precision(self._precision, features.device):
            output = forward(features)
        # An edge network gives its features as well.
        logits: Tensor = output[1] if isinstance(output, tuple) else output
        logits.float().square().mean().backward()  # type: ignore[no-untyped-call]
        if features.is_cuda:
            torch.cuda.synchronize()


# Of whoever does not ask for anything else.
NOT_COMPILED = Compiler()
