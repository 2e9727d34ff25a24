"""Options of ``gkt profile peers``; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gkt_core.config.dataclass_options import check_options, option


@dataclass(frozen=True, slots=True)
class PeersOptions:
    """How many peers.

    Attributes:
        most: Peers at once in the largest crowd; smaller ones of 64 and 512 come before it.
        num_requests: Of the honest device beside each crowd, each over a connection of its own.
        limit_seconds: Longer than that no round may take.
    """

    most: int = option(2000, low=1, high=20_000)
    num_requests: int = option(20, flag="--requests", low=1)
    limit_seconds: float = option(300.0, low=1)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def crowds(self) -> list[int]:
        """How many peers are there at once, one crowd after another."""
        return [*(num for num in (64, 512) if num < self.most), self.most]
