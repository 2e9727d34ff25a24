"""A simulation that is stopped within a round goes on to the very numbers of one that was left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from gkt_core import networks
from gkt_core.algorithm_names import ALGORITHMS
from gkt_core.algorithms import runner
from gkt_core.algorithms.runner import CHECKPOINT_NAME, METRICS_NAME, Listener, run_algorithm
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.algorithms.simulation.saving import Place, Saves
from gkt_core.config.run_config import RunConfig
from gkt_core.nn import checkpoint
from gkt_core.nn.checkpoint import read_extra
from tests.gkt_core.algorithms.test_algorithms import CONFIG, build

LONG = {"server_epochs": 2, "local_epochs": 2}


def _network(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(16, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, num_classes),
    )


@pytest.fixture(autouse=True)
def small_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server network, with running statistics, that is trained in no time."""
    monkeypatch.setattr(networks, "_registered_servers", {"small": _network})


class Stopped(BaseException):
    """A power cut."""


class Run:
    """A run of an algorithm in a folder, saved after every step."""

    def __init__(
        self, name: str, federation: Federation, out: Path, patch: pytest.MonkeyPatch, **changes: Any
    ) -> None:
        self._name, self._federation, self._patch, self.out = name, federation, patch, out
        self._options = {"server_network": "small", "grouped": changes.pop("grouped", None)}
        self.config = RunConfig.from_dict({**CONFIG.to_dict(), **LONG, **changes})
        out.mkdir(exist_ok=True)

    def to_the_end(self, stop_after: int | None = None) -> list[Any]:
        """Run, or stop after so many saves; the places that were saved."""
        places: list[Any] = []
        original: Callable[..., None] = checkpoint.save_state

        def saved(*arguments: Any) -> None:
            original(*arguments)
            places.append(arguments[-1].get("place"))
            if len(places) == stop_after:
                raise Stopped

        with self._patch.context() as patch:
            patch.setattr(runner, "save_state", saved)
            algorithm = build(self._name, self._federation, self.config, **self._options)
            run_algorithm(
                algorithm, self._federation, self.out, config=self.config, settings={},
                listener=Listener(), save_minutes=0,
            )  # fmt: skip
        return places


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ALGORITHMS),
    ("fedgkt", {"uploads": "rounds=1,3", "rounds": 4, "client_fraction": 0.5}),
    ("fedgkt", {"uploads": "drift=0.2", "rounds": 3, "local_epochs": 1}),
    ("fedgkt", {"mode": "async"}),
    ("fedgkt", {"grouped": True, "direction": "both", "soft_labels": "evaluation"}),
    (
        "fedgkt",
        {
            "client_fraction": 0.5,
            "local_epochs": 1,
            "rounds": 3,
            "server_optimizer": "sgd",
            "feature_augmentation": "crop+flip",
        },
    ),
]


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=lambda value: str(value)[:40])
def test_a_run_stopped_at_any_step_ends_with_the_same_bytes(
    name: str, changes: dict[str, Any], federation: Federation, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    undisturbed = Run(name, federation, tmp_path / "undisturbed", monkeypatch, **changes)
    places = undisturbed.to_the_end()
    assert places.count(None) == undisturbed.config.rounds
    # One of each kind, and the moments at which one kind follows another.
    kinds = [tuple(sorted(place or {})) for place in places]
    stops = sorted({1, len(places) // 2} | {i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]})
    run = Run(name, federation, tmp_path / "stopped", monkeypatch, **changes)
    # Each stop is counted from where the one before it left off.
    for before, stop in zip([0, *stops], stops, strict=False):
        with pytest.raises(Stopped):
            run.to_the_end(stop - before)
        assert read_extra(run.out / CHECKPOINT_NAME).get("place") == places[stop - 1]
    run.to_the_end()
    for file in (METRICS_NAME, CHECKPOINT_NAME, "result.json"):
        assert (run.out / file).read_bytes() == (undisturbed.out / file).read_bytes(), file


def test_steps_between_epochs_are_saved_by_the_clock() -> None:
    saved: list[Place] = []
    saves = Saves(saved.append, minutes=60)
    saves(lambda: Place({"step": 1}))
    assert saved == []
    saves(lambda: Place({"step": 2}), epoch_done=True)
    every = Saves(saved.append, minutes=0)
    every(lambda: Place({"step": 3}))
    assert [place.values["step"] for place in saved] == [2, 3]
