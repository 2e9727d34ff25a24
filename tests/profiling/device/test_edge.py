"""``gkt profile edge``: on a device without torch, with and without what the kernel may say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.bundle.manifest import Bundle
from gkt_core.errors import ConfigError, InputError
from profiling.cli.profile import profile
from profiling.device.edge.conditions import EnergyMeter, read_conditions
from profiling.device.edge.contention import measure_contention
from profiling.device.edge.install_size import install_sizes
from profiling.device.edge.options import EdgeOptions
from profiling.frame.measuring.step_time import noise_report, summarise
from profiling.frame.registry import read_document
from tests.conftest import LONGEST_SECONDS, ROOT, Gkt

README = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")
FORBIDDEN = (
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "matplotlib",
    "jinja2",
    "flask",
    "fvcore",
)
# Python runs this at the start of the command and of every process that it starts.
BLOCKER = f"""
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FORBIDDEN!r}:
            with open(__file__ + ".tried", "a") as log:
                log.write(name + "\\n")
            raise ModuleNotFoundError(f"{{name}} is not on a device", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose sitecustomize.py makes torch and its friends impossible to import."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return folder


def on_device(device: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gkt_core.cli", "profile", *map(str, arguments)],
        cwd=device,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(device), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )


@pytest.fixture(scope="module")
def document(device: Path, digits_bundle: Bundle) -> dict[str, Any]:
    done = on_device(
        device, "edge", "--artifacts", digits_bundle.path, "--batch-size", "8", "--steps", "12",
        "--warmup", "1", "--cold-runs", "2", "--seconds", "0.2", "--processes", "2", "--pin",
        "--json", "--engine", "ort-training", "--out", "edge.json", "--out", "edge.md",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    assert parsed == json.loads((device / "edge.json").read_text())
    return parsed


@pytest.mark.system
def test_a_device_without_torch_measures_itself(document: dict[str, Any], device: Path) -> None:
    tried = device / "sitecustomize.py.tried"
    assert not tried.exists(), tried.read_text()
    assert document["schema"] == "gkt-profile-edge/1"
    assert document["engine"] == "ort_training"
    workloads = {workload["name"]: workload for workload in document["workloads"]}
    assert list(workloads) == ["train_step", "extract", "pack", "augment"]
    for workload in workloads.values():
        warm = workload["warm_ms"]
        assert warm["n"] == 12
        assert 0 < warm["low_ms"] <= warm["median_ms"] <= warm["high_ms"]
        assert warm["median_ms"] <= warm["p90_ms"] <= warm["p95_ms"]
        assert workload["cold_ms"]["n"] == workload["open_ms"]["n"] == 2
        assert workload["images_per_second"] == pytest.approx(8 / warm["median_ms"] * 1e3, rel=1e-3)
        memory = workload["memory"]
        assert 0 < memory["start_bytes"] < memory["opened_bytes"] <= memory["first_call_bytes"]
        assert memory["end_bytes"] <= memory["peak_bytes"] == workload["peak_memory_bytes"]


def test_the_blocker_blocks(device: Path) -> None:
    """The test above can fail: a command that needs torch does."""
    done = on_device(device, "compare", "--steps", "1")
    assert done.returncode == 2
    assert "is not installed" in done.stderr
    (device / "sitecustomize.py.tried").unlink()


@pytest.mark.system
def test_sizes_are_those_of_the_files(document: dict[str, Any], digits_bundle: Bundle) -> None:
    sizes = document["sizes"]
    assert sizes["bundle_bytes"] == {
        name: (digits_bundle.path / name).stat().st_size
        for name in digits_bundle.manifest.engine_files("ort_training")
    }
    installed = sizes["install_bytes"]
    assert {"numpy", "onnxruntime-training-cpu", "httpx", "gkt-edge"} <= set(installed)
    assert not {"torch", "flask", "matplotlib"} & set(installed)
    assert installed["numpy"] > 20e6
    assert sizes["total_install_bytes"] == sum(installed.values())


@pytest.mark.system
def test_what_was_not_measured_is_named(document: dict[str, Any]) -> None:
    text = "; ".join(document["not_measured"])
    for name, value in document["conditions"]["before"].items():
        assert (f"{name} (the system does not say)" in text) == (value is None)
    joules = [workload["joules_per_call"] for workload in document["workloads"]]
    assert (None in joules) == ("energy" in text)
    assert "throttling" not in text


@pytest.mark.system
def test_sustained_training_is_shown_over_time(document: dict[str, Any]) -> None:
    windows = document["sustained"]["windows"]
    assert len(windows) == 20
    seconds = [window["second"] for window in windows]
    assert seconds == sorted(seconds)
    assert all(window["n"] >= 1 and window["median_ms"] > 0 for window in windows)
    assert document["sustained"]["slowdown"] > 0


@pytest.mark.system
def test_devices_of_one_machine_slow_each_other_down(document: dict[str, Any]) -> None:
    contention = document["contention"]
    assert (contention["processes"], contention["seconds"]) == (2, 0.2)
    assert contention["factor"] == pytest.approx(contention["together_ms"] / contention["alone_ms"], rel=1e-2)
    assert "several devices" not in "; ".join(document["not_measured"])


def test_only_the_middle_of_each_process_counts() -> None:
    """Two processes that begin and end apart: where only one of them ran does not matter."""
    calls: list[float] = []

    def train(seconds: float) -> list[dict[str, Any]]:
        calls.append(seconds)
        middle = 10.0 if len(calls) == 1 else 15.0
        times = [99.0] * 5 + [middle] * 10 + [1.0] * 5
        return [{"samples_ms": [value, value]} for value in times]

    found = measure_contention(train, 2, 3.0)
    assert calls == [3.0] * 3
    assert found == {"processes": 2, "seconds": 3.0, "alone_ms": 10.0, "together_ms": 15.0, "factor": 1.5}


@pytest.mark.system
def test_every_key_is_documented(document: dict[str, Any]) -> None:
    keys = {*document, *document["workloads"][0], *document["workloads"][0]["warm_ms"], *document["sizes"]}
    for key in keys | {*document["conditions"]["before"], *document["sustained"]}:
        assert re.search(rf"`[\w.\[\]]*{key}`", README), key


@pytest.mark.system
def test_the_page_is_made_elsewhere(document: dict[str, Any], device: Path, tmp_path: Path) -> None:
    html, again = tmp_path / "edge.html", tmp_path / "edge.md"
    result = CliRunner().invoke(
        profile, ["show", str(device / "edge.json"), "--out", str(html), "--out", str(again)],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0
    assert html.read_text().count("data:image/svg+xml;base64,") == 1
    assert again.read_text() == (device / "edge.md").read_text()


@pytest.mark.system
def test_a_device_cannot_draw(document: dict[str, Any], device: Path) -> None:
    done = on_device(device, "show", "edge.json", "--out", "edge.html")
    assert done.returncode == 2
    assert "gkt-edge[profile]" in done.stderr
    assert not (device / "edge.html").exists()


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", '{"schema": "gkt-profile-edge/9"}'])
def test_documents_of_something_else_are_refused(broken: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(broken)
    with pytest.raises(InputError, match=r"some\.json"):
        read_document(path)


@pytest.mark.system
def test_a_document_that_lacks_something_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    for key in ("workloads", "machine", "sizes", "not_measured"):
        path.write_text(json.dumps({name: value for name, value in document.items() if name != key}))
        with pytest.raises(InputError, match="lacks what its schema"):
            read_document(path)


def test_bad_input_ends_with_exit_code_2(gkt: Gkt, tmp_path: Path, digits_bundle: Bundle) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (("--artifacts", "empty"), "is no artifact bundle"),
        (("--artifacts", digits_bundle.path, "--batch-size", "-1"), "--batch-size is -1"),
    ):
        done = gkt("profile", "edge", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"threads": 0}, {"sustained_seconds": -1.0}, {"codec": "x"}, {"engine": "x"}]
)
def test_options_that_measure_nothing_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EdgeOptions(artifacts=Path("x"), **values)


def test_the_kernel_says_everything(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000\n")
    put("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "1800000\n")
    put("sys/class/thermal/thermal_zone0/temp", "48312\n")
    put("sys/class/thermal/thermal_zone1/temp", "-274000\n")
    for package, energy in (("intel-rapl:0", 990), ("intel-rapl:1", 5)):
        put(f"sys/class/powercap/{package}/energy_uj", str(energy * 1_000_000))
        put(f"sys/class/powercap/{package}/max_energy_range_uj", str(1000 * 1_000_000))
    put("sys/class/powercap/intel-rapl:0:0/energy_uj", "7")
    found = read_conditions(tmp_path)
    assert (found.governor, found.frequency_mhz, found.temperature_celsius) == ("powersave", 1800.0, 48.312)
    meter = EnergyMeter(tmp_path)
    assert meter.is_readable
    assert meter.joules() == 0
    # One counter ran over, the other did not: 30 J and 2 J.
    put("sys/class/powercap/intel-rapl:0/energy_uj", str(20 * 1_000_000))
    put("sys/class/powercap/intel-rapl:1/energy_uj", str(7 * 1_000_000))
    assert meter.joules() == pytest.approx(32)


def test_the_kernel_says_nothing(tmp_path: Path) -> None:
    found = read_conditions(tmp_path)
    assert (found.governor, found.frequency_mhz, found.temperature_celsius) == (None, None, None)
    meter = EnergyMeter(tmp_path)
    assert not meter.is_readable
    assert meter.joules() is None


def test_memory_is_this_process() -> None:
    """In a process of its own: one that has run for long may give an array memory that it holds already."""
    script = (
        "import numpy as np\n"
        "from profiling.device.edge.memory import peak_bytes, resident_bytes\n"
        "before = resident_bytes()\n"
        "block = np.ones(50_000_000, np.uint8)\n"
        "print(before, resident_bytes(), peak_bytes(), block.all())\n"
    )
    command = [sys.executable, "-c", script]
    before, after, peak, _ = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    if "None" in (before, after):
        pytest.skip("this system does not say what lies in memory")
    assert int(after) - int(before) > 40e6
    assert int(peak) >= int(after) - 1e6


def test_install_sizes_follow_the_extra() -> None:
    edge, server = install_sizes("edge"), install_sizes("server")
    assert edge is not None and server is not None
    assert "flask" in server and "flask" not in edge
    assert list(edge.values()) == sorted(edge.values(), reverse=True)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60))
def test_a_summary_is_in_order(samples: list[float]) -> None:
    found = summarise(samples)
    assert found.n == len(samples)
    assert (
        min(samples) <= found.low_ms <= found.median_ms + 1e-9 <= found.high_ms + 2e-9 <= max(samples) + 3e-9
    )
    assert found.median_ms <= found.p90_ms + 1e-9 <= found.p95_ms + 2e-9


def test_the_interval_holds_the_median_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(3)
    draws = np.exp(rng.standard_normal((2000, 30)))
    inside = [found.low_ms <= 1.0 <= found.high_ms for found in map(summarise, draws)]
    assert 0.95 <= np.mean(inside) <= 0.99


def test_the_self_check_flags_noise_and_drift() -> None:
    steady = summarise([10.0, 10.1, 9.9, 10.0, 10.1, 9.9])
    wide = summarise([10.0, 14.0, 10.0, 14.0, 10.0, 14.0])
    drifting = summarise([10.0, 10.0, 10.0, 11.0, 11.0, 11.0])
    assert noise_report({"steady": steady}) == {"too_noisy_to_quote": False, "reasons": []}
    for times in ({"wide": wide}, {"drifting": drifting}):
        report = noise_report(times)
        assert report["too_noisy_to_quote"]
        assert next(iter(times)) in report["reasons"][0]


@pytest.mark.slow
def test_the_edge_extra_alone_is_enough(digits_bundle: Bundle, tmp_path: Path) -> None:
    root, venv = ROOT, tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    install = [venv / "bin/python", "-m", "pip", "install", "--quiet", "-c", root / "constraints.txt"]
    subprocess.run([*map(str, install), f"{root}[edge]"], check=True, timeout=600)
    command = [
        venv / "bin/gkt",
        "profile",
        "edge",
        "--artifacts",
        digits_bundle.path,
        "--steps",
        "2",
        "--json",
    ]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "torch" not in json.loads(done.stdout)["machine"]["packages"]
