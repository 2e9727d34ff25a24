"""What the documentation says of the paper's tables, from the reports of ``gkt reproduce``."""

from __future__ import annotations

import statistics

from profiling.experiments.reproduce.summary import half_interval
from profiling.frame.sections import Document, Section
from profiling.frame.units import format_bytes

PAPER_TABLES = ("small/table1", "small/table2", "small/table3", "mini/table3", "mini/table5")


def paper_command(name: str) -> str:
    """The command that makes a table, by the name of its report."""
    scale, _, table = name.partition("/")
    return f"gkt reproduce {table} --scale {scale} --only CIFAR-10 --large-network resnet56"


def paper_section(document: Document) -> Section:
    """Show the cells of a table that were run beside the paper's, and modes seed by seed."""
    rows = []
    for cell in document["cells"]:
        if accuracies := cell["test_accuracies"]:
            seeds = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
            half = half_interval(accuracies)
            interval = "" if half is None else f" ± {half:.1f}"
            rows.append(
                (
                    f"{cell['row']}, {cell['column']}",
                    f"{cell['mean_test_accuracy']:.1f}{interval} % (n = {len(accuracies)}: {seeds})",
                    cell["paper"] if isinstance(cell["paper"], str) else f"{cell['paper']:.2f} %",
                    format_bytes(round(cell["mean_upload_bytes"])),
                )
            )
    return Section(
        title=f"`{document['command']}`",
        headings=(
            "",
            "test accuracy, mean ± 95 % interval (each seed)",
            "paper's own setting",
            "sent by all devices",
        ),
        rows=rows,
        notes=_difference_of_modes(document),
    )


def _difference_of_modes(document: Document) -> tuple[str, ...]:
    """Table 3: by how much the modes differ on the same split, weights and device speeds."""
    by_row = {cell["row"]: cell for cell in document["cells"] if cell["column"] == "CIFAR-10"}
    if not {"synchronous", "asynchronous"} <= set(by_row):
        return ()
    sync, late = by_row["synchronous"], by_row["asynchronous"]
    if len(sync["seeds"]) < 2 or sync["seeds"] != late["seeds"]:
        return ()
    differences = [a - b for a, b in zip(late["test_accuracies"], sync["test_accuracies"], strict=True)]
    mean, half = statistics.fmean(differences), half_interval(differences)
    return (
        f"Asynchronous minus synchronous, seed by seed: {mean:+.1f} ± {half:.1f} points (95 %, n = "
        f"{len(differences)}).",
    )
