"""The option ``--track``: where rounds go beside the log."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.errors import ConfigError

TENSORBOARD, MLFLOW, WANDB = "tensorboard", "mlflow", "wandb"
KINDS = {TENSORBOARD: "DIR", MLFLOW: "URI", WANDB: "PROJECT"}
_PASSWORD = re.compile(r"//[^/@]*@")
SHAPES = "|".join(f"{kind}:{place}" for kind, place in KINDS.items())


@dataclass(frozen=True, slots=True)
class Target:
    """One tool.

    Attributes:
        kind: Which one, of :data:`KINDS`.
        place: Where in it: a folder, a URI, a project.
    """

    kind: str
    place: str

    @property
    def text(self) -> str:
        """As it is typed."""
        return f"{self.kind}:{self.place}"

    @property
    def shown(self) -> str:
        """As it may stand in a log: without the password that a URI may have."""
        return _PASSWORD.sub("//***@", self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackOptions:
    """Where rounds go beside the log.

    Attributes:
        track: A tool that each round's numbers go to, such as tensorboard:logs, mlflow:http://host:5000 or
            wandb:project; may be repeated. Needs gkt-edge[track].
    """

    track: tuple[str, ...] = option((), metavar=SHAPES)

    def __post_init__(self) -> None:
        """Refuse what is no tool.

        Raises:
            ConfigError: Says what is expected.
        """
        check_options(self)
        texts = [target.text for target in self.targets]
        if len(set(texts)) < len(texts):
            raise ConfigError(f"--track names a place twice: {', '.join(texts)}")

    @property
    def targets(self) -> tuple[Target, ...]:
        """The tools."""
        return tuple(map(_target, self.track))


def _target(text: str) -> Target:
    kind, _, place = text.partition(":")
    if kind not in KINDS or not place:
        raise ConfigError(f"--track is {text!r}, expected {SHAPES}")
    return Target(kind, place)
