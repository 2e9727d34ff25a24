"""Messages as JSON: read bounded and strictly, whoever sent them, without another package.

The device and the server read with this; the server has pydantic look as well.

Neighbouring versions understand each other: a field that this side does not know is left unread, as long as
both speak one protocol version. Both say in ``GKT-Protocol`` which they speak, ``1.1`` (RFC 9110, 5.1: who
does not know the header leaves it unread, too). Who says nothing is of 1.0, which refuses fields that it does
not know: those of :func:`since` are left out of what it is sent.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
from collections.abc import Hashable, Mapping
from typing import Annotated, Any, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from gkt_core.errors import MessageError, ProtocolVersionError
from gkt_core.printable import printable
from gkt_core.version import __version__

MAX_MESSAGE_BYTES = 1 << 20
_INT_LIMIT = 1 << 63

MessageT = TypeVar("MessageT")
# Characters of a text for a person.
LONGEST_TEXT = 2000


class Message:
    """Base of all messages.

    The server checks what arrives with pydantic as well, which reads its settings here; nothing else does.
    """

    __slots__ = ()
    # Not annotated: what reads the messages' fields would take it for one.
    __pydantic_config__ = {  # noqa: RUF012
        "extra": "ignore",
        "strict": True,
        "allow_inf_nan": False,
        # What is sent holds every field: so do the schemas of answers.
        "json_schema_serialization_defaults_required": True,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """What a number of a message may be, as ``Annotated[int, Range(0, 9)]``; others are refused at reading.

    Attributes:
        low: Least value.
        high: Greatest value.
    """

    low: float
    high: float


class Shown:
    """Marks a text for a person, as ``Annotated[str, Shown]``: at reading it is made printable, and cut."""


# Of the protocol version: messages have had fields added since 1.0, each with a default.
PROTOCOL_VERSION, PROTOCOL_MINOR = 1, 1
PROTOCOL_HEADER = "GKT-Protocol"
SPOKEN = f"{PROTOCOL_VERSION}.{PROTOCOL_MINOR}"
_SPOKEN = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
_MINOR = "minor"


def since(minor: int) -> dict[str, int]:
    """Mark a field that was added later, ``field(default="", metadata=since(1))``: it has a default."""
    return {_MINOR: minor}


def added_later(message_type: type) -> frozenset[str]:
    """Name the fields of a message that not every peer of this version knows."""
    return frozenset(each.name for each in dataclasses.fields(message_type) if each.metadata.get(_MINOR, 0))


def minor_of(said: str | None) -> int:
    """Give the minor version that a peer knows, by what it said in ``GKT-Protocol``.

    Args:
        said: All that it speaks, ``2.0, 1.3``; None or something else from a peer of 1.0.

    Raises:
        ProtocolVersionError: It speaks none of ours.
    """
    spoken = [(int(major), int(minor)) for major, minor in _SPOKEN.findall((said or "")[:100])]
    common = [minor for major, minor in spoken if major == PROTOCOL_VERSION]
    if spoken and not common:
        raise other_version(max(spoken)[0])
    return max(common, default=0)


def other_version(theirs: int) -> ProtocolVersionError:
    """Say which side has to be brought to the version of the other, and with which command."""
    older, newer = ("this side", "the other") if theirs > PROTOCOL_VERSION else ("the other side", "this one")
    return ProtocolVersionError(
        f"the other side speaks protocol version {theirs}, this one {PROTOCOL_VERSION} (gkt-edge "
        f"{__version__}): {older} is older than {newer}: there, pip install --upgrade gkt-edge, or npm "
        "install gkt-edge@latest"
    )


def to_json(message: Any, minor: int = PROTOCOL_MINOR) -> bytes:
    """Encode a message: one JSON object with sorted keys.

    Args:
        message: The message.
        minor: What the peer knows: it is sent no field that came later.

    Raises:
        MessageError: A number is NaN or infinite.
    """
    values = dataclasses.asdict(message)
    if minor < PROTOCOL_MINOR:
        _leave_out(message, values, minor)
    try:
        return json.dumps(values, sort_keys=True, allow_nan=False).encode()
    except ValueError as error:
        raise MessageError(f"{type(message).__name__} holds NaN or infinity, expected numbers") from error


def _leave_out(message: Any, values: dict[str, Any], minor: int) -> None:
    """Take fields that came later out of a message as a dictionary, and out of messages in it."""
    for each in dataclasses.fields(message):
        if each.metadata.get(_MINOR, 0) > minor:
            del values[each.name]
            continue
        inner, held = getattr(message, each.name), values[each.name]
        if isinstance(inner, dict):
            inner, held = list(inner.values()), list(held.values())
        for one, its in zip(inner, held, strict=True) if isinstance(inner, list) else [(inner, held)]:
            if dataclasses.is_dataclass(one):
                _leave_out(one, its, minor)


def from_json(message_type: type[MessageT], data: bytes) -> MessageT:
    """Decode and validate a message.

    Raises:
        MessageError: Not JSON, a field is missing, or a value has another type or no meaning.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(data)} bytes, expected at most {MAX_MESSAGE_BYTES}")
    try:
        values = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"the message is not JSON, expected a {message_type.__name__}") from error
    return from_dict(message_type, values)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def from_dict(message_type: type[MessageT], values: Any) -> MessageT:
    """Build a message from decoded JSON, as :func:`from_json` does; others have no further fields."""
    if not isinstance(values, dict):
        raise MessageError(f"expected a JSON object with the fields of {message_type.__name__}")
    hints = _type_hints(cast(Hashable, message_type))
    fields: Mapping[str, dataclasses.Field[Any]] = message_type.__dataclass_fields__  # type: ignore[attr-defined]
    unknown = sorted(set(values) - set(fields))
    if unknown and issubclass(message_type, Message):
        # Of a neighbouring version, which knows more.
        values = {name: value for name, value in values.items() if name in fields}
        unknown = []
    missing = sorted(
        name
        for name, declared in fields.items()
        if name not in values
        and declared.default is dataclasses.MISSING
        and declared.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        raise MessageError(
            f"{message_type.__name__}: unknown fields {unknown[:5]}, missing fields {missing[:5]}: "
            "do device and server run the same version of gkt?"
        )
    where = message_type.__name__
    return message_type(
        **{name: _convert(value, hints[name], f"{where}.{name}") for name, value in values.items()}
    )


@functools.cache
def _type_hints(message_type: Hashable) -> dict[str, Any]:
    return get_type_hints(message_type, include_extras=True)


def _convert(value: Any, expected: Any, where: str) -> Any:
    origin = get_origin(expected)
    if origin is Annotated:
        kind, about = get_args(expected)
        return _within(_convert(value, kind, where), about, where)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (expected,) = [option for option in get_args(expected) if option is not type(None)]
        origin = get_origin(expected)
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return from_dict(expected, value)
    if origin is list and isinstance(value, list):
        (item,) = get_args(expected)
        return [_convert(each, item, where) for each in value]
    if origin is dict and isinstance(value, dict):
        item = get_args(expected)[1]
        return value if item is Any else {name: _convert(each, item, where) for name, each in value.items()}
    if expected is float and type(value) is int and abs(value) < _INT_LIMIT:
        return float(value)
    if type(value) is (origin or expected):
        _check_range(value, where)
        return value
    # Only the type of what is nested: printing it may recurse as deep as the sender likes.
    shown = type(value).__name__ if isinstance(value, (list, dict)) else str(value)[:40]
    raise MessageError(f"{where} is {shown!r}, expected {getattr(expected, '__name__', expected)}")


def _within(value: Any, about: Any, where: str) -> Any:
    if about is Shown:
        return printable(value[:LONGEST_TEXT])
    if not about.low <= value <= about.high:
        raise MessageError(f"{where} is {value}, expected {about.low:g} to {about.high:g}")
    return value


def _check_range(value: Any, where: str) -> None:
    """Refuse what JSON can say and neither a database nor a page can hold."""
    if isinstance(value, int) and abs(value) >= _INT_LIMIT:
        raise MessageError(f"{where} is {str(value)[:40]}, expected a number of 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise MessageError(f"{where} is {value}, expected a finite number")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise MessageError(f"{where} holds half of a surrogate pair, expected Unicode text") from error
