"""``gkt profile traffic``: what travels; tables, and the paper's Fig. 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.plot_style import BLUE, GRAY, ORANGE, titled_axes
from profiling.frame.tables import named, table
from profiling.frame.units import format_bytes
from profiling.traffic.options import TrafficOptions

_NAMES = {"fedgkt": "FedGKT", "split_learning": "split learning", "fedavg": "FedAvg"}


def _methods(document: Document) -> Section:
    prediction = document["prediction"]
    deployment = prediction["deployment"]
    samples, limit = prediction["samples_per_device"], prediction["break_even_samples_per_device"]
    cheaper = "less" if samples < limit else "more"
    return table(
        f"Bytes of all devices, both directions ({document['settings']['network']} for FedAvg)",
        {
            "method": "{words}",
            "up": "{upload_bytes:bytes}",
            "down": "{download_bytes:bytes}",
            "bundle,\nmodel": "{once_bytes:bytes}",
            "all": "{total_bytes:bytes}",
            "a device": "{total_bytes_per_device:bytes}",
            "x FedAvg": "{times_fedavg:.3g}",
        },
        ({"words": _NAMES[method["name"]], **method} for method in prediction["methods"]),
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


def _counted(document: Document) -> Section | None:
    if (measured := document["measured"]) is None:
        return None
    return table(
        f"Counted by the server in a real run: {measured['num_clients']} devices, "
        f"{measured['num_examples']:,} samples, {measured['rounds_run']} rounds, {measured['codec']}",
        {
            "bodies of": "{kind}",
            "predicted": "{predicted_bytes:,}",
            "counted": "{counted_bytes:,}",
            "difference": "{relative_difference:+.2%}",
        },
        measured["kinds"],
        notes=(_prediction_note(measured),),
    )


def _shards(document: Document) -> Section | None:
    if (measured := document["measured"]) is None:
        return None
    parts = measured["shard_parts"]
    all_parts = {"what": "all: upload/shards", "num_bytes": sum(part["num_bytes"] for part in parts)}
    columns = {"part": "{what}", "bytes": "{num_bytes:+,}"}
    return table("What the uploaded shards consist of, to the byte", columns, [*parts, all_parts])


def _wire(document: Document) -> Section | None:
    if (wire := (document["measured"] or {}).get("wire")) is None:
        return None
    return table(
        "On the wire: every byte of the devices' connections, by what it was for",
        {
            "request": "{name}",
            "n": "{num_requests:,}",
            "heads\nup": "{request_head_bytes:,}",
            "bodies\nup": "{request_body_bytes:,}",
            "heads\ndown": "{response_head_bytes:,}",
            "bodies\ndown": "{response_body_bytes:,}",
        },
        named(wire["kinds"]),
        notes=(
            f"{wire['upload_bytes']:,} bytes up and {wire['download_bytes']:,} down in "
            f"{wire['num_connections']} connections, of which {wire['unexplained_bytes']['upload']} and "
            f"{wire['unexplained_bytes']['download']} are not explained by the table. TCP, IP and "
            "Ethernet headers are not among them.",
        ),
    )


def _prediction_note(measured: dict[str, Any]) -> str:
    if not measured["compress"]:
        return "The prediction knows sample counts, codec and shard size, and nothing of the run."
    return (
        f"The prediction knows sample counts, codec and shard size, and takes the compression ratio of the "
        f"first round ({measured['compression_ratio']:.4f}) for all rounds."
    )


def _draw_methods(document: Document) -> Any:
    prediction = document["prediction"]
    sizes = [
        ("split learning, Eq. 12", prediction["paper_bytes"]["split_learning"], ORANGE),
        ("FedGKT, Eq. 13", prediction["paper_bytes"]["fedgkt"], BLUE),
        *(
            (f"{_NAMES[method['name']]}, as sent", method["total_bytes"], GRAY)
            for method in prediction["methods"]
        ),
    ]
    scale, unit = (1e9, "gigabytes") if max(size for _, size, _ in sizes) > 1e9 else (1e6, "megabytes")
    bars = [Bar(name, size / scale, color, note=format_bytes(size)) for name, size, color in sizes]
    return bar_figure("Bytes of all devices (Fig. 5, and FedAvg)", f"{unit}, both directions", bars)


def _draw_break_even(document: Document) -> Any:
    import numpy as np  # noqa: PLC0415

    prediction = document["prediction"]
    here, limit = prediction["samples_per_device"], prediction["break_even_samples_per_device"]
    methods = {method["name"]: method for method in prediction["methods"]}
    once = methods["fedgkt"]["once_bytes"] / prediction["deployment"]["num_clients"]
    slope = (methods["fedgkt"]["total_bytes_per_device"] - once) / here
    samples = np.geomspace(1, 10 * max(here, limit, 1), 100)
    figure, axes = titled_axes(7.2, 3.6, "Bytes of one device in the whole training")
    axes.loglog(samples, (once + slope * samples) / 1e6, color=BLUE, label="FedGKT")
    axes.axhline(methods["fedavg"]["total_bytes_per_device"] / 1e6, color=ORANGE, label="FedAvg")
    axes.axvline(here, linestyle=":", color=BLUE, label=f"here: {here:,.0f} samples")
    axes.set_xlabel(f"training samples a device; break-even at {limit:,.0f}")
    axes.set_ylabel("megabytes")
    axes.grid(linewidth=0.8)
    axes.legend(frameon=False)
    return figure


class Traffic(Measurement[TrafficOptions]):
    """Bytes of FedGKT, split learning and FedAvg, by formula and from a real run.

    \b
    gkt profile traffic                                          CIFAR-10 as in the paper
    gkt profile traffic --uploads 4 --codec uint4 --compression-ratio 0.5
    gkt demo --meter-wire --out run && gkt profile traffic --demo-dir run
    """  # noqa: D301 - click looks for the character itself

    name = "traffic"
    options = TrafficOptions
    measured_by = "profiling.traffic.measure:measure_traffic"
    not_measured = (
        "accuracy: fewer uploads and coarser codecs cost some, which only a training can tell",
        "TCP, IP and TLS headers, retransmissions",
        "what FedAvg and split learning would gain from compression",
    )
    heading = (
        "Traffic of {prediction[deployment][num_clients]:,} devices with "
        "{prediction[deployment][num_examples]:,} samples in {prediction[deployment][rounds]:,} rounds"
    )
    tables = (_methods, _paper, _counted, _shards, _wire)
    plots = (
        Plot("Communication of FedGKT, split learning and FedAvg (the paper's Fig. 5)", _draw_methods),
        Plot("Bytes of one device over its number of samples", _draw_break_even),
    )

    def readme(self, document: Document) -> Sequence[Section]:
        """Choose what the server and the relay counted, where a run was measured."""
        sections = self.sections(document)
        return [*sections[2:3], *sections[4:5]] or sections[:1]
