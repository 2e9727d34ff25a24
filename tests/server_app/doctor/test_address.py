"""A server's port and certificate, each really wrong."""

from __future__ import annotations

import datetime
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gkt_core.doctor.findings import ADVICE, FINE, WRONG
from gkt_core.errors import ConfigError
from server_app.doctor.address import certificate, port
from server_app.own_certificate import own_certificate
from tests.conftest import free_port
from tests.edge_runtime.certificates import make_certificate
from tests.gkt_core.doctor.looking import looked, states, the_one


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_free() -> None:
    assert states(looked(port, port=free_port())) == [FINE]


def test_a_port_that_another_process_has(taken: int) -> None:
    said = the_one(looked(port, port=taken), WRONG)
    assert f"port {taken} of 127.0.0.1 is in use" in said.text and f"({os.getpid()})" in said.text
    assert "another --port" in said.remedy


def test_a_port_that_is_not_asked_for_is_advice(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_app.doctor.address.SERVE_PORT", taken)
    the_one(looked(port), ADVICE)


def test_the_port_of_the_runs_own_server(taken: int, tmp_path: Path) -> None:
    info = {"url": f"http://127.0.0.1:{taken}", "pid": os.getpid()}
    (tmp_path / "server.json").write_text(json.dumps(info))
    assert states(looked(port, data_dir=tmp_path, port=taken)) == [FINE]
    # One that was killed has left its file.
    (tmp_path / "server.json").write_text(json.dumps({**info, "pid": 2**30}))
    the_one(looked(port, data_dir=tmp_path, port=taken), WRONG)


def test_an_address_of_another_machine() -> None:
    said = the_one(looked(port, host="203.0.113.7", port=free_port()), WRONG)
    assert "0.0.0.0" in said.remedy


def test_a_certificate_that_is_fine(tmp_path: Path) -> None:
    good = make_certificate(
        tmp_path, "gkt.example.org", "*.lab.example.org", ends_in=datetime.timedelta(days=90)
    )
    good.key.chmod(0o600)
    files = {"tls_cert": good.certificate, "tls_key": good.key}
    for url in ("https://gkt.example.org:8080", "https://one.lab.example.org"):
        assert states(looked(certificate, **files, public_url=url)) == [FINE]
    assert states(looked(certificate, **files)) == [FINE]
    assert looked(certificate) == []


def test_a_certificate_of_another_name(tmp_path: Path) -> None:
    good = make_certificate(tmp_path, "gkt.example.org", "10.0.0.5", ends_in=datetime.timedelta(days=90))
    good.key.chmod(0o600)
    files = {"tls_cert": good.certificate, "tls_key": good.key}
    said = the_one(looked(certificate, **files, public_url="https://a.gkt.example.org"), WRONG)
    assert "is for gkt.example.org, 10.0.0.5, devices ask for a.gkt.example.org" in said.text
    assert states(looked(certificate, **files, host="10.0.0.5")) == [FINE]
    the_one(looked(certificate, **files, host="10.0.0.6"), WRONG)


def test_a_certificate_that_has_ended_and_one_that_soon_will(tmp_path: Path) -> None:
    day = datetime.timedelta(days=1)
    for ends_in, state in ((-day, WRONG), (5 * day, ADVICE)):
        made = make_certificate(tmp_path, "gkt.example.org", begins_in=-9 * day, ends_in=ends_in)
        made.key.chmod(0o600)
        said = the_one(looked(certificate, tls_cert=made.certificate, tls_key=made.key), state)
        assert said.remedy == "renew it; gkt serve takes the new one by itself"


def test_a_key_that_others_read_and_one_of_another_certificate(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "gkt.example.org", ends_in=datetime.timedelta(days=90))
    made.key.chmod(0o640)
    said = the_one(looked(certificate, tls_cert=made.certificate, tls_key=made.key), WRONG)
    assert said.remedy == f"chmod 600 {made.key}"
    other = make_certificate(tmp_path / "other", "gkt.example.org")
    with pytest.raises(ConfigError, match="belong together"):
        looked(certificate, tls_cert=made.certificate, tls_key=other.key)
    with pytest.raises(ConfigError, match="belong together"):
        looked(certificate, tls_cert=made.certificate)


def test_the_certificate_that_a_server_made_for_itself(tmp_path: Path) -> None:
    own_certificate(tmp_path, ["127.0.0.1"])
    assert states(looked(certificate, data_dir=tmp_path, host="0.0.0.0")) == [FINE]
