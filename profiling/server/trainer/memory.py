"""Memory of a trainer of few devices beside one of eight times as many, each in a fresh process.

What counts is anonymous memory: pages of mapped shards are the kernel's page cache, which it drops when
something else needs the room, and are told beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime.machine.process_status import status_bytes
from profiling.frame.measuring.fresh_process import answer, measure_fresh
from profiling.server.trainer.ready_run import RunSize, make_ready_run

_SAMPLE_SECONDS = 0.02
_FIELDS = {"anonymous_bytes": "RssAnon", "mapped_bytes": "RssFile", "resident_bytes": "VmRSS"}


def measure_memory(
    folder: Path, bundle: Path, num_examples: int, growth: int, batch_size: int, threads: int
) -> dict[str, Any] | None:
    """Compare the peaks of two trainers.

    Args:
        folder: Where runs may be made.
        bundle: Exported artifacts.
        num_examples: Samples of the smaller run, of two devices.
        growth: How many times as many devices the larger one has.
        batch_size: Of the server.
        threads: CPU threads.

    Returns:
        ``small`` and ``large``: ``num_clients``, ``num_examples``, ``features_bytes`` and the peaks of
        ``anonymous_bytes``, ``mapped_bytes`` and ``resident_bytes``; ``kept_share``: anonymous memory that
        the larger one needs more, over the features that it has more. None where the system does not say.

    Raises:
        RunFailedError: A trainer ended with an error.
    """
    if _read_fields() is None:
        return None
    peaks_of = {}
    for name, num_clients in (("small", 2), ("large", 2 * growth)):
        # As many steps in both: an allocator's memory grows with the first of them.
        epochs = 2 * growth // num_clients
        # And as many validation samples together, for batches of the same sizes.
        validation = 4 * growth // num_clients
        size = RunSize(num_clients, num_examples // 2, epochs, batch_size, num_validation=validation)
        run = make_ready_run(folder / f"memory-{name}", bundle, size)
        channels, height, width = run.bundle.manifest.feature_shape
        num = num_clients * size.num_examples
        peaks_of[name] = {
            "num_clients": num_clients,
            "num_examples": num,
            "features_bytes": 4 * num * channels * height * width,
            **measure_fresh(__name__, {"folder": str(run.folder), "threads": threads}, what="the trainer"),
        }
    small, large = peaks_of["small"], peaks_of["large"]
    more = large["anonymous_bytes"] - small["anonymous_bytes"]
    return {**peaks_of, "kept_share": more / (large["features_bytes"] - small["features_bytes"])}


def _read_fields() -> dict[str, int] | None:
    values = {name: status_bytes(field) for name, field in _FIELDS.items()}
    known = {name: value for name, value in values.items() if value is not None}
    return known if len(known) == len(_FIELDS) else None


def peaks(spec: Mapping[str, Any]) -> dict[str, int]:
    """Train the run of a folder, and return the peaks of this process's memory."""
    from gkt_core.nn.execution import prepare_torch  # noqa: PLC0415 - the parent needs no second trainer
    from server_app.run_folder import open_run  # noqa: PLC0415
    from server_app.trainer.trainer import Trainer  # noqa: PLC0415

    prepare_torch("cpu", spec["threads"])
    most = dict.fromkeys(_FIELDS, 0)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            for name, value in (_read_fields() or {}).items():
                most[name] = max(most[name], value)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    Trainer(open_run(Path(spec["folder"]))).run_until_done()
    done.set()
    watcher.join()
    return most


if __name__ == "__main__":
    answer(peaks)
