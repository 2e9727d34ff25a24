"""One way to report for every ``gkt profile`` command: screen, JSON, Markdown and HTML from one document."""

from profiling.frame.kinds import KINDS, ReportKind, kind_of
from profiling.frame.output import emit_report, output_options
from profiling.frame.sections import Plot, Section

__all__ = ["KINDS", "Plot", "ReportKind", "Section", "emit_report", "kind_of", "output_options"]
