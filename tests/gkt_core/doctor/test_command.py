"""``gkt doctor`` as a whole: table, JSON, exit codes, no secret, and on a device without the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gkt_core.cli import gkt
from gkt_core.doctor import command
from gkt_core.doctor.command import CHECK_GROUP, findings_of
from gkt_core.doctor.findings import FINE, SKIPPED, WRONG, Finding, fine
from gkt_core.doctor.options import DoctorOptions
from gkt_core.errors import DatasetError
from tests.conftest import free_port
from tests.edge_runtime.test_edge_isolated import isolated

pytest_plugins = ["tests.server_app.server_fixtures"]


def invoke(*words: object) -> Result:
    return CliRunner().invoke(gkt, ["doctor", *map(str, words)], catch_exceptions=False)


def test_a_run_and_a_machine_that_are_fine(empty_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(empty_run, tmp_path / "run"))
    folder.chmod(0o700)
    done = invoke("--data-dir", folder, "--port", free_port())
    assert done.exit_code == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "nothing is wrong"
    assert {line.split()[0] for line in done.stdout.splitlines()[1:-1] if not line.startswith(" ")} >= {
        "python", "packages", "threads", "clock", "bundle", "engine", "port", "database", "secrets", "disk",
        "trainer",
    }  # fmt: skip


def test_what_is_wrong_is_in_both_and_ends_with_9(empty_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(empty_run, tmp_path / "run"))
    (folder / "artifacts" / "manifest.json").write_text("{")
    folder.chmod(0o755)
    plain, as_json = invoke("--data-dir", folder), invoke("--data-dir", folder, "--json")
    assert plain.exit_code == as_json.exit_code == 9
    document = json.loads(as_json.stdout)
    wrong = {each["check"]: each for each in document["findings"] if each["state"] == WRONG}
    assert {"bundle", "secrets"} <= set(wrong) and document["wrong"] == len(
        [each for each in document["findings"] if each["state"] == WRONG]
    )
    assert wrong["bundle"]["remedy"] == "export the artifacts again"
    assert f"{document['wrong']} of {len(document['findings'])} are wrong" in plain.stdout
    assert "chmod 700" in plain.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--join", "gkt+http://127.0.0.1:1/#enroll=0123456789abcdef.{secret}&bundle=sha256:" + "0" * 64),
        ("--join", "gkt+http://127.0.0.1:1/#enroll=0123456789abcdef.{secret}&bundle=sha256:00"),
        ("--database", "postgresql://gkt:{secret}@127.0.0.1:1/gkt"),
        ("--database", "mysql://gkt:{secret}@127.0.0.1:1/gkt"),
        ("--database", "postgresql://gkt:{secret}@127.0.0.1:port/gkt"),
        ("--server", "http://gkt:{secret}@127.0.0.1:1"),
    ],
)
def test_no_secret_is_shown(words: tuple[str, str]) -> None:
    secret = "a-secret-of-the-tests-that-nobody-sees"
    for form in ((), ("--json",)):
        done = invoke(words[0], words[1].format(secret=secret), *form)
        assert done.exit_code == 9
        assert secret not in done.stdout + done.stderr, done.stdout


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """The checks of one package, and another one that cannot be imported."""
    registered: dict[str, object] = {}
    monkeypatch.setattr(f"{__name__}.REGISTERED", registered)
    entries = [
        EntryPoint("any", f"{__name__}:REGISTERED", CHECK_GROUP),
        EntryPoint("server", "absent_module:CHECKS", CHECK_GROUP),
    ]
    monkeypatch.setattr(command, "entry_points", lambda group: entries)
    yield registered


REGISTERED: dict[str, object] = {}


def test_a_check_that_fails_hides_no_other(checks: dict[str, object]) -> None:
    def refuses(_: DoctorOptions) -> Iterator[Finding]:
        yield fine("so far")
        raise DatasetError("a.npz: 3 labels, expected 4: pack it again")

    def breaks(_: DoctorOptions) -> Iterator[Finding]:
        raise ZeroDivisionError("by nothing")
        yield

    checks |= {"refuses": refuses, "breaks": breaks, "last": lambda options: iter([fine("there")])}
    so_far, refused, broken, last, absent = findings_of(DoctorOptions())
    assert so_far == Finding(FINE, "so far", "", "refuses")
    assert refused == Finding(WRONG, "a.npz: 3 labels, expected 4", "pack it again", "refuses")
    assert broken.state == WRONG and "ZeroDivisionError: by nothing" in broken.text
    assert last == Finding(FINE, "there", "", "last")
    assert absent.state == SKIPPED and "absent_module" in absent.text


def test_a_device_has_neither_torch_nor_flask(server_bundle: Path, empty_run: Path, tmp_path: Path) -> None:
    done = isolated("doctor", "--artifacts", server_bundle, "--state-dir", "new", "--json", cwd=tmp_path)
    assert "imported: [] tried: []" in done.stderr, done.stderr
    document = json.loads(done.stdout)
    assert done.returncode == 0, document
    assert {"bundle", "memory", "engine", "state"} <= {each["check"] for each in document["findings"]}
    shutil.copytree(empty_run, tmp_path / "run")
    served = isolated("doctor", "--data-dir", "run", "--json", cwd=tmp_path)
    (database,) = [each for each in json.loads(served.stdout)["findings"] if each["check"] == "database"]
    assert database["state"] == SKIPPED and "gkt-edge[server]" in database["remedy"]
