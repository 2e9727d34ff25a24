"""Body bytes a CPU-second of the serving processes: ours, nginx and a ceiling, interleaved.

Every candidate takes the same bodies over the loopback interface in turns, and its files are removed after
each turn: writing to new files costs more than overwriting old ones. CPU time is that of the serving
processes, kernel time included; what the sender costs is not in it. The ceiling receives nothing: SHA-256, a
look at every value and a file, in plain Python, of a body that is in memory already.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gkt_core.errors import RunFailedError
from profiling.frame import Announce
from profiling.frame.processes import ProcessGroup, free_port, wait_for_server
from profiling.server.web.nginx import running_nginx
from profiling.server.web.options import IngestOptions
from profiling.server.web.process_cost import cpu_seconds
from profiling.server.web.target import (
    FEATURE_SHAPE,
    SHARD_SAMPLES,
    TOKEN,
    Device,
    Upload,
    Uploader,
    make_run,
    make_uploads,
    remove_files,
)


def measure_ingest(options: IngestOptions, announce: Announce) -> dict[str, Any]:
    """Measure all candidates.

    Returns:
        ``ours``, ``nginx`` and ``ceiling`` in bytes a CPU-second, medians of turns; ``ratio``, ours over
        nginx; ``ratio_to_ceiling``; ``spread`` with the lowest and highest turn of each.

    Raises:
        InputError: nginx is not installed.
        RunFailedError: A server does not answer, or refuses a body.
    """
    with tempfile.TemporaryDirectory(prefix="gkt-ingest-") as name:
        folder = Path(name)
        announce("exporting a bundle")
        run_id = make_run(folder)
        ports = free_port(), free_port()
        with running_nginx(folder / "nginx", ports[1]) as nginx, ProcessGroup() as processes:
            arguments = [
                "serve",
                "--data-dir",
                str(folder / "run"),
                "--port",
                str(ports[0]),
                "--token",
                TOKEN,
            ]
            server = processes.start("gkt serve", arguments, log=folder / "serve.log")
            wait_for_server(server, folder / "run")
            pids = server.process.pid, nginx.pid
            rates = _measure(options, folder, run_id, ports, pids, announce)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        **medians,
        "ratio": medians["ours"] / medians["nginx"],
        "ratio_to_ceiling": medians["ours"] / medians["ceiling"],
        "spread": {name: [min(values), max(values)] for name, values in rates.items()},
        "settings": {"body_bytes": len(make_uploads(0, 1)[0].body)},
    }


def _measure(
    options: IngestOptions,
    folder: Path,
    run_id: str,
    ports: tuple[int, int],
    pids: tuple[int, int],
    announce: Announce,
) -> dict[str, list[float]]:
    device = Device(ports[0], run_id, (options.turns + 1) * options.bodies)
    other = Uploader(ports[1])
    written = folder / "ceiling"
    written.mkdir()
    stored = {"ours": folder / "run" / "blobs", "nginx": folder / "nginx" / "stored", "ceiling": written}
    send: dict[str, Callable[[Upload], None]] = {
        "ours": device.upload,
        "nginx": lambda upload: other.put(f"/{upload.index}", upload.body),
        "ceiling": lambda upload: _ceiling(upload, written),
    }
    clock: dict[str, Callable[[], float]] = {
        "ours": lambda: cpu_seconds(pids[0]),
        "nginx": lambda: cpu_seconds(pids[1]),
        "ceiling": time.process_time,
    }
    rates: dict[str, list[float]] = {name: [] for name in send}
    for turn in range(options.turns + 1):
        announce(f"turn {turn} of {options.turns}")
        uploads = make_uploads(turn * options.bodies, options.bodies)
        # Another one begins each time: whatever the machine does meanwhile befalls all.
        names = sorted(send, key=lambda name: (list(send).index(name) + turn) % len(send))
        for name in names:
            begin = clock[name]()
            for upload in uploads:
                send[name](upload)
            spent = max(clock[name]() - begin, 0.01)
            remove_files(stored[name])
            if turn > 0:
                rates[name].append(sum(len(upload.body) for upload in uploads) / spent)
    device.close()
    other.close()
    return rates


def _ceiling(upload: Upload, folder: Path) -> None:
    """What any server in Python must do with a body, the receiving apart."""
    digest = hashlib.sha256(upload.body).hexdigest()
    # Floats to the end of the file: but for a few of the first features, scales and offsets, the features.
    num_floats = SHARD_SAMPLES * int(np.prod(FEATURE_SHAPE))
    values = np.frombuffer(upload.body, np.float32, num_floats, offset=len(upload.body) - 4 * num_floats)
    if digest != upload.sha256 or not np.isfinite(values).all():
        raise RunFailedError("a body changed in memory")
    path = folder / f"{upload.index}.tmp"
    with path.open("wb") as stream:
        stream.write(upload.body)
    path.replace(folder / str(upload.index))
