"""Which optimizer a bundle trains with: validated, as data, the same for every engine."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from edge_export.optimizer_names import NAMES
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """An optimizer of section 4.1 and Appendix B.4, in PyTorch's terms.

    Attributes:
        name: ``adam`` (weight decay is an L2 penalty), ``adamw`` (decoupled) or ``sgd``.
        weight_decay: 0 for none.
        momentum: Of ``sgd``; 0 for none.
        nesterov: Whether the momentum is Nesterov's.
        amsgrad: Whether ``adam`` divides by the largest second moment so far.
        beta1: Decay of Adam's first moment.
        beta2: Decay of Adam's second moment.
        eps: Added to the denominator after bias correction.
    """

    name: str = "adam"
    weight_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    amsgrad: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse what PyTorch would refuse, or would silently ignore.

        Raises:
            ConfigError: Names the option, what was found and what is expected.
        """
        if self.name not in NAMES:
            raise ConfigError(f"optimizer is {self.name!r}, expected one of {', '.join(NAMES)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(f"weight decay is {self.weight_decay}, expected a number of at least 0")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum is {self.momentum}, expected at least 0 and below 1")
        if self.momentum and self.name != "sgd":
            raise ConfigError(f"momentum is for sgd, the optimizer is {self.name}: leave out --momentum")
        if self.nesterov and not self.momentum:
            raise ConfigError("Nesterov momentum needs a momentum: give --optimizer sgd --momentum 0.9")
        if self.amsgrad and self.name == "sgd":
            raise ConfigError("AMSGrad is a variant of adam, the optimizer is sgd: leave out --amsgrad")

    def to_dict(self) -> dict[str, Any]:
        """What the manifest keeps beside the name."""
        return {name: value for name, value in asdict(self).items() if name != "name"}

    @classmethod
    def from_config(cls, config: RunConfig) -> OptimizerSettings:
        """What the devices of a run train with."""
        sgd = config.edge_optimizer == "sgd"
        return cls(
            name=config.edge_optimizer,
            weight_decay=config.edge_weight_decay,
            momentum=config.momentum if sgd else 0.0,
            nesterov=config.nesterov and sgd,
            amsgrad=config.edge_amsgrad and not sgd,
        )

    def torch_optimizer(self, network: nn.Module, learning_rate: float) -> Optimizer:
        """PyTorch's own, which every engine is compared with."""
        if self.name == "sgd":
            return SGD(
                network.parameters(),
                lr=learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov,
            )
        kind = AdamW if self.name == "adamw" else Adam
        return kind(
            network.parameters(),
            lr=learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            amsgrad=self.amsgrad,
        )
