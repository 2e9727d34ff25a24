"""What the page of a run is made of.

====  ===============================  ========================================================
verb  path                             answer
====  ===============================  ========================================================
GET   /                                the page, which says nothing of the run
GET   /page/scripts/{script}           what it is made of, named by its hash
GET   /page/styles/{style}             likewise
GET   /page/icons/{icon}               likewise
GET   /v1/page                         :class:`PageView`: for an operator, or on this machine
====  ===============================  ========================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gkt_core.wire.protocol import Message
from server_app.overview.messages import Overview


@dataclass(frozen=True, slots=True)
class Curves(Message):
    """The rounds of a run as columns of equal length, some left out where there are very many.

    Attributes:
        round_num: Of each point, ascending.
        validation_accuracy: As of :class:`gkt_core.wire.protocol.RoundMetrics`, and so are the others.
        edge_accuracy: Of the devices' own networks.
        train_loss: Of the server's network.
        validation_loss: Of it, on validation samples.
        edge_loss: Of the devices' networks.
        upload_bytes: Of the one round.
        download_bytes: Of the one round.
    """

    round_num: list[int] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    edge_accuracy: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    edge_loss: list[float] = field(default_factory=list)
    upload_bytes: list[int] = field(default_factory=list)
    download_bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PageView(Message):
    """A run for the page.

    Attributes:
        overview: The run at a glance; its ``finished_rounds`` stand in ``curves``.
        next_step: The one thing that helps now.
        waiting_for: What the run waits for, and for whom.
        curves: All rounds.
        lines: The last lines of the server's log, oldest first.
    """

    overview: Overview
    next_step: str
    waiting_for: str
    curves: Curves
    lines: list[str] = field(default_factory=list)
