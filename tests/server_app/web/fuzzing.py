"""Requests that are nearly right: a valid one of every kind, bent in one or several places.

``make fuzz N=50000`` sends many; the suite sends some (test_fuzz.py).
"""

import hashlib
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gkt_core.wire.compression import compress
from gkt_core.wire.credentials import EnrolmentRequest, NewCredential
from gkt_core.wire.online_features import write_features
from gkt_core.wire.protocol import PROTOCOL_VERSION, SHA256_HEADER, JoinRequest, RoundReport, to_json
from gkt_core.wire.shards import ShardKey
from tests.server_app.server_fixtures import FEATURE_SHAPE, NUM_CLASSES, operator, shard_bytes

PARTS = (("train", 0, 8, 0), ("train", 1, 4, 8), ("validation", 0, 5, 90))
JOIN = JoinRequest(PROTOCOL_VERSION, 12, 5, NUM_CLASSES, "ort_training")
INVITE, NEW = EnrolmentRequest(1, 60.0), NewCredential("ab" * 32)
OPERATORS = {"Authorization": f"Bearer {operator()}"}
REPORT = RoundReport(2, 1, 12, 0.75, 0.5, 1.5, 0.25, 8.0)
NUMBERS = (0, -1, 1, 7, 255, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 0.5, 1e308, -1e-320)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    None,
    True,
    "",
    "x",
    "\0",
    "\ud800",
    "\u2603" * 50,
    [],
    {},
    [[]],
    {"a": {}},
    "NaN",
)
PATH_PARTS = (
    "",
    ".",
    "..",
    "%2e%2e",
    "%00",
    "a" * 300,
    "%ff",
    "client-b",
    "client-z",
    "0",
    "-1",
    "9" * 400,
    "%2F",
)
VERBS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Sent:
    """One request."""

    verb: str
    parts: tuple[str, ...]
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    # Whether the hash follows what the body becomes: else hardly anything passes the first check.
    is_hashed: bool = False

    @property
    def path(self) -> str:
        return "/" + "/".join(self.parts)


def valid_requests(
    run_id: str, client_id: str = "client-a", operators: dict[str, str] = OPERATORS
) -> list[Sent]:
    """One of every kind, from a device that has joined a round that is open.

    Args:
        run_id: The run.
        client_id: The device.
        operators: Headers with which operators are known.
    """
    root = ("v1", "runs", run_id)
    part = (*root, "rounds", "1", "clients", client_id)
    requests = [
        Sent("GET", ("v1", "health")),
        Sent("GET", ("v1", "openapi.json")),
        Sent("GET", ("docs",)),
        Sent("GET", ("v1", "runs")),
        Sent("GET", root),
        Sent("GET", (*root, "status")),
        Sent("GET", (*root, "artifacts", "checkpoint")),
        Sent("GET", (*root, "model", "template")),
        Sent("GET", (*root, "clients", client_id, "task")),
        Sent("GET", (*part, "shards")),
        Sent("GET", (*part, "soft-labels")),
        Sent("GET", (*root, "rounds", "1", "extractor")),
        Sent("PUT", (*part, "shards", "extractor", "0"), b"GKLV", is_hashed=True),
        Sent("PUT", (*root, "clients", client_id), to_json(JOIN)),
        Sent("PUT", (*part, "report"), to_json(REPORT)),
        Sent("GET", ("v1", "authority")),
        Sent("GET", (*root, "operator", "clients"), b"", operators),
        Sent("POST", (*root, "operator", "enrolments"), to_json(INVITE), operators),
        Sent("POST", (*root, "operator", "clients", client_id, "rotate"), b"", operators),
        Sent("PUT", (*root, "clients", "client-c", "credential"), to_json(NEW), operators),
    ]
    features = write_features(np.random.default_rng(0).random((2, *FEATURE_SHAPE), dtype=np.float32))
    requests.append(Sent("POST", ("v1", "infer"), features))
    requests.append(Sent("POST", ("v1", "infer"), compress(features), {"Content-Encoding": "zstd"}))
    for split, index, num, first_id in PARTS:
        data = shard_bytes(ShardKey(client_id, 1, split, index), num, first_id=first_id)
        path = (*part, "shards", split, str(index))
        requests.append(Sent("PUT", path, data, is_hashed=True))
        requests.append(Sent("PUT", path, compress(data), {"Content-Encoding": "zstd"}, is_hashed=True))
    return requests


