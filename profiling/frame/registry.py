"""The list of all measurements and reports; lists them without importing any."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.errors import InputError
from profiling.frame.measurement import Measurement, Report
from profiling.frame.sections import Document, Page


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of report.

    Attributes:
        where: ``module:class`` of its :class:`Report`; the module imports no torch.
        summary: A line for the list of commands.
    """

    where: str
    summary: str = ""


# By the name of the command `gkt profile NAME`.
MEASUREMENTS: Mapping[str, Entry] = {
    "browser": Entry(
        "profiling.device.browser.report:Browser", "A step in a page's worker and in Node, beside Python."
    ),
    "busy": Entry("profiling.experiments.busy.report:Busy", "The trainer beside a busy core, and alone."),
    "chaos": Entry("profiling.server.chaos.report:Chaos", "Disturb a run at random: nothing may be lost."),
    "codecs": Entry(
        "profiling.traffic.codecs.report:Codecs", "Bytes and speed of features in 4 bits and fewer."
    ),
    "compare": Entry(
        "profiling.device.compare.report:Compare", "Edge networks beside ResNet-56 and ResNet-110."
    ),
    "edge": Entry("profiling.device.edge.report:Edge", "On the device itself: time, memory, sizes, energy."),
    "engines": Entry("profiling.device.engines.report:Engines", "Both engines beside PyTorch at its best."),
    "ingest": Entry("profiling.server.web.report:Ingest", "What receiving features costs, beside nginx."),
    "load": Entry("profiling.server.load.report:Load", "Memory of a server with 200 devices at once."),
    "memory": Entry(
        "profiling.experiments.memory.report:Memory", "What an image size costs of memory, and estimates."
    ),
    "peers": Entry("profiling.server.peers.report:Peers", "Silent and trickling peers, and who is answered."),
    "poisoning": Entry("profiling.server.poisoning.report:Poisoning", "What a poisoned device costs a run."),
    "privacy": Entry("profiling.privacy.report:Privacy", "What an attacker makes of uploaded features."),
    "retention": Entry("profiling.server.retention.report:Retention", "What a run of 10,000 rounds keeps."),
    "simulation": Entry("profiling.experiments.speed.report:Speed", "How fast gkt simulate trains."),
    "traffic": Entry("profiling.traffic.report:Traffic", "Bytes of FedGKT, split learning and FedAvg."),
    "trainer": Entry(
        "profiling.server.trainer.report:Trainer", "How fast the server trains, in how much memory."
    ),
    "waiting": Entry(
        "profiling.server.waiting.report:Waiting", "What devices that wait cost, and how soon they go on."
    ),
    "web": Entry("profiling.server.web.report:Web", "Web servers: cost of bodies, memory, stalled uploads."),
}
# Reports that are no `gkt profile NAME`, by schema.
OTHERS: Mapping[str, Entry] = {
    "gkt-plan/1": Entry("profiling.plan.report:Plan"),
    "gkt-profile-diff/1": Entry("profiling.frame.diff.report:Diff"),
}


def measurement(name: str) -> Measurement[Any]:
    """Import one measurement.

    Raises:
        KeyError: There is none of this name.
    """
    made = _load(MEASUREMENTS[name])
    assert isinstance(made, Measurement), f"{MEASUREMENTS[name].where} is no Measurement"
    return made


def report_of(document: Document) -> Report:
    """Find how a document is shown.

    Raises:
        InputError: It is no document of this version's ``gkt profile``.
    """
    entries = {f"gkt-profile-{name}/1": entry for name, entry in MEASUREMENTS.items()} | dict(OTHERS)
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema not in entries:
        raise InputError(
            f"the document has schema {str(schema)[:60]!r}, expected one of {', '.join(sorted(entries))}: "
            "give a JSON file that gkt profile of this version wrote"
        )
    return _load(entries[schema])


def page_of(document: Document) -> Page:
    """Show a document.

    Raises:
        InputError: It is no document of this version's ``gkt profile``.
    """
    return report_of(document).page(document)


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON file that ``gkt profile`` wrote.

    Raises:
        InputError: It cannot be read, is not JSON, or has another schema.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}: give a JSON file of gkt profile") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: give a file that gkt profile --out NAME.json wrote") from error
    try:
        page_of(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise InputError(
            f"{path} lacks what its schema {document['schema']} promises ({type(error).__name__}: {error}): "
            "it was changed by hand or cut short; measure again"
        ) from error
    return document


def _load(entry: Entry) -> Report:
    made: Report = pkgutil.resolve_name(entry.where)()
    return made
