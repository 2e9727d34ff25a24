"""The devices' optimizer: validated, as data, the same for bundles, runs, engines and simulations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import EDGE_OPTIMIZERS, RunConfig
from gkt_core.errors import ConfigError

_GROUP = "The devices' optimizer"


@dataclass(frozen=True, slots=True)
class EdgeOptimizer:
    """An optimizer of section 4.1 and Appendix B.4, in PyTorch's terms; the learning rate is the run's.

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

    name: str = option("adam", flag="--optimizer", choices=EDGE_OPTIMIZERS, group=_GROUP)
    weight_decay: float = option(0.0, low=0, group=_GROUP)
    momentum: float = option(0.0, low=0, below=1, group=_GROUP)
    nesterov: bool = option(False, flag="--nesterov", group=_GROUP)
    amsgrad: bool = option(False, flag="--amsgrad", group=_GROUP)
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse what PyTorch would refuse, or would silently ignore.

        Raises:
            ConfigError: Names the option, what was found and what is expected.
        """
        check_options(self)
        if self.momentum and self.name != "sgd":
            raise ConfigError(f"momentum is for sgd, the optimizer is {self.name}: leave out --momentum")
        if self.nesterov and not self.momentum:
            raise ConfigError("Nesterov momentum needs a momentum: give --optimizer sgd --momentum 0.9")
        if self.amsgrad and self.name == "sgd":
            raise ConfigError("AMSGrad is a variant of adam, the optimizer is sgd: leave out --amsgrad")

    @property
    def l2_penalty(self) -> float:
        """What of a parameter is added to its gradient; ``adamw`` decays weights on its own."""
        return 0.0 if self.name == "adamw" else self.weight_decay

    def to_dict(self) -> dict[str, Any]:
        """Give what a manifest keeps beside the name."""
        return {name: value for name, value in asdict(self).items() if name != "name"}

    @classmethod
    def of_run(cls, config: RunConfig) -> EdgeOptimizer:
        """Take what the devices of a run train with from its settings."""
        sgd = config.edge_optimizer == "sgd"
        return cls(
            name=config.edge_optimizer,
            weight_decay=config.edge_weight_decay,
            momentum=config.momentum if sgd else 0.0,
            nesterov=config.nesterov and sgd,
            amsgrad=config.edge_amsgrad and not sgd,
        )
