"""One look for all who watch a run: fresh for who asks now and then, a share of a core for all others."""

from __future__ import annotations

import pytest

from gkt_core.errors import StorageUnavailableError
from server_app.overview.messages import Overview
from server_app.overview.shared import LOOK_SHARE, SharedLook
from tests.server_app.overview.documents import document


class Run:
    """A run at which a look costs what a test says."""

    def __init__(self, cost: float) -> None:
        self.now, self.used, self.cost, self.num_looks = 0.0, 0.0, cost, 0
        self.shared = SharedLook(self.look, clock=lambda: self.now, spent=lambda: self.used)

    def look(self) -> Overview:
        self.num_looks += 1
        self.used += self.cost
        return document(round_num=self.num_looks)


def test_who_looks_now_and_then_sees_the_run_as_it_is() -> None:
    run = Run(cost=0.02)
    for number in range(1, 30):
        assert run.shared.latest().round_num == number
        run.now += 60


@pytest.mark.parametrize("cost", [0.001, 0.02, 0.5])
def test_who_looks_all_the_time_costs_a_share_of_a_core(cost: float) -> None:
    run = Run(cost)
    for _ in range(10_000):
        run.shared.latest()
        run.now += 0.1
    # The burst of the beginning, and the look that overdraws.
    assert LOOK_SHARE * run.now * 0.9 <= run.used <= LOOK_SHARE * run.now + 0.25 + cost


def test_a_change_is_seen_at_once() -> None:
    run = Run(cost=10.0)
    assert run.shared.latest() is run.shared.latest()
    run.shared.renew()
    assert run.shared.latest().round_num == 2


def test_a_database_that_does_not_answer_is_asked_again() -> None:
    answers: list[Overview | None] = [None, document(round_num=1)]

    def look() -> Overview:
        seen = answers.pop(0)
        if seen is None:
            raise StorageUnavailableError("the database does not answer")
        return seen

    shared = SharedLook(look)
    with pytest.raises(StorageUnavailableError):
        shared.latest()
    assert shared.latest().round_num == 1
