"""Protobuf messages, written, and read strictly: what another reader could understand otherwise is refused.

The encoding: https://protobuf.dev/programming-guides/encoding/. Google's readers skip fields that they do not
know, take the last of two values, cut numbers to 32 bits and read groups. Here each of these is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from gkt_core.errors import UnsafeModelError

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
_WIDTHS = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
# Bytes of a key and of a length at most, as every reader has it.
_LONGEST_KEY, _LONGEST_NUMBER = 5, 10
_LARGEST_LENGTH = 1 << 31

Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message as it comes.

    Attributes:
        number: Its number.
        kind: How it is encoded: :data:`VARINT`, :data:`LENGTH`, ...
        content: Its bytes, without key and length; of a number none.
        value: Of a varint, as an unsigned number of 64 bits; else 0.
        whole: All its bytes.
    """

    number: int
    kind: int
    content: memoryview
    value: int
    whole: memoryview


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields that a message may have.

    Attributes:
        name: Of the message, for errors.
        fields: Name of each by its number.
        once: Names of those that come once at most.
        refused: What it is that others are, by number, in words.
    """

    name: str
    fields: Mapping[int, str]
    once: Set[str] = frozenset()
    refused: Mapping[int, str] = field(default_factory=dict)


def fields(message: Bytes) -> Iterator[Field]:
    """Give each field of a message in turn.

    Raises:
        UnsafeModelError: It is no message, is cut short, or holds a group.
    """
    view = memoryview(message)
    position = 0
    while position < len(view):
        begin = position
        key, position = read_varint(view, position, _LONGEST_KEY)
        number, kind = key >> 3, key & 7
        value, content = 0, view[position:position]
        if kind == VARINT:
            value, position = read_varint(view, position)
        elif kind == LENGTH:
            length, position = read_varint(view, position, _LONGEST_KEY)
            if length >= _LARGEST_LENGTH:
                raise _broken(f"a field of {length} bytes")
            content = view[position : position + length]
            position += length
        elif kind in _WIDTHS:
            content = view[position : position + _WIDTHS[kind]]
            position += _WIDTHS[kind]
        else:
            raise _broken(f"a field of kind {kind} at byte {begin}")
        if position > len(view):
            raise _broken("it is cut short")
        if not 1 <= number < 1 << 29:
            raise _broken(f"a field of number {number}")
        yield Field(number, kind, content, value, view[begin:position])


def read(message: Bytes, schema: Schema) -> dict[str, list[Field]]:
    """Give the fields of a message by name, each in the order in which they come.

    Raises:
        UnsafeModelError: It has a field that is not in the schema, or one twice that comes once.
    """
    given: dict[str, list[Field]] = {name: [] for name in schema.fields.values()}
    for each in fields(message):
        name = schema.fields.get(each.number)
        if name is None:
            what = schema.refused.get(each.number, f"a field {each.number}, which no export has")
            raise UnsafeModelError(f"the {schema.name} has {what}")
        if name in schema.once and given[name]:
            raise UnsafeModelError(f"the {schema.name} has two of {name}")
        given[name].append(each)
    return given


def read_varint(message: memoryview, position: int, longest: int = _LONGEST_NUMBER) -> tuple[int, int]:
    """Read a number of at most so many bytes, and where it ends."""
    value = shift = 0
    for byte in message[position : position + longest]:
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            if value >= 1 << (32 if longest == _LONGEST_KEY else 64):
                break
            return value, position
    raise _broken("a number is cut short or too long")


def numbers(given: list[Field]) -> list[int]:
    """Give whole numbers of 64 bits with their sign, packed into one field or not."""
    values = []
    for each in given:
        if each.kind == VARINT:
            values.append(_signed(each.value))
            continue
        if each.kind != LENGTH:
            raise _broken("a whole number of another kind")
        position = 0
        while position < len(each.content):
            value, position = read_varint(each.content, position)
            values.append(_signed(value))
    return values


def number(given: list[Field], default: int = 0) -> int:
    """Give the one whole number of a field that comes once at most."""
    if any(each.kind != VARINT for each in given):
        raise _broken("a whole number of another kind")
    return _signed(given[0].value) if given else default


def text(given: list[Field]) -> str:
    """Give the one text of a field that comes once at most; empty without it."""
    return texts(given[:1])[0] if given else ""


def texts(given: list[Field]) -> list[str]:
    """Give all texts of a field."""
    try:
        return [str(content, "utf-8") for content in contents(given)]
    except UnicodeDecodeError as error:
        raise _broken("a text is not Unicode") from error


def contents(given: list[Field]) -> list[memoryview]:
    """Give the bytes of each, which are messages or texts."""
    if any(each.kind != LENGTH for each in given):
        raise _broken("a number where a message or a text belongs")
    return [each.content for each in given]


def message_field(number: int, content: bytes) -> bytes:
    """Write a field that is a message, a text or bytes."""
    return _varint(number << 3 | LENGTH) + _varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """Write a field that is a whole number, not below 0."""
    return _varint(number << 3 | VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    """Encode seven bits a byte, low ones first; the eighth says that more follow."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _broken(what: str) -> UnsafeModelError:
    return UnsafeModelError(f"no whole ONNX file: {what}")
