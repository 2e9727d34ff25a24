"""A device says before it joins that training is estimated to take more than is free."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from edge_runtime.machine.limits import memory_note
from gkt_core.bundle.manifest import load_bundle
from gkt_core.bundle.memory import MemoryNeed, MemoryPlan
from gkt_core.config.run_config import RunConfig

pytest_plugins = ["tests.server_app.server_fixtures"]


def test_it_is_said_where_memory_is_short(server_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, config = load_bundle(server_bundle).manifest, RunConfig(batch_size=9, shard_samples=1)
    plan = MemoryPlan({"portable": MemoryNeed(100_000_000, 10_000_000)}, "portable")
    manifest = dataclasses.replace(manifest, memory=plan)
    free = SimpleNamespace(available=200_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert memory_note(manifest, config, "portable") == ""
    free.available -= 1
    note = memory_note(manifest, config, "portable")
    assert note.startswith("batches of 9 take 200 MB by estimate, 200 are free here")
    assert memory_note(manifest, config, "ort_training") == "", "nothing was estimated"
    assert memory_note(dataclasses.replace(manifest, memory=None), config, "portable") == ""
