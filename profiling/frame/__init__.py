"""One frame for all measurements: each is a command, and all documents are shown alike."""

from profiling.frame.measurement import Announce, Measurement, Report
from profiling.frame.output import emit_report, output_options
from profiling.frame.sections import Document, Page, Plot, Section

__all__ = [
    "Announce",
    "Document",
    "Measurement",
    "Page",
    "Plot",
    "Report",
    "Section",
    "emit_report",
    "output_options",
]
