"""A document of a run that is well, for tests to change."""

from __future__ import annotations

import dataclasses
from typing import Any

from gkt_core.wire.protocol import RoundMetrics
from server_app.overview.judging import judge
from server_app.overview.messages import DeviceLine, DiskLine, Overview, TrainerLine

GB = 10**9


def metrics(round_num: int, seconds: float = 60.0, num_examples: int = 32) -> RoundMetrics:
    return RoundMetrics(
        round_num, seconds, 40.0, 20.0, 0.5, 0.9, 0.6, 0.8, 0.7, 0.75, num_examples, 200.0, 500.0, 3_400_000,
        64_000,
    )  # fmt: skip


def device(client_id: str, state: str = "training", **changes: Any) -> DeviceLine:
    return DeviceLine(client_id, state, **{"num_examples": 16, "seen_seconds": 3.0, **changes})


def document(**changes: Any) -> Overview:
    """Two devices in round 3 of 5, a server and a trainer that wait for one of them; judged."""
    values: dict[str, Any] = {
        "at": 1_800_000_000.0,
        "run_id": "run-1",
        "phase": "collecting",
        "round_num": 3,
        "rounds": 5,
        "mode": "sync",
        "num_clients": 2,
        "num_joined": 2,
        "min_clients": 1,
        "trainer": TrainerLine("waiting for devices", 0.2, 120.0),
        "disk": DiskLine("run", 50 * GB, 100 * GB, GB // 5),
        "waits_for": ["client-b"],
        "waits_seconds": 5.0,
        "url": "http://127.0.0.1:8080",
        "link": "run/join",
        "data_dir": "run",
        "devices": [device("client-a", "reported"), device("client-b")],
        "finished_rounds": [metrics(1), metrics(2)],
        "traffic": {"upload/shards": 7_000_000},
    }
    made = Overview(**{**values, **changes})
    return dataclasses.replace(made, findings=judge(made))
