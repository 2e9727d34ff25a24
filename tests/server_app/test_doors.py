"""Real servers and devices: who comes in, who comes back, and where secrets are to be seen."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from edge_runtime.state.credential import kept_credential
from gkt_core.wire.join_link import read_join_link
from server_app.members.inviting import moved_link
from tests.conftest import Gkt
from tests.server_app.served import SMALL, SmallFederation, StartServer
from tests.server_app.waiting import until

TWO = ("--clients", "2", "--rounds", "3", *SMALL)


@pytest.mark.system
def test_a_device_that_lost_its_folder_takes_up_its_place_again(
    serve: StartServer, small: SmallFederation, tmp_path: Path, gkt: Gkt
) -> None:
    server = serve("--artifacts", small.bundle, "--poll-seconds", "0.1", *TWO)
    lost = server.device(small.data(0), tmp_path / "a")
    # It has soft labels to go on with, and waits for the other, which has not come yet.
    other = server.device(small.data(1), tmp_path / "b")
    until(lambda: server.status().finished_rounds, "the first round")
    for device in (lost, other):
        device.process.kill()
        device.process.wait()
    shutil.rmtree(tmp_path / "a")

    # Nobody takes its name, with the link that everybody has.
    thief = server.device(small.data(0), tmp_path / "thief")
    assert thief.ended() == 3 and "belongs to another device" in thief.log.read_text()
    made = gkt("clients", "re-enroll", "client-000", "--data-dir", server.data_dir, "--json")
    assert made.returncode == 0, made.stderr
    link = tmp_path / "link"
    link.write_text(json.loads(made.stdout)["join"])
    again = server.device(small.data(0), tmp_path / "a", "--join", link)
    other = server.device(small.data(1), tmp_path / "b")
    assert again.ended() == 0, again.log.read_text()
    assert other.ended() == 0, other.log.read_text()
    assert "this state folder is new" in again.log.read_text()
    assert server.status().phase == "finished"
    assert (tmp_path / "a" / "model.onnx").exists()


@pytest.mark.system
def test_a_revoked_device_is_out_and_so_is_its_next_name(
    serve: StartServer, small: SmallFederation, tmp_path: Path, gkt: Gkt
) -> None:
    server = serve("--artifacts", small.bundle, *TWO)
    alone = server.device(small.data(0), tmp_path / "a")
    until(lambda: server.status().clients, "the device joins")
    done = gkt("clients", "revoke", "client-000", "--data-dir", server.data_dir, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "revoked"
    assert alone.ended() == 5 and "was revoked" in alone.log.read_text()
    # The link is for as many devices as the run has, however many of them are still there.
    (small.folder / "split" / "clients" / "mallory.npz").write_bytes(small.data(0).read_bytes())
    assert server.device(small.data(1), tmp_path / "b", "--patience-seconds", "1").process.poll() is None
    until(lambda: len(server.status().clients) == 2, "the other device joins")
    mallory = server.device(small.folder / "split" / "clients" / "mallory.npz", tmp_path / "m")
    assert mallory.ended() == 5 and "all 2 uses" in mallory.log.read_text()
    assert [each.client_id for each in server.status().clients] == ["client-000", "client-001"]


@pytest.mark.system
def test_https_and_secrets_that_are_nowhere_to_be_seen(
    serve: StartServer, small: SmallFederation, tmp_path: Path, gkt: Gkt
) -> None:
    """A whole run beyond loopback, without certificate files, everything logged; then all is searched."""
    server = serve("--artifacts", small.bundle, "--host", "0.0.0.0", "-vv", "--json", "--clients", "1",
                   "--rounds", "1", *SMALL)  # fmt: skip
    assert server.info["url"].startswith("https://0.0.0.0:")
    port = server.info["url"].rpartition(":")[2]
    link = tmp_path / "link"
    link.write_text(moved_link(server.data_dir, f"https://127.0.0.1:{port}"))
    assert read_join_link(link.read_text()).ca_sha256

    seen: set[str] = set()

    def look_around() -> bool:
        for process in psutil.process_iter(["cmdline"]):
            seen.add(" ".join(process.info["cmdline"] or []))
        return device.process.poll() is not None

    device = server.device(small.data(0), tmp_path / "a", "--join", link, "-vv", "--progress", "json")
    until(look_around, "the end of the device")
    assert device.ended() == 0, device.log.read_text()
    assert any("edge run" in line and str(link) in line for line in seen)
    listed = gkt("clients", "list", "--data-dir", server.data_dir, "-vv")
    rotated = gkt("clients", "rotate", "client-000", "--data-dir", server.data_dir, "-vv")
    assert (listed.returncode, rotated.returncode) == (0, 0)
    assert server.end() == 130

    kept = kept_credential(tmp_path / "a")
    assert kept is not None
    own = (server.data_dir / "operator_secret").read_text().strip()
    enrolment = read_join_link(link.read_text()).secret
    log = device.log.read_text()
    # At debug level, indeed.
    assert "DEBUG httpcore" in log and "is enrolled" in log
    texts = {
        "what processes show": "\n".join(seen),
        "the device's log": log,
        "the server's log": server.err.read_text(),
        "the trainer's log": (server.data_dir / "trainer.log").read_text(),
        "server.json": json.dumps(server.info),
        "the lists": listed.stdout + listed.stderr + rotated.stdout + rotated.stderr,
    }
    for where, text in texts.items():
        for name, secret in {"device": kept.secret, "operator": own, "enrolment": enrolment}.items():
            assert secret not in text, f"the {name}'s secret in {where}"
    # Printed once, where it was asked for, and no other secret with it.
    printed = server.out.read_text()
    assert enrolment in printed and own not in printed and kept.secret not in printed
    # Nor may others of this machine read what the server and its trainer wrote.
    for path in (server.data_dir, *server.data_dir.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    for path in server.data_dir.rglob("*"):
        if path.is_file() and path.name not in ("operator_secret", "join", "authority.key", "server.key"):
            held = path.read_bytes()
            assert not any(secret.encode() in held for secret in (kept.secret, own, enrolment)), path


def test_plain_http_beyond_loopback_is_said_at_both_ends(
    serve: StartServer, small: SmallFederation, tmp_path: Path
) -> None:
    server = serve("--artifacts", small.bundle, "--host", "0.0.0.0", "--insecure-http", *TWO)
    assert server.info["url"].startswith("http://0.0.0.0:")
    server.wait_for(server.err, "warning: --insecure-http: features, labels and secrets travel readable")
    addresses = {each.address for all_of in psutil.net_if_addrs().values() for each in all_of}
    beyond = sorted(a for a in addresses if re.fullmatch(r"[\d.]+", a) and not a.startswith("127."))
    if not beyond:
        pytest.skip("this machine has no address beyond loopback")
    link = tmp_path / "link"
    port = server.info["url"].rpartition(":")[2]
    link.write_text(moved_link(server.data_dir, f"http://{beyond[0]}:{port}"))
    device = server.device(small.data(0), tmp_path / "a", "--join", link)
    until(lambda: "is plain http to another machine" in device.log.read_text(), "the warning")


def test_the_shared_token_works_on_this_machine_for_a_release(
    serve: StartServer, small: SmallFederation, tmp_path: Path
) -> None:
    server = serve("--artifacts", small.bundle, "--clients", "1", "--rounds", "1", "--token", "old-token",
                   *SMALL)  # fmt: skip
    server.wait_for(server.err, "warning: the shared token speaks for every device")
    device = server.device(small.data(0), tmp_path / "a", "--token", "old-token", old=True)
    assert device.ended() == 0, device.log.read_text()
    assert "warning: the shared token speaks for every device" in device.log.read_text()
    assert not (tmp_path / "a" / "credential.json").exists()


@pytest.mark.system
def test_links_are_made_beside_a_running_server(
    serve: StartServer, small: SmallFederation, tmp_path: Path, gkt: Gkt
) -> None:
    never = gkt("enroll", "--data-dir", tmp_path / "none")
    assert never.returncode == 2 and "holds no run" in never.stderr
    server = serve("--artifacts", small.bundle, *TWO)
    made = gkt("enroll", "--data-dir", server.data_dir, "--devices", "3", "--json")
    assert made.returncode == 0, made.stderr
    links = [read_join_link(each) for each in json.loads(made.stdout)["join"]]
    assert len({link.enrolment for link in links}) == 3
    assert {link.url for link in links} == {server.info["url"]}
    # From the environment, as a container is given it.
    moved = gkt("enroll", "--data-dir", server.data_dir, "--public-url", "https://gkt.example.org/run")
    assert read_join_link(moved.stdout).url == "https://gkt.example.org/run"
    environment = {**os.environ, "GKT_JOIN": links[0].text()}
    device = server.device(small.data(0), tmp_path / "a", environment=environment)
    until(lambda: server.status().clients, "the device joins")
    listed = gkt("clients", "list", "--data-dir", server.data_dir)
    assert "client-000  waiting" in listed.stdout
    device.process.send_signal(signal.SIGTERM)
    assert device.ended() == 130
