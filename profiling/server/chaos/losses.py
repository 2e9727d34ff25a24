"""Strikes that do lose something for good: each has to be named by the run, which then goes on to its end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from gkt_core.errors import RunFailedError
from profiling.server.chaos.acts import stopped
from profiling.server.chaos.files import spoil
from profiling.server.chaos.run import TRAINER_MODULE, SupervisedRun
from profiling.server.chaos.strikes import DAMAGE, REMOVE
from server_app.rounds.history import DAMAGED, RESUMED
from server_app.rounds.state import Phase
from server_app.run_folder import soft_labels_blob

# After this round both checkpoints are there.
_LABELS_ROUNDS, _CHECKPOINT_ROUND, _BOTH_ROUND = (1, 2), 3, 4
LEAST_ROUNDS = _BOTH_ROUND + 1
_LONG = "the server network is lost"


@dataclass(frozen=True, slots=True)
class Loss:
    """What was lost, and the name that the run has for it.

    Attributes:
        lost: What was damaged or removed.
        named: What the run's history says of it.
        state: What the run was by then: ``failed`` needed a person's word to go on.
    """

    lost: str
    named: str
    state: str


class Losses:
    """Loses soft labels, a checkpoint, and both checkpoints of a run, one after another.

    Args:
        supervised: The run.
        seed: Of which device, and of how.
        announce: Takes a line for the person who watches.
    """

    def __init__(self, supervised: SupervisedRun, seed: int, announce: Callable[[str], None]) -> None:
        self._supervised, self._announce = supervised, announce
        self._random = random.Random(f"losses/{seed}")
        self._named = 0

    def all(self) -> list[Loss]:
        """Lose all of it, and wait each time until the run has said so.

        Raises:
            RunFailedError: It did not.
        """
        kinds = [DAMAGE, REMOVE]
        self._random.shuffle(kinds)
        losses = [
            self._labels(round_num, kind) for round_num, kind in zip(_LABELS_ROUNDS, kinds, strict=True)
        ]
        return [*losses, self._checkpoint(), self._both()]

    def _labels(self, round_num: int, kind: str) -> Loss:
        """The answer to a device that has not fetched it yet."""
        supervised = self._supervised
        self._until_phase(round_num, Phase.TRAINING)
        device = self._random.choice(supervised.devices)
        blob = soft_labels_blob(round_num, device.name)
        with stopped(psutil.Process(device.process.pid)):
            self._until_phase(round_num + 1, Phase.COLLECTING)
            spoil(supervised.run.folder / "blobs" / blob, kind, self._random.random())
        return self._noted(f"soft labels of {device.name}, round {round_num}: {kind}")

    def _checkpoint(self) -> Loss:
        self._spoil_checkpoints(_CHECKPOINT_ROUND, [_CHECKPOINT_ROUND - 1])
        return self._noted(f"checkpoint of round {_CHECKPOINT_ROUND - 1}")

    def _both(self) -> Loss:
        supervised, store = self._supervised, self._supervised.run.store
        rounds = [_BOTH_ROUND - 2, _BOTH_ROUND - 1]
        self._spoil_checkpoints(_BOTH_ROUND, rounds)
        lost = f"checkpoints of rounds {rounds[0]} and {rounds[1]}"
        while store.state().phase is not Phase.FAILED:
            supervised.look_at_server(lost)
        error = store.state().error
        if _LONG not in error:
            raise RunFailedError(f"{lost} were lost, and the run failed with: {error}")
        self._announce(f"failed, as it should: {error}")
        # A person's word; devices end with a failed run, and are started again.
        supervised.resume_failed()
        self._until(lambda: any(each.kind == RESUMED for each in store.state().history), "the resumed run")
        self._noted(lost)
        return Loss(lost, error, "failed")

    def _spoil_checkpoints(self, round_num: int, rounds: list[int]) -> None:
        """Damage them before a round is trained, and kill the trainer, which has the network in memory."""
        supervised = self._supervised
        run = supervised.run
        while True:
            self._until_phase(round_num, Phase.COLLECTING)
            trainer = supervised.server.own_child(TRAINER_MODULE)
            if trainer is None:
                supervised.look("a trainer")
                continue
            with stopped(trainer):
                if run.store.state().phase is Phase.COLLECTING:
                    for each in rounds:
                        spoil(run.checkpoint_path(each), DAMAGE, self._random.random())
                    trainer.kill()
                    return
            raise RunFailedError(f"round {round_num} was over before its checkpoints could be damaged")

    def _noted(self, lost: str) -> Loss:
        """Wait until the history has another entry, and check that it is of this."""
        store = self._supervised.run.store

        def entries() -> list[str]:
            return [each.text for each in store.state().history if each.kind == DAMAGED]

        self._until(lambda: len(entries()) > self._named, f"a word about the {lost}")
        self._named += 1
        named = entries()[self._named - 1]
        self._announce(f"lost: {lost}; named: {named}")
        return Loss(lost, named, str(store.state().phase))

    def _until_phase(self, round_num: int, phase: Phase) -> None:
        def is_there() -> bool:
            state = self._supervised.run.store.state()
            return (state.round_num, state.phase) == (round_num, phase)

        self._until(is_there, f"{phase} in round {round_num}")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        self._supervised.until(condition, what)
