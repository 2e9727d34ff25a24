"""Dockerfile, compose.yaml and systemd units: read as their programs read them, and their commands run.

There is no container engine here: what only one can show (that an image builds) is not shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import sqlalchemy as sa

from gkt_core.cli import gkt
from tests.conftest import LONGEST_SECONDS, ROOT, Gkt, free_port
from tests.server_app.served import SMALL, Serve, SmallFederation
from tests.server_app.store.conftest import Bucket
from tests.server_app.waiting import until

DEPLOYMENT = ROOT / "docs" / "deployment"
UNITS = sorted(DEPLOYMENT.glob("*.service"))
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its words."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    made: dict[str, list[tuple[str, str]]] = {}
    for name, words in instructions():
        if name == "FROM":
            image, _, stage = words.partition(" AS ")
            assert stage, f"{words}: a stage without a name"
            assert image in made or re.fullmatch(r"[a-z]+:[0-9][\w.-]+", image), f"{image} is not pinned"
            made[stage] = list(made.get(image, []))
        else:
            made[stage].append((name, words))
    return made


def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (moto brings it): NOT tested")
    read: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return read


def check_parses(words: list[str]) -> None:
    """Refuse a command line of gkt that it would refuse itself."""
    context = gkt.make_context("gkt", list(words))
    name, command, rest = gkt.resolve_command(context, list(words))
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, rest)
    assert command is not None, words
    with command.make_context(name or "", rest):
        pass


# --- the Dockerfile


def test_its_instructions_are_ones_that_there_are() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"}
    assert {name for name, _ in instructions()} <= known | {"ENTRYPOINT", "CMD"}
    assert DOCKERFILE.isascii() and "\\\n" not in DOCKERFILE, "this test reads a line an instruction"


def test_what_it_copies_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    for name, words in instructions():
        if name == "COPY" and not words.startswith("--from="):
            for source in words.split()[:-1]:
                assert (ROOT / source).exists() and source in allowed, source
    copied = {words.split()[0] for name, words in stages()["wheel"] if name == "COPY"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= copied, "a package that the wheel would lack"


@pytest.mark.parametrize("stage", ["server", "device"])
def test_an_image_runs_a_command_of_gkt_as_nobody_special(stage: str) -> None:
    made = stages()[stage]
    last = dict(made)
    assert last["USER"] == "gkt" and json.loads(last["VOLUME"]) == ["/data"]
    # Ctrl-C, which all commands of gkt understand.
    assert last["STOPSIGNAL"] == "SIGINT"
    command = [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])]
    assert command[0] == "gkt"
    check_parses(command[1:])
    installs = [words for name, words in made if name == "RUN" and "pip install" in words]
    assert installs and all("--constraint /constraints.txt" in words for words in installs)
    # After what it installs: nothing that is installed is the user's to change.
    assert [name for name, _ in made].index("USER") > max(
        i for i, (name, _) in enumerate(made) if name == "RUN"
    )


@pytest.mark.slow
def test_the_commands_of_the_device_image_make_a_device(tmp_path: Path) -> None:
    """Each RUN that is Python's, in a new environment, as the image's would be; then what it starts."""
    venv.create(tmp_path / "venv", with_pip=True)
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    source.mkdir()
    for name, words in stages()["wheel"]:
        if name == "COPY":
            for each in words.split()[:-1]:
                place = ROOT / each
                ignored = shutil.ignore_patterns("__pycache__", "node_modules", "javascript")
                if place.is_dir():
                    shutil.copytree(place, source / each, ignore=ignored)
                else:
                    shutil.copy(place, source)
    environment = {"PATH": f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment |= {
        name: value for name, value in os.environ.items() if name.lower().startswith(("pip_", "http"))
    }
    for stage in ("wheel", "device"):
        for name, words in stages()[stage]:
            if name == "RUN" and "pip" in words:
                here = words.replace("/wheels", str(wheels)).replace("/constraints", f"{ROOT}/constraints")
                done = subprocess.run(
                    here, shell=True, cwd=source, env=environment, capture_output=True, text=True,
                    check=False, timeout=LONGEST_SECONDS,
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
    device = dict(stages()["device"])
    command = [*json.loads(device["ENTRYPOINT"]), *json.loads(device["CMD"])]
    command = [str(tmp_path / "data") if word == "/data/state" else word for word in command]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    # No link is mounted here: it is that, and nothing that is not installed, which it says.
    assert done.returncode == 2 and "/join.txt" in done.stderr, done.stderr


# --- compose.yaml


def test_compose_names_what_is_there() -> None:
    services, volumes = compose()["services"], set(compose()["volumes"])
    for name, service in services.items():
        assert ("build" in service) != ("image" in service), name
        if "image" in service:
            assert re.fullmatch(r"[\w./-]+:[\w.-]*[0-9][\w.-]*", service["image"]), f"{name} is not pinned"
        else:
            assert service["build"]["target"] in stages()
        for mounted in service.get("volumes", ()):
            source = mounted.split(":")[0]
            assert source in volumes or source == "./artifacts" or (ROOT / source).exists(), mounted
        awaited = service.get("depends_on", {})
        for other in awaited:
            assert other in services, other
            wanted = awaited[other]["condition"] if isinstance(awaited, dict) else ""
            assert wanted != "service_healthy" or "healthcheck" in services[other], other
    assert services["proxy"]["network_mode"] == "service:server", "plain http beyond loopback"
    # No secret stands in the file, and none has a default.
    assert not re.findall(
        r"(?i)(password|secret)\w*\"?: *\"?[a-z0-9]{4,}", (ROOT / "compose.yaml").read_text()
    )
    for variable, default in re.findall(r"\$\{(\w+)(:[^}]*)?\}", (ROOT / "compose.yaml").read_text()):
        assert default == ":?" or variable == "GKT_CLIENTS", variable


def filled(value: str, values: dict[str, str]) -> str:
    """A value of compose.yaml with its variables."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?)?\}", lambda found: values.get(found[1], found[2] or ""), value)


