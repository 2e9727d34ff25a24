"""What receiving shards costs our server, beside nginx and a ceiling.

Every candidate takes the same bodies over the loopback interface. The ceiling receives nothing: SHA-256, a
look at every value and a file, in plain Python, of a body that is in memory already.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gkt_core.errors import RunFailedError
from profiling.frame import Announce
from profiling.frame.processes import ProcessGroup, arguments, free_port, wait_for_server
from profiling.server.web.nginx import running_nginx
from profiling.server.web.options import IngestOptions
from profiling.server.web.process_cost import cpu_seconds
from profiling.server.web.target import (
    FEATURE_SHAPE,
    SHARD_SAMPLES,
    Device,
    MadeRun,
    Upload,
    Uploader,
    make_run,
    make_uploads,
)
from profiling.server.web.turns import Candidate, bytes_per_cpu_second


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
        run = make_run(folder)
        ports = free_port(), free_port()
        with running_nginx(folder / "nginx", ports[1]) as nginx, ProcessGroup() as processes:
            words = arguments("serve", data_dir=folder / "run", port=ports[0])
            server = processes.start("gkt serve", words, log=folder / "serve.log")
            wait_for_server(server, folder / "run")
            pids = server.process.pid, nginx.pid
            rates = _measure(options, folder, run, ports, pids, announce)
    medians = {name: rate["median"] for name, rate in rates.items()}
    return {
        **medians,
        "ratio": medians["ours"] / medians["nginx"],
        "ratio_to_ceiling": medians["ours"] / medians["ceiling"],
        "spread": {name: rate["spread"] for name, rate in rates.items()},
        "settings": {"body_bytes": len(make_uploads(0, 1)[0].body)},
    }


def _measure(
    options: IngestOptions,
    folder: Path,
    run: MadeRun,
    ports: tuple[int, int],
    pids: tuple[int, int],
    announce: Announce,
) -> dict[str, dict[str, Any]]:
    written = folder / "ceiling"
    written.mkdir()
    with (
        contextlib.closing(Device(ports[0], run, (options.turns + 1) * options.bodies)) as device,
        contextlib.closing(Uploader(ports[1])) as other,
    ):
        ours = Candidate(device.take, lambda: cpu_seconds(pids[0]), folder / "run" / "blobs")
        nginx = Candidate(other.take, lambda: cpu_seconds(pids[1]), folder / "nginx" / "stored")
        ceiling = Candidate(lambda uploads: _ceiling(uploads, written), time.process_time, written)
        return bytes_per_cpu_second(
            {"ours": ours, "nginx": nginx, "ceiling": ceiling},
            options.turns,
            lambda turn: make_uploads(turn * options.bodies, options.bodies),
            announce,
        )


def _ceiling(uploads: Sequence[Upload], folder: Path) -> None:
    """Do what any server in Python must do with a body, the receiving apart."""
    # Floats to the end of the file: but for a few of the first features, scales and offsets, the features.
    num_floats = SHARD_SAMPLES * int(np.prod(FEATURE_SHAPE))
    for upload in uploads:
        digest, offset = hashlib.sha256(upload.body).hexdigest(), len(upload.body) - 4 * num_floats
        values = np.frombuffer(upload.body, np.float32, num_floats, offset=offset)
        if digest != upload.sha256 or not np.isfinite(values).all():
            raise RunFailedError("a body changed in memory")
        path = folder / f"{upload.index}.tmp"
        path.write_bytes(upload.body)
        path.replace(folder / str(upload.index))
