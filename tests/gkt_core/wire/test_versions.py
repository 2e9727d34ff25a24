"""Neighbouring versions of the protocol: what each side leaves unread, leaves out, and refuses."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gkt_core.wire
from gkt_core.errors import ProtocolVersionError
from gkt_core.wire.message_json import (
    PROTOCOL_MINOR,
    PROTOCOL_VERSION,
    SPOKEN,
    Message,
    from_json,
    minor_of,
    since,
    to_json,
)
from gkt_core.wire.protocol import RunInfo, check_protocol_version
from server_app.web.validation import received

# Every message as version 1.0 wrote it, which refuses fields that it does not know: never to be changed.
OLD: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "messages_1_0.json").read_text())


def all_messages() -> dict[str, type[Message]]:
    """Every message of the product, by name."""
    for module in pkgutil.walk_packages(gkt_core.wire.__path__, "gkt_core.wire."):
        importlib.import_module(module.name)
    for name in ("overview", "page"):
        importlib.import_module(f"server_app.{name}.messages")
    names = ("gkt_core.", "server_app.")
    kinds, left = dict[str, type[Message]](), [Message]
    while left:
        for kind in left.pop().__subclasses__():
            left.append(kind)
            if kind.__module__.startswith(names):
                kinds[kind.__name__] = kind
    return kinds


MESSAGES = all_messages()


def test_what_is_recorded_is_every_message_of_then() -> None:
    assert OLD.keys() <= MESSAGES.keys() and len(OLD) > 20


@pytest.mark.parametrize("name", OLD)
def test_a_message_of_1_0_is_understood(name: str) -> None:
    message = from_json(MESSAGES[name], json.dumps(OLD[name]).encode())
    assert received(MESSAGES[name], json.dumps(OLD[name]).encode()) == message
    # And written for who knows no more than that, it is the same again: nothing more, nothing less.
    assert json.loads(to_json(message, 0)) == OLD[name]


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_what_a_later_version_adds_is_left_unread(name: str) -> None:
    """Nobody knows what will be added: a field of any kind, in the message and in those within."""
    if name not in OLD:
        pytest.skip("newer than 1.0, with no example: its own tests read it")
    known = from_json(MESSAGES[name], json.dumps(OLD[name]).encode())

    def more(message: Any, values: dict[str, Any]) -> dict[str, Any]:
        for each in dataclasses.fields(message):
            inner = getattr(message, each.name)
            ones = inner if isinstance(inner, list) else [inner]
            its = values[each.name] if isinstance(inner, list) else [values[each.name]]
            for one, value in zip(ones, its, strict=True):
                if dataclasses.is_dataclass(one):
                    more(one, value)
        values.update(later={"any": [1, None]}, later_text="x")
        return values

    data = json.dumps(more(known, json.loads(to_json(known)))).encode()
    assert from_json(MESSAGES[name], data) == received(MESSAGES[name], data) == known


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_what_was_added_has_a_default_and_is_marked(name: str) -> None:
    for each in dataclasses.fields(MESSAGES[name]):  # type: ignore[arg-type] # every message is a dataclass
        is_old = name not in OLD or each.name in OLD[name]
        assert is_old or each.metadata.get("minor", 0) in range(1, PROTOCOL_MINOR + 1), each.name
        has_default = (each.default, each.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        assert has_default or each.metadata.get("minor", 0) == 0, each.name


@dataclass(frozen=True, slots=True)
class Inner(Message):
    old: int
    new: int = field(default=2, metadata=since(1))


@dataclass(frozen=True, slots=True)
class Outer(Message):
    one: Inner
    many: list[Inner]
    named: dict[str, Inner]
    none: Inner | None = None
    newest: str = field(default="", metadata=since(1))


def test_what_an_older_peer_refuses_is_left_out_wherever_it_stands() -> None:
    outer = Outer(Inner(1), [Inner(2), Inner(3, 4)], {"a": Inner(5)}, None, "new")
    assert json.loads(to_json(outer, 0)) == {
        "one": {"old": 1},
        "many": [{"old": 2}, {"old": 3}],
        "named": {"a": {"old": 5}},
        "none": None,
    }
    assert from_json(Outer, to_json(outer, 1)) == outer
    assert from_json(Outer, to_json(outer, 0)).newest == ""
    info = RunInfo(1, "run-1", {}, {}, "0.2.0")
    assert from_json(RunInfo, to_json(info)) == info
    assert "gkt_version" not in json.loads(to_json(info, 0))


@pytest.mark.parametrize(
    ("said", "minor"),
    [(None, 0), ("", 0), ("1.0", 0), (SPOKEN, PROTOCOL_MINOR), ("1.7", 7), ("2.0, 1.3", 3), ("gibberish", 0)],
)
def test_both_find_what_they_have_in_common(said: str | None, minor: int) -> None:
    assert minor_of(said) == minor


def test_who_has_nothing_in_common_hears_which_side_is_older() -> None:
    with pytest.raises(ProtocolVersionError, match=r"version 2, .*: this side is older .* pip install --up"):
        minor_of("2.4")
    with pytest.raises(ProtocolVersionError, match=r"the other side is older than this one: there, pip"):
        check_protocol_version(0)
    check_protocol_version(PROTOCOL_VERSION)
