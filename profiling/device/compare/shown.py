"""The report of ``gkt profile compare`` for a person: tables, and the paper's Fig. 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiling.device.compare.ratios import PAPER_STEP_MS
from profiling.frame.sections import Document, Plot, Section, machine_section
from profiling.frame.step_time import noise_note
from profiling.frame.units import format_bytes

_QUANTITIES = {
    "num_parameters": "parameters",
    "forward_macs": "forward MACs, conv + linear",
    "fvcore_macs": "forward MACs by fvcore",
    "train_flops": "training FLOPs",
}
_METHODS = {"fedgkt": "FedGKT", "split_learning": "split learning", "fedavg": "FedAvg"}
_FULL = ("resnet56", "resnet110")


def title(document: Document) -> str:
    """Of the report."""
    return f"What training costs a device, {document['settings']['num_classes']} classes"


def sections(document: Document) -> list[Section]:
    """The counts, the step times and the ratios, each with its unit and its limits."""
    return [
        _costs(document),
        _times(document),
        _ratios(document),
        _run(document),
        machine_section(document),
    ]


def _costs(document: Document) -> Section:
    settings = document["settings"]
    size = settings["image_size"]
    left_out = sorted({name for network in document["networks"] for name in network["fvcore_unsupported"]})
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
        notes=(
            "fvcore's MACs: forward in training mode, 5 per element for batch norm added. It leaves out "
            f"{', '.join(left_out) or 'nothing'}.",
        ),
    )


def _times(document: Document) -> Section:
    settings = document["settings"]
    rows = []
    for network in document["networks"]:
        for engine, time in network["step_ms"].items():
            peak = network["peak_memory_bytes_by_engine"].get(engine)
            rows.append(
                (
                    network["name"],
                    engine,
                    f"{time['median_ms']:,.1f}",
                    f"{time['p90_ms']:,.1f}",
                    f"{time['iqr_ms']:,.1f}",
                    str(time["n"]),
                    "not measured" if peak is None else format_bytes(peak),
                )
            )
    cores = settings["pinned_cores"]
    where = "not pinned" if cores is None else f"pinned to {', '.join(map(str, cores))}"
    return Section(
        title=f"One training step, batch {settings['batch_size']}, {settings['threads']} thread(s), {where}",
        headings=("network", "engine", "median ms", "p90 ms", "IQR ms", "n", "peak\nmemory"),
        rows=rows,
        notes=(
            noise_note(document["noise"]),
            f"Step = {settings['step']}. Edge loss: {settings['edge_loss']}; full: {settings['full_loss']}. "
            "Memory: peak of a fresh process that does nothing else, imports included.",
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
            f"step on {engine}",
            *(cell for full in _FULL for cell in _cells(ratios[full]["step_ms"][engine])),
        )
        for engine in ratios["resnet110"]["step_ms"]
    ]
    rows += [
        (f"resnet8's share on {engine}", "", "", f"{share['value']:.1%}", f"{share['paper']:.0%}")
        for engine, share in ratios["resnet8_share_of_resnet110_step"].items()
    ]
    return Section(
        title="Times as much as resnet8: exact, and in the paper",
        headings=("quantity", *(heading for full in _FULL for heading in (full, "paper"))),
        rows=rows,
        notes=(
            "The paper (section 4.3): CIFAR-100, batch 64, Intel i7, forward and backward only: "
            f"{PAPER_STEP_MS['resnet8']:.0f} ms for ResNet-8 against {PAPER_STEP_MS['resnet110']:.0f} ms for "
            "ResNet-110. fastest: each network on the engine that is fastest for it.",
        ),
    )


def _cells(beside: Mapping[str, Any]) -> tuple[str, str]:
    paper = beside["paper"]
    return f"{beside['value']:.2f}", "" if paper is None else f"{paper:.3g}"


def _run(document: Document) -> Section:
    run = document["run"]
    return Section(
        title=f"A whole run: {run['samples']:,} samples, {run['clients']} devices, {run['rounds']} rounds, "
        f"{run['local_epochs']} local and {run['server_epochs']} server epochs; all devices together",
        headings=("method", "for", "device FLOPs", "server FLOPs", "bytes"),
        rows=[
            (
                _METHODS[method["method"]],
                method["network"],
                f"{method['device_flops']:.3g}",
                f"{method['server_flops']:.3g}",
                format_bytes(method["paper_bytes"]),
            )
            for method in run["methods"]
        ],
        notes=(
            "FLOPs = 2 x MACs of convolutions and linear layers, forward and backward; FedGKT's devices also "
            "pass forward once a round to extract. Bytes as the paper counts (Eq. 12 and 13, float32), both "
            "directions; gkt profile traffic counts what is really sent.",
        ),
    )


def _bars(document: Document, quantity: str, title_text: str, unit: str) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    from profiling.frame.plot_style import BLUE, ORANGE  # noqa: PLC0415

    networks = [network for network in document["networks"] if network["name"] in ("resnet8", *_FULL)]
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title_text)
    positions = range(len(networks))[::-1]
    base = next(network[quantity] for network in networks if network["name"] == "resnet8")
    for position, network in zip(positions, networks, strict=True):
        value = network[quantity] / 1e6
        axes.barh(position, value, color=BLUE if network["name"] == "resnet8" else ORANGE)
        axes.annotate(
            f"{value:,.{0 if value >= 100 else 2}f} M ({network[quantity] / base:.3g}x)",
            (value, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    names = [f"{'FedGKT' if n['name'] == 'resnet8' else 'FedAvg'}: {n['name']}" for n in networks]
    axes.set_yticks(positions, names)
    axes.set_xmargin(0.3)
    axes.set_xlabel(unit)
    return figure


def _draw_flops(document: Document) -> Any:
    return _bars(
        document,
        "train_flops",
        "Computation on a device (the paper's Fig. 4)",
        "training FLOPs (2 x MACs, forward and backward) of one sample, millions",
    )


def _draw_parameters(document: Document) -> Any:
    return _bars(
        document, "num_parameters", "Parameters on a device (the paper's Fig. 4)", "parameters, millions"
    )


def _draw_times(document: Document) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415

    from profiling.frame.plot_style import BLUE, GREEN, INK, ORANGE  # noqa: PLC0415

    networks = [network for network in document["networks"] if network["step_ms"]]
    engines = sorted({engine for network in networks for engine in network["step_ms"]})
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"A training step, batch {document['settings']['batch_size']}")
    width = 0.8 / len(engines)
    for number, engine in enumerate(engines):
        for position, network in enumerate(networks):
            if (time := network["step_ms"].get(engine)) is None:
                continue
            where = position + (number - (len(engines) - 1) / 2) * width
            color = (BLUE, ORANGE, GREEN)[number % 3]
            label = engine if network is networks[0] else None
            axes.bar(where, time["median_ms"], width=width, color=color, label=label)
            axes.plot([where, where], [time["low_ms"], time["high_ms"]], color=INK, linewidth=2)
    axes.set_xticks(range(len(networks)), [network["name"] for network in networks])
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds, median and its interval")
    axes.legend(frameon=False)
    return figure


def _draw_bytes(document: Document) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415

    from profiling.frame.plot_style import BLUE, GRAY, ORANGE  # noqa: PLC0415

    methods = [method for method in document["run"]["methods"] if method["network"] == "resnet56"]
    colors = {"fedgkt": BLUE, "split_learning": ORANGE, "fedavg": GRAY}
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Communication of a run (the paper's Fig. 5, and FedAvg)")
    positions = range(len(methods))[::-1]
    for position, method in zip(positions, methods, strict=True):
        axes.barh(position, method["paper_bytes"] / 1e9, color=colors[method["method"]])
        axes.annotate(
            format_bytes(method["paper_bytes"]),
            (method["paper_bytes"] / 1e9, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(positions, [_METHODS[method["method"]] for method in methods])
    axes.set_xmargin(0.2)
    axes.set_xlabel("gigabytes, both directions, ResNet-56")
    return figure


PLOTS = (
    Plot("Training FLOPs on a device (the paper's Fig. 4)", _draw_flops),
    Plot("Parameters on a device (the paper's Fig. 4)", _draw_parameters),
    Plot("Time of a training step by network and engine", _draw_times),
    Plot("Communication of a run (the paper's Fig. 5)", _draw_bytes),
)
