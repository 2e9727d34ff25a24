"""The report of ``gkt profile compare`` for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from profiling.compare import PAPER_RATIOS

_QUANTITIES = {
    "num_parameters": "parameters",
    "forward_macs": "forward MACs, conv + linear",
    "fvcore_macs": "forward MACs by fvcore",
    "train_flops": "training FLOPs",
}


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print the counts, the step times and the ratios, each with its unit and its limits."""
    settings, machine = report["settings"], report["machine"]
    console.print(_cost_table(report))
    console.print("[dim]fvcore's MACs: forward in training mode, 5 per element for batch norm added.[/dim]\n")
    console.print(_time_table(report))
    console.print(
        f"[dim]Step = {settings['step']}. Edge loss: {settings['edge_loss']}; full: {settings['full_loss']}."
        f"[/dim]\n"
    )
    console.print(_ratio_table(report))
    console.print(
        "[dim]The paper (section 4.3): CIFAR-100, batch 64, Intel i7, forward and backward only.[/dim]\n"
    )
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    console.print(
        f"Machine: {machine['cpu_model']}, {machine['num_usable_cores']} of {machine['num_cores']} cores, "
        f"{machine['system']}, Python {machine['python']}, {packages}",
        highlight=False,
    )
    console.print("Not measured: " + "; ".join(report["not_measured"]) + ".", highlight=False)


def _cost_table(report: Mapping[str, Any]) -> Table:
    settings = report["settings"]
    size = settings["image_size"]
    table = Table(
        title=f"One sample, {size} x {size} pixels, {settings['num_classes']} classes (FLOPs = 2 x MACs)"
    )
    table.add_column("network")
    for heading in (
        "parameters",
        "forward MACs,\nconv + linear",
        "forward MACs,\nby fvcore",
        "training FLOPs,\nforw. + backw.",
    ):
        table.add_column(heading, justify="right")
    for network in report["networks"]:
        table.add_row(
            network["name"],
            f"{network['num_parameters']:,}",
            f"{network['forward_macs'] / 1e6:,.3f} M",
            f"{network['fvcore_macs'] / 1e6:,.3f} M",
            f"{network['train_flops'] / 1e6:,.2f} M",
        )
    return table


def _time_table(report: Mapping[str, Any]) -> Table:
    settings = report["settings"]
    table = Table(title=f"One training step, batch {settings['batch_size']}, {settings['threads']} thread(s)")
    table.add_column("network")
    table.add_column("engine")
    for heading in ("median ms", "p90 ms", "n"):
        table.add_column(heading, justify="right")
    for network in report["networks"]:
        for engine, time in network["step_ms"].items():
            table.add_row(
                network["name"], engine, f"{time['median_ms']:,.1f}", f"{time['p90_ms']:,.1f}", str(time["n"])
            )
    return table


def _ratio_table(report: Mapping[str, Any]) -> Table:
    ratios = report["ratios"]
    table = Table(title="Times as much as resnet8: exact, and in the paper")
    table.add_column("quantity")
    for name in PAPER_RATIOS:
        table.add_column(name, justify="right")
        table.add_column("paper", justify="right", style="dim")
    for quantity, title in _QUANTITIES.items():
        table.add_row(title, *(cell for name in PAPER_RATIOS for cell in _cells(ratios[name][quantity])))
    for engine in ratios["resnet110"]["step_ms"]:
        table.add_row(
            f"step: pytorch / resnet8 on {engine}",
            *(cell for name in PAPER_RATIOS for cell in _cells(ratios[name]["step_ms"][engine])),
        )
    for engine, share in ratios["resnet8_share_of_resnet110_step"].items():
        table.add_row(
            f"step: share of resnet8 on {engine}", "", "", f"{share['value']:.1%}", f"{share['paper']:.0%}"
        )
    return table


def _cells(beside: Mapping[str, float | None]) -> tuple[str, str]:
    paper = beside["paper"]
    return f"{beside['value']:.2f}", "" if paper is None else f"{paper:.3g}"