def bend(request: Sent, rng: random.Random) -> Sent:
    """The request with one to three things wrong (now and then none: what is right must stay right)."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        request = rng.choice(_BENDS)(request, rng)
    if request.is_hashed:
        digest = hashlib.sha256(request.body).hexdigest()
        request = replace(request, headers={SHA256_HEADER: digest, **request.headers})
    return request


def _bytes(request: Sent, rng: random.Random) -> Sent:
    body = bytearray(request.body or b"{}")
    for _ in range(rng.choice((1, 1, 2, 8))):
        # Mostly in the beginning, where headers are.
        place = int(len(body) * rng.random() ** rng.choice((1, 4)))
        match rng.randrange(5):
            case 0:
                body[place : place + 1] = rng.randbytes(1)
            case 1 if body:
                body[min(place, len(body) - 1)] ^= 1 << rng.randrange(8)
            case 2:
                del body[place : place + rng.choice((1, 4, 100))]
            case 3:
                body[place:place] = rng.randbytes(rng.choice((1, 4, 100)))
            case _:
                del body[place:]
    return replace(request, body=bytes(body))


def _json(request: Sent, rng: random.Random) -> Sent:
    if not request.body.startswith(b"{"):
        return _shard_header(request, rng)
    try:
        values = json.loads(request.body)
    except ValueError:
        return request
    return replace(request, body=json.dumps(_bent_values(values, rng)).encode())


def _bent_values(values: Any, rng: random.Random) -> Any:
    if not isinstance(values, dict) or not values:
        return rng.choice(VALUES)
    name = rng.choice(sorted(values))
    match rng.randrange(4):
        case 0:
            del values[name]
        case 1:
            values[rng.choice(("", "x", name + "x"))] = rng.choice(VALUES)
        case 2 if isinstance(values[name], dict):
            values[name] = _bent_values(values[name], rng)
        case _:
            values[name] = rng.choice(VALUES)
    return values


def _shard_header(request: Sent, rng: random.Random) -> Sent:
    """Another header of a shard, with its length put right: what it says is wrong, not how."""
    if "Content-Encoding" in request.headers or len(request.body) < 8:
        return request
    (length,) = struct.unpack("<Q", request.body[:8])
    try:
        header = json.loads(request.body[8 : 8 + length])
        if "__metadata__" in header and rng.randrange(2) and isinstance(header["__metadata__"]["gkt"], str):
            values = _bent_values(json.loads(header["__metadata__"]["gkt"]), rng)
            header["__metadata__"]["gkt"] = json.dumps(values)
        else:
            header = _bent_values(header, rng)
    except (ValueError, KeyError, TypeError):
        return request
    text = json.dumps(header).encode()
    return replace(request, body=struct.pack("<Q", len(text)) + text + request.body[8 + length :])


def _path(request: Sent, rng: random.Random) -> Sent:
    # Of an address that an earlier bend has emptied one part is bent again.
    parts = list(request.parts) or [""]
    place = rng.randrange(len(parts))
    match rng.randrange(4):
        case 0:
            del parts[place]
        case 1:
            parts.insert(place, rng.choice(PATH_PARTS))
        case _:
            parts[place] = rng.choice(PATH_PARTS)
    return replace(request, parts=tuple(parts))


def _header(request: Sent, rng: random.Random) -> Sent:
    name = rng.choice(("Content-Encoding", SHA256_HEADER, "Content-Type", "Authorization", "Content-Length"))
    values = (
        "",
        "zstd",
        "ZSTD",
        "gzip",
        "zstd, zstd",
        "0" * 64,
        "Bearer",
        "Bearer x",
        "-1",
        "text/html",
        "\xff",
    )
    return replace(request, headers={**request.headers, name: rng.choice(values)})


def _verb(request: Sent, rng: random.Random) -> Sent:
    return replace(request, verb=rng.choice(VERBS))


def _wrap(request: Sent, rng: random.Random) -> Sent:
    """Compressed once more, or a bomb."""
    body = compress(bytes(20_000_000) if rng.randrange(8) == 0 else request.body)
    return replace(request, body=body, headers={**request.headers, "Content-Encoding": "zstd"})


_BENDS: tuple[Callable[[Sent, random.Random], Sent], ...] = (
    _bytes,
    _bytes,
    _bytes,
    _json,
    _json,
    _path,
    _header,
    _verb,
    _wrap,
)
