"""``gkt profile memory``: what training takes at several image sizes, beside what export estimated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from profiling.experiments.memory.options import MemoryOptions
from profiling.frame import Document, Measurement, Plot, Section
from profiling.frame.bars import Bar, bar_figure
from profiling.frame.tables import table

# An estimate that is further off than this promises too little.
MOST_TIMES_THE_PEAK = 2.0
# Below it the process itself is most, whose libraries are other ones elsewhere.
_SMALL_BYTES = 10**9
_PROCESSES = {"device": "a device", "trainer": "the trainer", "ort_training": "ort-training"}


def _rows(document: Document) -> Iterator[dict[str, Any]]:
    for case in document["cases"].values():
        yield {**case, "ort_training": case["ort_training"] or dict.fromkeys(case["device"])}


def _costs(document: Document) -> Section:
    settings = document["settings"]
    return table(
        f"What an image size costs: batches that fit, and memory in megabytes of {settings['num_clients']} "
        "gkt edge run and one gkt serve",
        {
            "network": "{edge_network}",
            "pixels": "{image_size}",
            "bytes a sample": "{sample_bytes:,}",
            "samples a shard": "{shard_samples}",
            "device's batch": "{device[batch_size]}",
            "estimated": "{device[estimated_megabytes]:,.0f}",
            "peak": "{device[peak_megabytes]:,.0f}",
            "trainer's batch": "{trainer[batch_size]}",
            "estimated ": "{trainer[estimated_megabytes]:,.0f}",
            "peak ": "{trainer[peak_megabytes]:,.0f}",
        },
        _rows(document),
        notes=[
            f"Features travel as {next(iter(document['cases'].values()))['codec']}; peaks are the kernel's, "
            "of the device that took most, libraries' pages included. A device's images come on top, "
            "three bytes a pixel."
        ],
    )


def _ort_training(document: Document) -> Section | None:
    if not any(case["ort_training"] for case in document["cases"].values()):
        return None
    return table(
        "A step of ONNX Runtime's training build in a process of its own, megabytes",
        {
            "network": "{edge_network}",
            "pixels": "{image_size}",
            "batch": "{ort_training[batch_size]}",
            "estimated": "{ort_training[estimated_megabytes]:,.0f}",
            "peak": "{ort_training[peak_megabytes]:,.0f}",
        },
        _rows(document),
    )


def _draw(document: Document) -> Any:
    bars = [
        Bar(f"{name.replace('_', ' ')}, {words}", case[process]["peak_megabytes"])
        for name, case in document["cases"].items()
        for process, words in _PROCESSES.items()
        if process != "ort_training"
    ]
    return bar_figure("Memory of training", "megabytes at the peak, batches as they fit", bars)


class Memory(Measurement[MemoryOptions]):
    """Measure what training takes of memory at several image sizes, beside what export estimated.

    For each size artifacts are exported; one gkt serve and several gkt edge run train one round on images
    that are made up, with the batches that gkt serve chooses. Peaks are the kernel's (Linux). Ends with exit
    code 7 where a peak is beyond its estimate or what the artifacts are for, pages of libraries left out,
    which the system takes back when it wants them, or an estimate of more than a gigabyte is beyond twice
    the peak. Some ten minutes.
    """

    name = "memory"
    options = MemoryOptions
    measured_by = "profiling.experiments.memory.measure:measure_memory"
    quick = ("--size", "8", "--clients", "1")
    not_measured = ("a GPU's memory", "other C libraries than this machine's", "networks of one's own")
    heading = "Memory of training, {settings[num_clients]} devices"
    tables = (_costs, _ort_training)
    plots = (Plot("Memory of training", _draw),)

    def failures(self, document: Document) -> Sequence[str]:
        """Say which estimates and limits do not hold."""
        said = []
        for name, case in document["cases"].items():
            for process, words in _PROCESSES.items():
                one = case[process]
                if one is None:
                    continue
                peak, estimated = one["peak_megabytes"], one["estimated_megabytes"]
                allowed = one.get("limit_megabytes", estimated)
                own = peak - one.get("files_megabytes", 0)
                if own > min(estimated, allowed):
                    said.append(
                        f"{name}, {words}: {own:,.0f} MB, {min(estimated, allowed):,.0f} were expected"
                    )
                if estimated > max(MOST_TIMES_THE_PEAK * peak, _SMALL_BYTES / 10**6):
                    said.append(f"{name}, {words}: estimated {estimated:,.0f} MB, took {peak:,.0f}")
        return said
