"""Learning rates are functions of the place in a run: their shapes, and that nothing is remembered."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.algorithms import ServerPlace, server_update
from gkt_core.config.run_config import LR_SCHEDULES, RunConfig
from gkt_core.nn import build_server_network
from gkt_core.nn.checkpoint import restore_state, state_bytes
from gkt_core.nn.optimizers import large_network_optimizer
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import client_batches
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.rounds.learning_rate import ONE_CYCLE_WARMUP, LearningRate, schedule_at
from gkt_core.wire.shards import ShardKey, ShardSpec, read_feature_shard
from tests.server_app.server_fixtures import FEATURE_SHAPE, NUM_CLASSES, private_data, run_config, shard_bytes

schedules = st.sampled_from(LR_SCHEDULES)
warmups = st.one_of(st.just(0.0), st.floats(0.001, 0.95))
places = st.floats(0.0, 1.0)
BY_STEP = ("cosine_by_step", "one_cycle")


def rises_for(schedule: str, warmup: float) -> float:
    return ONE_CYCLE_WARMUP if schedule == "one_cycle" and not warmup else warmup


@given(schedules, warmups, places)
def test_a_rate_is_never_zero_nor_above_its_full_value(schedule: str, warmup: float, place: float) -> None:
    assert 0 < schedule_at(schedule, warmup, place) <= 1


@given(schedules, warmups, places, places)
def test_it_rises_in_the_warm_up_and_never_after(
    schedule: str, warmup: float, one: float, other: float
) -> None:
    earlier, later = sorted((one, other))
    first, second = schedule_at(schedule, warmup, earlier), schedule_at(schedule, warmup, later)
    if later <= rises_for(schedule, warmup):
        assert first <= second + 1e-12
    if earlier >= rises_for(schedule, warmup):
        assert first >= second - 1e-12


@given(schedules, warmups)
def test_it_is_whole_when_the_warm_up_is_over(schedule: str, warmup: float) -> None:
    top = rises_for(schedule, warmup)
    assert schedule_at(schedule, warmup, top) == 1
    if top:
        assert schedule_at(schedule, warmup, 0.0) == pytest.approx(0.04)
        assert schedule_at(schedule, warmup, top * (1 - 1e-9)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("schedule", "end"), [("cosine_by_step", 0.01), ("one_cycle", 0.001)])
def test_it_ends_nearly_at_zero(schedule: str, end: float) -> None:
    assert schedule_at(schedule, 0.2, 1.0) == pytest.approx(end)
    assert schedule_at(schedule, 0.2, 0.6) == pytest.approx((1 + end) / 2), "half way"


@given(st.floats(1e-6, 10), st.integers(0, 50), st.integers(1, 50))
def test_a_constant_rate_is_what_was_given_to_the_last_bit(base: float, step: int, num_steps: int) -> None:
    config = RunConfig(rounds=7)
    assert LearningRate.of_round(config, base, 3).at(min(step, num_steps - 1), num_steps) == base
    # A schedule of whole rounds changes nothing within one.
    assert LearningRate.of_round(RunConfig(lr_schedule="cosine"), base, 3).at(0, num_steps) == base


@given(schedules, warmups, st.integers(1, 12), st.integers(1, 9))
def test_rounds_follow_each_other_without_a_jump(
    schedule: str, warmup: float, rounds: int, num_steps: int
) -> None:
    """The steps of all rounds, one after the other, are those of one round as long as the run."""
    config = RunConfig(rounds=rounds, lr_schedule=schedule, lr_warmup=warmup)
    whole = LearningRate.of_run(config, 0.1)
    together = [whole.at(step, rounds * num_steps) for step in range(rounds * num_steps)]
    each = [
        LearningRate.of_round(config, 0.1, number).at(step, num_steps)
        for number in range(1, rounds + 1)
        for step in range(num_steps)
    ]
    assert each == pytest.approx(together)


@given(st.integers(1, 9), st.data())
def test_parts_cover_the_whole_and_overlap_nowhere(num: int, data: st.DataObject) -> None:
    whole = LearningRate(1.0, begin=0.25, length=0.5)
    cut = data.draw(st.integers(0, num))
    first, second = whole.part(0, num, cut), whole.part(cut, num, num - cut)
    assert first.begin == whole.begin
    assert first.begin + first.length == pytest.approx(second.begin)
    assert second.begin + second.length == pytest.approx(whole.begin + whole.length)


@given(schedules, warmups, st.floats(1e-6, 1), st.integers(1, 9))
def test_it_is_the_same_for_another_process(schedule: str, warmup: float, base: float, number: int) -> None:
    config = RunConfig(rounds=9, lr_schedule=schedule, lr_warmup=warmup)
    rate = LearningRate.of_round(config, base, number)
    assert LearningRate(**json.loads(json.dumps(dataclasses.asdict(rate)))) == rate


@pytest.mark.parametrize("schedule", LR_SCHEDULES)
def test_a_device_that_was_killed_has_the_rates_that_were_left(schedule: str) -> None:
    config = run_config(local_epochs=3, lr_schedule=schedule, lr_warmup=0.1)
    part = ClientPart("client-a", private_data(0, 22), config, NUM_CLASSES)

    def rates(skip: int) -> list[float]:
        batches = client_batches(part, None, 2, learning_rate_scale=0.5, skip=skip)
        return [batch.learning_rate for batch in batches]

    undisturbed = rates(0)
    assert len(undisturbed) == 18
    assert len(set(undisturbed)) == (18 if schedule in BY_STEP else 1)
    for skip in (1, 6, 11, 17):
        assert rates(skip) == undisturbed[skip:]


def source() -> ShardSource:
    spec = ShardSpec("uint8", FEATURE_SHAPE, NUM_CLASSES, 8)
    keys = [ShardKey("client-a", 1, "train", index) for index in range(3)]
    shards = (
        read_feature_shard(shard_bytes(key, 7, first_id=7 * key.index), key, spec, check_values=False)
        for key in keys
    )
    return ShardSource(("client-a", shard) for shard in shards)


@pytest.mark.parametrize("schedule", BY_STEP)
def test_a_server_that_was_killed_goes_on_to_the_same_weights(schedule: str) -> None:
    config = run_config(
        rounds=3, server_epochs=3, lr_schedule=schedule, lr_warmup=0.1, server_optimizer="sgd"
    )
    rate = LearningRate.of_round(config, 0.05, 2)

    def built() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        network = build_server_network("resnet55", NUM_CLASSES, seed=1)
        return network, large_network_optimizer(network.parameters(), config, 0.05)

    network, optimizer = built()
    saved: list[bytes] = []

    def save(place: ServerPlace) -> None:
        if not place.num_batches:
            saved.append(state_bytes({"network": network}, {"network": optimizer}, {}, {}))

    shards, common = source(), {"round_num": 2, "num_classes": NUM_CLASSES, "learning_rate": rate}
    whole = server_update(network, optimizer, shards, config, **common, on_place=save)  # type: ignore[arg-type]
    last_rate = rate.at(8, 9)
    assert [group["lr"] for group in optimizer.param_groups] == [last_rate]
    again, its_optimizer = built()
    restore_state(saved[1], {"network": again}, {"network": its_optimizer}, "saved")
    rest = server_update(again, its_optimizer, shards, config, **common, begin=ServerPlace(3))  # type: ignore[arg-type]
    assert np.array_equal(whole.server_logits, rest.server_logits)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    # And it is not what a constant rate gives.
    constant, optimizer = built()
    server_update(
        constant,
        optimizer,
        shards,
        config,
        round_num=2,
        num_classes=NUM_CLASSES,
        learning_rate=LearningRate(0.05),
    )
    assert not torch.equal(constant.state_dict()["fc.weight"], network.state_dict()["fc.weight"])
