"""The measured tables of the top README, each from one report of ``gkt profile``, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from profiling.frame.units import format_bytes
from profiling.readme.paper_blocks import PAPER_BLOCKS
from profiling.readme.server_blocks import (
    Document,
    chaos_block,
    ingest_block,
    load_block,
    poisoning_block,
    trainer_block,
)

RESULTS = Path(__file__).parents[1] / "results"
_ENGINES = {"ort_training": "ONNX Runtime training", "portable": "portable step", "pytorch": "PyTorch"}
_NAMES = {"resnet4": "ResNet-4", "resnet6": "ResNet-6", "resnet8": "ResNet-8", "resnet56": "ResNet-56",
          "resnet110": "ResNet-110", "extractor": "split learning's part of ResNet-8"}  # fmt: skip
_QUANTITIES = {
    "num_parameters": "parameters",
    "forward_macs": "forward MACs (convolutions, linear)",
    "train_flops": "training FLOPs",
}


def compare_block(document: Document) -> list[str]:
    """Counts, step times and memory of each network, and the ratios beside the paper's."""
    settings = document["settings"]
    engines = [name for name in _ENGINES if any(name in each["step_ms"] for each in document["networks"])]
    headings = ["network", "parameters", "forward MACs", *(f"step, {_ENGINES[each]}, ms" for each in engines)]
    headings.append("peak memory")
    rows = []
    for network in document["networks"]:
        times = [network["step_ms"].get(engine) for engine in engines]
        peak = network.get("peak_memory_bytes")
        rows.append(
            [
                _NAMES[network["name"]],
                f"{network['num_parameters']:,}",
                f"{network['forward_macs'] / 1e6:,.2f} M",
                *(
                    "" if time is None else f"{time['median_ms']:,.0f} (p90 {time['p90_ms']:,.0f})"
                    for time in times
                ),
                "" if peak is None else format_bytes(peak),
            ]
        )
    ratios = document["ratios"]
    beside = [
        [words, *(cell for full in ("resnet56", "resnet110") for cell in _beside(ratios[full][quantity]))]
        for quantity, words in _QUANTITIES.items()
    ]
    beside += [
        [
            f"step, {_engine(engine)}",
            *(
                cell
                for full in ("resnet56", "resnet110")
                for cell in _beside(ratios[full]["step_ms"][engine])
            ),
        ]
        for engine in ratios["resnet110"]["step_ms"]
    ]
    shares = ratios["resnet8_share_of_resnet110_step"]
    found = ", ".join(f"{share['value']:.1%} ({_engine(engine)})" for engine, share in shares.items())
    return [
        f"`gkt profile compare`, {settings['threads']} thread, batch {settings['batch_size']}, medians of "
        f"{settings['steps']} interleaved steps ({_machine(document)}):",
        "",
        *_table(headings, rows),
        "",
        *_table(["over ResNet-8", "ResNet-56", "paper", "ResNet-110", "paper"], beside),
        "",
        f"ResNet-8's step is {found} of ResNet-110's; the paper says 3 % (30 ms against 950 "
        "ms on an Intel i7).",
        *_picture(
            "compare",
            "Training FLOPs of a sample: ResNet-8 beside ResNet-56 and ResNet-110, as in the paper's Fig. 4",
        ),
    ]


def edge_block(document: Document) -> list[str]:
    """What a device measures on itself."""
    settings = document["settings"]
    rows = [
        [
            workload["name"].replace("_", " "),
            f"{workload['cold_ms']['median_ms']:,.0f}",
            f"{workload['warm_ms']['median_ms']:,.1f} (p90 {workload['warm_ms']['p90_ms']:,.1f})",
            f"{workload['images_per_second']:,.0f}",
            "not measured"
            if workload["peak_memory_bytes"] is None
            else format_bytes(workload["peak_memory_bytes"]),
        ]
        for workload in document["workloads"]
    ]
    return [
        f"`gkt profile edge`, {_engine(document['engine'])}, {settings['threads']} thread, batch "
        f"{settings['batch_size']}, {settings['image_size']} px ({_machine(document)}):",
        "",
        *_table(["", "first call, ms", "warm, ms", "images/s", "peak memory"], rows),
    ]


