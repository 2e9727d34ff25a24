"""Export and demo with nothing but what the portable extras bring. Slow: downloads gigabytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import LONGEST_SECONDS, ROOT, shared_folder
from tests.docs.test_install_size import MACHINES

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Those that pyproject.toml admits and this machine has; `make test-slow` says which it lacks.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SMALL = ("--model", "resnet4", "--image-size", "8", "--num-classes", "3")


def interpreter(python: str) -> str:
    """A Python of this version: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    by_pyenv = sorted(pyenv.glob(f"{python}.*/bin/python{python}"), key=lambda path: Version(path.parts[-3]))
    for candidate in (*map(str, reversed(by_pyenv)), shutil.which(f"python{python}")):
        # A shim of pyenv stands on the path for a Python that is not there.
        if candidate and runs(candidate):
            return candidate
    pytest.skip(f"no Python {python} on this machine")


def runs(python: str) -> bool:
    """Whether a file is a Python that starts."""
    return subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0


def oldest(extra: str) -> list[str]:
    """The packages of an extra and of every install, each in the oldest release that is admitted."""
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]
    pins = []
    for requirement in map(Requirement, wanted):
        (low,) = [each.version for each in requirement.specifier if each.operator == ">="]
        pins.append(f"{requirement.name}=={low}")
    return pins


class Environment:
    """A virtual environment that holds gkt with one extra."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, python: str, extra: str, *constraints: str) -> None:
        """Install; the newest of everything, unless something is constrained."""
        subprocess.run([python, "-m", "venv", self.folder / "venv"], check=True)
        listed = self.folder / "constraints.txt"
        listed.write_text("".join(f"{line}\n" for line in constraints))
        command = [self.folder / "venv/bin/python", "-m", "pip", "install", "--quiet", "-c", listed]
        subprocess.run([*command, f"{ROOT}[{extra}]"], check=True, timeout=LONGEST_SECONDS)

    def copy_from(self, other: Environment) -> None:
        """Hold what another one holds, in files of its own: no script and no module of the other is used."""
        old, new = str(other.folder / "venv"), str(self.folder / "venv")
        # Links lead to the Python that the other was made with.
        shutil.copytree(old, new, symlinks=True)
        for script in Path(new, "bin").iterdir():
            if not script.is_symlink():
                script.write_text(script.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        told = subprocess.run(
            [f"{new}/bin/python", "-c", "import gkt_core, numpy, sys; print(gkt_core, numpy, *sys.path)"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert new in told and old not in told, told

    def gkt(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command that was installed."""
        done = subprocess.run(
            [self.folder / "venv/bin/gkt", *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_SECONDS,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done

    def packages(self) -> dict[str, str]:
        """Versions of what is installed."""
        command = [self.folder / "venv/bin/python", "-m", "pip", "list", "--format", "json"]
        listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return {each["name"]: each["version"] for each in listed}

    def exports_and_verifies(self) -> None:
        """Export without a word of engines; the manifest says which there are and what made them."""
        out = self.folder / "artifacts"
        done = self.gkt("export", *SMALL, "--out", out, "--json")
        assert "for the engine portable alone" in done.stderr
        manifest = json.loads(done.stdout)
        assert manifest["engines"] == ["portable"]
        packages = self.packages()
        assert "onnxruntime-training-cpu" not in packages
        assert manifest["versions"]["onnxruntime"] == packages["onnxruntime"]
        assert manifest["versions"]["onnx"] == packages["onnx"]
        assert {ir for _, ir in manifest["onnx_versions"].values()} == {8}
        assert set(json.loads(self.gkt("verify", out, "--json").stdout)) == {"portable"}


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_the_newest_packages_export_on_every_python(tmp_path: Path, python: str) -> None:
    found = interpreter(python)
    environment = Environment(tmp_path)
    environment.make(found, "export-portable")
    environment.exports_and_verifies()
    refused = subprocess.run(
        [tmp_path / "venv/bin/gkt", "export", *SMALL, "--engine", "both", "--out", tmp_path / "both"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    assert refused.returncode == 2
    assert re.search(r"onnxruntime [\d.]+ does not write what the engine ort-training needs", refused.stderr)


@pytest.mark.slow
def test_the_oldest_packages_that_are_admitted_export(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    pins = oldest("export-portable")
    environment.make(interpreter("3.11"), "export-portable", *pins)
    packages = environment.packages()
    assert {name: Version(packages[name]) for name in ("torch", "onnx", "onnxruntime", "numpy")} == {
        name: Version(pin.split("==")[1])
        for pin in pins
        if (name := pin.split("==")[0]) in ("torch", "onnx", "onnxruntime", "numpy")
    }
    environment.exports_and_verifies()


@pytest.mark.slow
@pytest.mark.parametrize("onnx", ["newest", "oldest"])
def test_both_engines_verify_with_the_newest_and_the_oldest_onnx(tmp_path: Path, onnx: str) -> None:
    environment = Environment(tmp_path)
    pins = [pin for pin in oldest("export-portable") if pin.startswith(("onnx==", "numpy=="))]
    environment.make(interpreter("3.11"), "export", *(pins if onnx == "oldest" else ()))
    done = environment.gkt("export", *SMALL, "--out", tmp_path / "artifacts", "--json")
    manifest = json.loads(done.stdout)
    assert set(manifest["verification"]) == {"portable", "ort_training"}
    assert {ir for _, ir in manifest["onnx_versions"].values()} == {8}


@pytest.mark.slow
def test_the_demo_runs_with_plain_onnxruntime_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    def make(folder: Path) -> None:
        Environment(folder).make(interpreter("3.13"), "all-portable")

    environment = Environment(shared_folder(tmp_path_factory, "all-portable", make))
    out = environment.folder / "demo"
    done = environment.gkt(
        "demo", "--rounds", "1", "--clients", "2", "--limit", "200", "--out", out, "--json"
    )
    report = json.loads(done.stdout)
    assert len(report["models"]) == 2
    assert 0 < report["test_accuracy"] <= 1
    # What a demo leaves is deployed with the same packages.
    model, data = out / "models" / "client-000.onnx", out / "data" / "clients" / "client-000.npz"
    deployed = environment.folder / "deployed"
    environment.gkt(
        *(
            "deploy",
            "--model",
            model,
            "--data",
            data,
            "--test",
            out / "test.npz",
            "--out",
            deployed,
            "--split",
        )
    )
    assert (deployed / "model_int8.onnx").is_file()


def test_every_machine_gets_one_onnxruntime_to_export_with() -> None:
    for platform, machine, python, expected in MACHINES:
        environment = {"sys_platform": platform, "platform_machine": machine, "python_version": python}
        chosen = [
            package.name
            for package in map(Requirement, PROJECT["optional-dependencies"]["export"])
            if package.name.startswith("onnxruntime")
            and (package.marker is None or package.marker.evaluate(environment))
        ]
        assert chosen == [expected]
