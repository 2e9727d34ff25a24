"""Which precision suits a machine, on machines that are not here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gkt_core.config import precision
from gkt_core.config.precision import machine_precision, with_precision
from gkt_core.config.run_config import RunConfig


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags : fpu amx_bf16 amx_tile", "bf16"), ("flags : fpu avx512_bf16", "fp32"), (None, "fp32")],
)
def test_a_cpu_with_amx_multiplies_bfloat16(
    flags: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(precision, "_CPU_FLAGS", tmp_path / "cpuinfo")
    said: list[str] = []
    found = with_precision(RunConfig(precision="auto", seed=3), "cpu", said.append)
    assert found == RunConfig(precision=expected, seed=3)
    assert len(said) == 1 and said[0].startswith(f"precision {expected}: this CPU has ")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 9.0", "bf16"),
        ("echo 8.0; echo 8.6", "bf16"),
        ("echo 9.0; echo 7.5", "fp32"),
        ("echo '[N/A]'", "fp32"),
        ("exit 9", "fp32"),
        (None, "fp32"),
    ],
)
def test_a_gpu_is_asked_for_its_capability(
    script: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(tmp_path / "nvidia-smi", 0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine_precision("cuda")[0] == expected


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_what_was_chosen_stays_and_nothing_is_said(chosen: str) -> None:
    config = RunConfig(precision=chosen)
    said: list[str] = []
    assert with_precision(config, "cpu", said.append) is config
    assert not said
