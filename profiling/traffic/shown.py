"""The report of ``gkt profile traffic`` for a person: tables, and the paper's Fig. 5."""

from __future__ import annotations

from typing import Any

from profiling.frame.sections import Document, Plot, Section, machine_section
from profiling.frame.units import format_bytes

_NAMES = {"fedgkt": "FedGKT", "split_learning": "split learning", "fedavg": "FedAvg"}


def title(document: Document) -> str:
    """Of the report."""
    deployment = document["prediction"]["deployment"]
    return (
        f"Traffic of {deployment['num_clients']:,} devices with {deployment['num_examples']:,} samples "
        f"in {deployment['rounds']:,} rounds"
    )


def sections(document: Document) -> list[Section]:
    """Formulas first, then the run that was measured, if one was."""
    found = [_methods(document), _paper(document)]
    if document["measured"] is not None:
        found += _measured(document["measured"])
    return [*found, machine_section(document)]


def _methods(document: Document) -> Section:
    prediction = document["prediction"]
    deployment = prediction["deployment"]
    samples, limit = prediction["samples_per_device"], prediction["break_even_samples_per_device"]
    cheaper = "less" if samples < limit else "more"
    return Section(
        title=f"Bytes of all devices, both directions ({document['settings']['network']} for FedAvg)",
        headings=("method", "up", "down", "bundle,\nmodel", "all", "a device", "x FedAvg"),
        rows=[
            (
                _NAMES[method["name"]],
                format_bytes(method["upload_bytes"]),
                format_bytes(method["download_bytes"]),
                format_bytes(method["once_bytes"]),
                format_bytes(method["total_bytes"]),
                format_bytes(method["total_bytes_per_device"]),
                f"{method['times_fedavg']:.3g}",
            )
            for method in prediction["methods"]
        ],
        notes=(
            f"Break-even: {limit:,.0f} training samples a device. Here a device has {samples:,.0f}, so "
            f"FedGKT sends {cheaper} than FedAvg.",
            f"FedGKT: {deployment['uploads']:,} uploads, {deployment['codec']}, compression ratio "
            f"{deployment['compression_ratio']:.3g}, {prediction['per_sample_upload_bytes']:,.0f} bytes a "
            f"sample and upload, {prediction['per_sample_download_bytes']:,} back. Fewer bytes say nothing "
            "about accuracy.",
        ),
    )


def _paper(document: Document) -> Section:
    paper = document["prediction"]["paper_bytes"]
    return Section(
        title="As the paper counts (Eq. 12 and 13: float32 feature maps, gradients, logits; nothing else)",
        headings=("method", "all", "of split learning"),
        rows=[
            ("split learning", format_bytes(paper["split_learning"]), "1"),
            ("FedGKT", format_bytes(paper["fedgkt"]), f"{paper['fedgkt'] / paper['split_learning']:.4f}"),
        ],
        notes=(
            "The paper's Fig. 5 compares these two alone and gives no figures; FedAvg above is what it "
            "leaves out.",
        ),
    )


