"""Peak memory of a whole ``gkt edge run``: one device, one round, with a server of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.machine.process_status import status_bytes
from gkt_core.errors import RunFailedError

if TYPE_CHECKING:
    from profiling.device.engines.options import EnginesOptions
    from profiling.frame.processes import Child, ProcessGroup

_SECONDS = 300.0
_POLL_SECONDS = 0.05


def device_run_peak_bytes(folder: Path, options: EnginesOptions) -> int | None:
    """Train one round of two batches of random images, and read the device's peak from the kernel.

    Args:
        folder: For data, artifacts and logs; made here.
        options: Batch size, image size, classes and threads.

    Returns:
        Bytes; None where the system does not tell another process's peak (macOS, Windows).

    Raises:
        RunFailedError: Server or device failed, or took more than five minutes.
    """
    from profiling.frame.processes import ProcessGroup  # noqa: PLC0415 - a device has no psutil

    if not Path("/proc/self/status").exists():
        return None
    folder.mkdir()
    logs = folder / "logs"
    _write_images(folder / "images.npz", options)
    split, artifacts = folder / "split", folder / "artifacts"
    with ProcessGroup() as processes:
        arguments = ["data", "split", "--dataset", str(folder / "images.npz"), "--clients", "1"]
        processes.run("gkt data split", [*arguments, "--out", str(split)], log=logs / "split.log")
        arguments = ["export", "--split", str(split / "partition.json"), "--engine", "portable"]
        processes.run("gkt export", [*arguments, "--out", str(artifacts)], log=logs / "export.log")
        arguments = ["serve", "--artifacts", str(artifacts), "--data-dir", str(folder / "server")]
        arguments += ["--port", "0", "--clients", "1", "--rounds", "1", "--server-epochs", "1"]
        arguments += ["--batch-size", str(options.batch_size)]
        server = processes.start("gkt serve", arguments, log=logs / "server.log")
        return _device_peak(processes, server, folder, options)


def _write_images(path: Path, options: EnginesOptions) -> None:
    random = np.random.default_rng(0)
    size, num_train, num_test = options.image_size, 3 * options.batch_size, 4 * options.num_classes

    def images(num: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return random.integers(0, 256, (num, size, size, 3), dtype=np.uint8)

    np.savez(
        path,
        x_train=images(num_train),
        y_train=np.arange(num_train) % options.num_classes,
        x_test=images(num_test),
        y_test=np.arange(num_test) % options.num_classes,
    )


def _device_peak(processes: ProcessGroup, server: Child, folder: Path, options: EnginesOptions) -> int:
    from profiling.frame.processes import wait_for_server  # noqa: PLC0415 - a device has no psutil

    deadline = time.monotonic() + _SECONDS
    url = wait_for_server(server, folder / "server")["url"]
    data = next((folder / "split" / "clients").glob("*.npz"))
    arguments = ["edge", "run", "--server", url, "--data", str(data), "--threads", str(options.threads)]
    arguments += ["--state-dir", str(folder / "device"), "--engine", "portable"]
    token = {"GKT_TOKEN": (folder / "server" / "token").read_text(encoding="utf-8").strip()}
    log = folder / "logs" / "device.log"
    device = processes.start("gkt edge run", arguments, log=log, environment=token)
    peak = 0
    # A peak never falls: the last reading before the end is the one, training lies long behind by then.
    while device.exit_code is None:
        _check(server, deadline)
        peak = max(peak, status_bytes("VmHWM", device.process.pid) or 0)
        time.sleep(_POLL_SECONDS)
    if device.exit_code != 0:
        raise device.failure()
    return peak


def _check(server: Child, deadline: float) -> None:
    if server.exit_code is not None:
        raise server.failure()
    if time.monotonic() > deadline:
        raise RunFailedError(
            f"gkt edge run and its server took more than {_SECONDS:.0f} s: leave the machine alone, or give "
            "--no-device-run"
        )
