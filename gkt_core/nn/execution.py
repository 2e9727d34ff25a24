"""How PyTorch computes here: precision, threads, determinism, memory. None of it changes what is computed."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from gkt_core.config.run_config import AUTO
from gkt_core.errors import ConfigError

# Numbers of mallopt(3) and what they are set to: keep freed memory instead of giving it back.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES, _PAD_BYTES, _MMAP_BYTES = 2**31 - 1, 256 * 2**20, 2**30


def training_precision(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Give the context in which a large network's forward pass runs in training.

    ``bf16`` is PyTorch's automatic mixed precision: convolutions and linear layers in bfloat16, weights,
    batch statistics and losses in float32.

    Raises:
        ConfigError: It is ``auto``, which is looked up where a run begins (:mod:`gkt_core.config.precision`).
    """
    if precision == AUTO:
        raise ConfigError("precision is 'auto' in a training that has begun: choose fp32 or bf16")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def prepare_torch(device: str, num_threads: int = 0) -> None:
    """Pin threads and choose deterministic kernels: a seed gives the same numbers on this machine again.

    On ``cuda`` kernels may choose, and TF32 is allowed. 0 CPU threads mean ``OMP_NUM_THREADS``, or all cores.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    default = int(wanted) if wanted.isdigit() else 0
    torch.set_num_threads(num_threads or default or os.cpu_count() or 1)
    torch.use_deterministic_algorithms(device == "cpu")
    # Nothing here reads memory before writing it; filling it costs a seventh of the speed.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if device == "cpu":
        keep_freed_memory()
    else:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


@contextlib.contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Let PyTorch compute with this many threads, and undo it."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let glibc keep what a training step frees for the next one, as page faults cost a fifth of the time.

    Does nothing where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
    mallopt(_M_TOP_PAD, _PAD_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
