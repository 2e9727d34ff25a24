"""Runs of two devices, and one that nothing disturbs: every other is compared with it, byte by byte."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server_app.trainer import trainer
from tests.server_app.trainer.whole_run import WAIT_SECONDS, FinishedRun, RunOfTwo

CopyOf = Callable[[Path], RunOfTwo]


@pytest.fixture(scope="package", autouse=True)
def _impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_POLL_SECONDS", WAIT_SECONDS)
        yield


@pytest.fixture
def copied(empty_run: Path, tmp_path: Path) -> Iterator[RunOfTwo]:
    """A copy of a run that was never opened: all copies have the same run id."""
    shutil.copytree(empty_run, tmp_path / "run")
    copy = RunOfTwo(tmp_path / "run", tmp_path / "run-devices")
    yield copy
    copy.run.store.close()


@pytest.fixture(scope="package")
def undisturbed(
    _impatient: None, empty_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FinishedRun]:
    """The run that all others are compared with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(empty_run, folder / "run")
    run = RunOfTwo(folder / "run", folder / "devices")
    state, results = run.train()
    yield FinishedRun(run, state, results)
    run.run.store.close()
