"""``gkt profile codecs``: bytes and speed of each number of bits at each tap."""

from __future__ import annotations

from typing import Any

from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.plot_style import BLUE, GRAY, GREEN, ORANGE, titled_axes
from profiling.frame.tables import table
from profiling.traffic.codecs.options import CodecsOptions


def _codings(document: Document) -> Section:
    settings, shapes = document["settings"], document["shapes"]
    rows = [
        {
            **each,
            "tap": f"{each['network']}, {'x'.join(map(str, shapes[each['network']]))}",
            "saved": 1 - each["levels_bytes"] / each["zstd_bytes"],
        }
        for each in document["codings"]
    ]
    return table(
        f"Features of {document['num_images']} images of {document['image_size']} px, "
        f"{settings['shard_samples']} in a shard",
        {
            "tap": "{tap}",
            "codec": "{codec}",
            "error": "{feature_error:.3f}",
            "packed,\nbytes a sample": "{packed_bytes:,}",
            "Zstandard,\nbytes a sample": "{zstd_bytes:,.0f}",
            "coded levels,\nbytes a sample": "{levels_bytes:,.0f}",
            "saved": "{saved:.0%}",
            "encoding,\nMB/s": "{encode_mbps:,.0f}",
            "with Zstandard,\nMB/s": "{zstd_encode_mbps:,.0f}",
            "decoding,\nMB/s": "{decode_mbps:,.0f}",
        },
        rows,
        notes=(
            "Bytes of a sample as it travels, its logits, label and id among them. Error: what rounding "
            "changes, relative to the features. MB/s: of float32 features, on one core, codec, file and "
            f"all; the fastest of {settings['repeats']}. Small taps have few features in a shard: larger "
            "shards are coded faster.",
        ),
    )


def _draw(document: Document) -> Any:
    figure, axes = titled_axes(7.2, 3.6, "What rounding changes, over the bytes that travel")
    colors = (BLUE, ORANGE, GREEN, GRAY)
    names = list(document["shapes"])
    for number, name in enumerate(names):
        color = colors[number % len(colors)]
        of_tap = [each for each in document["codings"] if each["network"] == name]
        errors = [each["feature_error"] for each in of_tap]
        for key, style, words in (("levels_bytes", "o-", "coded levels"), ("zstd_bytes", "x--", "Zstandard")):
            axes.semilogx(
                [each[key] for each in of_tap], errors, style, color=color, label=f"{name}, {words}"
            )
    axes.set_xlabel("bytes a sample")
    axes.set_ylabel("relative error of the features")
    axes.grid(linewidth=0.8)
    axes.legend(frameon=False, fontsize=7)
    return figure


class Codecs(Measurement[CodecsOptions]):
    """Bytes and speed of features in 4 bits and fewer, with their levels coded and with Zstandard.

    \b
    gkt profile codecs                                   digits
    gkt profile codecs --dataset cifar10 --limit 5000 --out codecs.json
    """  # noqa: D301 - click looks for the character itself

    name = "codecs"
    options = CodecsOptions
    measured_by = "profiling.traffic.codecs.measure:measure_codecs"
    not_measured = (
        "accuracy and what features give away: gkt simulate and gkt profile privacy, with --codec",
        "a device's own speed: gkt profile edge --codec, there",
    )
    heading = "Codecs of features"
    tables = (_codings,)
    plots = (Plot("Error over bytes", _draw),)
