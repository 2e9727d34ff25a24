"""Look up the precision that suits a machine: ``auto`` of ``--precision``."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

from gkt_core.config.run_config import AUTO, RunConfig

_CPU_FLAGS = Path("/proc/cpuinfo")
_QUERY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
# The first GPUs that multiply bfloat16.
_LEAST_CAPABILITY = 8.0


def machine_precision(device: str) -> tuple[str, str]:
    """Look up what suits this machine, without PyTorch.

    Args:
        device: ``cpu`` or ``cuda``.

    Returns:
        ``bf16`` or ``fp32``, and why, for a person.
    """
    if device == "cuda":
        capabilities = _gpu_capabilities()
        if not capabilities:
            return "fp32", "nvidia-smi does not say what this GPU can do"
        if min(capabilities) >= _LEAST_CAPABILITY:
            return "bf16", "this GPU multiplies bfloat16"
        return (
            "fp32",
            f"a GPU here has compute capability {min(capabilities)}, bf16 wants {_LEAST_CAPABILITY}",
        )
    try:
        flags = _CPU_FLAGS.read_text(encoding="utf-8").split()
    except OSError:
        flags = []
    return ("bf16", "this CPU has AMX") if "amx_bf16" in flags else ("fp32", "this CPU has no AMX")


def with_precision(
    config: RunConfig, device: str, announce: Callable[[str], None] = lambda line: None
) -> RunConfig:
    """Put what suits this machine in place of ``auto``, and say so: a run has one precision to its end."""
    if config.precision != AUTO:
        return config
    precision, reason = machine_precision(device)
    announce(f"precision {precision}: {reason}")
    return dataclasses.replace(config, precision=precision)


def _gpu_capabilities() -> list[float]:
    try:
        said = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=60).stdout
        return [float(line) for line in said.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
