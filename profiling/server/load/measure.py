"""A real ``gkt serve`` under many light devices, with its memory round by round."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil

from edge_export import ExportOptions, export_bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import RunFailedError
from profiling.frame import Announce
from profiling.frame.processes import Child, ProcessGroup, arguments, free_port, wait_for_server, wait_until
from profiling.server.load.light_device import LightDevice
from profiling.server.load.memory import MemorySample, MemorySampler, between, growth_per_round
from profiling.server.load.options import LoadOptions
from server_app.members.inviting import enrolled
from server_app.run_folder import RunContext, create_run

_NUM_VALIDATION = 2
PROCESSES = ("web", "trainer")
_LONG_SECONDS = 300.0
# Caches fill in the first rounds: of them nothing is concluded.
_WARM_UP_ROUNDS = 2
# What may come and go with the allocator; a leak of a shard a device and round is a hundred times as much.
_TOLERATED_GROWTH = 0.02
_IDLE_SECONDS = 2.0


def measure_load(options: LoadOptions, announce: Announce) -> dict[str, Any]:
    """Export a bundle and run it, in a temporary folder.

    Raises:
        RunFailedError: The server ended by itself, or a device was refused.
    """
    with tempfile.TemporaryDirectory(prefix="gkt-load-") as name:
        folder = Path(name)
        announce("exporting a bundle")
        export_bundle(ExportOptions(image_size=options.image_size), folder / "artifacts", verify="none")
        return load_server(options, folder / "artifacts", folder, announce)


def load_server(options: LoadOptions, artifacts: Path, out: Path, announce: Announce) -> dict[str, Any]:
    """Run it.

    Args:
        options: What.
        artifacts: Bundle of ``gkt export`` for such images.
        out: A new folder.
        announce: Told what happens now.

    Raises:
        RunFailedError: The server ended by itself, or a device was refused.
    """
    config = RunConfig(
        num_clients=options.num_devices,
        rounds=options.rounds,
        server_epochs=1,
        server_batch_size=64,
        crop_padding=0,
        horizontal_flip=False,
        codec="uint8",
        shard_samples=max(2, options.num_examples // 2),
        # What these devices send is random.
        quarantine=False,
    )
    run = create_run(out / "server", artifacts, config)
    words = arguments(
        "serve",
        data_dir=(out / "server").absolute(),
        port=free_port(),
        threads=options.num_threads,
        poll_seconds=options.poll_seconds,
    )
    with contextlib.closing(run.store), ProcessGroup(out) as processes:
        server = processes.start("gkt serve", words, log=out / "server.log")
        return _under_load(options, run, server, announce)


def _under_load(options: LoadOptions, run: RunContext, server: Child, announce: Announce) -> dict[str, Any]:
    info = wait_for_server(server, run.folder)

    def find() -> dict[str, psutil.Process | None]:
        return {"web": psutil.Process(info["pid"]), "trainer": server.own_child("server_app.trainer")}

    rounds = _Rounds(options.num_devices, announce)
    with MemorySampler(find) as sampler:
        rounds.now = sampler.now
        # PyTorch takes seconds to import: what it takes before the first round is not of the devices.
        wait_until(
            lambda: run.store.progress()[1] > 0, _LONG_SECONDS, lambda: "the trainer gave no sign of life"
        )
        threading.Event().wait(_IDLE_SECONDS)
        announce(f"{options.num_devices} devices join {info['url']}")
        began = sampler.now()
        devices = _all_devices(options, run, info["url"], rounds.uploaded)
        announce(f"all rounds done after {sampler.now() - began:.0f} s")
        wait_until(
            lambda: server.own_child("server_app.trainer") is None,
            _LONG_SECONDS,
            lambda: "the trainer did not end with the run",
        )
        ended = sampler.now()
        threading.Event().wait(_IDLE_SECONDS)
        samples = list(sampler.samples)
    server.check()
    return _report(options, run, devices, samples, began, ended, rounds)


class _Rounds:
    """When all devices have sent their part of each round."""

    def __init__(self, num_devices: int, announce: Announce) -> None:
        self._num_devices, self._announce = num_devices, announce
        self._lock = threading.Lock()
        self._counts: dict[int, int] = {}
        self.now: Callable[[], float] = lambda: 0.0
        self.uploaded_at: dict[int, float] = {}
        self.first_at: dict[int, float] = {}

    def uploaded(self, round_num: int) -> None:
        with self._lock:
            self.first_at.setdefault(round_num, self.now())
            self._counts[round_num] = self._counts.get(round_num, 0) + 1
            if self._counts[round_num] == self._num_devices:
                self.uploaded_at[round_num] = self.now()
                self._announce(f"round {round_num}: all {self._num_devices} devices have sent their part")


def _all_devices(
    options: LoadOptions, run: RunContext, url: str, on_uploaded: Callable[[int], None]
) -> list[LightDevice]:
    tls, stopping = ssl.create_default_context(), threading.Event()
    together = threading.Barrier(options.num_devices)
    devices = [
        LightDevice(
            url,
            enrolled(run, f"device-{number:04d}"),
            f"device-{number:04d}",
            number,
            options.num_examples,
            _NUM_VALIDATION,
            together,
            on_uploaded,
            stopping,
        )
        for number in range(options.num_devices)
    ]
    with ThreadPoolExecutor(options.num_devices) as threads:
        running = [threads.submit(device.run, tls) for device in devices]
        try:
            ended, late = wait(running, options.limit_seconds, FIRST_EXCEPTION)
        finally:
            stopping.set()
    for each in ended:
        # The one that failed, before those that were stopped because of it.
        each.result()
    if late:
        raise RunFailedError(
            f"{len(late)} of {options.num_devices} devices had not ended after "
            f"{options.limit_seconds:.0f} s: the run is {run.store.state().phase} in round "
            f"{run.store.state().round_num}"
        )
    return devices


def _report(
    options: LoadOptions,
    run: RunContext,
    devices: list[LightDevice],
    samples: list[MemorySample],
    began: float,
    ended: float,
    rounds: _Rounds,
) -> dict[str, Any]:
    if any(device.num_rounds != options.rounds for device in devices):
        raise RunFailedError("a device did not take part in every round")
    trained = [record for record in run.store.rounds() if record.trained_at]
    # A round lasts until the last device has sent its part of the next one; the last, until all have ended.
    ends = [rounds.first_at[number + 1] for number in range(1, options.rounds)] + [ended]
    begins = [began, *ends[:-1]]
    memory = {name: _memory_of(samples, name, began, ended, begins, ends) for name in PROCESSES}
    seconds = [record.trained_at - record.opened_at for record in trained]
    return {
        "devices": {
            "num_requests": sum(device.num_requests for device in devices),
            "num_retries": sum(device.num_retries for device in devices),
            "longest_request_seconds": max(device.longest_seconds for device in devices),
            "upload_bytes": sum(device.upload_bytes for device in devices),
            "download_bytes": sum(device.download_bytes for device in devices),
        },
        "seconds": {"all": ended - began, "rounds": seconds},
        "memory": memory,
        "grows": [name for name in sorted(memory) if memory[name]["grows"]],
        "settings": {"num_validation_examples": _NUM_VALIDATION},
    }


def _memory_of(
    samples: list[MemorySample],
    name: str,
    began: float,
    ended: float,
    begins: list[float],
    ends: list[float],
) -> dict[str, Any]:
    parts = [between(samples, name, begin, end) for begin, end in zip(begins, ends, strict=True)]
    peaks = [max((sample.pss_bytes for sample in part), default=0) for part in parts]
    # The trainer ends with the run: its last look is in the last round.
    lasts = [part[-1] if part else None for part in parts]
    ends_bytes = [sample.pss_bytes for sample in lasts if sample is not None]
    growth = growth_per_round(peaks[_WARM_UP_ROUNDS:])
    return {
        "before": _shown(between(samples, name, 0.0, began)),
        "during": _shown(between(samples, name, began, ended)),
        "after": _shown(between(samples, name, ended, float("inf"))),
        "rounds": [
            {"peak_pss_bytes": peak, "last_pss_bytes": last.pss_bytes if last else None}
            for peak, last in zip(peaks, lasts, strict=True)
        ],
        "growth_bytes_per_round": growth,
        "growth_of_ends_bytes_per_round": growth_per_round(ends_bytes[_WARM_UP_ROUNDS:]),
        "grows": growth > _TOLERATED_GROWTH * max(peaks),
        "num_processes": len({sample.pid for sample in samples if sample.process == name}),
    }


def _shown(samples: list[MemorySample]) -> dict[str, int] | None:
    """The last look, and the most of any; None if there was none, as of a process that has ended."""
    if not samples:
        return None
    return {
        "rss_bytes": samples[-1].rss_bytes,
        "pss_bytes": samples[-1].pss_bytes,
        "peak_rss_bytes": max(sample.rss_bytes for sample in samples),
        "peak_pss_bytes": max(sample.pss_bytes for sample in samples),
        "num_threads": max(sample.num_threads for sample in samples),
        "num_fds": max(sample.num_fds for sample in samples),
    }
