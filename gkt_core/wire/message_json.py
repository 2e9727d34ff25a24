"""Messages as JSON: read bounded and strictly, whoever sent them, without another package.

The device and the server read with this; the server has pydantic look as well.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Hashable, Mapping
from typing import Annotated, Any, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from gkt_core.errors import MessageError
from gkt_core.printable import printable

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
        "extra": "forbid",
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


def to_json(message: Any) -> bytes:
    """Encode a message: one JSON object with sorted keys.

    Raises:
        MessageError: A number is NaN or infinite.
    """
    try:
        return json.dumps(dataclasses.asdict(message), sort_keys=True, allow_nan=False).encode()
    except ValueError as error:
        raise MessageError(f"{type(message).__name__} holds NaN or infinity, expected numbers") from error


def from_json(message_type: type[MessageT], data: bytes) -> MessageT:
    """Decode and validate a message.

    Raises:
        MessageError: Not JSON, a field is missing or unknown, or a value has another type or no meaning.
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
    """Build a message from decoded JSON, as :func:`from_json` does."""
    if not isinstance(values, dict):
        raise MessageError(f"expected a JSON object with the fields of {message_type.__name__}")
    hints = _type_hints(cast(Hashable, message_type))
    fields: Mapping[str, dataclasses.Field[Any]] = message_type.__dataclass_fields__  # type: ignore[attr-defined]
    unknown = sorted(set(values) - set(fields))
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
