"""Read and write the metadata of an ONNX file as bytes, without onnx: whatever else is in it stays as it is.

Metadata is the repeated field 14 of the model, and in protobuf a message with further bytes behind it is one
with further entries. So weights stay where they lie (:mod:`gkt_core.bundle.template`).
"""

from __future__ import annotations

from collections.abc import Mapping

from gkt_core.onnx_files.protobuf import Field, fields, message_field, text

_METADATA, _KEY, _VALUE = 14, 1, 2


def metadata_in(model: bytes) -> dict[str, str]:
    """Give the metadata of an ONNX file; of two entries with one key the last, as ONNX Runtime takes it.

    Raises:
        UnsafeModelError: It is no ONNX file, or cut short.
    """
    entries = (_entry(field) for field in fields(model) if field.number == _METADATA)
    return dict(entries)


def with_metadata(model: bytes, entries: Mapping[str, str]) -> bytes:
    """Give an ONNX file these entries, in place of those of the same keys.

    Raises:
        UnsafeModelError: It is no ONNX file, or cut short.
    """
    kept = (
        field.whole for field in fields(model) if field.number != _METADATA or _entry(field)[0] not in entries
    )
    added = (
        message_field(_METADATA, message_field(_KEY, key.encode()) + message_field(_VALUE, value.encode()))
        for key, value in entries.items()
    )
    return b"".join((*kept, *added))


def _entry(field: Field) -> tuple[str, str]:
    parts = list(fields(field.content))
    key, value = ([part for part in parts if part.number == number] for number in (_KEY, _VALUE))
    return text(key[-1:]), text(value[-1:])
