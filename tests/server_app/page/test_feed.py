"""The document that all open pages share: one look for all, whole curves, and no name that was forgotten."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable

import pytest

from gkt_core.errors import StorageUnavailableError
from gkt_core.wire.protocol import RoundMetrics, RoundPage, from_json
from server_app.logs.formats import event
from server_app.logs.recent import RecentLines
from server_app.overview.messages import Overview
from server_app.overview.shared import LOOK_SHARE
from server_app.page.feed import Feed
from server_app.page.messages import PageView
from server_app.page.rounds import MOST_POINTS, RoundColumns
from tests.conftest import LONGEST_SECONDS
from tests.server_app.overview.documents import device, document, metrics


class Run:
    """A run of which a test says what a look at it sees, and what it costs."""

    def __init__(self) -> None:
        self.now, self.num_looks, self.burn = 0.0, 0, 0.0
        self.seen: Overview = document()
        self.rounds: list[RoundMetrics] = [metrics(1), metrics(2)]
        self.when_looked: Callable[[], None] = lambda: None
        self.feed = Feed(self.look, self.read, clock=lambda: self.now)

    def look(self) -> Overview:
        self.num_looks += 1
        self.when_looked()
        until = time.thread_time() + self.burn
        while time.thread_time() < until:
            pass
        return self.seen

    def read(self, after: int, limit: int) -> RoundPage:
        later = [each for each in self.rounds if each.round_num > after]
        return RoundPage(later[:limit], later[limit - 1].round_num if len(later) > limit else 0)

    def view(self) -> PageView:
        return from_json(PageView, self.feed.latest().body)


def test_it_says_what_the_status_says() -> None:
    run = Run()
    view = run.view()
    assert dataclasses.replace(view.overview, finished_rounds=run.seen.finished_rounds) == run.seen
    assert view.next_step == "nothing to do: round 3 waits for client-b (last seen 3.0 s ago)"
    assert view.waiting_for == "round 3 waits for client-b (last seen 3.0 s ago)"
    assert (view.curves.round_num, view.curves.validation_accuracy) == ([1, 2], [0.8, 0.8])


def test_looks_are_shared_and_take_a_share_of_a_core() -> None:
    run = Run()
    run.burn = 0.05
    first = run.feed.latest()
    for _ in range(100):
        assert run.feed.latest() is first
    assert run.num_looks == 1
    # As long a rest as the look was dear.
    run.now = 0.05 / LOOK_SHARE * 0.99
    assert run.feed.latest() is first
    run.now = 1e6
    run.seen = document(round_num=4)
    assert run.feed.latest().etag != first.etag and run.num_looks == 2
    run.feed.renew()
    run.feed.latest()
    assert run.num_looks == 3


def test_who_comes_while_another_looks_is_shown_the_last_look() -> None:
    run = Run()
    first, looks, may_go_on = run.feed.latest(), threading.Event(), threading.Event()

    def stalled() -> None:
        looks.set()
        assert may_go_on.wait(LONGEST_SECONDS)

    run.when_looked, run.now = stalled, 1e6
    other = threading.Thread(target=run.feed.latest)
    other.start()
    assert looks.wait(LONGEST_SECONDS)
    assert run.feed.latest() is first
    may_go_on.set()
    other.join()
    assert run.num_looks == 2


def test_a_database_that_does_not_answer_is_asked_again() -> None:
    run = Run()

    def gone() -> None:
        raise StorageUnavailableError("the database does not answer")

    run.when_looked = gone
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            run.feed.latest()
    run.when_looked = lambda: None
    assert run.view().overview.round_num == 3


@pytest.mark.parametrize("num_rounds", [1, MOST_POINTS, MOST_POINTS + 1, 1234])
def test_curves_have_the_first_and_the_last_round_and_no_more_points_than_fit(num_rounds: int) -> None:
    run, num_read = Run(), [0]
    run.rounds = [metrics(number) for number in range(1, num_rounds + 1)]

    def counted(after: int, limit: int) -> RoundPage:
        page = run.read(after, limit)
        num_read[0] += len(page.rounds)
        return page

    columns = RoundColumns(counted)
    for _ in range(5):
        curves = columns.curves()
    assert num_read[0] == num_rounds, "each round is read once"
    assert (curves.round_num[0], curves.round_num[-1]) == (1, num_rounds)
    assert len(curves.round_num) == min(num_rounds, MOST_POINTS) == len(curves.upload_bytes)
    assert curves.round_num == sorted(set(curves.round_num))
    run.rounds.append(metrics(num_rounds + 1))
    assert columns.curves().round_num[-1] == num_rounds + 1


def logged(lines: RecentLines, name: str, level: int, message: str, **extra: object) -> None:
    record = logging.getLogger(name).makeRecord(name, level, "", 0, message, (), None, extra=dict(extra))
    lines.handle(record)


def test_the_last_lines_are_those_that_a_person_at_the_terminal_sees() -> None:
    lines = RecentLines()
    logged(lines, "gkt.run", logging.INFO, "the run begins")
    logged(lines, "gkt.requests", logging.WARNING, "nobody from 1.2.3.4: refused")
    logged(lines, "gkt.trainer", logging.INFO, "epoch 1")
    logged(lines, "gkt.trainer", logging.WARNING, "a shard\nis damaged")
    logged(lines, "urllib3", logging.INFO, "retrying")
    said = [line.split(" ", 2)[2] for line in lines.last()]
    assert said == ["the run begins", "warning: a shard\\nis damaged"]
    # As of the event that a run begins.
    logged(lines, "gkt.run", logging.INFO, "it begins", **event("begins", devices=2, client_id=None))
    assert lines.last()[-1].endswith("it begins")
    for number in range(100):
        logged(lines, "gkt.run", logging.INFO, f"line {number} " + "x" * 10_000)
    assert len(lines.last()) == 40 and max(map(len, lines.last())) <= 400


def test_a_device_that_was_forgotten_is_in_no_line() -> None:
    run = Run()
    lines = run.feed.lines
    # Joined and forgotten before a page was open.
    logged(lines, "gkt.run", logging.INFO, "client-c has joined", **event("join", client_id="client-c"))
    logged(
        lines, "gkt.run", logging.INFO, "round 1: client-c, client-cc", **event("round", devices=["client-a"])
    )
    assert [line.split(" ", 2)[2] for line in run.view().lines] == [
        "******** has joined",
        "round 1: ********, client-cc",
    ]
    logged(lines, "gkt.run", logging.INFO, "client-b is late")
    run.seen = document(devices=[device("client-a")], waits_for=[])
    run.feed.renew()
    assert "client-b" not in "".join(run.view().lines)
