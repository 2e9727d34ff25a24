"""An algorithm of a user's own: from Python, from a file, and by the name that a package registers."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

import gkt_core
from gkt_core import algorithm_names
from gkt_core.algorithm_names import own_algorithm, register_algorithm
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.errors import ConfigError
from tests.conftest import ROOT, Gkt

pytest_plugins = ["tests.profiling.profile_fixtures"]

FEDPROX = ROOT / "docs" / "examples" / "fedprox.py"
SMALL: dict[str, Any] = {
    "rounds": 2,
    "local_epochs": 1,
    "batch_size": 16,
    "horizontal_flip": False,
    "server_network": "tiny_trunk",
}


@pytest.fixture(autouse=True)
def no_names_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten."""
    monkeypatch.setattr(algorithm_names, "_registered", {})


@pytest.fixture(autouse=True)
def tiny_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server network that trains in no time."""
    from torch import nn  # noqa: PLC0415 - of this fixture alone

    from gkt_core import networks  # noqa: PLC0415

    monkeypatch.setattr(networks, "_registered_servers", {})
    networks.register_server_network(
        "tiny_trunk",
        lambda num_classes: nn.Sequential(
            nn.Conv2d(16, 8, 3),
            nn.BatchNorm2d(8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, num_classes),
        ),
    )


def test_the_example_is_short() -> None:
    code = FEDPROX.read_text(encoding="utf-8").partition("class FedProx")[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 42


def test_without_its_term_it_is_fedavg_and_with_it_another(federation: Federation) -> None:
    """The strongest check of an interface: the same numbers through it as from within."""
    fedprox = own_algorithm(f"{FEDPROX}:FedProx")
    fedavg = gkt_core.simulate(federation, "fedavg", **SMALL).curves
    without = gkt_core.simulate(federation, fedprox, settings={"mu": 0.0}, **SMALL).curves
    strong = gkt_core.simulate(federation, fedprox, settings={"mu": 10.0}, **SMALL).curves
    for name in ("validation_loss", "validation_accuracy", "upload_bytes"):
        assert without[name] == fedavg[name], name
    assert strong["validation_loss"] != fedavg["validation_loss"]


def test_a_registered_name_is_known_everywhere(federation: Federation, gkt_here: Gkt, tmp_path: Path) -> None:
    register_algorithm("fedprox", own_algorithm(f"{FEDPROX}:FedProx"))
    done = gkt_core.simulate(federation, "fedprox", settings={"mu": 0.1}, out=tmp_path / "out", **SMALL)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["own_settings"] == {"mu": 0.1}
    # Another setting is another run.
    with pytest.raises(ConfigError, match="own_settings"):
        gkt_core.simulate(federation, "fedprox", settings={"mu": 0.2}, out=tmp_path / "out", **SMALL)
    assert 0 <= done.test_accuracy <= 1 and list(done.models) == ["global"]


def test_the_command_finds_it_in_a_file(gkt_here: Gkt, tmp_path: Path) -> None:
    small = ("--image-size", "8", "--limit", "90", "--clients", "2", "--rounds", "1", "--local-epochs", "1")
    done = gkt_here(
        "simulate", "--algorithm", f"{FEDPROX}:FedProx", "--setting", "mu=0.1",
        "--server-model", "tiny_trunk", *small, "--out", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert (config["algorithm"], config["own_settings"]) == (f"{FEDPROX}:FedProx", {"mu": 0.1})


def test_an_installed_package_registers_its_own(
    monkeypatch: pytest.MonkeyPatch, federation: Federation
) -> None:
    monkeypatch.syspath_prepend(str(FEDPROX.parent))
    entry = importlib.metadata.EntryPoint("nearby", "fedprox:FedProx", algorithm_names.ENTRY_POINTS)
    monkeypatch.setattr(algorithm_names, "entry_points", lambda group: [entry])
    assert gkt_core.simulate(federation, "nearby", **SMALL).config.rounds == 2


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fedfoo", {}, "unknown algorithm 'fedfoo', expected one of fedgkt, .*file.py:Class"),
        ("no_such_module:FedFoo", {}, "is it a file\\? then give no_such_module.py"),
        ("missing.py:FedFoo", {}, "cannot load an algorithm from missing.py"),
        (f"{FEDPROX}:FedFoo", {}, "has no class FedFoo"),
        (f"{FEDPROX}:FedProx", {"nu": 1}, "does not take .*unexpected keyword argument 'nu'"),
        ("fedavg", {"mu": 1}, "fedavg has no settings of its own: leave out mu"),
        ("builtins:dict", {}, "makes a dict, expected a gkt_core.Algorithm"),
    ],
)
def test_what_cannot_be_an_algorithm_is_said(
    name: str, settings: dict[str, Any], message: str, federation: Federation
) -> None:
    if name == "builtins:dict":
        register_algorithm("nothing", lambda federation, config, **networks: {})
        name = "nothing"
    with pytest.raises(ConfigError, match=message):
        gkt_core.simulate(federation, name, settings=settings, **SMALL)


@pytest.mark.parametrize("name", ["fedgkt", "Fed Prox", ""])
def test_names_that_cannot_be_registered(name: str) -> None:
    with pytest.raises(ConfigError, match="algorithm name"):
        register_algorithm(name, dict)


def test_settings_are_names_with_values(gkt_here: Gkt) -> None:
    done = gkt_here("simulate", "--algorithm", f"{FEDPROX}:FedProx", "--setting", "mu", "--out", "out")
    assert done.returncode == 2
    assert "--setting is 'mu', expected NAME=VALUE" in done.stderr
    assert gkt_here("simulate", "--algorithm", "fedfoo", "--out", "out").returncode == 2