@contextlib.contextmanager
def caddy(folder: Path, host: str, port: int) -> Iterator[Path]:
    """Caddy with the Caddyfile of compose.yaml; the authority that signs for this machine."""
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("caddy is not installed (apt-get install caddy): compose.yaml was NOT tested")
    folder.mkdir()
    text = (DEPLOYMENT / "Caddyfile").read_text()
    assert text.count("127.0.0.1:8080") == 1 and text.count("    servers {") == 1
    # Another port than the server of whoever runs this, and a certificate that no authority is asked for.
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace(
        "    servers {",
        "    admin off\n    skip_install_trust\n    local_certs\n    auto_https disable_redirects\n"
        "    servers {",
    )
    (folder / "Caddyfile").write_text(text)
    environment = {**os.environ, "GKT_HOST": host, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    command = [program, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    log, authority = folder / "log", folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    with (
        log.open("wb") as stream,
        subprocess.Popen(command, env=environment, stdout=stream, stderr=stream) as process,
    ):
        try:
            until(lambda: process.poll() is not None or authority.exists(), "Caddy's own authority")
            assert process.poll() is None, log.read_text()
            yield authority
        finally:
            process.terminate()


@pytest.mark.system
def test_what_compose_starts_trains_a_run(
    small: SmallFederation,
    tmp_path: Path,
    postgres_url: str,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    gkt: Gkt,
) -> None:
    """The same as processes: PostgreSQL, a bucket, the server with compose's command, Caddy, a device."""
    server, run, port = compose()["services"]["server"], tmp_path / "run", free_port()
    host = f"https://localhost:{port}"
    values = {"GKT_HOST": host.removeprefix("https://"), "GKT_CLIENTS": "1", "MINIO_PASSWORD": "tests"}
    for name, value in server["environment"].items():
        monkeypatch.setenv(name, filled(value, {**values, "POSTGRES_PASSWORD": "tests"}))
    # What is called by name in compose's network is here at other places.
    assert sa.make_url(os.environ["GKT_DATABASE"]).host in compose()["services"]
    assert re.split("[/:]+", os.environ["AWS_ENDPOINT_URL"])[1] in compose()["services"]
    monkeypatch.setenv("GKT_DATABASE", postgres_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    words = [filled(word, values).replace("s3://gkt/", "s3://gkt-tests/") for word in server["command"]]
    assert words[:5] == ["serve", "--data-dir", "/data/run", "--artifacts", "/artifacts"]
    del words[words.index("--port") : words.index("--port") + 2]
    process = Serve(
        tmp_path / "server", run, "--artifacts", small.bundle, *words[5:], "--rounds", "1", *SMALL
    )
    try:
        (check,) = [words for name, words in stages()["server"] if name == "HEALTHCHECK"]
        python, *arguments = json.loads(check[check.index("[") :])
        arguments[-1] = arguments[-1].replace("/data/run", str(run))
        assert python == "python"
        subprocess.run([sys.executable, *arguments], check=True, timeout=LONGEST_SECONDS)
        behind = int(process.info["url"].rpartition(":")[2])
        with caddy(tmp_path / "caddy", host, behind) as authority:
            device = process.device(small.data(0), tmp_path / "device", "--ca-file", authority)
            assert device.ended() == 0, device.log.read_text()
        assert not (run / "run.sqlite").exists() and process.status().phase == "finished"
        # As the comment in it says.
        taken = gkt("backup", "--data-dir", run, "--out", tmp_path / "backup.tar.zst")
        assert taken.returncode == 0, taken.stderr
        assert process.end() == 130
        gone = subprocess.run(
            [sys.executable, *arguments], check=False, capture_output=True, timeout=LONGEST_SECONDS
        )
        assert gone.returncode != 0, "a server that is not there is healthy"
    finally:
        process.abandon()
    assert httpx.get(bucket.endpoint, timeout=LONGEST_SECONDS, trust_env=False).status_code < 500


# --- systemd


def of_unit(unit: Path, key: str) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)
    return str(value)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    program, *words = shlex.split(of_unit(unit, "ExecStart"))
    # The folder that systemd makes for it is where it keeps what it has.
    assert f"/var/lib/{of_unit(unit, 'StateDirectory')}/" in " ".join(words)
    if program.endswith("/gkt"):
        check_parses(words)
    else:
        assert program.endswith("/torchrun") and words[words.index("-m") + 1] == "server_app.trainer"
    assert of_unit(unit, "KillSignal") == "SIGINT" and of_unit(unit, "SuccessExitStatus") == "130"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed: the units were NOT looked at by it")
    # Nothing is installed in /opt here, and a user of this name need not be there.
    text = unit.read_text().replace(of_unit(unit, "ExecStart").split()[0], sys.executable)
    (tmp_path / unit.name).write_text(text.replace("User=gkt", "User=root").replace("gkt-server.service", ""))
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not said, said
