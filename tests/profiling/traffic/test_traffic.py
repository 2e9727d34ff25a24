"""``gkt profile traffic``: formulas, message sizes to the byte, and a real run counted on the wire."""

from __future__ import annotations

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gkt_core.config.run_config import CODECS
from gkt_core.errors import ConfigError, InputError
from gkt_core.wire.compression import compress
from gkt_core.wire.shards import ShardKey, ShardSpec, SoftLabels, write_feature_shard, write_soft_labels
from profiling.cli.profile import profile
from profiling.counted.message_sizes import feature_shard_bytes, payload_bytes, soft_labels_bytes
from profiling.counted.traffic import (
    Deployment,
    break_even_samples,
    fedavg_bytes,
    fedgkt_bytes,
    paper_bytes,
    predict,
    split_learning_bytes,
)
from profiling.traffic.measured import measure_demo
from profiling.traffic.wire_meter import WireMeter, kind_of_request
from tests.conftest import ROOT, Gkt
from tests.profiling.profile_fixtures import NUM_ROUNDS, NUM_SAMPLES

pytest_plugins = ["tests.profiling.profile_fixtures"]

README = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(demo_dir: Path) -> dict[str, Any]:
    result = CliRunner().invoke(
        profile, ["traffic", "--demo-dir", str(demo_dir), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_the_figures_of_the_paper_and_the_table() -> None:
    cifar = Deployment()
    assert paper_bytes(cifar)["split_learning"] / cifar.rounds == 50_000 * 2 * 65_536
    assert paper_bytes(cifar)["fedgkt"] == pytest.approx(656e9, rel=0.001)
    assert sum(fedavg_bytes(cifar).values()) == pytest.approx(15.1e9, rel=0.003)
    assert sum(fedgkt_bytes(cifar).values()) / sum(fedavg_bytes(cifar).values()) == pytest.approx(43, abs=0.6)


def test_a_narrow_tap_sends_what_its_shape_says() -> None:
    for network, values in (("resnet8-16x16x16", 4096), ("resnet8-16x8x8", 1024), ("resnet8-8x8x8", 512)):
        narrow = Deployment(edge_network=network, codec="uint4", uploads=1)
        assert narrow.raw_feature_bytes == 4 * values
        assert narrow.upload_bytes_per_sample == values / 2 + 40 + 8 + 8
        assert split_learning_bytes(narrow)["download"] == 200 * 50_000 * 4 * values
    # Of images of another size the stride is what holds; a run says itself what its features are.
    assert Deployment(edge_network="resnet8-8x8x8", image_size=64).feature_shape == (8, 16, 16)
    assert Deployment(features=[3, 5, 7]).feature_shape == (3, 5, 7)
    words = ["traffic", "--model", "resnet8-16x8x8", "--codec", "uint8", "--json"]
    counted = json.loads(CliRunner().invoke(profile, words, catch_exceptions=False).stdout)["prediction"]
    assert counted["per_sample_upload_bytes"] == 1024 + 40 + 8 + 8


@given(
    codec=st.sampled_from(CODECS),
    num_samples=st.integers(1, 70),
    client_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True),
    round_num=st.integers(1, 10**6),
    index=st.integers(0, 10**5),
    split=st.sampled_from(("train", "validation")),
    size=st.sampled_from((8, 12)),
    num_classes=st.integers(2, 120),
)
@settings(max_examples=40)
def test_shard_sizes_are_those_of_real_shards(
    codec: str,
    num_samples: int,
    client_id: str,
    round_num: int,
    index: int,
    split: str,
    size: int,
    num_classes: int,
) -> None:
    """Not one byte off, whatever the values: a real shard with random content is as long as predicted."""
    rng = np.random.default_rng(num_samples)
    key, spec = (
        ShardKey(client_id, round_num, split, index),
        ShardSpec(codec, (16, size, size), num_classes, 70),
    )
    ids = rng.permutation(10**6)[:num_samples].astype(np.int64)
    shard = write_feature_shard(
        key,
        ids,
        rng.random((num_samples, 16, size, size), dtype=np.float32),
        rng.standard_normal((num_samples, num_classes), dtype=np.float32),
        rng.integers(num_classes, size=num_samples),
        codec,
    )
    assert feature_shard_bytes(key, num_samples, spec) == len(shard)
    assert 0 < len(shard) - sum(payload_bytes(num_samples, spec).values()) < 1000
    logits = rng.standard_normal((num_samples, num_classes), dtype=np.float32)
    answer = write_soft_labels(client_id, round_num, SoftLabels(ids, logits))
    assert soft_labels_bytes(client_id, round_num, num_samples, num_classes) == len(answer)


@given(
    num_examples=st.integers(1, 10**7),
    num_clients=st.integers(1, 10**4),
    rounds=st.integers(1, 300),
    share=st.floats(0, 1),
    codec=st.sampled_from(CODECS),
    once=st.integers(0, 10**6),
)
def test_break_even_is_where_both_cost_the_same(
    num_examples: int, num_clients: int, rounds: int, share: float, codec: str, once: int
) -> None:
    uploads = max(1, round(share * rounds))
    deployment = Deployment(
        num_examples=num_examples, num_clients=num_clients, rounds=rounds, uploads=uploads, codec=codec,
        device_once_bytes=once,
    )  # fmt: skip
    limit = break_even_samples(deployment)
    # A device with so many samples: a fraction of one counts as a fraction.
    upload = uploads * limit * deployment.upload_bytes_per_sample
    download = (uploads - 1) * limit * deployment.download_bytes_per_sample
    assert upload + download + once == pytest.approx(2 * rounds * deployment.model_bytes)
    cheaper = sum(fedgkt_bytes(deployment).values()) < sum(fedavg_bytes(deployment).values())
    assert cheaper == (num_examples / num_clients < limit) or num_examples / num_clients == pytest.approx(
        limit
    )


def test_split_learning_sends_no_codec() -> None:
    plain, packed = Deployment(), Deployment(codec="uint4", compression_ratio=0.5, uploads=1)
    assert split_learning_bytes(plain) == split_learning_bytes(packed)
    assert fedgkt_bytes(packed)["upload"] < fedgkt_bytes(plain)["upload"] / 1000
    assert fedgkt_bytes(packed)["download"] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_examples": 0}, "number of examples is 0, expected at least 1"),
        ({"rounds": 5, "uploads": 6}, "uploads is 6, expected 1 to 5"),
        ({"uploads": 0}, "uploads is 0"),
        ({"compression_ratio": 0.0}, "compression ratio is 0.0"),
        ({"compression_ratio": float("nan")}, "compression ratio is nan"),
        ({"codec": "jpeg"}, "codec is 'jpeg', expected one of"),
        ({"image_size": 30}, "image size is 30"),
        ({"num_clients": -3}, "number of clients is -3"),
    ],
)
def test_deployments_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Deployment(**values)


