"""``gkt profile compare``: edge networks beside the networks that they help to train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from profiling.device.compare.options import CompareOptions
from profiling.device.compare.ratios import PAPER_STEP_MS
from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.measuring.step_time import TIME_COLUMNS, noise_note
from profiling.frame.plot_style import BLUE, GRAY, GREEN, INK, ORANGE, titled_axes
from profiling.frame.tables import table
from profiling.frame.units import format_bytes

_QUANTITIES = {
    "num_parameters": "parameters",
    "forward_macs": "forward MACs, conv + linear",
    "fvcore_macs": "forward MACs by fvcore",
    "train_flops": "training FLOPs",
}
_METHODS = {"fedgkt": "FedGKT", "split_learning": "split learning", "fedavg": "FedAvg"}
_FULL = ("resnet56", "resnet110")


def _costs(document: Document) -> Section:
    settings, networks = document["settings"], document["networks"]
    size = settings["image_size"]
    left_out = sorted({name for network in networks for name in network["fvcore_unsupported"]})
    return table(
        f"One sample, {size} x {size} pixels, {settings['num_classes']} classes (FLOPs = 2 x MACs)",
        {
            "network": "{name}",
            "parameters": "{num_parameters:,}",
            "forward MACs,\nconv + linear": "{forward_macs:.3M}",
            "forward MACs,\nby fvcore": "{fvcore_macs:.3M}",
            "training FLOPs,\nforw. + backw.": "{train_flops:.2M}",
        },
        networks,
        notes=(
            "fvcore's MACs: forward in training mode, 5 per element for batch norm added. It leaves out "
            f"{', '.join(left_out) or 'nothing'}.",
        ),
    )


def _times(document: Document) -> Section:
    settings, cores = document["settings"], document["settings"]["pinned_cores"]
    where = "not pinned" if cores is None else f"pinned to {', '.join(map(str, cores))}"
    times = [
        {**network, **time, "engine": engine, "peak": network["peak_memory_bytes_by_engine"].get(engine)}
        for network in document["networks"]
        for engine, time in network["step_ms"].items()
    ]
    return table(
        f"One training step, batch {settings['batch_size']}, {settings['threads']} thread(s), {where}",
        {"network": "{name}", "engine": "{engine}", **TIME_COLUMNS, "peak\nmemory": "{peak:bytes}"},
        times,
        notes=(
            noise_note(document["noise"]),
            f"Step = {settings['step']}. Edge loss: {settings['edge_loss']}; full: {settings['full_loss']}. "
            "Memory: peak of a fresh process that does nothing else, imports included.",
        ),
    )


def _ratios(document: Document) -> Section:
    ratios = document["ratios"]
    besides = {name: [ratios[full][key] for full in _FULL] for key, name in _QUANTITIES.items()}
    for engine in ratios["resnet110"]["step_ms"]:
        besides[f"step on {engine}"] = [ratios[full]["step_ms"][engine] for full in _FULL]
    rows = [(name, *(cell for each in both for cell in _cells(each))) for name, both in besides.items()]
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
    return table(
        f"A whole run: {run['samples']:,} samples, {run['clients']} devices, {run['rounds']} rounds, "
        f"{run['local_epochs']} local and {run['server_epochs']} server epochs; all devices together",
        {
            "method": "{words}",
            "for": "{network}",
            "device FLOPs": "{device_flops:.3g}",
            "server FLOPs": "{server_flops:.3g}",
            "bytes": "{paper_bytes:bytes}",
        },
        ({"words": _METHODS[method["method"]], **method} for method in run["methods"]),
        notes=(
            "FLOPs = 2 x MACs of convolutions and linear layers, forward and backward; FedGKT's devices also "
            "pass forward once a round to extract. Bytes as the paper counts (Eq. 12 and 13, float32), both "
            "directions; gkt profile traffic counts what is really sent.",
        ),
    )


def _bars(document: Document, quantity: str, title: str, unit: str) -> Any:
    """ResNet-8 beside the full networks, in millions."""
    values = {network["name"]: network[quantity] for network in document["networks"]}
    bars = []
    for method, name, color in (("FedGKT", "resnet8", BLUE), *(("FedAvg", full, ORANGE) for full in _FULL)):
        value, times = values[name] / 1e6, values[name] / values["resnet8"]
        note = f"{value:,.{0 if value >= 100 else 2}f} M ({times:.3g}x)"
        bars.append(Bar(f"{method}: {name}", value, color, note=note))
    return bar_figure(title, unit, bars)


def _draw_flops(document: Document) -> Any:
    unit = "training FLOPs (2 x MACs, forward and backward) of one sample, millions"
    return _bars(document, "train_flops", "Computation on a device (the paper's Fig. 4)", unit)


def _draw_parameters(document: Document) -> Any:
    title = "Parameters on a device (the paper's Fig. 4)"
    return _bars(document, "num_parameters", title, "parameters, millions")


def _draw_times(document: Document) -> Any:
    networks = [network for network in document["networks"] if network["step_ms"]]
    engines = sorted({engine for network in networks for engine in network["step_ms"]})
    title = f"A training step, batch {document['settings']['batch_size']}"
    figure, axes = titled_axes(7.2, 3.6, title)
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
    colors = {"fedgkt": BLUE, "split_learning": ORANGE, "fedavg": GRAY}
    bars = [
        Bar(
            _METHODS[method["method"]],
            method["paper_bytes"] / 1e9,
            colors[method["method"]],
            note=format_bytes(method["paper_bytes"]),
        )
        for method in document["run"]["methods"]
        if method["network"] == "resnet56"
    ]
    title = "Communication of a run (the paper's Fig. 5, and FedAvg)"
    return bar_figure(title, "gigabytes, both directions, ResNet-56", bars)


class Compare(Measurement[CompareOptions]):
    """Compare the edge networks with ResNet-56 and ResNet-110, as FedAvg's devices would train them.

    Counts parameters, MACs and FLOPs; times full training steps on ONNX Runtime and PyTorch, all in one
    interleaved run; measures peak memory in fresh processes. Ten to fifteen minutes on one core.
    """

    name = "compare"
    options = CompareOptions
    measured_by = "profiling.device.compare.measure:compare_networks"
    example = "gkt profile compare --pin --steps 10 --out compare.json --out compare.html"
    extra = "export,profile"
    quick = ("--image-size", "8", "--batch-size", "4", "--steps", "2", "--warmup", "1", "--no-memory")
    not_measured = (
        "the full networks on the portable engine",
        "the extractor of split learning on ort_training, and what waiting for gradients costs it",
        "PyTorch with channels_last, torch.compile or a tuned memory allocator, which can be faster",
        "loading and augmenting images, extracting features for the upload, the server's share of the time",
        "energy (gkt profile edge reads it where the processor says)",
        "any machine but this one",
    )
    heading = "What training costs a device, {settings[num_classes]} classes"
    tables = (_costs, _times, _ratios, _run)
    plots = (
        Plot("Training FLOPs on a device (the paper's Fig. 4)", _draw_flops),
        Plot("Parameters on a device (the paper's Fig. 4)", _draw_parameters),
        Plot("Time of a training step by network and engine", _draw_times),
        Plot("Communication of a run (the paper's Fig. 5)", _draw_bytes),
    )

    def readme(self, document: Document) -> Sequence[Section]:
        """Leave out the totals, which are a formula's."""
        return self.sections(document)[:3]
