"""Say whether the run can go on, to whoever watches the server: within a second, whatever hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gkt_core.errors import DamagedStorageError, GKTError
from server_app.rounds.state import Phase
from server_app.storage_errors import STORAGE_ERRORS
from server_app.store import RunStore

_DATABASE_SECONDS = 1.0
_NO_ANSWER = "the database does not answer"
_DAMAGED = "the database is damaged: stop the server, restore a backup of it, and start it again"


class HealthWatch:
    """Asks the database in a thread of its own, so that no answer waits for one that hangs.

    Args:
        store: Of the run.
        trainer_trouble: What is wrong with the trainer, in words; empty where nothing is.
        disk_trouble: What is wrong with the disk, likewise.
    """

    def __init__(
        self,
        store: RunStore,
        trainer_trouble: Callable[[], str],
        disk_trouble: Callable[[], str] = lambda: "",
    ) -> None:
        self._store, self._trainer_trouble, self._disk_trouble = store, trainer_trouble, disk_trouble
        self._asking: threading.Thread | None = None
        self._beginning = threading.Lock()
        self._answer = ""
        # Told by those who read it.
        self.model_trouble = ""
        # Told by whoever came upon it: another page may be read well for long. It ends with a backup.
        self.is_damaged = False

    def troubles(self) -> list[str]:
        """Why the run cannot go on; no word of the run itself, as anybody may ask."""
        return [
            trouble
            for trouble in (
                _DAMAGED if self.is_damaged else "",
                self._of_the_run(),
                self._trainer_trouble(),
                self._disk_trouble(),
                self.model_trouble,
            )
            if trouble
        ]

    def storage_troubles(self) -> list[str]:
        """What is wrong with what is stored, as far as somebody came upon it."""
        damaged = _DAMAGED if self.is_damaged else ""
        return [trouble for trouble in (damaged, self.model_trouble) if trouble]

    def _of_the_run(self) -> str:
        with self._beginning:
            # One that hangs is asked no second time.
            if self._asking is None or not self._asking.is_alive():
                self._asking = threading.Thread(target=self._ask, name="health", daemon=True)
                self._asking.start()
            asking = self._asking
        asking.join(_DATABASE_SECONDS)
        return _NO_ANSWER if asking.is_alive() else self._answer

    def _ask(self) -> None:
        try:
            has_failed = self._store.read_state().phase is Phase.FAILED
        except DamagedStorageError:
            self.is_damaged = True
        except (*STORAGE_ERRORS, GKTError):
            self._answer = _NO_ANSWER
        else:
            self._answer = "the run has failed" if has_failed else ""
