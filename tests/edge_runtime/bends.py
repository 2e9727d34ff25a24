"""Bent answers: each follows from a seed and the number of a session, and is one thing otherwise than it
should be."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

import onnx

from gkt_core.wire.protocol import SHA256_HEADER
from tests.edge_runtime.hostile_server import BINARY, Answer, Bend

REQUESTS = (
    "runs", "run", "artifact", "join", "missing", "shard", "report", "task", "soft labels", "model",
)  # fmt: skip
# Of each session one kind of request is bent; those that hold most are bent most.
_WEIGHTS = (2, 6, 5, 3, 2, 1, 2, 3, 3, 4)

HOSTILE_VALUES: tuple[Any, ...] = (
    2**62, -1, 0, 1, 10**9, 10**30, 1e308, -1e308, 5e-324, 0.5, True, None, "", "x", "nan", [], {}, [[[[]]]],
    ["a"], {"a": 1},
    "\x1b[2J\x1b]0;t\x07", "line\nline\r\n", "\u202egnp", "../../../../tmp/out", "/etc/passwd",
    "a" * 70_000,
    "\ud800", "\x00", [1] * 20_000, "%s%n{0}", "[red]", "[/]", -(2**63), 2**31, 2**32 + 1, 65_537,
)  # fmt: skip


def bend_of(seed: int, number: int) -> Bend:
    """The bend of a session: which request, the how-manieth of its kind, and what happens to the answer."""
    rng = random.Random(f"{seed}/{number}")
    (wanted,) = rng.choices(REQUESTS, _WEIGHTS)
    nth = rng.choice((0, 0, 0, 1, 2, 3))
    is_lasting = rng.random() < 0.5

    def bend(name: str, times: int, answer: Answer) -> Answer:
        if name != wanted or times < nth or (times > nth and not is_lasting):
            return answer
        return bent(random.Random(f"{seed}/{number}/{times}"), answer)

    return bend


def bent(rng: random.Random, answer: Answer) -> Answer:
    """Bend an answer, or what carries it."""
    if rng.random() < 0.25:
        return rng.choice(_CARRIERS)(rng, answer)
    if answer.kind == BINARY:
        body = bent_file(rng, answer.body)
        # Whoever changes a file changes the hash beside it.
        is_honest = rng.random() < 0.2
        sha256 = answer.headers[SHA256_HEADER] if is_honest else hashlib.sha256(body).hexdigest()
        return Answer(body, answer.kind, headers={SHA256_HEADER: sha256})
    if rng.random() < 0.15:
        return Answer(_bytes_bent(rng, answer.body), answer.kind)
    return Answer(bent_json(rng, answer.body), answer.kind)


def bent_json(rng: random.Random, body: bytes) -> bytes:
    document = json.loads(body)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        _bend_within(rng, document)
    text = json.dumps(document)
    if rng.random() < 0.05:
        text = text.replace("0", rng.choice(("NaN", "Infinity", "1e999", "9" * 5000)), 1)
    if rng.random() < 0.02:
        text = "[" * 50_000
    return text.encode()


def _bend_within(rng: random.Random, document: Any) -> None:
    """Change one value anywhere in a document; deep ones as often as others."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(document)
    if not places:
        return
    holder, key = rng.choice(places)
    what = rng.random()
    if what < 0.7:
        holder[key] = rng.choice(HOSTILE_VALUES)
    elif what < 0.8 and isinstance(holder, dict):
        del holder[key]
    elif what < 0.9 and isinstance(holder, dict):
        holder[rng.choice(("more", "__class__", "\x1b[2J"))] = rng.choice(HOSTILE_VALUES)
    elif isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice((-1, 0, 2, 10, 1000, 0.5))


def bent_file(rng: random.Random, body: bytes) -> bytes:
    """Bend the bytes of a file, or an ONNX file as one."""
    if rng.random() < 0.4:
        with contextlib.suppress(Exception):
            return _bent_model(rng, body)
    return _bytes_bent(rng, body)


