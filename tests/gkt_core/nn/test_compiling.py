"""What is compiled, what is not, and that training goes on where it cannot be."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gkt_core.algorithms import server_update
from gkt_core.nn.averaging import Averaged, trained_with
from gkt_core.nn.compiling import LEAST_SECONDS, NOT_COMPILED, Compiler
from tests.gkt_core.rounds.test_learning_rate import source
from tests.server_app.server_fixtures import FEATURE_SHAPE, NUM_CLASSES, run_config

FEATURES = torch.randn(8, *FEATURE_SHAPE, generator=torch.Generator().manual_seed(0))
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no g++ here: nothing can be compiled"
)


def small() -> nn.Module:
    """A network that takes a second to compile."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(16, 4, 3, stride=4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, NUM_CLASSES),
    )
    return nn.Sequential(*layers).train()


def never(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("nothing is to be compiled")


@pytest.mark.parametrize(
    ("how", "precision", "num_steps"),
    [("off", "bf16", 10**9), ("auto", "fp32", 10**9), ("auto", "bf16", 1)],
    ids=["off", "exact everywhere", "soon over"],
)
def test_what_is_not_compiled_is_the_network_itself(
    how: str, precision: str, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", never)
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert Compiler(how, precision=precision, num_steps=num_steps).forward(network, FEATURES) is network
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(("gain", "is_chosen"), [(2.0, True), (1.0, False)])
def test_auto_takes_what_was_measured_to_be_faster(
    gain: float, is_chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With clocks and a compiler of this test's: decided once, and for as long as the network is the same."""
    network, made = small(), list[nn.Module]()

    def compiled(module: nn.Module, **options: Any) -> Any:
        made.append(module)
        return nn.Sequential(module)

    def seconds(self: Compiler, forward: Any, *rest: Any) -> float:
        return 1.0 if forward is network else 1.0 / gain

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(Compiler, "_seconds", seconds)
    compiler = Compiler("auto", precision="bf16", num_steps=int(LEAST_SECONDS))
    chosen = [compiler.forward(network, FEATURES) for _ in range(3)]
    assert made == [network]
    assert all((each is not network) == is_chosen for each in chosen)
    assert compiler.forward(network, FEATURES[:5]) is network, "a last batch is of another shape"


def test_training_goes_on_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(module: nn.Module, **options: Any) -> Any:
        def fail(features: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++\n compiler")

        return fail

    monkeypatch.setattr(torch, "compile", refused)
    network, compiler = small(), Compiler("on")
    with caplog.at_level(logging.WARNING, "gkt.compile"):
        assert compiler.forward(network, FEATURES) is network
        assert compiler.forward(network, FEATURES) is network
    assert caplog.messages == ["training goes on without torch.compile: no C++ compiler (RuntimeError)"]


@pytest.mark.slow
@needs_compiler
def test_compiled_training_is_the_same_to_a_rounding() -> None:
    """A round of the server with an average beside its network; only whole batches are compiled."""
    config = run_config(server_epochs=2, server_ema=0.5, server_lr=0.01)
    options: dict[str, Any] = {"round_num": 1, "num_classes": NUM_CLASSES}
    logits = {}
    for name, compiler in (("eager", NOT_COMPILED), ("compiled", Compiler("on"))):
        network, optimizer = averaged(config)
        logits[name] = server_update(
            network, optimizer, source(), config, compiler=compiler, **options
        ).server_logits
    assert logits["compiled"] == pytest.approx(logits["eager"], abs=1e-4)
    assert compiler._compiled is not None, "or this test compares nothing"


def averaged(config: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    network, optimizer = trained_with(small(), config, config.server_lr)
    assert isinstance(network, Averaged)
    return network, optimizer


@pytest.mark.slow
@needs_compiler
def test_a_machine_without_a_compiler_says_so_and_trains(tmp_path: Path) -> None:
    """The real torch.compile, in a process that finds no compiler and no earlier code."""
    code = (
        "import logging; logging.basicConfig(); from tests.gkt_core.nn.test_compiling import *; "
        "network = small(); assert Compiler('on').forward(network, FEATURES) is network"
    )
    environment = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "training goes on without torch.compile" in done.stderr
