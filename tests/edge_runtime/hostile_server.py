"""A server that plays a whole run over real sockets, and answers in any other way when it is told to."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gkt_core.bundle.manifest import COMBINED_TEMPLATE, Bundle
from gkt_core.bundle.template import SERVER_PREFIX, fill_template
from gkt_core.config.run_config import RunConfig
from gkt_core.wire.compression import decompress
from gkt_core.wire.credentials import Enrolled
from gkt_core.wire.protocol import (
    PROTOCOL_VERSION,
    SHA256_HEADER,
    MissingShards,
    RunInfo,
    RunList,
    ShardReceipt,
    Task,
    to_json,
)
from gkt_core.wire.shard_file import parse
from gkt_core.wire.shards import SoftLabels, write_soft_labels
from tests.edge_runtime.in_thread import answering

JSON, BINARY = "application/json", "application/octet-stream"
RUN_ID = "run-of-nobody"
ROUNDS = 2
MOST_REQUESTS = 80


@dataclass
class Answer:
    """What is sent: as HTTP, or, with ``raw``, as any bytes at all until the device has had enough."""

    body: bytes
    kind: str = JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: Callable[[Any], None] | None = None


def message(value: Any) -> Answer:
    return Answer(to_json(value))


def file(body: bytes) -> Answer:
    return Answer(body, BINARY, headers={SHA256_HEADER: hashlib.sha256(body).hexdigest()})


# Gets the name of a request, how often it came before in this session, and the honest answer.
Bend = Callable[[str, int, Answer], Answer]


def trained_template(bundle: Bundle) -> bytes:
    """The server's network with numbers that could have been trained."""
    rng = np.random.default_rng(0)
    slots = bundle.manifest.slots()
    weights = {
        name: np.abs(rng.normal(0, 0.05, slot.shape)).astype(np.float32) + ("running_var" in name)
        for name, slot in slots.items()
        if name.startswith(SERVER_PREFIX)
    }
    return fill_template(bundle.file(COMBINED_TEMPLATE).read_bytes(), slots, weights, SERVER_PREFIX)


