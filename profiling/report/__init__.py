"""One way to report for every ``gkt profile`` command: screen, JSON, Markdown and HTML from one document."""

from profiling.report.kinds import KINDS, ReportKind, kind_of
from profiling.report.output import emit_report, output_options
from profiling.report.sections import Plot, Section

__all__ = ["KINDS", "Plot", "ReportKind", "Section", "emit_report", "kind_of", "output_options"]
