"""Answers that mean harm, once for the devices of every language."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

from gkt_core.bundle.manifest import COMBINED_TEMPLATE, Bundle
from gkt_core.wire.protocol import PROTOCOL_VERSION, RunInfo, RunList, Task, to_json
from tests.edge_runtime.hostile_server import RUN_ID, Answer, Bend, Session, file, message


def straight(name: str, times: int, answer: Answer) -> Answer:
    return answer


def instead(wanted: str, other: Callable[[Answer], Answer], nth: int = 0) -> Bend:
    """Another answer to one kind of request, from the nth on."""

    def bend(name: str, times: int, answer: Answer) -> Answer:
        return other(answer) if name == wanted and times >= nth else answer

    return bend


def bomb(answer: Answer) -> Answer:
    """Two gigabytes as two megabytes."""
    packed = gzip.compress(bytes(1 << 20), 9) * 2048
    return Answer(packed, answer.kind, headers={**answer.headers, "Content-Encoding": "gzip"})


def endless(answer: Answer) -> Answer:
    def send(stream: Any) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {answer.kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        stream.write(head.encode())
        while True:
            stream.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    return Answer(b"", raw=send)


def trickled(answer: Answer, *, in_head: bool = False) -> Answer:
    def send(stream: Any) -> None:
        head = b"HTTP/1.1 200 OK\r\n"
        if not in_head:
            head += f"Content-Type: {answer.kind}\r\nContent-Length: 50000\r\n\r\n".encode()
        stream.write(head)
        while True:
            stream.write(b"X")
            stream.flush()
            time.sleep(0.05)

    return Answer(b"", raw=send)


def longer(answer: Answer) -> Answer:
    return Answer(answer.body + bytes(1 << 26), answer.kind, headers=answer.headers)


def task(**changes: Any) -> Callable[[Answer], Answer]:
    def changed(answer: Answer) -> Answer:
        return Answer(json.dumps(json.loads(answer.body) | changes).encode())

    return changed


def other_run_id(run_id: str) -> Bend:
    return instead("runs", lambda _: Answer(to_json(RunList(PROTOCOL_VERSION, [run_id]))))


def other_work(config: dict[str, Any], manifest: dict[str, Any]) -> Bend:
    return instead("run", lambda _: message(RunInfo(PROTOCOL_VERSION, RUN_ID, config, manifest)))


def other_model(body: bytes) -> Bend:
    return instead("model", lambda _: file(body))


def asked_without_end() -> Bend:
    """Now this shard is missing, now that."""
    turns = itertools.cycle((0, 1))
    return instead(
        "missing", lambda _: Answer(json.dumps({"train": [next(turns)], "validation": []}).encode())
    )


def says(text: str, status: int) -> Bend:
    """A text in place of a task: the reason why the device is to stop, or an error."""
    if status == 200:
        return instead("join", lambda _: message(Task("stop", 0, 0, 0.0, text)))
    body = json.dumps({"error": "RoundError", "message": text}).encode()
    return instead("join", lambda _: Answer(body, status=status))


def loses_a_shard(session: Callable[[], Session]) -> Bend:
    """What has arrived is gone when the device reports for the first time."""

    def lost(name: str, times: int, answer: Answer) -> Answer:
        if (name, times) != ("report", 0):
            return answer
        del session().received[1, "train", 0]
        body = {"error": "RoundError", "message": "train shards [0] have not arrived"}
        return Answer(json.dumps(body).encode(), status=409)

    return lost


def bad_model(kind: str, honest: Bundle, template: bytes) -> bytes:
    """What is given for a trained network, of one of :data:`MODELS`."""
    size = honest.manifest.file(COMBINED_TEMPLATE).num_bytes
    return {
        "garbage": bytes(range(256)) * (size // 256),
        "short": template[: size // 2],
        # As it was exported: nobody trained it.
        "nan": honest.file(COMBINED_TEMPLATE).read_bytes(),
        "external": template.replace(b"\x08\x01", b"\x70\x01", 1),
        "wide": template + b"\x00",
    }[kind]


# How a body is bent, and which answer it is.
BODIES: list[tuple[Callable[[Answer], Answer], str]] = [
    (bomb, "runs"), (bomb, "artifact"), (bomb, "model"),
    (endless, "task"), (endless, "artifact"), (endless, "soft labels"), (endless, "model"),
    (longer, "runs"), (longer, "artifact"), (longer, "soft labels"),
]  # fmt: skip
TASKS: list[dict[str, Any]] = [
    {"retry_after_seconds": 1e308}, {"retry_after_seconds": -1}, {"round_num": 2**62}, {"round_num": -1},
    {"learning_rate_scale": 1e300}, {"soft_labels_round": 10**18}, {"action": "\x1b[2Jdance"},
    {"view_round": -5},
]  # fmt: skip
RUN_IDS = ["run\n7", "../../etc", "a b", ""]
WORK: list[dict[str, Any]] = [{"local_epochs": 10**9}, {"rounds": 10**12}, {"edge_lr": 1e30}]
MODELS = ["garbage", "short", "nan", "external", "wide"]
# It would clear a terminal, name a window, and turn the end of a line around.
TEXT = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\r\nall is well"
