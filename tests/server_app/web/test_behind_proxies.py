"""The recipes for nginx and Caddy in docs/running.md, with the real programs in front of real servers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest

from gkt_core.bundle.manifest import Bundle
from gkt_core.wire.protocol import SHA256_HEADER, ErrorBody, from_json, to_json
from gkt_core.wire.shards import ShardKey, write_feature_shard
from server_app import create_app, create_run
from server_app.members.inviting import enrolled
from server_app.run_folder import RunContext
from tests.conftest import LONGEST_SECONDS, ROOT, Gkt, free_port
from tests.server_app.served import SMALL, Serve, SmallFederation, StartServer
from tests.server_app.server_fixtures import FEATURE_SHAPE, NUM_CLASSES, run_config
from tests.server_app.waiting import until
from tests.server_app.web.api_fixtures import JOIN
from tests.server_app.web.test_hostile_peers import Files
from tests.server_app.web.test_web_server import serving

# Debian keeps it off the PATH.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
# Larger than what nginx lets through as it comes, which is 1 MB.
SAMPLES = 512
PROXIES = ("nginx", "caddy")


def recipe(name: str) -> str:
    """What stands in the documentation; ``nginx several`` for several runs."""
    (block,) = re.findall(rf"```{name}\n(.*?)```", (ROOT / "docs" / "running.md").read_text(), re.DOTALL)
    return str(block)


def changed(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _nginx(folder: Path, port: int, to_port: int, certificate: Files, several: str = "") -> list[str]:
    text = recipe("nginx")
    if several:
        begin, end = text.index("    location / {"), text.rindex("}")
        settings = text[text.index("        proxy_http_version", begin) : text.index("    }", begin)]
        (folder / "gkt-proxy.conf").write_text(settings)
        # What another program behind it would need is not there: the text stands for itself.
        text = text[:begin] + several + text[end:] + "# proxy_pass http://127.0.0.1:8080\n"
    text = changed(
        text,
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("gkt.example.org;", "127.0.0.1;"),
        ("/etc/letsencrypt/live/gkt.example.org/fullchain.pem", str(certificate[0])),
        ("/etc/letsencrypt/live/gkt.example.org/privkey.pem", str(certificate[1])),
        ("http://127.0.0.1:8080", f"http://127.0.0.1:{to_port}"),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    # As root, nginx would give its worker another user, who may not write here.
    user = f"user {pwd.getpwuid(0).pw_name};\n" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"{user}daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{text}}}\n"
    )
    return ["-e", str(folder / "error.log"), "-c", str(config)]


def _caddy(folder: Path, port: int, to_port: int, certificate: Files, several: str = "") -> list[str]:
    text = recipe("caddy")
    if several:
        text = text[: text.index("gkt.example.org {")] + several + "# 127.0.0.1:8080\n"
    text = changed(
        text,
        # It would get a certificate for the name, and listen on port 80 for that.
        ("gkt.example.org {", f"https://127.0.0.1:{port} {{\n    tls {certificate[0]} {certificate[1]}"),
        (
            "    servers {",
            "    admin off\n    auto_https disable_redirects\n    servers {",
        ),
        ("127.0.0.1:8080", f"127.0.0.1:{to_port}"),
    )
    config = folder / "Caddyfile"
    config.write_text(text)
    return ["run", "--config", str(config), "--adapter", "caddyfile"]


@contextlib.contextmanager
def proxy(
    name: str, folder: Path, port: int, to_port: int, certificate: Files, several: str = ""
) -> Iterator[str]:
    """A recipe with these ports and this certificate, in front of several servers if given; the URL."""
    program = shutil.which(name, path=_PATH)
    if program is None:
        pytest.skip(f"{name} is not installed (apt-get install {name}): its recipe was NOT tested")
    folder.mkdir()
    words = {"nginx": _nginx, "caddy": _caddy}[name](folder, port, to_port, certificate, several)
    log = folder / "error.log"
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    with (
        log.open("ab") as stream,
        subprocess.Popen(
            [program, *words], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment
        ) as process,
    ):
        try:
            until(lambda: process.poll() is not None or _listens(port), f"{name} begins")
            assert process.poll() is None, log.read_text()
            yield f"https://127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), LONGEST_SECONDS):
        return True
    return False


def shard(key: ShardKey, num: int) -> bytes:
    rng = np.random.default_rng(0)
    features = rng.random((num, *FEATURE_SHAPE), dtype=np.float32)
    logits = rng.normal(size=(num, NUM_CLASSES)).astype(np.float32)
    return write_feature_shard(
        key, np.arange(num), features, logits, rng.integers(0, NUM_CLASSES, num), "fp32"
    )


@pytest.mark.parametrize("name", PROXIES)
def test_shards_and_downloads_pass(name: str, bundle: Bundle, certificate: Files, tmp_path: Path) -> None:
    config = run_config(num_clients=1, codec="fp32", shard_samples=SAMPLES, compress=False)
    run: RunContext = create_run(tmp_path / "run", bundle.path, config)
    port = free_port()
    with (
        contextlib.closing(run.store),
        serving(create_app(run)) as behind,
        proxy(name, tmp_path / "proxy", port, behind, certificate) as url,
    ):
        headers = {"Authorization": f"Bearer {enrolled(run, 'client-a')}"}
        root = f"{url}/v1/runs/{run.store.run_id}"
        trust = ssl.create_default_context(cafile=str(certificate[0]))
        with httpx.Client(verify=trust, headers=headers, timeout=LONGEST_SECONDS, trust_env=False) as http:
            join = to_json(replace(JOIN, num_examples=SAMPLES))
            assert http.put(f"{root}/clients/client-a", content=join).status_code == 200
            body = shard(ShardKey("client-a", 1, "train", 0), SAMPLES)
            assert len(body) > 1 << 20
            path = f"{root}/rounds/1/clients/client-a/shards/train/0"
            digest = {SHA256_HEADER: hashlib.sha256(body).hexdigest()}
            kept = http.put(path, content=body, headers=digest)
            assert kept.status_code == 200, kept.text
            # What is too large is the server's word, and not the proxy's page.
            refused = http.put(path, content=bytes(run.shard_spec.max_bytes + 100_000), headers=digest)
            assert refused.status_code == 413
            assert from_json(ErrorBody, refused.content).error == "RequestEntityTooLarge"
            # A download that broke off goes on where it was.
            artifact = f"{root}/artifacts/{bundle.manifest.engine_files('portable')[0]}"
            whole = http.get(artifact)
            again = {"Range": "bytes=1000-", "If-Range": f'"{whole.headers[SHA256_HEADER]}"'}
            rest = http.get(artifact, headers=again)
            assert rest.status_code == 206 and rest.content == whole.content[1000:]
            assert (
                rest.headers["Content-Range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
            )


@pytest.mark.system
@pytest.mark.parametrize("name", PROXIES)
def test_a_device_takes_part_through_it(
    name: str, serve: StartServer, small: SmallFederation, certificate: Files, tmp_path: Path
) -> None:
    """A whole run: it waits for the other device and for the training, behind the proxy."""
    port = free_port()
    options = ("--clients", "1", "--rounds", "2", "--public-url", f"https://127.0.0.1:{port}", *SMALL)
    server = serve("--artifacts", small.bundle, *options)
    behind = int(server.info["url"].rpartition(":")[2])
    with proxy(name, tmp_path / "proxy", port, behind, certificate):
        assert f"gkt+https://127.0.0.1:{port}/" in (server.data_dir / "join").read_text()
        device = server.device(small.data(0), tmp_path / "a", "--ca-file", certificate[0])
        assert device.ended() == 0, device.log.read_text()
    assert server.status().phase == "finished"


@pytest.mark.system
@pytest.mark.parametrize("name", PROXIES)
def test_two_runs_have_a_path_each(
    name: str, small: SmallFederation, certificate: Files, tmp_path: Path, gkt: Gkt
) -> None:
    """Links, devices, pages, interface and operator: everything is found behind the path of its run."""
    port, places = free_port(), ("birds", "signs")
    with contextlib.ExitStack() as stack:
        servers = {}
        for place in places:
            url = f"https://127.0.0.1:{port}/{place}"
            options = ("--clients", "1", "--rounds", "1", "--public-url", url, *SMALL)
            server = Serve(tmp_path / place, tmp_path / f"run-{place}", "--artifacts", small.bundle, *options)
            stack.callback(server.abandon)
            servers[place] = server
        ports = [server.info["url"].rpartition(":")[2] for server in servers.values()]
        several = changed(recipe(f"{name} several"), ("8081", ports[0]), ("8082", ports[1]))
        root = stack.enter_context(proxy(name, tmp_path / "proxy", port, 0, certificate, several))
        trust = ssl.create_default_context(cafile=str(certificate[0]))
        http = stack.enter_context(httpx.Client(verify=trust, timeout=LONGEST_SECONDS, trust_env=False))
        devices = {
            place: server.device(small.data(0), tmp_path / f"device-{place}", "--ca-file", certificate[0])
            for place, server in servers.items()
        }
        for place, server in servers.items():
            assert devices[place].ended() == 0, devices[place].log.read_text()
            assert f"/{place}/#enroll=" in (server.data_dir / "join").read_text()
            url = f"{root}/{place}"
            # Without the slash behind it, what the page names would be another run's.
            moved = http.get(url)
            assert moved.status_code in (301, 302) and moved.headers["Location"].endswith(f"/{place}/")
            for page in (f"{url}/", f"{url}/join", f"{url}/docs"):
                assert_found(http, page)
            worker = http.get(f"{url}/join/service-worker.js")
            allowed = urljoin(f"{url}/join/service-worker.js", worker.headers["Service-Worker-Allowed"])
            assert allowed == f"{url}/join"
            document = f"{url}/v1/openapi.json"
            (served,) = http.get(document).json()["servers"]
            base = urljoin(document, served["url"])
            known = {"Authorization": f"Bearer {server.operator()}"}
            runs = http.get(urljoin(base, "v1/runs"), headers=known)
            assert runs.json()["run_ids"] == [server.info["run_id"]]
            secret = ("--operator-secret-file", server.data_dir / "operator_secret")
            shown = gkt("status", "--server", url, *secret, "--ca-file", certificate[0], "--json")
            assert shown.returncode == 0, shown.stdout + shown.stderr
            assert json.loads(shown.stdout)["run_id"] == server.info["run_id"]


def assert_found(http: httpx.Client, page: str) -> None:
    """A page, and every file that it names."""
    answer = http.get(page)
    assert answer.status_code == 200, page
    named = [each for each in re.findall(r'(?:href|src)="([^"#]+)"', answer.text) if ":" not in each]
    for each in named:
        assert not each.startswith("/"), each
        assert http.get(urljoin(page, each)).status_code == 200, (page, each)


def test_it_waits_longer_than_a_device_does() -> None:
    """A server may take its time with an answer: up to the 60 s after which a device asks again."""
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", recipe("nginx"))
    assert int(seconds) > 60
