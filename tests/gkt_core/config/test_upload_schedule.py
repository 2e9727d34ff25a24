"""When devices upload: a pure function of the round, the last upload and how far features have gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.config.run_config import RunConfig
from gkt_core.config.upload_schedule import UploadSchedule
from gkt_core.errors import ConfigError
from gkt_core.rounds.staleness import check_mode

ROUNDS = st.sets(st.integers(1, 30), min_size=1)


def test_what_can_be_said() -> None:
    assert UploadSchedule.parse("every") == UploadSchedule() and UploadSchedule().is_every
    assert UploadSchedule.parse("rounds=16,1,4,4").rounds == (1, 4, 16)
    assert UploadSchedule.parse("drift=0.25").drift == 0.25
    assert UploadSchedule.parse("drift=2e-1").drift == 0.2


@pytest.mark.parametrize(
    "text", ["", "rounds", "rounds=", "rounds=0", "rounds=1,", "rounds=-1", "drift=0", "drift=-1", "drift=",
             "drift=nan", "drift=inf", "drift=1e999", "drift=1.2.3", "every=2", "Every", "rounds=1 ,2"],
)  # fmt: skip
def test_what_cannot(text: str) -> None:
    with pytest.raises(ConfigError, match=r"uploads is '.*', expected every, rounds=1,4,16"):
        RunConfig(uploads=text)


def test_a_run_without_rounds_has_no_schedule() -> None:
    with pytest.raises(ConfigError, match="uploads other than every needs mode sync"):
        check_mode(RunConfig(mode="async", uploads="rounds=1"))


@given(ROUNDS)
def test_a_device_of_every_round_uploads_in_those_rounds_and_the_first(rounds: set[int]) -> None:
    schedule, last, uploaded = UploadSchedule(rounds=tuple(sorted(rounds))), 0, []
    for round_num in range(1, 31):
        if schedule.is_due(round_num, last):
            uploaded.append(round_num)
            last = round_num
    assert uploaded == sorted(rounds | {1})
    assert len(uploaded) == schedule.num_uploads(30)


@given(ROUNDS, st.sets(st.integers(1, 30), min_size=1))
def test_a_device_that_sits_out_makes_up_for_it(rounds: set[int], present: set[int]) -> None:
    """After each round that it takes part in, no round of the schedule lies between its upload and that."""
    schedule, last = UploadSchedule(rounds=tuple(sorted(rounds))), 0
    for round_num in sorted(present):
        due = schedule.is_due(round_num, last)
        assert due or not any(last < each <= round_num for each in rounds)
        last = round_num if due else last
        assert last >= max((each for each in rounds if each <= round_num), default=1) or last == min(present)


@given(st.floats(0.001, 10), st.floats(0, 20), st.integers(1, 5), st.integers(6, 9))
def test_drift_alone_decides_once_something_was_uploaded(
    most: float, drift: float, last: int, round_num: int
) -> None:
    schedule = UploadSchedule(drift=most)
    assert schedule.is_due(round_num, last, drift) is (drift >= most)
    assert schedule.is_due(round_num, 0, drift) and schedule.is_due(round_num, last, None)
