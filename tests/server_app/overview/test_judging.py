"""What is wrong with a run, how bad it is, what helps, and the exit code that follows."""

from __future__ import annotations

from typing import Any

import pytest

from server_app.overview.judging import exit_code, next_step, waiting_for
from server_app.overview.messages import DiskLine, TrainerLine
from tests.server_app.overview.documents import GB, device, document, metrics

QUARANTINED = device("client-b", "quarantined", reason="noise")


def joining(**changes: Any) -> dict[str, Any]:
    return {"phase": "joining", "round_num": 0, "num_joined": 1, "num_clients": 3, "waits_for": [], **changes}


CASES: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "failed": (
        {"phase": "failed", "error": "the loss is NaN"},
        "failed error",
        7,
        "the run has failed: the loss is NaN: once the cause is gone, gkt serve --data-dir run "
        "--resume-failed",
    ),
    "trainer hangs": (
        {"trainer": TrainerLine("training round 3, epoch 1", 400.0, 120.0)},
        "trainer-hangs error",
        7,
        "the trainer hangs: silent for 6 min 40 s while training round 3, epoch 1, 2 min are allowed: the "
        "server ends it and starts another; if that does not help, look at run/trainer.log",
    ),
    "trainer died": (
        {"trainer": TrainerLine("", -1.0, 0.0, "the trainer died")},
        "trainer-died error",
        7,
        "the trainer died, and the server starts it again: look at the end of run/trainer.log",
    ),
    "disk full": (
        {"disk": DiskLine("run", GB // 10, GB, GB // 5)},
        "disk-full error",
        8,
        "the disk is full: 100 MB are free, 200 MB stay reserved, and uploads wait: make room on the disk "
        "of run, or serve with a smaller --reserve-disk",
    ),
    "disk nearly full": (
        {"disk": DiskLine("run", 55 * GB // 100, GB, GB // 5)},
        "disk-nearly-full warning",
        8,
        "the disk is nearly full: 550 MB are free, and uploads wait below 200 MB: make room on the disk of "
        "run",
    ),
    "quarantined": (
        {"devices": [device("client-a"), QUARANTINED]},
        "quarantined warning",
        9,
        "client-b is quarantined: noise: look at what it sends, then gkt clients release client-b "
        "--data-dir run (--trust: without checks), or gkt clients revoke client-b",
    ),
    "nobody comes": (
        joining(waits_seconds=3600.0),
        "nobody-comes warning",
        9,
        "2 of 3 devices have never joined, and none came for 1 h: give them the link in run/join, or begin "
        "without them: gkt serve --data-dir run --round-deadline 600 --min-clients 1",
    ),
    "nobody has come yet": (
        joining(num_joined=0, link=""),
        "nobody-comes info",
        0,
        "3 of 3 devices have never joined: give them a link (gkt enroll)",
    ),
    "no server": (
        {"is_served": False, "url": ""},
        "not-served warning",
        9,
        "no server of this run is up: no device can go on: gkt serve --data-dir run",
    ),
    "late": (
        {"waits_seconds": 1000.0, "devices": [device("client-a"), device("client-b", seen_seconds=960.0)]},
        "late warning",
        9,
        "round 3 has waited for 16 min 40 s, now for client-b (last seen 16 min ago): start client-b again "
        "with the same command, or let rounds go on without who is late: gkt serve --data-dir run "
        "--round-deadline 3600",
    ),
    "overdue": (
        {"overdue": True, "min_clients": 2, "deadline_seconds": 60.0},
        "overdue warning",
        9,
        "the deadline of round 3 has passed, and fewer than 2 devices have reported: start client-b (last "
        "seen 3.0 s ago) again, or serve with a smaller --min-clients",
    ),
    "refused": (
        {"devices": [device("client-a"), device("client-b", refused="features of shard 3 are wrong")]},
        "refused warning",
        9,
        "the last request of client-b was refused: features of shard 3 are wrong: look at what client-b "
        "printed; once that is mended, start it again",
    ),
    "paused": (
        {"halt": "paused", "halt_reason": "lunch", "waits_for": []},
        "paused info",
        0,
        "a person has paused the run (lunch): gkt runs resume --data-dir run lets it go on",
    ),
    "storage": (
        {"storage": "the database is damaged"},
        "storage error",
        4,
        "the database is damaged: see docs/running.md, When something goes wrong",
    ),
    "well": ({}, "", 0, "nothing to do: round 3 waits for client-b (last seen 3.0 s ago)"),
    "finished": (
        {"phase": "finished", "is_served": False},
        "",
        0,
        "nothing is left to do: each device has its model.onnx, and gkt deploy makes it ready to ship",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_trouble_is_said_with_its_remedy_and_its_exit_code(name: str) -> None:
    changes, expected, code, step = CASES[name]
    made = document(**changes)
    assert " ".join(f"{each.kind} {each.severity}" for each in made.findings) == expected
    assert exit_code(made.findings) == code
    assert next_step(made) == step


def test_the_most_urgent_comes_first() -> None:
    made = document(
        devices=[device("client-a"), QUARANTINED],
        disk=DiskLine("run", 0, GB, GB // 5),
        halt="paused",
        waits_for=[],
    )
    assert [each.kind for each in made.findings] == ["disk-full", "quarantined", "paused"]
    assert exit_code(made.findings) == 8


def test_who_trains_is_not_late_nor_is_who_takes_as_long_as_ever() -> None:
    away = [device("client-a"), device("client-b", seen_seconds=960.0)]
    assert document(waits_seconds=1000.0, devices=[device("client-a"), device("client-b")]).findings == []
    # Devices that need an hour each round.
    slow = [metrics(number) for number in (1, 2)]
    usual = [type(each)(**{**_values(each), "edge_seconds": 3600.0}) for each in slow]
    assert document(waits_seconds=1000.0, devices=away, finished_rounds=usual).findings == []
    assert document(waits_seconds=4 * 3600.0, devices=away, finished_rounds=usual).findings != []


def _values(made: Any) -> dict[str, Any]:
    return {name: getattr(made, name) for name in made.__dataclass_fields__}


def test_what_is_waited_for_names_who_was_away_for_longest() -> None:
    names = [f"client-{number}" for number in range(6)]
    devices = [device(name, seen_seconds=float(number)) for number, name in enumerate(names)]
    words = waiting_for(document(devices=devices, waits_for=names))
    assert words == (
        "round 3 waits for client-5 (last seen 5.0 s ago), client-4 (last seen 4.0 s ago), client-3 (last "
        "seen 3.0 s ago) and 3 others"
    )
