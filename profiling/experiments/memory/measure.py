"""Real runs at several image sizes: peaks of devices and trainer from the kernel, beside the estimates."""

from __future__ import annotations

import contextlib
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from edge_runtime.machine.process_status import status_bytes
from gkt_core.bundle.manifest import ORT_TRAINING, PORTABLE, Manifest, load_bundle
from gkt_core.bundle.memory import LEAST_BATCH, TRAINER, MemoryPlan
from gkt_core.bundle.onnx_runtime import can_train
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import RunFailedError
from gkt_core.wire.codec import encoded_layout
from gkt_core.wire.join_link import JOIN_NAME
from profiling.device.peak_memory import engine_peak_bytes
from profiling.experiments.memory.options import MemoryOptions
from profiling.experiments.memory.textures import write_textures
from profiling.frame import Announce
from profiling.frame.processes import Child, ProcessGroup, arguments, wait_for_server, wait_until
from server_app.run_folder import open_run

_SECONDS = 3600.0
_EDGE_NETWORK = "resnet8"
# Of the batches of a run: enough for a full one and a rest, on devices as in the trainer.
_BATCHES = 2


@dataclass(frozen=True)
class _Peak:
    """The most of a process that ever lay in memory, and the files' pages among it."""

    num_bytes: int = 0
    # Of libraries: the system drops them when it wants to, and has more of them after a fresh install.
    file_bytes: int = 0

    @property
    def megabytes(self) -> dict[str, float]:
        return {"peak_megabytes": self.num_bytes / 1e6, "files_megabytes": self.file_bytes / 1e6}


def measure_memory(options: MemoryOptions, announce: Announce) -> dict[str, Any]:
    """Measure all sizes.

    Raises:
        RunFailedError: A process failed, or the system does not tell another process's peak.
    """
    if status_bytes("VmHWM") is None:
        raise RunFailedError("this system does not tell the peak of a process's memory: measure on Linux")
    cases = [(_EDGE_NETWORK, size) for size in sorted(options.sizes)]
    cases.append((options.largest_network, max(options.sizes)))
    measured = {}
    for network, size in cases:
        with tempfile.TemporaryDirectory(prefix="gkt-memory-") as folder:
            announce(f"{network}, {size} px: data and export")
            measured[f"{network}-{size}"] = _measure(Path(folder), network, size, options, announce)
    return {"cases": measured}


def _measure(
    folder: Path, network: str, size: int, options: MemoryOptions, announce: Announce
) -> dict[str, Any]:
    artifacts, server_folder = folder / "artifacts", folder / "server"
    with ProcessGroup(folder) as processes:
        export = {"model": network, "image_size": size, "num_classes": options.num_classes, "verify": "none"}
        processes.run("gkt export", arguments("export", **export, out=artifacts), log=folder / "export.log")
        manifest = load_bundle(artifacts, ()).manifest
        plan = manifest.memory
        if plan is None:
            raise RunFailedError(f"nothing was estimated for {network}: see what gkt export says")
        _split(processes, folder, size, plan, options)
        serve = {"clients": options.num_clients, "rounds": 1, "server_epochs": 1, "threads": options.threads}
        server = processes.start(
            "gkt serve",
            arguments("serve", artifacts=artifacts, data_dir=server_folder, port=0, **serve),
            log=folder / "server.log",
        )
        wait_for_server(server, server_folder)
        announce(f"{network}, {size} px: {options.num_clients} devices and their server")
        devices = _start_devices(processes, folder, options)
        run = open_run(server_folder)
        run.store.close()
        config = run.config
        device_peaks, trainer_peak = _peaks(server, devices)
        device_peak = max(device_peaks, key=lambda peak: peak.num_bytes)
        announce(f"{network}, {size} px: ONNX Runtime's training build")
        ort_training = _ort_training(artifacts, plan, options)
    return {
        "edge_network": network,
        "image_size": size,
        "features": manifest.features,
        "codec": config.codec,
        "sample_bytes": _sample_bytes(manifest, config),
        "shard_samples": config.shard_samples,
        "device": {
            "limit_megabytes": plan.device_limit_mb,
            "batch_size": config.batch_size,
            "estimated_megabytes": plan.needs[plan.engine].of(config.batch_size, config.shard_samples) / 1e6,
            **device_peak.megabytes,
            "peaks_megabytes": [peak.num_bytes / 1e6 for peak in device_peaks],
        },
        "trainer": {
            "limit_megabytes": plan.trainer_limit_mb,
            "batch_size": config.server_batch_size,
            "estimated_megabytes": plan.needs[TRAINER].of(config.server_batch_size) / 1e6,
            **trainer_peak.megabytes,
        },
        "ort_training": ort_training,
    }


