"""Check what devices say with pydantic; the messages are the dataclasses that devices have, too."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from gkt_core.errors import MessageError
from gkt_core.wire.protocol import from_json

MessageT = TypeVar("MessageT")


def received(message_type: type[MessageT], data: bytes) -> MessageT:
    """Decode and validate a message that arrived.

    The protocol's own reading comes first: it bounds size and depth, and refuses what pydantic would take,
    such as integers beyond 64 bits.

    Raises:
        MessageError: Not JSON, a field is missing or unknown, or a value has another type or no meaning.
    """
    from_json(message_type, data)
    try:
        message: MessageT = adapter(cast(Hashable, message_type)).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join([message_type.__name__, *map(str, first["loc"])])
        raise MessageError(f"{where}: {first['msg']}") from error
    return message


@functools.cache
def adapter(message_type: Hashable) -> TypeAdapter[Any]:
    """Pydantic's reader of a message, made once."""
    return TypeAdapter(cast(Any, message_type))
