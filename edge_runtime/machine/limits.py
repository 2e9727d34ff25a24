"""Limit what a device lets training take of the machine: memory and priority."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import psutil

from edge_runtime.engines.base import open_engine
from edge_runtime.machine.process_status import status_bytes
from gkt_core.bundle.machine_memory import free_bytes
from gkt_core.bundle.manifest import MOST_BUNDLE_BYTES, Bundle, Manifest
from gkt_core.bundle.memory import megabytes
from gkt_core.bundle.onnx_runtime import is_out_of_memory
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError, MemoryLimitError

resource: ModuleType | None
try:
    import resource
except ImportError:
    # Windows limits no process by itself.
    resource = None

_MEGABYTE = 1_000_000


def be_nice(level: int) -> None:
    """Let everything else on the machine go first: 0 as others, to 19, only when nobody else works."""
    if level and hasattr(os, "nice"):
        os.nice(level)
    elif level:
        # Windows has classes in place of numbers.
        name = "BELOW_NORMAL_PRIORITY_CLASS" if level < 10 else "IDLE_PRIORITY_CLASS"
        psutil.Process().nice(getattr(psutil, name, level))


def limit_memory(megabytes: int) -> None:
    """Let allocations beyond a limit fail in this process, rather than have the system kill it.

    The limit is the kernel's ``RLIMIT_DATA``: what the process has asked for, used or not. That is some
    80 MB more than what is resident.

    Raises:
        ConfigError: This system limits no process, as Windows does not.
        MemoryLimitError: More is taken already.
    """
    if resource is None:
        raise ConfigError(
            f"--memory-limit-mb is {megabytes}, and this system has no limit that a process could set for "
            "itself (RLIMIT_DATA): leave it out, and choose a smaller --batch-size on the server instead"
        )
    # What counts against the limit; nothing where the system does not say.
    taken = status_bytes("VmData") or 0
    if megabytes * _MEGABYTE <= taken:
        raise MemoryLimitError(
            f"--memory-limit-mb is {megabytes}, and {taken / _MEGABYTE:.0f} MB are taken before training "
            "begins: allow more"
        )
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = megabytes * _MEGABYTE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def most_bundle_bytes(megabytes: int | None) -> int:
    """Say how large the files of a bundle may be: a part of the memory that they are opened in."""
    return MOST_BUNDLE_BYTES if megabytes is None else min(MOST_BUNDLE_BYTES, megabytes * _MEGABYTE // 4)


@contextlib.contextmanager
def memory_named(config: RunConfig | None = None) -> Iterator[None]:
    """Let memory that runs out be an error with a name.

    Raises:
        MemoryLimitError: An allocation failed.
    """
    try:
        yield
    # Of ONNX Runtime's exceptions only some are RuntimeErrors.
    except Exception as error:
        if is_out_of_memory(error):
            raise _out_of_memory(config) from error
        raise


def memory_note(manifest: Manifest, config: RunConfig, engine: str) -> str:
    """Say that training is estimated to take more than is free here; nothing if it is not."""
    need = None if manifest.memory is None else manifest.memory.needs.get(engine)
    free = free_bytes()
    needed = 0 if need is None else need.of(config.batch_size, config.shard_samples)
    if needed <= free:
        return ""
    return (
        f"batches of {config.batch_size} take {megabytes(needed)} MB by estimate, {megabytes(free)} are free "
        "here: this may fail or slow down; --memory-limit-mb tries it before the device joins, a smaller "
        "--batch-size on the server takes less"
    )


def try_for_memory(bundle: Bundle, config: RunConfig, *, engine: str, num_threads: int) -> None:
    """Make one step and one extraction of the run's size with weights that are thrown away.

    A device whose memory does not suffice finds out before it joins, not when others wait for it.

    Raises:
        MemoryLimitError: It does not.
    """
    manifest = bundle.manifest

    def images(num: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.zeros((num, 3, manifest.image_size, manifest.image_size), np.float32)

    with memory_named(config):
        opened = open_engine(
            bundle, checkpoint=None, num_threads=num_threads, learning_rate=config.edge_lr, engine=engine
        )
        # A last batch of one sample joins the batch before it.
        num = config.batch_size + 1
        opened.train_step(
            images(num), np.zeros(num, np.int64), np.zeros((num, manifest.num_classes), np.float32), 0.0
        )
        opened.predict(images(config.shard_samples))


def _out_of_memory(config: RunConfig | None) -> MemoryLimitError:
    taken, allowed = status_bytes("VmData") or 0, ""
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        if limit != resource.RLIM_INFINITY:
            allowed = f", --memory-limit-mb allows {limit / _MEGABYTE:.0f}"
    needed = ""
    if config is not None:
        needed = f" for batches of {config.batch_size} and shards of {config.shard_samples} samples"
    return MemoryLimitError(
        f"memory does not suffice{needed}: {taken / _MEGABYTE:.0f} MB are taken{allowed}: allow "
        "more, or begin the run with a smaller --batch-size and --shard-samples on the server"
    )
