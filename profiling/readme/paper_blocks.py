"""What the README says of the paper's tables, from the reports of ``gkt reproduce``, as Markdown."""

from __future__ import annotations

import statistics

from profiling.experiments.reproduce.summary import standard_error
from profiling.frame.units import format_bytes
from profiling.readme.server_blocks import Document


def table_block(document: Document) -> list[str]:
    """The cells of a table that were run, beside the paper's."""
    rows = []
    for cell in document["cells"]:
        accuracies = cell["test_accuracies"]
        if not accuracies:
            continue
        paper = cell["paper"] if isinstance(cell["paper"], str) else f"{cell['paper']:.2f} %"
        seeds = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
        rows.append(
            f"| {cell['row']}, {cell['column']} | {cell['mean_test_accuracy']:.1f} % ({seeds}) | {paper} "
            f"| {format_bytes(round(cell['mean_upload_bytes']))} |"
        )
    return [
        f"`{document['command']}`:",
        "",
        "| | test accuracy, mean (each seed) | paper's own setting | sent by all devices |",
        "|---|---|---|---|",
        *rows,
    ]


def modes_block(document: Document) -> list[str]:
    """Table 3, and by how much the modes differ on the same split, weights and device speeds."""
    by_row = {cell["row"]: cell for cell in document["cells"] if cell["column"] == "CIFAR-10"}
    sync, late = by_row["synchronous"], by_row["asynchronous"]
    if len(sync["seeds"]) < 2 or sync["seeds"] != late["seeds"]:
        return table_block(document)
    pairs = zip(late["test_accuracies"], sync["test_accuracies"], strict=True)
    differences = [ours - theirs for ours, theirs in pairs]
    mean = statistics.fmean(differences)
    error = standard_error(differences)
    said = f"Asynchronous minus synchronous, seed by seed: {mean:+.1f} points, standard error {error:.1f}."
    return [*table_block(document), "", said]


PAPER_BLOCKS = {
    "small/table1": table_block,
    "small/table2": table_block,
    "small/table3": modes_block,
    "mini/table3": modes_block,
    "mini/table5": table_block,
}
PAPER_COMMANDS = {
    name: f"gkt reproduce {name.partition('/')[2]} --scale {name.partition('/')[0]} --only CIFAR-10 "
    "--large-network resnet56"
    for name in PAPER_BLOCKS
}