@dataclass
class Session:
    """One device's run."""

    bend: Bend
    bundle: Bundle
    manifest: dict[str, Any]
    config: RunConfig
    template: bytes
    counted: Counter[str] = field(default_factory=Counter)
    received: dict[tuple[int, str, int], bytes] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes, headers: Any) -> Answer:
        name, honest = self._honest(method, path, body, headers)
        self.counted[name] += 1
        if self.counted.total() > MOST_REQUESTS:
            return message(Task("stop", 0, 0, 0.0, "enough"))
        return self.bend(name, self.counted[name] - 1, honest)

    def _honest(self, method: str, path: str, body: bytes, headers: Any) -> tuple[str, Answer]:
        is_list = path == "/v1/runs"
        path = path.removeprefix("/v1/runs").removeprefix(f"/{RUN_ID}")
        if path == "":
            runs = message(RunList(PROTOCOL_VERSION, [RUN_ID]))
            info = message(RunInfo(PROTOCOL_VERSION, RUN_ID, self.config.told(), self.manifest))
            return ("runs", runs) if is_list else ("run", info)
        if found := re.fullmatch(r"/clients/([^/]+)/credential", path):
            return "credential", message(Enrolled(found[1]))
        if path.startswith("/artifacts/"):
            name = path.rpartition("/")[2]
            there = re.fullmatch(r"[\w.-]+", name) and (self.bundle.path / name).is_file()
            return "artifact", file((self.bundle.path / name).read_bytes() if there else b"")
        if found := re.fullmatch(r"/rounds/(\d+)/clients/[^/]+/shards/(\w+)/(\d+)", path):
            key = int(found[1]), found[2], int(found[3])
            self.received[key] = decompress(body, 1 << 26) if headers.get("Content-Encoding") else body
            return "shard", message(ShardReceipt(1, len(body), False))
        if found := re.fullmatch(r"/rounds/(\d+)/clients/[^/]+/shards", path):
            missing = {
                split: [index for index in range(num) if (int(found[1]), split, index) not in self.received]
                for split, num in self.shards.items()
            }
            return "missing", message(MissingShards(missing["train"], missing["validation"]))
        if found := re.fullmatch(r"/rounds/(\d+)/clients/([^/]+)/soft-labels", path):
            return "soft labels", file(self._soft_labels(int(found[1]), found[2]))
        if path == "/model/template":
            return "model", file(self.template)
        if path.endswith("/report"):
            last = int(path.split("/")[2])
            action = "finish" if last >= ROUNDS else "wait"
            return "report", message(Task(action, last, last, 0.0, "the others"))
        if method == "PUT":
            request = json.loads(body)
            size = self.config.shard_samples
            for split, name in (("train", "num_examples"), ("validation", "num_validation_examples")):
                self.shards[split] = -(-request[name] // size)
            return "join", message(Task("train", 1, 0, 0.0, ""))
        return "task", message(Task("train", 2, 1, 0.0, ""))

    def _soft_labels(self, round_num: int, client_id: str) -> bytes:
        ids = [
            np.array(parse(data)[0]["sample_ids"])
            for (of_round, split, _), data in sorted(self.received.items())
            if (of_round, split) == (round_num, "train")
        ]
        all_ids = np.sort(np.concatenate(ids)) if ids else np.zeros(1, np.int64)
        logits = np.random.default_rng(0).normal(size=(len(all_ids), self.bundle.manifest.num_classes))
        return write_soft_labels(client_id, round_num, SoftLabels(all_ids, logits.astype(np.float32)))


class HostileServer:
    """Answers devices, each of which has its session's number as its token; those with a join link are 0.

    Args:
        begin: Makes the session of a number.
        page: Answers what is no device's request, by its path; None for those.
    """

    def __init__(
        self, begin: Callable[[int], Session], page: Callable[[str], Answer | None] = lambda path: None
    ) -> None:
        self._begin, self._page = begin, page
        self.sessions: dict[int, Session] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """Answer on a port of this machine, and give its URL."""
        hostile = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def log_message(self, *_: Any) -> None: ...

            def _answer(self) -> None:
                with contextlib.suppress(OSError):
                    hostile._answer(self)

            do_GET = do_PUT = do_POST = _answer

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A device that goes away is no error of the test's."""

        server = Server(("127.0.0.1", 0), Handler)
        with answering(server) as port:
            yield f"http://127.0.0.1:{port}"

    @property
    def uploads(self) -> int:
        """How many shards came."""
        return sum(len(session.received) for session in self.sessions.values())

    def counted(self, name: str) -> int:
        """How many requests of this kind came."""
        return sum(session.counted[name] for session in self.sessions.values())

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if (static := self._page(handler.path)) is not None:
            self._send(handler, static)
            return
        numbered = re.search(r"Bearer session-(\d+)$", handler.headers["Authorization"])
        number = int(numbered[1]) if numbered else 0
        if number not in self.sessions:
            self.sessions[number] = self._begin(number)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        answer = self.sessions[number].answer(handler.command, handler.path, body, handler.headers)
        if answer.raw is not None:
            handler.close_connection = True
            answer.raw(handler.wfile)
            return
        self._send(handler, answer)

    @staticmethod
    def _send(handler: http.server.BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.send_response_only(answer.status)
        handler.send_header("Content-Type", answer.kind)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if "Content-Length" not in answer.headers:
            handler.send_header("Content-Length", str(len(answer.body)))
        else:
            handler.close_connection = True
        handler.end_headers()
        handler.wfile.write(answer.body)


def session_of(bundle: Bundle, template: bytes, config: RunConfig, bend: Bend, **changes: Any) -> Session:
    """A session of a bundle, with a manifest that may say something else."""
    manifest = bundle.manifest.to_dict() | changes
    return Session(bend, bundle, manifest, config, template)
