"""What a combined model says of itself, in the metadata of its ONNX file: the names of its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from gkt_core.errors import ArtifactError

CLASS_NAMES_KEY = "class_names"


def metadata_of(class_names: Sequence[str]) -> dict[str, str]:
    """Give the metadata of a model; none where its classes have no names."""
    return {CLASS_NAMES_KEY: json.dumps(list(class_names), ensure_ascii=False)} if class_names else {}


def class_names_in(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Read the names of the classes, in the order of the logits; empty where there are none.

    Raises:
        ArtifactError: What stands there is no list of names.
    """
    text = metadata.get(CLASS_NAMES_KEY)
    if text is None:
        return ()
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ArtifactError(f"{CLASS_NAMES_KEY} of the model is no list of names: {text[:80]!r}")
    return tuple(names)
