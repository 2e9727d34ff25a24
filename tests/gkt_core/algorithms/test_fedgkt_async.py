"""Asynchronous FedGKT: events, bounded staleness, equal work, resume; and drawing devices for rounds."""

from __future__ import annotations

import collections
import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.fedgkt_async import AsyncFedGKT, device_slowness
from gkt_core.algorithms.simulation import client as simulated_client
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import client_update
from gkt_core.rounds.sampling import sample_clients
from tests.gkt_core.algorithms.test_algorithms import build, ignore, with_options


def asynchronous(federation: Federation, **options: Any) -> AsyncFedGKT:
    algorithm = build("fedgkt", federation, with_options(mode="async", **options))
    assert isinstance(algorithm, AsyncFedGKT)
    return algorithm


class Recorded(AsyncFedGKT):
    """Keeps which devices each server step trained on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.steps: list[dict[str, int]] = []

    def _train(self, source: Any, *arguments: Any) -> float:
        self.steps.append(collections.Counter(source.client_ids[owner] for owner in source.owners))
        return 0.0


def recorded(federation: Federation, config: RunConfig) -> Recorded:
    return Recorded(
        federation, config, edge_network="resnet8", server_network="resnet55", device=torch.device("cpu")
    )


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_every_device_does_all_its_rounds_and_none_runs_away(
    max_staleness: int, federation: Federation
) -> None:
    config = with_options(mode="async", rounds=4, max_staleness=max_staleness, seed=5)
    algorithm = recorded(federation, config)
    done: collections.Counter[str] = collections.Counter()
    results = []
    for number in range(1, 5):
        results.append(algorithm.run_round(number, 1.0, ignore))
        assert len(federation.clients) * number <= sum(algorithm._trained) <= 4 * len(federation.clients)
    for step in algorithm.steps:
        for client_id, num_samples in step.items():
            assert num_samples == len(federation.clients[client_id].train)
            done[client_id] += 1
        assert max(done.values()) - min(done[name] for name in federation.clients) <= max_staleness + 1
    assert set(done.values()) == {4}
    assert results[-1].details["server_steps"] == len(algorithm.steps)
    # With one device ahead at most, another step than its own can come between twice at the very most.
    assert all(result.details["max_staleness"] <= 2 * (max_staleness + 1) for result in results)


def test_it_is_not_the_synchronous_run_in_disguise(federation: Federation) -> None:
    algorithm = recorded(federation, with_options(mode="async", rounds=3, seed=5))
    for number in (1, 2, 3):
        algorithm.run_round(number, 1.0, ignore)
    assert any(len(step) == 1 for step in algorithm.steps)
    assert len(algorithm.steps) > 3


def test_sent_bytes_are_those_of_a_synchronous_run(federation: Federation) -> None:
    config = with_options(compress=False, rounds=2)
    sync = build("fedgkt", federation, config)
    expected = sum(sync.run_round(number, 1.0, ignore).upload_bytes for number in (1, 2))
    algorithm = asynchronous(federation, compress=False, rounds=2)
    assert sum(algorithm.run_round(number, 1.0, ignore).upload_bytes for number in (1, 2)) == expected


def test_a_restored_run_goes_on_the_same(federation: Federation) -> None:
    first = asynchronous(federation, rounds=3, seed=2)
    first.run_round(1, 1.0, ignore)
    second = asynchronous(federation, rounds=3, seed=2)
    for name, module in second.modules().items():
        module.load_state_dict(first.modules()[name].state_dict())
    for name, optimizer in second.optimizers().items():
        optimizer.load_state_dict(copy.deepcopy(first.optimizers()[name].state_dict()))
    second.restore_arrays(first.arrays())
    for number in (2, 3):
        assert first.run_round(number, 1.0, ignore) == second.run_round(number, 1.0, ignore)


def test_devices_have_different_seeded_speeds() -> None:
    slowness = device_slowness(1000, 3)
    assert np.array_equal(slowness, device_slowness(1000, 3))
    assert not np.array_equal(slowness, device_slowness(1000, 4))
    assert slowness.min() >= 1
    assert slowness.max() <= 4
    assert slowness.max() / slowness.min() > 3.5


def test_what_does_not_go_together(federation: Federation) -> None:
    with pytest.raises(ConfigError, match="fedavg has rounds: only fedgkt can do without"):
        build("fedavg", federation, with_options(mode="async"))
    with pytest.raises(ConfigError, match="client_fraction below 1 needs mode sync"):
        asynchronous(federation, client_fraction=0.5)


@given(
    num=st.integers(1, 200),
    fraction=st.floats(0.001, 1.0),
    seed=st.integers(0, 2**63 - 1),
    round_num=st.integers(1, 10**6),
)
@settings(max_examples=100)
def test_drawn_devices(num: int, fraction: float, seed: int, round_num: int) -> None:
    ids = [f"client-{number:03d}" for number in range(num)]
    drawn = sample_clients(ids, fraction, seed=seed, round_num=round_num)
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(ids)
    assert len(drawn) == max(1, int(fraction * num + 1e-9))
    assert drawn == sample_clients(ids, fraction, seed=seed, round_num=round_num)


def test_every_device_is_drawn_about_as_often() -> None:
    ids = [f"{number}" for number in range(10)]
    counts = collections.Counter(
        name for number in range(1, 1001) for name in sample_clients(ids, 0.3, seed=1, round_num=number)
    )
    assert all(240 < counts[name] < 360 for name in ids)


@pytest.mark.parametrize("name", ["fedgkt", "fedavg", "split_learning"])
def test_a_sampled_round_sends_for_the_drawn_devices_only(name: str, federation: Federation) -> None:
    config = with_options(client_fraction=0.5, rounds=6, compress=False)
    sampled, whole = build(name, federation, config), build(name, federation, with_options(compress=False))
    result, reference = sampled.run_round(1, 1.0, ignore), whole.run_round(1, 1.0, ignore)
    assert 0.4 < result.upload_bytes / reference.upload_bytes < 0.6


def test_a_device_that_sat_out_learns_from_its_own_last_view(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soft labels answer the view of the round it last took part in, however long ago."""
    seen: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)

    def spy(
        engine: Any, part: ClientPart, soft_labels: Any, round_num: int, *, teacher_round: int, **rest: Any
    ) -> Any:
        seen[part.client_id].append((teacher_round, round_num))
        return client_update(engine, part, soft_labels, round_num, teacher_round=teacher_round, **rest)

    monkeypatch.setattr(simulated_client, "client_update", spy)
    algorithm = build("fedgkt", federation, with_options(client_fraction=0.5, rounds=8))
    assert isinstance(algorithm, FedGKT)
    for number in range(1, 9):
        algorithm.run_round(number, 1.0, ignore)
    assert sum(len(rounds) for rounds in seen.values()) == 8
    for rounds in seen.values():
        taken = [0] + [number for _, number in rounds]
        assert [teacher for teacher, _ in rounds] == taken[:-1]
    assert any(number - teacher > 1 for rounds in seen.values() for teacher, number in rounds)