@pytest.mark.system
def test_prediction_equals_what_the_server_counted(document: dict[str, Any]) -> None:
    kinds = {kind["kind"]: kind for kind in document["measured"]["kinds"]}
    for name in ("upload/shards", "all"):
        assert abs(kinds[name]["relative_difference"]) < 0.01, kinds[name]
    for name in ("download/bundle", "download/model", "download/soft_labels"):
        assert kinds[name]["predicted_bytes"] == kinds[name]["counted_bytes"], name


@pytest.mark.system
def test_the_upload_is_explained_to_the_byte(document: dict[str, Any], demo_dir: Path) -> None:
    measured = document["measured"]
    parts = {part["what"]: part["num_bytes"] for part in measured["shard_parts"]}
    counted = json.loads((demo_dir / "report.json").read_text())["traffic"]
    assert sum(parts.values()) == counted["upload/shards"]
    # Each sample in each round: 16 maps of 8 x 8, one byte each; nothing was sent twice.
    assert parts["features"] == NUM_ROUNDS * NUM_SAMPLES * 16 * 64
    assert parts["labels"] == NUM_ROUNDS * NUM_SAMPLES * 8
    assert parts["sent more than once, or refused"] == 0
    assert parts["Zstandard"] < 0 < parts["safetensors headers"]


@pytest.mark.system
def test_the_wire_is_explained_to_the_byte(document: dict[str, Any], demo_dir: Path) -> None:
    wire, kinds = document["measured"]["wire"], document["measured"]["wire"]["kinds"]
    assert wire["unexplained_bytes"] == {"upload": 0, "download": 0}
    assert set(kinds) == {
        "bundle", "credential", "join", "missing_shards", "model", "reports", "run_info", "shards",
        "soft_labels", "task",
    }  # fmt: skip
    counted = json.loads((demo_dir / "report.json").read_text())["traffic"]
    assert kinds["shards"]["request_body_bytes"] == counted["upload/shards"]
    assert kinds["reports"]["request_body_bytes"] == counted["upload/reports"] == wire["stored_report_bytes"]
    for kind in ("bundle", "model", "soft_labels"):
        assert kinds[kind]["response_body_bytes"] == counted[f"download/{kind}"]


