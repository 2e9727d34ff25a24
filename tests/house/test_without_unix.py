"""What Windows lacks is hidden: devices, data, export and simulations do without, and a server says why not.

No test of ours runs on Windows itself. What is hidden here is what Python's documentation marks as
"Availability: Unix" and what this project could be tempted by.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gkt_core.data.private_data import save_private_data
from gkt_core.errors import InputError
from tests.conftest import LONGEST_SECONDS, ROOT
from tests.edge_runtime.device_fixtures import Served, process, wait_until
from tests.server_app.server_fixtures import TOKEN, private_data

pytest_plugins = ["tests.server_app.server_fixtures"]

HIDDEN_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
HIDDEN_NAMES = {
    "os": "O_CLOEXEC chown fchmod fchown fork forkpty geteuid getgid getloadavg getpgid getpriority getuid "
    "kill killpg mkfifo nice posix_fadvise pread pwrite sched_getaffinity sched_setaffinity setpgid "
    "setpriority setsid statvfs sysconf uname wait wait3 wait4 waitid waitpid",
    "signal": "SIGALRM SIGCHLD SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 alarm pthread_kill pthread_sigmask "
    "setitimer sigwait",
    "socket": "AF_UNIX SO_REUSEPORT socketpair",
    "time": "tzset",
}
# Each has a version of its own for Windows, and takes on Linux what Linux has: loaded before that is hidden.
LIBRARIES = "click filelock httpx numpy onnxruntime psutil rich.console rich.progress safetensors.numpy"
TRACKING = "mlflow wandb"
# torch and its exporter, where they are needed: what they start on Linux is not theirs on Windows.
TRAINING = (
    "torch torch.fx torch.onnx torch._dynamo onnx onnxscript sklearn.datasets matplotlib.figure PIL.Image"
)

PRELUDE = f"""
import importlib, sys, warnings
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {HIDDEN_MODULES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def hide(libraries):
    warnings.simplefilter("ignore")
    from gkt_core.bundle.onnx_runtime import onnxruntime_module
    onnxruntime_module()
    for name in libraries.split():
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] in ("gkt_core", *{HIDDEN_MODULES!r})]:
        del sys.modules[name]
    sys.meta_path.insert(0, Hidden())
    for module, names in {HIDDEN_NAMES!r}.items():
        for name in names.split():
            vars(importlib.import_module(module)).pop(name, None)
"""
COMMAND = f"{PRELUDE}\nhide({LIBRARIES!r})\nfrom gkt_core.cli import main\nmain()\n"
TRAINER = f"{PRELUDE}\nhide({(LIBRARIES + ' ' + TRAINING)!r})\nfrom gkt_core.cli import main\nmain()\n"


def hidden(
    *arguments: str | Path, cwd: Path, code: str = COMMAND, exit_code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    return done


def test_what_is_hidden_is_hidden(tmp_path: Path) -> None:
    code = f"""{PRELUDE}
hide({LIBRARIES!r})
import os, signal
assert not hasattr(os, "fork") and not hasattr(signal, "SIGKILL")
try:
    import fcntl
except ModuleNotFoundError:
    print("hidden")
"""
    assert hidden(cwd=tmp_path, code=code).stdout == "hidden\n"


# All others are imported: what serves is built on gunicorn, which is for Unix alone.
ON_UNIX_ALONE = {
    "profiling.server.web.body_server",
    "server_app.server",
    "server_app.serving",
    "server_app.web.connections",
    "server_app.web.gunicorn_server",
}


@pytest.mark.system
def test_every_module_is_imported_but_those_of_a_server(tmp_path: Path) -> None:
    code = f"""{PRELUDE}
hide({f"{LIBRARIES} {TRAINING} {TRACKING}"!r})
import json, pkgutil
import edge_export, edge_runtime, gkt_core, profiling, server_app
failed = {{}}
for package in (gkt_core, edge_runtime, edge_export, server_app, profiling):
    for module in pkgutil.walk_packages(package.__path__, f"{{package.__name__}}."):
        if module.name.endswith(("__main__", "migrations.env")):
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed[module.name] = f"{{type(error).__name__}}: {{error}}"
print(json.dumps(failed))
"""
    failed: dict[str, str] = json.loads(hidden(cwd=tmp_path, code=code).stdout)
    assert set(failed) == ON_UNIX_ALONE, failed
    assert all("fcntl" in reason for reason in failed.values()), failed


@pytest.fixture
def device_data(tmp_path: Path) -> Path:
    path = tmp_path / "client-a.npz"
    save_private_data(path, private_data(1))
    return path


def test_commands_on_data(tmp_path: Path, device_data: Path) -> None:
    shown = json.loads(hidden("data", "show", device_data, "--json", cwd=tmp_path).stdout)
    assert shown
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(40) % 4
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8])
    hidden(*("data", "split", "--dataset", "own.npz", "--clients", "2", "--out", "split"), cwd=tmp_path)
    assert (tmp_path / "split" / "clients" / "client-001.npz").is_file()


def test_a_device_trains_uploads_and_goes_on(server_bundle: Path, tmp_path: Path, device_data: Path) -> None:
    state_dir = tmp_path / "state"
    with Served(server_bundle, tmp_path / "run").listening() as served:
        arguments: list[Any] = [
            "edge",
            "run",
            "--server",
            served.url,
            "--token",
            TOKEN,
            "--data",
            device_data,
        ]
        dry = hidden(*arguments, "--dry-run", "--json", cwd=tmp_path)
        assert json.loads(dry.stdout)["num_train_samples"]
        command = [sys.executable, "-c", COMMAND, *map(str, arguments), "--state-dir", str(state_dir)]
        with process(command) as device:
            wait_until(lambda: served.has_report, device)
    assert json.loads((state_dir / "state.json").read_text())["trained_round"] == 1


def test_what_needs_unix_says_so(server_bundle: Path, tmp_path: Path, device_data: Path) -> None:
    done = hidden(
        *("serve", "--artifacts", server_bundle, "--data-dir", tmp_path / "run", "--port", "0"),
        cwd=tmp_path,
        exit_code=InputError.exit_code,
    )
    assert " lacks: run it on Linux or macOS, on Windows in WSL or a container" in done.stderr
    done = hidden(
        *("edge", "run", "--server", "http://127.0.0.1:9", "--token", "t", "--data", device_data),
        *("--state-dir", tmp_path / "state", "--memory-limit-mb", "400"),
        cwd=tmp_path,
        exit_code=InputError.exit_code,
    )
    assert "--memory-limit-mb is 400, and this system has no limit" in done.stderr


@pytest.mark.system
def test_export_and_simulation(tmp_path: Path) -> None:
    small = ("--model", "resnet4", "--image-size", "8", "--num-classes", "3")
    hidden("export", *small, "--engine", "portable", "--out", "artifacts", cwd=tmp_path, code=TRAINER)
    assert (tmp_path / "artifacts" / "manifest.json").is_file()


def test_no_name_that_windows_lacks_stands_at_the_top_of_a_module() -> None:
    """Inside functions that only a server calls they may stand; this is what the imports above cannot see."""
    for module in HIDDEN_MODULES:
        for package in ("gkt_core", "edge_runtime", "edge_export", "server_app", "profiling"):
            for path in (ROOT / package).rglob("*.py"):
                lines = path.read_text(encoding="utf-8").splitlines()
                assert f"import {module}" not in lines, f"{path}: import {module}"
