"""What the server itself sees of its run: the document, devices that it heard of, and numbers of requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from server_app.logs.requests import Asked
from server_app.overview.document import Witness, overview
from server_app.overview.exposition import Exposition
from server_app.overview.messages import Overview
from server_app.overview.seen import Ledger
from server_app.overview.shared import SharedLook
from server_app.run_folder import RunContext

# What of its refusals a device should be looked at for: it asked for something that cannot be.
_OF_THE_DEVICE = frozenset({400, 403, 413, 422})


@dataclass(slots=True)
class Sight:
    """What a server sees of its run.

    Attributes:
        run: The run.
        trainer_trouble: Says what is wrong with the trainer; an empty string where nothing is.
        storage_trouble: Says what is wrong with what is stored, likewise.
        reserve_bytes: Room on the disk that uploads leave.
        url: At which the server answers; set once that is known.
        ledger: Devices that were heard of.
        started_at: When the server began, in seconds since the epoch.
        exposition: The run's numbers.
        shared: One look for all who watch.
    """

    run: RunContext
    trainer_trouble: Callable[[], str] = lambda: ""
    storage_trouble: Callable[[], str] = lambda: ""
    reserve_bytes: int = 0
    url: str = "http://127.0.0.1"
    ledger: Ledger = field(init=False)
    started_at: float = field(default_factory=time.time)
    exposition: Exposition = field(init=False)
    shared: SharedLook = field(init=False)

    def __post_init__(self) -> None:
        """Begin with what an earlier server has seen."""
        self.ledger = Ledger(self.run.folder)
        self.shared = SharedLook(self.look)
        self.exposition = Exposition(self.shared.latest)

    def look(self) -> Overview:
        """See the run now.

        Raises:
            StorageUnavailableError: The database does not answer.
        """
        witness = Witness(
            self.ledger.devices(),
            self.url,
            self.started_at,
            self.trainer_trouble(),
            self.storage_trouble(),
            self.reserve_bytes,
        )
        return overview(self.run, witness)

    def hear(self, asked: Asked) -> None:
        """Count a request, and remember the device that sent it."""
        self.exposition.count(asked)
        if not asked.client_id:
            return
        came = asked.upload_bytes if asked.status < 400 else 0
        refused = asked.refused if asked.status in _OF_THE_DEVICE else ""
        self.ledger.note(
            asked.client_id, upload_bytes=came, download_bytes=asked.download_bytes, refused=refused
        )
