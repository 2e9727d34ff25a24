"""The report of ``gkt profile compare`` for a person: tables, and the paper's Fig. 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiling.report.sections import Document, Section, machine_section

_QUANTITIES = {
    "num_parameters": "parameters",
    "forward_macs": "forward MACs, conv + linear",
    "fvcore_macs": "forward MACs by fvcore",
    "train_flops": "training FLOPs",
}
_FULL = ("resnet56", "resnet110")


def title(document: Document) -> str:
    """Of the report."""
    return f"What training costs a device, {document['settings']['num_classes']} classes"


def sections(document: Document) -> list[Section]:
    """The counts, the step times and the ratios, each with its unit and its limits."""
    return [_costs(document), _times(document), _ratios(document), machine_section(document)]


def _costs(document: Document) -> Section:
    settings = document["settings"]
    size = settings["image_size"]
    return Section(
        title=f"One sample, {size} x {size} pixels, {settings['num_classes']} classes (FLOPs = 2 x MACs)",
        headings=(
            "network",
            "parameters",
            "forward MACs,\nconv + linear",
            "forward MACs,\nby fvcore",
            "training FLOPs,\nforw. + backw.",
        ),
        rows=[
            (
                network["name"],
                f"{network['num_parameters']:,}",
                f"{network['forward_macs'] / 1e6:,.3f} M",
                f"{network['fvcore_macs'] / 1e6:,.3f} M",
                f"{network['train_flops'] / 1e6:,.2f} M",
            )
            for network in document["networks"]
        ],
        notes=("fvcore's MACs: forward in training mode, 5 per element for batch norm added.",),
    )


def _times(document: Document) -> Section:
    settings = document["settings"]
    return Section(
        title=f"One training step, batch {settings['batch_size']}, {settings['threads']} thread(s)",
        headings=("network", "engine", "median ms", "p90 ms", "n"),
        rows=[
            (network["name"], engine, f"{time['median_ms']:,.1f}", f"{time['p90_ms']:,.1f}", str(time["n"]))
            for network in document["networks"]
            for engine, time in network["step_ms"].items()
        ],
        notes=(
            f"Step = {settings['step']}. Edge loss: {settings['edge_loss']}; full: {settings['full_loss']}.",
        ),
    )


def _ratios(document: Document) -> Section:
    ratios = document["ratios"]
    rows = [
        (name, *(cell for full in _FULL for cell in _cells(ratios[full][quantity])))
        for quantity, name in _QUANTITIES.items()
    ]
    rows += [
        (
            f"step: pytorch / resnet8 on {engine}",
            *(cell for full in _FULL for cell in _cells(ratios[full]["step_ms"][engine])),
        )
        for engine in ratios["resnet110"]["step_ms"]
    ]
    rows += [
        (f"step: share of resnet8 on {engine}", "", "", f"{share['value']:.1%}", f"{share['paper']:.0%}")
        for engine, share in ratios["resnet8_share_of_resnet110_step"].items()
    ]
    return Section(
        title="Times as much as resnet8: exact, and in the paper",
        headings=("quantity", *(heading for full in _FULL for heading in (full, "paper"))),
        rows=rows,
        notes=("The paper (section 4.3): CIFAR-100, batch 64, Intel i7, forward and backward only.",),
    )


def _cells(beside: Mapping[str, Any]) -> tuple[str, str]:
    paper = beside["paper"]
    return f"{beside['value']:.2f}", "" if paper is None else f"{paper:.3g}"


PLOTS = ()