def _bytes_bent(rng: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    kind = rng.random()
    if kind < 0.1:
        return b""
    if kind < 0.2:
        return bytes(changed[: rng.randrange(len(changed) + 1)])
    if kind < 0.25:
        return rng.randbytes(len(changed))
    for _ in range(rng.choice((1, 2, 8, 64))):
        if not changed:
            break
        # Files begin with what says how the rest is to be read.
        end = rng.choice((64, 1024, len(changed)))
        begin = rng.randrange(min(end, len(changed)))
        length = rng.choice((1, 1, 4, 8)) if kind < 0.9 else rng.randrange(64)
        changed[begin : begin + length] = rng.choice(
            (rng.randbytes(length), b"\xff" * length, bytes(length), rng.randbytes(length + 3))
        )
    return bytes(changed)


def _bent_model(rng: random.Random, body: bytes) -> bytes:
    model = onnx.load_from_string(body)
    nodes, tensors = model.graph.node, model.graph.initializer
    kind = rng.randrange(7)
    if kind == 0:
        node = rng.choice(nodes)
        node.op_type = rng.choice(
            ("Relu", "Concat", "Identity", "Loop", "Shape", "Expand", "Pow", "Exp", "Gather")
        )
    elif kind == 1:
        node = rng.choice([node for node in nodes if node.input])
        node.input[rng.randrange(len(node.input))] = rng.choice(("images", "features", "nothing", ""))
    elif kind == 2:
        tensor = rng.choice(tensors)
        length = len(tensor.raw_data)
        tensor.raw_data = rng.choice((b"\xff", b"\x7f", b"\x00")) * length
    elif kind == 3:
        tensor = rng.choice(tensors)
        tensor.dims[:] = [rng.choice((0, 1, -1, 2**31, 2**62)) for _ in tensor.dims]
    elif kind == 4:
        node = rng.choice([node for node in nodes if node.attribute])
        attribute = rng.choice(node.attribute)
        attribute.i = rng.choice((0, -1, 7, 2**31, 2**62))
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice((0, -1, 7, 1000, 2**31, 2**62))
    elif kind == 5:
        del nodes[rng.randrange(len(nodes))]
    else:
        value = rng.choice((*model.graph.input, *model.graph.output))
        value.type.tensor_type.elem_type = rng.choice((1, 7, 8, 11, 99))
    return bytes(model.SerializeToString())


# --- what carries an answer


def _status(rng: random.Random, answer: Answer) -> Answer:
    body = rng.choice(
        (b"", b"<html>", b'{"error": "RoundError", "message": "\\u001b[2J"}', b'{"error": 1}', answer.body)
    )
    headers = {"Retry-After": rng.choice(("1e308", "-1", "nan", "inf", "x", "9" * 400, "Wed, 21 Oct"))}
    names = (
        "SystemExit",
        "GKTError",
        "RoundClosedError",
        "MissingExtraError",
        "errors",
        "__doc__",
        "annotations",
    )
    if rng.random() < 0.5:
        body = json.dumps({"error": rng.choice(names), "message": "\x1b[2J" * 3}).encode()
    status = rng.choice(
        (100, 101, 199, 204, 206, 301, 304, 400, 404, 407, 409, 416, 429, 500, 503, 522, 599, 999)
    )
    return Answer(body, rng.choice((answer.kind, "application/json")), status, headers)


def _encoded(rng: random.Random, answer: Answer) -> Answer:
    bomb = gzip.compress(bytes(1 << 20), 9) * 256
    name = rng.choice(("gzip", "deflate", "br", "zstd", "gzip, gzip", "\x01", "identity"))
    return Answer(bomb, answer.kind, headers={**answer.headers, "Content-Encoding": name})


def _length(rng: random.Random, answer: Answer) -> Answer:
    length = rng.choice(("0", "-1", "1", "99999999999999999999", "x", "9" * 5000, str(len(answer.body) + 9)))
    return Answer(answer.body, answer.kind, headers={**answer.headers, "Content-Length": length})


def _range(rng: random.Random, answer: Answer) -> Answer:
    wanted = rng.choice(("bytes 0-1/2", "bytes 5-", "x", "bytes */0", f"bytes 0-{10**30}/*"))
    return Answer(answer.body, answer.kind, 206, {**answer.headers, "Content-Range": wanted})


def _raw(
    head: bytes, piece: bytes, times: int, pause: float = 0.0
) -> Callable[[random.Random, Answer], Answer]:
    def carrier(rng: random.Random, answer: Answer) -> Answer:
        def send(stream: Any) -> None:
            stream.write(head.replace(b"KIND", answer.kind.encode()))
            for _ in range(times):
                stream.write(piece)
                stream.flush()
                time.sleep(pause)

        return Answer(b"", raw=send)

    return carrier


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: KIND\r\n"
_CARRIERS: tuple[Callable[[random.Random, Answer], Answer], ...] = (
    _status, _status, _encoded, _length, _range,
    _raw(b"", b"", 0),
    _raw(b"\x00\xff garbage\r\n\r\n", b"", 0),
    _raw(b"HTTP/1.1 200 OK\r\n", b"X-Y: " + b"z" * 1000 + b"\r\n", 300),
    _raw(b"", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", 3000),
    _raw(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(0x10000) + b"\r\n", 3000),
    _raw(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"fffffffffffffffff\r\n", 3),
    _raw(_HEAD + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n", b"1234567", 1),
    _raw(_HEAD + b"\r\n", bytes(0x10000), 3000),
    _raw(_HEAD + b"Content-Length: 9000\r\n\r\n", b"X", 60, 0.02),
    _raw(_HEAD, b"X", 100, 0.02),
)  # fmt: skip
