"""Peak memory of a whole ``gkt edge run``: one device, one round, with a server of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_runtime.machine.process_status import status_bytes
from gkt_core.bundle.manifest import PORTABLE
from gkt_core.wire.join_link import JOIN_NAME
from profiling.device.engines.options import EnginesOptions
from profiling.frame.processes import Child, ProcessGroup, arguments, wait_for_server, wait_until

_SECONDS = 300.0


def device_run_peak_bytes(folder: Path, options: EnginesOptions) -> int | None:
    """Train one round of two batches of random images, and read the device's peak from the kernel.

    Args:
        folder: For data, artifacts and logs; made here.
        options: Batch size, image size, classes and threads.

    Returns:
        Bytes; None where the system does not tell another process's peak (macOS, Windows).

    Raises:
        RunFailedError: Server or device failed, or the device took more than five minutes.
    """
    if not Path("/proc/self/status").exists():
        return None
    folder.mkdir()
    images, split, artifacts = (folder / name for name in ("images.npz", "split", "artifacts"))
    _write_images(images, options)
    commands = {
        "data split": arguments("data split", dataset=images, clients=1, out=split),
        "export": arguments(
            "export",
            split=split / "partition.json",
            model=options.edge_network,
            engine=PORTABLE,
            out=artifacts,
        ),
    }
    limits = {"clients": 1, "rounds": 1, "server_epochs": 1, "batch_size": options.batch_size}
    serve = arguments("serve", artifacts=artifacts, data_dir=folder / "server", port=0, **limits)
    with ProcessGroup() as processes:
        for name, words in commands.items():
            processes.run(f"gkt {name}", words, log=folder / "logs" / f"{name}.log")
        server = processes.start("gkt serve", serve, log=folder / "logs" / "server.log")
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
    wait_for_server(server, folder / "server")
    link_file = folder / "server" / JOIN_NAME
    device = processes.start(
        "gkt edge run",
        arguments(
            "edge run",
            join=link_file,
            data=next((folder / "split" / "clients").glob("*.npz")),
            threads=options.threads,
            state_dir=folder / "device",
            engine=PORTABLE,
        ),
        log=folder / "logs" / "device.log",
    )
    peak = 0

    def has_ended() -> bool:
        nonlocal peak
        if server.exit_code is not None:
            raise server.failure()
        # A peak never falls: the last reading before the end is the one, training lies long behind by then.
        peak = max(peak, status_bytes("VmHWM", device.process.pid) or 0)
        return device.exit_code is not None

    message = (
        f"gkt edge run and its server took more than {_SECONDS:.0f} s: leave the machine alone, or give "
    )
    wait_until(has_ended, _SECONDS, lambda: message + "--no-device-run")
    if device.exit_code != 0:
        raise device.failure()
    return peak
