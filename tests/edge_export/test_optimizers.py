"""Every optimizer on every engine, against PyTorch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_export import ExportOptions, export_bundle
from edge_runtime import open_engine
from gkt_core.bundle.manifest import ENGINE_FILES, load_bundle
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.errors import ConfigError
from tests.edge_export.portable.batches import batch_of

ENGINES = tuple(ENGINE_FILES)
OPTIMIZERS = (
    EdgeOptimizer("adam", weight_decay=1e-2),
    EdgeOptimizer("adamw", weight_decay=1e-1),
    EdgeOptimizer("sgd", weight_decay=1e-2, momentum=0.9, nesterov=True),
    EdgeOptimizer("sgd", momentum=0.9),
    EdgeOptimizer("adam", amsgrad=True, weight_decay=1e-2),
)


@pytest.mark.system
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.name}-{o.weight_decay}-{o.momentum}")
def test_every_optimizer_is_exact_on_every_engine_or_refused(
    optimizer: EdgeOptimizer, tmp_path: Path
) -> None:
    """The export verifies itself against PyTorch's optimizer; momentum survives a restart."""
    if optimizer.amsgrad:
        with pytest.raises(ConfigError, match="has no AMSGrad: give --engine portable"):
            ExportOptions("resnet4", image_size=8, optimizer=optimizer)
    engines = ("portable",) if optimizer.amsgrad else ENGINES
    options = ExportOptions("resnet4", image_size=8, num_classes=3, optimizer=optimizer, engines=engines)
    manifest = export_bundle(options, tmp_path / "bundle")
    assert set(manifest.verification) == set(engines)
    bundle = load_bundle(tmp_path / "bundle")
    for engine in engines:
        opening: dict[str, Any] = {"num_threads": 1, "learning_rate": 5e-3, "engine": engine}
        first = open_engine(bundle, checkpoint=None, **opening)
        first.train_step(*batch_of(8, 8, 3), 1.0)
        first.save(tmp_path / engine)
        second = open_engine(bundle, checkpoint=tmp_path / engine, **opening)
        for opened in (first, second):
            opened.train_step(*batch_of(8, 8, 3, seed=1), 1.0)
        ours, theirs = first.parameters(), second.parameters()
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours), engine


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"name": "lamb"}, "expected one of adam, adamw, sgd"),
        ({"momentum": 0.9}, "momentum is for sgd, the optimizer is adam"),
        ({"name": "sgd", "nesterov": True}, "Nesterov momentum needs a momentum"),
        ({"name": "sgd", "amsgrad": True}, "AMSGrad is a variant of adam"),
        ({"name": "sgd", "momentum": 1.0}, "--momentum is 1.0"),
        ({"weight_decay": -1.0}, "--weight-decay is -1.0"),
        ({"weight_decay": float("nan")}, "--weight-decay is nan"),
    ],
)
def test_optimizers_that_nobody_has(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        EdgeOptimizer(**values)