def traffic_block(document: Document) -> list[str]:
    """A real run's bytes: by formula, and counted by its server."""
    measured = document["measured"]
    rows = [
        [
            each["kind"].replace("_", " "),
            f"{each['predicted_bytes']:,}",
            f"{each['counted_bytes']:,}",
            f"{each['relative_difference']:+.2%}",
        ]
        for each in measured["kinds"]
    ]
    wire = measured["wire"]
    heads = "" if wire is None else (
        f" On the wire, HTTP heads included: {format_bytes(wire['upload_bytes'])} up and "
        f"{format_bytes(wire['download_bytes'])} down, of which "
        f"{sum(wire['unexplained_bytes'].values())} B are not explained."
    )  # fmt: skip
    return [
        f"`gkt profile traffic` of a `gkt demo --meter-wire` ({measured['num_clients']} devices, "
        f"{measured['num_examples']:,} samples, {measured['rounds_run']} rounds, {measured['codec']}), "
        "bytes:",
        "",
        *_table(["", "predicted", "counted by the server", "difference"], rows),
        "",
        f"Taken from the run is only its compression ratio, {measured['compression_ratio']:.3f}.{heads}",
    ]


def privacy_block(document: Document) -> list[str]:
    """How well images are rebuilt from uploaded features."""
    rows = [
        [each["name"], f"{each['ssim_median']:.2f}", f"{each['psnr_median_db']:.1f}"]
        for each in document["conditions_attacked"]
    ]
    nothing = document["without_features"]
    rows.append(
        ["no features: the mean image", f"{nothing['ssim_median']:.2f}", f"{nothing['psnr_median_db']:.1f}"]
    )
    return [
        "`gkt profile privacy`: images that a small decoder rebuilds from the uploaded features (SSIM 1 is "
        "the image itself); labels travel as they are:",
        "",
        *_table(["features", "SSIM, median", "PSNR, median, dB"], rows),
        *_picture(
            "privacy", "Ten images and what a decoder makes of their features, for each codec and noise level"
        ),
    ]


def plan_block(document: Document) -> list[str]:
    """A plan beside the run that it predicted."""
    validation = document["validation"]
    rows = [
        [
            row["name"],
            *(
                format_bytes(row[key]) if "bytes" in row["name"] else f"{row[key]:.2f}"
                for key in ("predicted", "measured")
            ),
            f"{row['relative_error']:+.1%}",
        ]
        for row in validation["rows"]
    ]
    verdict = "all within" if validation["holds"] else "NOT all within"
    return [
        "`gkt plan --validate`: a `gkt demo` predicted from `gkt profile edge` and from another demo with "
        f"other devices, samples and epochs ({verdict} {validation['tolerance']:.0%}):",
        "",
        *_table(["", "predicted", "measured", "error"], rows),
    ]


def simulation_block(document: Document) -> list[str]:
    """Simulation beside bare loops."""
    rows = [
        [name.replace("_", " "), *(f"{found[key]:.2f}" for key in ("median", "lowest", "highest"))]
        for name, found in document["ratios"].items()
    ]
    return [
        "`gkt profile simulation`, time as a multiple of the bare loop's, within a turn:",
        "",
        *_table(["", "median", "lowest", "highest"], rows),
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(headings) + " |",
        "|" + "---|" * len(headings),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _beside(ratio: Mapping[str, float | None]) -> tuple[str, str]:
    paper = ratio["paper"]
    return f"{ratio['value']:.2f}", "" if paper is None else f"{paper:.3g}"


def _engine(name: str) -> str:
    return _ENGINES.get(name, "the fastest engine of each" if name == "fastest" else name)


def _machine(document: Document) -> str:
    machine = document["machine"]
    return (
        f"{machine['cpu_model']}, {machine['num_usable_cores']} cores, PyTorch {machine['packages']['torch']}"
    )


def _picture(name: str, words: str) -> list[str]:
    return ["", f"![{words}](profiling/results/{name}.png)"] if (RESULTS / f"{name}.png").is_file() else []


# Name of the report, and how it is shown.
BLOCKS: dict[str, Callable[[Document], list[str]]] = {
    "compare": compare_block,
    "edge": edge_block,
    "edge-ort-training": edge_block,
    "traffic": traffic_block,
    "privacy": privacy_block,
    "plan": plan_block,
    "simulation": simulation_block,
    "chaos": chaos_block,
    "load": load_block,
    "ingest": ingest_block,
    "trainer": trainer_block,
    "poisoning": poisoning_block,
    **PAPER_BLOCKS,
}