def _split(
    processes: ProcessGroup, folder: Path, size: int, plan: MemoryPlan, options: MemoryOptions
) -> None:
    """Give each device so many images that its batches, and the trainer's, are full ones and a rest."""
    most = max(plan.batch_sizes({"batch_size": 64, "server_batch_size": 64}, 1).values())
    num_train = options.num_clients * _BATCHES * (most + 1)
    images = folder / "images.npz"
    counts = {"num_train": num_train, "num_test": 2 * options.num_classes}
    write_textures(images, image_size=size, num_classes=options.num_classes, **counts)
    words = arguments("data split", dataset=images, clients=options.num_clients, out=folder / "split")
    processes.run("gkt data split", words, log=folder / "split.log")


def _start_devices(processes: ProcessGroup, folder: Path, options: MemoryOptions) -> list[Child]:
    started = []
    for number, data in enumerate(sorted((folder / "split" / "clients").glob("*.npz"))):
        words = arguments(
            "edge run",
            join=folder / "server" / JOIN_NAME,
            data=data,
            threads=options.threads,
            state_dir=folder / f"device-{number}",
            engine=PORTABLE,
        )
        log = folder / f"device-{number}.log"
        started.append(processes.start("gkt edge run", words, log=log))
    return started


def _peaks(server: Child, devices: list[Child]) -> tuple[list[_Peak], _Peak]:
    """Wait for the end of the devices; the peaks of each, and of the trainer."""
    peaks: dict[int, _Peak] = {}

    def watch(pid: int) -> None:
        # A peak never falls: the last reading before the end is the one.
        before, now = peaks.get(pid, _Peak()), status_bytes("VmHWM", pid) or 0
        files = status_bytes("RssFile", pid) or 0
        peaks[pid] = _Peak(max(before.num_bytes, now), max(before.file_bytes, files))

    trainers: set[int] = set()

    def have_ended() -> bool:
        if server.exit_code is not None:
            raise server.failure()
        with contextlib.suppress(psutil.NoSuchProcess):
            trainers.update(child.pid for child in psutil.Process(server.process.pid).children())
        for pid in (*trainers, *(device.process.pid for device in devices)):
            watch(pid)
        return all(device.exit_code is not None for device in devices)

    wait_until(have_ended, _SECONDS, lambda: f"a round took more than {_SECONDS:.0f} s")
    for device in devices:
        if device.exit_code != 0:
            raise device.failure()
    return [peaks[device.process.pid] for device in devices], max(
        (peaks[pid] for pid in trainers), key=lambda peak: peak.num_bytes
    )


def _ort_training(artifacts: Path, plan: MemoryPlan, options: MemoryOptions) -> dict[str, Any] | None:
    """Weigh ONNX Runtime's training build with a batch that fits; None where it is not installed."""
    if ORT_TRAINING not in plan.needs or not can_train():
        return None
    batch_size = max(LEAST_BATCH, min(RunConfig().batch_size, plan.most_images(ORT_TRAINING)))
    peak = engine_peak_bytes(
        artifacts,
        engine=ORT_TRAINING,
        batch_size=batch_size + 1,
        rest_size=max(LEAST_BATCH, 3 * batch_size // 4),
        threads=options.threads,
    )
    estimated = plan.needs[ORT_TRAINING].of(batch_size)
    return {"batch_size": batch_size, "estimated_megabytes": estimated / 1e6, "peak_megabytes": peak / 1e6}


def _sample_bytes(manifest: Manifest, config: RunConfig) -> int:
    dtype, shape = encoded_layout(config.codec, manifest.feature_shape)
    return dtype.itemsize * math.prod(shape)