def _measured(measured: dict[str, Any]) -> list[Section]:
    found = [
        Section(
            title=f"Counted by the server in a real run: {measured['num_clients']} devices, "
            f"{measured['num_examples']:,} samples, {measured['rounds_run']} rounds, {measured['codec']}",
            headings=("bodies of", "predicted", "counted", "difference"),
            rows=[
                (
                    kind["kind"],
                    f"{kind['predicted_bytes']:,}",
                    f"{kind['counted_bytes']:,}",
                    f"{kind['relative_difference']:+.2%}",
                )
                for kind in measured["kinds"]
            ],
            notes=(_prediction_note(measured),),
        ),
        Section(
            title="What the uploaded shards consist of, to the byte",
            headings=("part", "bytes"),
            rows=[
                *((part["what"], f"{part['num_bytes']:+,}") for part in measured["shard_parts"]),
                ("all: upload/shards", f"{sum(part['num_bytes'] for part in measured['shard_parts']):,}"),
            ],
        ),
    ]
    wire = measured["wire"]
    if wire is None:
        return found
    rows = [
        (
            name,
            f"{kind['num_requests']:,}",
            *(
                f"{kind[part]:,}"
                for part in (
                    "request_head_bytes",
                    "request_body_bytes",
                    "response_head_bytes",
                    "response_body_bytes",
                )
            ),
        )
        for name, kind in wire["kinds"].items()
    ]
    found.append(
        Section(
            title="On the wire: every byte of the devices' connections, by what it was for",
            headings=("request", "n", "heads\nup", "bodies\nup", "heads\ndown", "bodies\ndown"),
            rows=rows,
            notes=(
                f"{wire['upload_bytes']:,} bytes up and {wire['download_bytes']:,} down in "
                f"{wire['num_connections']} connections, of which {wire['unexplained_bytes']['upload']} and "
                f"{wire['unexplained_bytes']['download']} are not explained by the table. TCP, IP and "
                "Ethernet headers are not among them.",
            ),
        )
    )
    return found


def _prediction_note(measured: dict[str, Any]) -> str:
    if not measured["compress"]:
        return "The prediction knows sample counts, codec and shard size, and nothing of the run."
    return (
        f"The prediction knows sample counts, codec and shard size, and takes the compression ratio of the "
        f"first round ({measured['compression_ratio']:.4f}) for all rounds."
    )


def _draw_methods(document: Document) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 - a device has none

    from profiling.frame.plot_style import BLUE, GRAY, ORANGE  # noqa: PLC0415

    prediction = document["prediction"]
    paper = prediction["paper_bytes"]
    bars = [
        ("split learning, Eq. 12", paper["split_learning"], ORANGE),
        ("FedGKT, Eq. 13", paper["fedgkt"], BLUE),
        *(
            (f"{_NAMES[method['name']]}, as sent", method["total_bytes"], GRAY)
            for method in prediction["methods"]
        ),
    ]
    scale, unit = (1e9, "gigabytes") if max(size for _, size, _ in bars) > 1e9 else (1e6, "megabytes")
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Bytes of all devices (Fig. 5, and FedAvg)")
    positions = range(len(bars))[::-1]
    axes.barh(positions, [size / scale for _, size, _ in bars], color=[color for *_, color in bars])
    axes.set_yticks(positions, [name for name, *_ in bars])
    axes.set_xlabel(f"{unit}, both directions")
    axes.set_xmargin(0.18)
    for position, (_, size, _) in zip(positions, bars, strict=True):
        axes.annotate(
            format_bytes(size),
            (size / scale, position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    return figure


def _draw_break_even(document: Document) -> Any:
    import numpy as np  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    from profiling.frame.plot_style import BLUE, ORANGE  # noqa: PLC0415

    prediction = document["prediction"]
    here, limit = prediction["samples_per_device"], prediction["break_even_samples_per_device"]
    methods = {method["name"]: method for method in prediction["methods"]}
    once = methods["fedgkt"]["once_bytes"] / prediction["deployment"]["num_clients"]
    slope = (methods["fedgkt"]["total_bytes_per_device"] - once) / here
    samples = np.geomspace(1, 10 * max(here, limit, 1), 100)
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("Bytes of one device in the whole training")
    axes.loglog(samples, (once + slope * samples) / 1e6, color=BLUE, label="FedGKT")
    axes.axhline(methods["fedavg"]["total_bytes_per_device"] / 1e6, color=ORANGE, label="FedAvg")
    axes.axvline(here, linestyle=":", color=BLUE, label=f"here: {here:,.0f} samples")
    axes.set_xlabel(f"training samples a device; break-even at {limit:,.0f}")
    axes.set_ylabel("megabytes")
    axes.grid(linewidth=0.8)
    axes.legend(frameon=False)
    return figure


PLOTS = (
    Plot("Communication of FedGKT, split learning and FedAvg (the paper's Fig. 5)", _draw_methods),
    Plot("Bytes of one device over its number of samples", _draw_break_even),
)
