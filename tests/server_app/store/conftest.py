"""A real PostgreSQL and a real S3 server, as processes that end with the tests.

Where a program is not installed, its tests are skipped and say what is missing.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import LONGEST_SECONDS, free_port
from tests.server_app.waiting import until

USER = "gkt"


def _programs() -> Path:
    """The folder of initdb and pg_ctl; Debian keeps them off the PATH."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    programs = [folder for folder in folders if (folder / "initdb").is_file()]
    if not programs:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql): its tests did NOT run")
    return programs[-1]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a private cluster's maintenance database, on a socket in a temporary folder."""
    programs = _programs()
    # PostgreSQL refuses to run as root; sockets want short paths.
    folder = Path(tempfile.mkdtemp(prefix="gkt-pg-"))
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_user = {"user": "nobody", "group": "nogroup"}
        shutil.chown(folder, **as_user)

    def call(program: str, *arguments: object) -> None:
        subprocess.run(
            [str(programs / program), *map(str, arguments)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LONGEST_SECONDS,
            cwd=folder,
            **as_user,
        )

    try:
        call("initdb", "-D", folder / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c fsync=off -k {folder}"
        call("pg_ctl", "-D", folder / "data", "-l", folder / "log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://{USER}@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_NUMBERS = itertools.count(1)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty database, dropped after the test."""
    name = f"test_{next(_NUMBERS)}"
    url = sa.make_url(postgres_server).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        yield postgres_server.replace("/postgres?", f"/{name}?")
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


class Bucket:
    """A bucket on an S3 server that can be stopped and started again; it keeps nothing when stopped."""

    def __init__(self) -> None:
        # Kept over a stop and a new start: nobody may draw it meanwhile.
        self.port = free_port()
        self.endpoint, self.url = f"http://127.0.0.1:{self.port}", "s3://gkt-tests/runs"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # A process of its own, as it would be elsewhere.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        process = self._process

        def answers() -> bool:
            assert process.poll() is None, "the S3 server did not start"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        until(answers, "the start of the S3 server")
        import boto3  # type: ignore[import-untyped] # noqa: PLC0415 - slow to import, and only here

        client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="gkt-tests")
        client.close()

    def pause(self) -> None:
        """It keeps what it has, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket, with credentials in the environment as Amazon's tools take them."""
    pytest.importorskip("moto", reason="moto is not installed: the S3 tests did NOT run")
    made = Bucket()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_ENDPOINT_URL": made.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    made.start()
    yield made
    made.stop()
