"""The kinds of documents that ``gkt profile`` writes, by the ``schema`` that each one carries."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.errors import InputError
from profiling.frame.sections import Document, Plot, Section

# Modules that turn a document into sections and plots, imported when one is shown.
KINDS = {
    "gkt-plan/1": "profiling.plan.shown",
    "gkt-profile-diff/1": "profiling.frame.diff.shown",
    "gkt-profile-edge/1": "profiling.device.edge.shown",
    "gkt-profile-engines/1": "profiling.device.engines.shown",
    "gkt-profile-compare/1": "profiling.device.compare.shown",
    "gkt-profile-privacy/1": "profiling.privacy.shown",
    "gkt-profile-simulation/1": "profiling.experiments.speed.shown",
    "gkt-profile-traffic/1": "profiling.traffic.shown",
}


@dataclass(frozen=True, slots=True)
class ReportKind:
    """How documents of one schema are shown.

    Attributes:
        title: Of the report.
        sections: Tables, in order.
        plots: Pictures, the most telling one first.
    """

    title: str
    sections: Sequence[Section]
    plots: Sequence[Plot]


def kind_of(document: Document) -> ReportKind:
    """Find how a document is shown.

    Raises:
        InputError: It is no document of this version's ``gkt profile``.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema not in KINDS:
        raise InputError(
            f"the document has schema {str(schema)[:60]!r}, expected one of {', '.join(KINDS)}: "
            "give a JSON file that gkt profile of this version wrote"
        )
    module = importlib.import_module(KINDS[schema])
    return ReportKind(module.title(document), module.sections(document), module.PLOTS)


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON file that ``gkt profile`` wrote.

    Raises:
        InputError: It cannot be read, is not JSON, or has another schema.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}: give a JSON file of gkt profile") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: give a file that gkt profile --out NAME.json wrote") from error
    try:
        kind_of(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise InputError(
            f"{path} lacks what its schema {document['schema']} promises ({type(error).__name__}: {error}): "
            "it was changed by hand or cut short; measure again"
        ) from error
    checked: dict[str, Any] = document
    return checked
