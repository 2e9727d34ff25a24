"""Python, its wheels and packages, each really wrong."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path

import onnxruntime
import pytest
from packaging.markers import Marker

from gkt_core.doctor.findings import ADVICE, FINE, SKIPPED, WRONG
from gkt_core.doctor.installed import judged_python, judged_torch, packages, python_version
from gkt_core.errors import PackageConflictError
from tests.conftest import ROOT
from tests.gkt_core.doctor.looking import looked, states, the_one

LARGEST = 2**63 - 1
MACHINES = (
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("darwin", "arm64"),
    ("win32", "AMD64"),
    ("win32", "ARM64"),
)


def install(folder: Path, name: str, number: str, *lines: str, **files: str) -> None:
    """Install a distribution, as far as Python looks for one: its metadata."""
    info = folder / f"{name.replace('-', '_')}-{number}.dist-info"
    info.mkdir(parents=True)
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {number}", *lines])
    (info / "METADATA").write_text(text + "\n")
    for file, content in files.items():
        (info / file).write_text(content)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that comes first."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def test_this_python_is_fine() -> None:
    assert states(looked(python_version)) == [FINE]


@pytest.mark.parametrize(
    ("number", "system", "machine", "largest", "implementation", "libc", "words"),
    [
        ((3, 10), "linux", "x86_64", LARGEST, "cpython", "glibc", "runs on Python 3.11 to 3.14"),
        ((3, 15), "linux", "x86_64", LARGEST, "cpython", "glibc", "runs on Python 3.11 to 3.14"),
        ((3, 12), "linux", "x86_64", LARGEST, "pypy", "glibc", "CPython alone"),
        ((3, 12), "linux", "armv7l", 2**31 - 1, "cpython", "glibc", "of 32 bits"),
        ((3, 12), "linux", "x86_64", LARGEST, "cpython", "", "musl"),
    ],
)
def test_what_has_no_wheels(
    number: tuple[int, int],
    system: str,
    machine: str,
    largest: int,
    implementation: str,
    libc: str,
    words: str,
) -> None:
    assert words in the_one(judged_python(number, system, machine, largest, implementation, libc), WRONG).text


def test_where_the_training_build_has_wheels_is_where_its_extra_asks_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = [each for each in project["optional-dependencies"]["edge"] if "training" in each]
    marker = Marker(line.partition(";")[2])
    for minor in range(11, 15):
        for system, machine in MACHINES:
            (judged,) = judged_python((3, minor), system, machine, LARGEST, "cpython", "glibc")
            here = {"python_version": f"3.{minor}", "sys_platform": system, "platform_machine": machine}
            assert judged.state == FINE and ("portable" not in judged.text) == marker.evaluate(here), here


def test_the_oldest_and_newest_python_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, above = re.findall(r"3\.(\d+)", project["requires-python"])
    for minor, state in (
        (int(oldest) - 1, WRONG),
        (int(oldest), FINE),
        (int(above) - 1, FINE),
        (int(above), WRONG),
    ):
        assert states(judged_python((3, minor), "linux", "x86_64", LARGEST, "cpython", "glibc")) == [state]


def test_this_environment_is_fine_and_complete_for_something() -> None:
    findings = looked(packages)
    assert set(states(findings)) == {FINE}
    assert any("complete for a device, photos, exporting, a server" in each.text for each in findings)


def test_two_builds_of_onnx_runtime_side_by_side(elsewhere: Path) -> None:
    install(elsewhere, "onnxruntime", "1.23.0")
    install(elsewhere, "onnxruntime-training-cpu", "1.19.2")
    with pytest.raises(PackageConflictError, match="pip uninstall onnxruntime onnxruntime-training-cpu"):
        looked(packages)


@pytest.mark.parametrize("lost", ["capi", "training/api"])
def test_a_build_that_lost_files_with_another(
    elsewhere: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `pip uninstall` of the other one leaves."""
    module = elsewhere / "onnxruntime"
    for part in {"capi", "training/api"} - {lost}:
        (module / part).mkdir(parents=True)
    shutil.copy(onnxruntime.__file__, module / "__init__.py")
    monkeypatch.delitem(sys.modules, "onnxruntime")
    install(elsewhere, "onnxruntime-training-cpu", "1.19.2")
    said = the_one(looked(packages), WRONG)
    assert f"lacks {lost}" in said.text
    assert said.remedy == "pip install --force-reinstall --no-deps onnxruntime-training-cpu==1.19.2"


def test_torch_and_torchvision_of_two_places() -> None:
    assert "nms" in the_one(judged_torch("2.12.1+cpu", "0.27.1"), WRONG).text
    assert not list(judged_torch("2.12.1+cpu", "0.27.1+cpu"))
    assert not list(judged_torch("2.12.1", "0.27.1"))
    assert not list(judged_torch("2.12.1+cpu", ""))


def test_another_projects_command_of_our_name(elsewhere: Path) -> None:
    install(elsewhere, "gkt", "2.0", **{"entry_points.txt": "[console_scripts]\ngkt = other:main\n"})
    said = the_one(looked(packages), WRONG)
    assert said.text.startswith("gkt 2.0 is another project") and said.remedy.startswith("pip uninstall gkt")


def test_a_server_that_lacks_a_package_is_told_which(elsewhere: Path) -> None:
    install(
        elsewhere, "gkt-edge", "9", 'Requires-Dist: absent-driver>=1; extra == "server"',
        'Requires-Dist: numpy; extra == "server"', 'Requires-Dist: click; extra == "server"',
        'Requires-Dist: absent-one; extra == "profile"',
    )  # fmt: skip
    *_, little, complete = looked(packages)
    assert (little.state, little.text) == (ADVICE, "of what a server needs, absent-driver lacks")
    assert little.remedy == "if this is to be for a server: pip install 'gkt-edge[server]'"
    assert complete.state == ADVICE and "complete for nothing yet" in complete.text


def test_a_checkout_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_us(folder: str) -> bool:
        # An editable installation leaves its metadata beside the source.
        return "site-packages" in folder or any(Path(folder or ".").glob("gkt_edge*info"))

    monkeypatch.setattr("sys.path", [each for each in sys.path if not has_us(each)])
    assert states(looked(packages)) == [SKIPPED]
