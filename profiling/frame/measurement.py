"""Measurements and their reports: subclass one, list it in ``registry.py``, and it is a command.

::

    @dataclass(frozen=True, slots=True)
    class LoadOptions(CheckedOptions):    # in a module that imports no torch: `--help` reads it
        devices: int = option(200, low=1)


    class Load(Measurement[LoadOptions]):
        # The help text of the command.

        name = "load"
        options = LoadOptions
        measured_by = "profiling.server.load.measure:measure_load"
        not_measured = ("any machine but this one",)
        heading = "A server with {settings[devices]} devices at once"
        tables = (_memory, _times)

From the name follow ``gkt profile load`` and the schema ``gkt-profile-load/1``; ``show``, ``diff``, ``all``
and ``make readme`` know it from the registry.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pkgutil
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from gkt_core.errors import GKTError, RunFailedError
from profiling.frame.machine import describe_machine
from profiling.frame.sections import Document, Page, Plot, Section, machine_section

OptionsT = TypeVar("OptionsT")
Announce = Callable[[str], None]


class Report:
    """How documents of one schema are shown.

    Attributes:
        name: The schema is ``gkt-NAME/1``.
        heading: A format over the document's keys.
        tables: Each makes a section of a document, or None if it has nothing to show; the most telling first.
        plots: Pictures, the most telling one first.
        shows_machine: Whether the report ends with the machine and what was not measured.
    """

    name: ClassVar[str]
    heading: ClassVar[str] = ""
    tables: ClassVar[Sequence[Callable[[Document], Section | None]]] = ()
    plots: ClassVar[Sequence[Plot]] = ()
    shows_machine: ClassVar[bool] = True

    @property
    def schema(self) -> str:
        """Name the kind of a document; the number grows when a key changes its meaning."""
        return f"gkt-{self.name}/1"

    def title(self, document: Document) -> str:
        """Head the report with one line."""
        return self.heading.format(**document)

    def sections(self, document: Document) -> Sequence[Section]:
        """Turn a document into tables, the most telling one first."""
        made = (make(document) for make in self.tables)
        return [section for section in made if section is not None]

    def readme(self, document: Document) -> Sequence[Section]:
        """Choose the sections of the documentation's block: the first one, unless overridden."""
        return self.sections(document)[:1]

    def page(self, document: Document) -> Page:
        """Compose the whole report."""
        end = [machine_section(document)] if self.shows_machine else []
        return Page(self.title(document), [*self.sections(document), *end], self.plots)


class Measurement(Report, Generic[OptionsT]):
    """A ``gkt profile NAME``: what it measures, and how its documents are shown.

    The docstring of a subclass is the command's help text.

    Attributes:
        name: Of the command; the schema is ``gkt-profile-NAME/1``.
        options: A frozen dataclass; its fields are the command's options.
        measured_by: ``module:function`` of what :meth:`measure` calls; imported then, as it may import torch.
        example: A command line for the help text; by default without options.
        extra: What must be installed to measure: ``all``, ``edge`` and so on.
        programs: Programs that must be there beside it.
        modules: Python modules that must be there beside the extra's.
        quick: Arguments of the command that only show that it works.
        not_measured: What its numbers do not say, whatever the options.
        error: How the command ends if :meth:`failures` names any.
    """

    options: type[OptionsT]
    measured_by: ClassVar[str] = ""
    example: ClassVar[str] = ""
    extra: ClassVar[str] = "all"
    programs: ClassVar[Sequence[str]] = ()
    modules: ClassVar[Sequence[str]] = ()
    quick: ClassVar[Sequence[str]] = ()
    not_measured: ClassVar[Sequence[str]] = ()
    error: ClassVar[type[GKTError]] = RunFailedError

    @property
    def schema(self) -> str:
        """Name the kind of a document, which follows from the command."""
        return f"gkt-profile-{self.name}/1"

    def measure(self, options: OptionsT, announce: Announce) -> dict[str, Any]:
        """Measure, and return the document without what every document has.

        Args:
            options: What to measure, and how long.
            announce: Told what happens now.

        Returns:
            Values that JSON can hold. What stands in ``settings`` and ``not_measured`` is added to the
            options and to what is never measured.

        Raises:
            GKTError: It cannot be measured.
        """
        body: dict[str, Any] = pkgutil.resolve_name(self.measured_by)(options, announce)
        return body

    def failures(self, document: Document) -> Sequence[str]:
        """Name what must not be, a sentence each: the command then ends with :attr:`error`."""
        return ()

    def missing(self) -> list[str]:
        """Name what this machine lacks to measure: programs and modules."""
        modules = [name for name in self.modules if importlib.util.find_spec(name) is None]
        return [*(name for name in self.programs if shutil.which(name) is None), *modules]

    def document(self, options: OptionsT, announce: Announce = lambda line: None) -> dict[str, Any]:
        """Measure, and return the whole document, with what every document has.

        Raises:
            GKTError: It cannot be measured.
        """
        body = self.measure(options, announce)
        return {
            "schema": self.schema,
            **body,
            "not_measured": [*self.not_measured, *body.get("not_measured", ())],
            "settings": {**settings_of(options), **body.get("settings", {})},
            "machine": describe_machine(),
        }


def settings_of(options: Any) -> dict[str, Any]:
    """Options as JSON holds them; of a path only the last part, the rest is nobody's business."""
    return {name: _plain(value) for name, value in dataclasses.asdict(options).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.name if isinstance(value, Path) else value
