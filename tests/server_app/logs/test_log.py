"""Where a server's log goes, how each line looks, and what of it a person sees."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gkt_core.errors import InputError
from server_app.logs.formats import event
from server_app.logs.piped import PipeHandler, relay
from server_app.logs.setup import LogOptions, Repeats, logging_to
from tests.conftest import LONGEST_SECONDS, ROOT

RUN, REQUESTS, TRAINER = map(logging.getLogger, ("gkt.run", "gkt.requests", "gkt.trainer"))
LIBRARY = logging.getLogger("a_library")


def say_everything() -> None:
    RUN.info("round 1/2: \x1b[31m accuracy", extra=event("round", round_num=1))
    RUN.warning("client-a is quarantined")
    REQUESTS.info("client-a from ::1: runs.status 200", extra=event("request", status=200))
    REQUESTS.warning("nobody from ::1: runs.status 401", extra=event("request", status=401))
    TRAINER.info("round 1: 32 samples")
    TRAINER.warning("damaged")
    LIBRARY.info("connected")
    LIBRARY.warning("slow")
    RUN.debug("a detail")


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        (None, ["round 1/2: \\x1b[31m accuracy", "warning: client-a is", "warning: nobody from",
                "warning: damaged", "warning: a_library: slow"]),
        (logging.ERROR, []),
        (logging.INFO, ["round 1/2", "warning: client-a is", "client-a from ::1", "warning: nobody",
                        "round 1: 32 samples", "warning: damaged", "a_library: connected",
                        "warning: a_library: slow"]),
    ],
)  # fmt: skip
def test_what_a_person_sees(capsys: pytest.CaptureFixture[str], level: int | None, lines: list[str]) -> None:
    with logging_to(LogOptions(), level):
        say_everything()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(lines)
    for line, expected in zip(said, lines, strict=True):
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line)
        assert line[20:].startswith(expected)


def test_every_detail(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(LogOptions(), logging.DEBUG):
        say_everything()
    assert capsys.readouterr().err.endswith("a detail\n")


def test_json_holds_what_happened_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(LogOptions(log_format="json")):
        RUN.info("round 1/2:\nline", extra=event("round", round_num=1, late=["client-b"]))
        try:
            raise ValueError("why")
        except ValueError:
            RUN.exception("it broke")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "info",
        "logger": "gkt.run",
        "event": "round",
        "message": "round 1/2:\nline",
        "round_num": 1,
        "late": ["client-b"],
    }
    assert (second["level"], second["event"]) == ("error", "message")
    assert "ValueError: why" in second["traceback"]


def test_the_file_has_every_request_is_rotated_and_is_its_owners(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gkt.log"
    options = LogOptions(log_file=path, log_file_mb=1, log_files=2, log_format="json")
    with logging_to(options, logging.ERROR):
        say_everything()
        text = path.read_text()
        for number in range(5000):
            REQUESTS.info("%s", "x" * 600, extra=event("request", number=number))
    assert [json.loads(line)["message"][:9] for line in text.splitlines()] == [
        "round 1/2", "client-a ", "client-a ", "nobody fr", "round 1: ", "damaged", "slow",
    ]  # fmt: skip
    assert capsys.readouterr().err == ""
    rotated = [path, path.with_name("gkt.log.1"), path.with_name("gkt.log.2")]
    assert sorted(tmp_path.iterdir()) == sorted(rotated)
    assert all(each.stat().st_size <= 1_000_000 for each in rotated)
    assert {each.stat().st_mode & 0o777 for each in rotated} == {0o600}
    numbers = [
        json.loads(line)["number"] for each in reversed(rotated) for line in each.read_text().splitlines()
    ]
    assert numbers == list(range(5000 - len(numbers), 5000)), "no line is torn or lost between two files"
    with pytest.raises(InputError, match="cannot be written"), logging_to(LogOptions(log_file=tmp_path)):
        pass


def test_whoever_logged_before_logs_again() -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    with pytest.raises(KeyboardInterrupt), logging_to(LogOptions()):
        raise KeyboardInterrupt
    assert (logging.getLogger().handlers, logging.getLogger().level) == before


def test_the_same_refusal_again_and_again_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    repeats = Repeats(60.0)

    def shown(client_id: str) -> str:
        fields = event("request", client_id=client_id, address="::1", operation="runs.status", status=401)
        record = logging.makeLogRecord({"msg": "refused", **fields})
        return record.getMessage() if repeats.filter(record) else ""

    assert [shown("a"), shown("a"), shown("b"), shown("a")] == ["refused", "", "refused", ""]
    now[0] = 61
    assert shown("a") == "refused (2 more like it before)"
    assert shown("a") == ""
    assert repeats.filter(logging.makeLogRecord({"msg": "no request"}))


_TRAINER = """
import logging, sys, threading
from server_app.logs.formats import event
from server_app.logs.piped import PipeHandler
logging.basicConfig(level=logging.INFO, handlers=[PipeHandler(int(sys.argv[1]))])
def say(name):
    for number in range(200):
        logging.getLogger("gkt.trainer").warning("%s %s", name, "x" * 1500, extra=event("e", number=number))
threads = [threading.Thread(target=say, args=(name,)) for name in "abcd"]
[each.start() for each in threads]
[each.join() for each in threads]
logging.getLogger("gkt.trainer").info("%s", "y" * 100_000, extra=event("long", text="z" * 100_000))
"""


class Slow(logging.Handler):
    """Keeps what it is told, so slowly that the pipe is full."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.may_go_on = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.may_go_on.wait(LONGEST_SECONDS)
        self.records.append(record)


def test_what_the_trainer_says_comes_whole_and_never_holds_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process writes more than fits into the pipe while nobody reads: it ends, and no line is torn."""

    kept = Slow()
    monkeypatch.setattr(TRAINER, "handlers", [kept])
    monkeypatch.setattr(TRAINER, "propagate", False)
    TRAINER.setLevel(logging.INFO)
    reads, writes = os.pipe()
    thread = relay(reads)
    done = subprocess.run(
        [sys.executable, "-c", _TRAINER, str(writes)],
        pass_fds=(writes,),
        check=False,
        timeout=LONGEST_SECONDS,
    )
    os.close(writes)
    assert done.returncode == 0
    kept.may_go_on.set()
    thread.join(LONGEST_SECONDS)
    TRAINER.setLevel(logging.NOTSET)
    assert 10 < len(kept.records) < 801
    for record in kept.records:
        message: Any = record.getMessage()
        assert re.fullmatch("[abcd] x{1500}", message) or re.fullmatch("y{500}", message)
        assert record.name == "gkt.trainer"
    assert {record.fields["number"] for record in kept.records[:3]}  # type: ignore[attr-defined]


def test_a_pipe_that_nobody_reads_any_more() -> None:

    reads, writes = os.pipe()
    handler = PipeHandler(writes)
    os.close(reads)
    handler.emit(logging.makeLogRecord({"msg": "into nothing"}))
    os.close(writes)


def test_no_module_of_the_server_logs_under_its_own_name() -> None:
    """A plain line would begin with it; what a program needs of where it came from are the events."""
    for path in (ROOT / "server_app").rglob("*.py"):
        assert "getLogger(__name__)" not in path.read_text(encoding="utf-8"), path
