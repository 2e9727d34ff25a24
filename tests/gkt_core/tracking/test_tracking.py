"""Rounds arrive in each tool once, in order, whatever stops in between; the tools' own readers read them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gkt_core.errors import ConfigError
from gkt_core.tracking import trackers
from gkt_core.tracking.about import About
from gkt_core.tracking.options import Target, TrackOptions
from gkt_core.tracking.trackers import SENT_NAME, Trackers, writer_of
from tests.conftest import LONGEST_SECONDS, until

ABOUT = About("run-1", {"rounds": 3, "codec": "uint8", "nothing": None})
MLFLOW = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: its tests did NOT run")


def numbers(round_num: int) -> dict[str, float]:
    return {"validation/accuracy": round_num / 4, "bytes/upload": 1e6 * round_num}


def track(folder: Path, *targets: str, rounds: range, ended: bool = False, failed: bool = False) -> None:
    """What a process of a run does: it is told all rounds, those of earlier processes too."""
    chosen = TrackOptions(track=targets).targets
    tracked = Trackers(chosen, folder, ABOUT)
    for round_num in rounds:
        tracked.round(round_num, numbers(round_num))
    tracked.close(ended=ended, failed=failed, seconds=LONGEST_SECONDS)


def accumulated(folder: Path) -> Any:
    """A folder as TensorBoard reads it."""
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415 - slow, of an extra
        EventAccumulator,
    )

    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = accumulated(folder)
    return {
        name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]
    }


def test_tensorboard_reads_each_round_once(tmp_path: Path) -> None:
    target = f"tensorboard:{tmp_path / 'logs'}"
    track(tmp_path, target, rounds=range(1, 3))
    track(tmp_path, target, rounds=range(1, 4), ended=True)
    assert scalars_of(tmp_path / "logs" / "run-1") == {
        "validation/accuracy": [(1, 0.25), (2, 0.5), (3, 0.75)],
        "bytes/upload": [(1, 1e6), (2, 2e6), (3, 3e6)],
    }
    (settings,) = accumulated(tmp_path / "logs" / "run-1").Tensors("settings")
    assert b'| codec | "uint8" |' in settings.tensor_proto.string_val[0]


@pytest.mark.parametrize("failed", [False, True])
def test_mlflow_has_one_run_over_two_processes(tmp_path: Path, failed: bool) -> None:
    store = f"file:{tmp_path / 'mlruns'}"
    track(tmp_path, f"mlflow:{store}", rounds=range(1, 2))
    client = MLFLOW.MlflowClient(store)
    (experiment,) = [each for each in client.search_experiments() if each.name == "gkt"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "RUNNING" and run.info.run_name == "run-1"
    track(tmp_path, f"mlflow:{store}", rounds=range(1, 4), ended=True, failed=failed)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == ("FAILED" if failed else "FINISHED")
    history = client.get_metric_history(run.info.run_id, "validation/accuracy")
    assert [(each.step, each.value) for each in history] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert run.data.params == {"rounds": "3", "codec": "uint8", "nothing": "null"}


def test_wandb_offline(tmp_path: Path) -> None:
    """In a process of its own: it starts another one, and leaves handlers behind."""
    pytest.importorskip("wandb", reason="wandb is not installed: its test did NOT run")
    code = (
        "from pathlib import Path; from gkt_core.tracking.options import Target\n"
        "from gkt_core.tracking.about import About\n"
        "from gkt_core.tracking.trackers import Trackers\n"
        "tracked = Trackers([Target('wandb', 'gkt')], Path('.'), About('run-1', {'a': 1}))\n"
        "[tracked.round(each, {'validation/accuracy': each / 4}) for each in (1, 2)]\n"
        f"tracked.close(ended=True, seconds={LONGEST_SECONDS})\n"
    )
    home = str(tmp_path)
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": home, "PATH": os.environ["PATH"], "HOME": home}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False, timeout=LONGEST_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sent = json.loads((tmp_path / SENT_NAME).read_text())
    assert sent["wandb:gkt"]["last_round"] == 2, done.stderr
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    assert b"validation/accuracy" in content and sent["wandb:gkt"]["run"] in kept.name


class Away:
    """A tool that is away for a while, and one that never comes back."""

    def __init__(self, times: int) -> None:
        self.left, self.taken, self.run = times, list[int](), "there"
        self.ended: bool | None = None

    def open(self, target: Target, about: About, run: str) -> Away:
        return self

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self.left:
            self.left -= 1
            raise ConnectionError("nobody answers")
        self.taken.append(step)

    def end(self, *, failed: bool) -> None:
        self.ended = failed

    def close(self) -> None: ...


@pytest.mark.parametrize("times", [1, 2])
def test_a_tool_that_is_away_gets_every_round_later(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tool = Away(times)
    monkeypatch.setattr(trackers, "writer_of", lambda target: tool.open)
    monkeypatch.setattr(trackers, "_FIRST_PAUSE_SECONDS", 0.01)
    tracked = Trackers((Target("mlflow", "x"),), tmp_path, ABOUT)
    with caplog.at_level(logging.WARNING):
        for round_num in (1, 2, 3):
            tracked.round(round_num, numbers(round_num))
        until(lambda: tool.taken == [1, 2, 3], "the rounds")
        tracked.close(ended=True, seconds=LONGEST_SECONDS)
    assert tool.ended is False and tracked.last_round == 3
    assert caplog.text.count("mlflow:x: ConnectionError: nobody answers") == times


def test_a_tool_that_stays_away_stops_nothing_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tool = Away(10**9)
    monkeypatch.setattr(trackers, "writer_of", lambda target: tool.open)
    tracked = Trackers((Target("mlflow", "x"),), tmp_path, ABOUT)
    with caplog.at_level(logging.WARNING):
        tracked.round(1, numbers(1))
        tracked.close(ended=True, seconds=LONGEST_SECONDS)
    assert (
        "mlflow:x has not taken all rounds (ConnectionError): the same command sends them again"
        in caplog.text
    )
    assert tracked.last_round == 0 and not (tmp_path / SENT_NAME).exists()
    tool.left = 0
    again = Trackers((Target("mlflow", "x"),), tmp_path, ABOUT)
    again.round(1, numbers(1))
    again.close(seconds=LONGEST_SECONDS)
    assert tool.taken == [1] and tool.ended is None


def test_what_was_sent_is_damaged_and_everything_is_sent_again(tmp_path: Path) -> None:
    (tmp_path / SENT_NAME).write_text("[1")
    track(tmp_path, f"tensorboard:{tmp_path / 'logs'}", rounds=range(1, 2))
    assert scalars_of(tmp_path / "logs" / "run-1")["validation/accuracy"] == [(1, 0.25)]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tool_that_is_not_installed_is_said_before_the_work(name: str, tmp_path: Path) -> None:
    code = (
        f"import sys; from pathlib import Path; sys.modules[{name!r}] = None\n"
        "from gkt_core.tracking.options import Target\n"
        "from gkt_core.tracking.about import About\n"
        "from gkt_core.tracking.trackers import Trackers\n"
        f"Trackers([Target({name!r}, 'x')], Path('.'), About('run-1', {{}}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=LONGEST_SECONDS,
    )  # fmt: skip
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"gkt_core.errors.MissingExtraError: the module {name}"), said
    assert said.endswith(" is not installed: pip install 'gkt-edge[track]'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["tensorboard", "tensorboard:", "logs", "comet:x", ""])
def test_what_is_no_tool_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected tensorboard:DIR\|mlflow:URI\|wandb:PROJECT"):
        TrackOptions(track=(text,))
    with pytest.raises(ConfigError, match="twice"):
        TrackOptions(track=("wandb:a", "wandb:a"))
    assert callable(writer_of(Target("tensorboard", "x")))