@pytest.mark.system
def test_a_run_without_compression_is_predicted_exactly(demo_dir: Path) -> None:
    """What Zstandard took away is the only thing that the formula cannot know."""
    measured = measure_demo(demo_dir)
    zstandard = next(part for part in measured["shard_parts"] if part["what"] == "Zstandard")
    sent = sum(each["sent_bytes"] for each in measured["rounds"])
    assert sum(each["encoded_bytes"] for each in measured["rounds"]) == sent - zstandard["num_bytes"]
    assert len(compress(bytes(10_000))) < 100


@pytest.mark.system
def test_every_key_is_documented(document: dict[str, Any]) -> None:
    keys = {*document, *document["prediction"], *document["prediction"]["methods"][0]}
    keys |= {*document["measured"], *document["measured"]["kinds"][0], *document["measured"]["rounds"][0]}
    for key in keys:
        assert re.search(rf"`[\w.\[\]]*{key}`", README), key


def test_files_of_all_kinds(tmp_path: Path) -> None:
    outs = [tmp_path / f"traffic{suffix}" for suffix in (".json", ".md", ".html", ".png")]
    arguments = ["traffic", "--samples", "1000", "--clients", "10"]
    arguments += [part for out in outs for part in ("--out", str(out))]
    result = CliRunner().invoke(profile, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "Break-even" in result.stdout and "Not measured" in result.stdout
    as_json, markdown, html, png = outs
    deployment = json.loads(as_json.read_text())["prediction"]["deployment"]
    assert (deployment["num_examples"], deployment["num_clients"]) == (1000, 10)
    assert "| FedGKT | " in markdown.read_text()
    page = html.read_text()
    assert page.count("data:image/svg+xml;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_bad_input_ends_with_exit_code_2(gkt: Gkt, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (("--demo-dir", "empty"), "holds no run"),
        (("--out", "report.pdf"), "ends in '.pdf', expected one of .json, .md, .html, .png"),
    ):
        done = gkt("profile", "traffic", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.system
def test_a_changed_wire_file_is_refused(demo_dir: Path) -> None:
    path = demo_dir / "wire.json"
    whole = path.read_text()
    try:
        for broken in ("[]", "{", '{"kinds": {"shards": {}}}'):
            path.write_text(broken)
            with pytest.raises(InputError, match="is not what gkt demo --meter-wire writes"):
                measure_demo(demo_dir)
    finally:
        path.write_text(whole)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/v1/runs", "run_info"),
        ("/v1/runs/run-1", "run_info"),
        ("/v1/runs/run-1/clients/task", "join"),
        ("/v1/runs/run-1/clients/task/task", "task"),
        ("/v1/runs/r/rounds/1/clients/report/report?x=1", "reports"),
        ("/v1/runs/r/rounds/1/clients/c/shards/train/12", "shards"),
        ("/v1/runs/r/rounds/1/clients/c/shards", "missing_shards"),
        ("/v1/health", "other"),
    ],
)
def test_kinds_of_requests(target: str, kind: str) -> None:
    assert kind_of_request(target) == kind


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) // 2))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Any:
    server = HTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_meter_counts_bodies_of_any_size(echo: str) -> None:
    sizes = (0, 2, 70_000, 1_000_000)
    with WireMeter(echo) as meter:
        with httpx.Client(base_url=meter.url, trust_env=False) as client:
            for size in sizes:
                assert len(client.put("/v1/runs", content=bytes(size)).content) == size // 2
        counts = meter.counts()
    assert set(counts["kinds"]) == {"run_info"}
    found = counts["kinds"]["run_info"]
    assert found["num_requests"] == len(sizes)
    assert found["request_body_bytes"] == sum(sizes)
    assert found["response_body_bytes"] == sum(sizes) // 2
    assert counts["upload_bytes"] == found["request_head_bytes"] + found["request_body_bytes"]
    assert counts["download_bytes"] == found["response_head_bytes"] + found["response_body_bytes"]
    assert found["request_head_bytes"] > 50 * len(sizes)


def test_the_meter_passes_on_what_is_no_http(echo: str) -> None:
    with WireMeter(echo) as meter:
        host, port = meter.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"\x00\xff no HTTP at all\r\n\r\n")
            assert raw.recv(4096)
        counts = meter.counts()
    assert set(counts["kinds"]) == {"unparsed"}
    assert counts["upload_bytes"] == len(b"\x00\xff no HTTP at all\r\n\r\n")


@pytest.mark.system
def test_prediction_is_json(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(predict(Deployment()))) == predict(Deployment())
    assert document["schema"] == "gkt-profile-traffic/1"
