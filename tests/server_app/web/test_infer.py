"""Online inference: extractor on the device, the rest behind POST /v1/infer, together the combined model."""

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from onnx import helper
from safetensors import numpy as safetensors
from werkzeug.test import TestResponse

from gkt_core.bundle.manifest import load_bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.errors import ArtifactError
from gkt_core.wire.compression import compress
from gkt_core.wire.online_features import MAX_INFERENCE_SAMPLES, max_inference_bytes, write_features
from gkt_core.wire.protocol import ErrorBody, Inference, from_json
from server_app import RunContext, create_app
from server_app.run_folder import operator_bearer
from server_app.serving import bind
from server_app.web.classifier import FeatureClassifier
from server_app.web.gunicorn_server import WebServer
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.server_app.server_fixtures import CLIENTS, FEATURE_SHAPE, IMAGE_SIZE, NUM_CLASSES, TOKEN

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def classifier(deployed: Path) -> FeatureClassifier:
    return FeatureClassifier(deployed)


@pytest.fixture
def client(run: RunContext, classifier: FeatureClassifier) -> FlaskClient:
    return create_app(run, TOKEN, classifier=classifier).test_client()


def compute(path: Path, **inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime_module().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, inputs)[0]
    return output


def images(num: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((num, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)


def features_of(num: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((num, *FEATURE_SHAPE), dtype=np.float32)


def post(client: FlaskClient, body: bytes, **headers: str) -> TestResponse:
    return client.post("/v1/infer", data=body, headers={**HEADERS, **headers})


@pytest.mark.parametrize("num", [1, 5, MAX_INFERENCE_SAMPLES])
def test_extractor_and_server_are_the_combined_model(client: FlaskClient, deployed: Path, num: int) -> None:
    expected = compute(deployed / "model.onnx", images=images(num))
    body = write_features(compute(deployed / "extractor.onnx", images=images(num)))
    answer = post(client, body)
    assert answer.status_code == 200, answer.data
    message = from_json(Inference, answer.data)
    logits = np.array(message.logits, np.float32)
    assert logits.shape == (num, NUM_CLASSES)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert message.labels == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose(np.sum(message.probabilities, axis=1), 1, rtol=1e-12)
    softmax = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(message.probabilities, softmax, rtol=1e-5)
    # Every sample has an answer of its own.
    assert num == 1 or np.abs(logits - logits[0])[1:].max(axis=1).min() > 1e-4
    assert post(client, compress(body), Content_Encoding="zstd").data == answer.data


def test_a_server_half_by_name_is_the_same(run: RunContext, client: FlaskClient, deployed: Path) -> None:
    body = write_features(features_of(2))
    other = create_app(run, TOKEN, classifier=FeatureClassifier(deployed / "server.onnx")).test_client()
    assert post(other, body).data == post(client, body).data


def test_many_threads_share_it_on_a_real_socket(run: RunContext, classifier: FeatureClassifier) -> None:
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = WebServer(create_app(run, TOKEN, classifier=classifier), listener)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=LONGEST_SECONDS
        ) as http:

            def ask(seed: int) -> None:
                features = features_of(1 + seed % 3, seed)
                answer = http.post("/v1/infer", content=write_features(features))
                assert answer.status_code == 200, answer.text
                logits = np.array(from_json(Inference, answer.content).logits, np.float32)
                np.testing.assert_allclose(logits, classifier.logits(features), rtol=1e-6)

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(ask, range(40)))
            # Too large a body is refused by name, although it is still being sent.
            answer = http.post("/v1/infer", content=bytes(2 * max_inference_bytes(FEATURE_SHAPE)))
            assert answer.status_code == 413
            ask(1)
    finally:
        server.stop()
        thread.join(LONGEST_SECONDS)
        assert not thread.is_alive()


def spoilt(value: float) -> bytes:
    features = features_of(2)
    features[1, 3, 2, 1] = value
    return write_features(features)


REFUSED = {
    "nothing": (b"", "no safetensors file"),
    "text": (b"features", "no safetensors file"),
    "cut short": (write_features(features_of(1))[:-4], "no safetensors file"),
    "more behind it": (write_features(features_of(1)) + b"x", "no safetensors file"),
    "another name": (safetensors.save({"images": features_of(1)}), "expected one tensor, features"),
    "two tensors": (
        safetensors.save({"features": features_of(1), "labels": np.zeros(1)}),
        "expected one tensor, features",
    ),
    "half precision": (safetensors.save({"features": features_of(1).astype(np.float16)}), "float16"),
    "another shape": (write_features(features_of(1)[:, :8]), "expected float32"),
    "one sample without N": (write_features(features_of(1)[0]), "expected float32"),
    "no samples": (write_features(features_of(1)[:0]), "0 samples, expected 1 to"),
    "too many": (write_features(features_of(MAX_INFERENCE_SAMPLES + 1)), "65 samples, expected 1 to 64"),
    "nan": (spoilt(np.nan), "NaN or infinity"),
    "infinity": (spoilt(-np.inf), "NaN or infinity"),
    "far too large": (write_features(np.full((1, *FEATURE_SHAPE), 3e38, np.float32)), "not finite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_are_no_features_of_this_deployment(client: FlaskClient, name: str) -> None:
    body, words = REFUSED[name]
    answer = post(client, body)
    assert answer.status_code == 400, answer.data
    message = from_json(ErrorBody, answer.data)
    assert message.error == "MessageError" and words in message.message


def test_other_refusals(client: FlaskClient, run: RunContext) -> None:
    body = write_features(features_of(1))
    assert client.post("/v1/infer", data=body).status_code == 401
    assert post(client, bytes(2 * max_inference_bytes(FEATURE_SHAPE))).status_code == 413
    for encoding, sent in (("gzip", body), ("zstd", body), ("zstd", compress(bytes(20_000_000)))):
        answer = post(client, sent, Content_Encoding=encoding)
        assert answer.status_code == 400 and from_json(ErrorBody, answer.data).error == "ShardError"
    without = post(create_app(run, TOKEN).test_client(), body)
    assert without.status_code == 404
    assert "gkt serve --infer" in from_json(ErrorBody, without.data).message


def test_the_limit_is_that_of_this_endpoint_alone(client: FlaskClient, run: RunContext) -> None:
    """Features of many samples may be larger than a shard of this run, and a shard does not become larger."""
    full = write_features(features_of(MAX_INFERENCE_SAMPLES))
    assert len(full) > run.shard_spec.max_bytes + (64 << 10)
    assert post(client, full).status_code == 200
    path = f"/v1/runs/{run.store.run_id}/rounds/1/clients/{CLIENTS[0]}/shards/train/0"
    assert client.put(path, data=full, headers=HEADERS).status_code == 413


def test_what_is_no_server_half(deployed: Path, server_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("text")
    template = load_bundle(server_bundle).path / "combined_template.onnx"
    for path, words in (
        (tmp_path, "there is no file"),
        (tmp_path / "none.onnx", "there is no file"),
        (tmp_path / "text.onnx", "cannot be loaded"),
        (deployed / "extractor.onnx", "expected logits"),
        (deployed / "model.onnx", "expected logits"),
        (template, "expected logits"),
    ):
        with pytest.raises(ArtifactError, match=words):
            FeatureClassifier(path)


def other_networks(path: Path) -> Path:
    """A server half for features [N, 16, 4, 4] and 16 classes."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["features"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    taken = helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["N", 16, 4, 4])
    given = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 16])
    graph = helper.make_graph(nodes, "other", [taken], [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_a_deployment_of_other_networks_begins_no_run(gkt: Gkt, server_bundle: Path, tmp_path: Path) -> None:
    other = other_networks(tmp_path / "server.onnx")
    done = gkt("serve", "--artifacts", server_bundle, "--data-dir", "run", "--infer", other)
    assert done.returncode == 2, done.stderr
    assert "takes features [16, 4, 4] and knows 16 classes, the run has [16, 8, 8] and 3" in done.stderr
    assert not (tmp_path / "run").exists()


def test_gkt_serve_answers_features(
    empty_run: Path, deployed: Path, classifier: FeatureClassifier, tmp_path: Path
) -> None:
    shutil.copytree(empty_run, tmp_path / "run")
    command = [sys.executable, "-m", "gkt_core.cli", "serve", "--data-dir", str(tmp_path / "run"), "--json"]
    command += ["--infer", str(deployed), "--port", "0", "--trainer-procs", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, b"}\n")
            ready = json.loads(b"".join(lines) + b"}")
            features = features_of(3)
            answer = httpx.post(
                f"{ready['url']}/v1/infer",
                content=write_features(features),
                headers={"Authorization": f"Bearer {operator_bearer(tmp_path / 'run')}"},
                timeout=LONGEST_SECONDS,
            )
        finally:
            process.kill()
    message = from_json(Inference, answer.content)
    np.testing.assert_allclose(message.logits, classifier.logits(features), rtol=1e-6)


def test_a_web_process_that_infers_holds_no_torch(deployed: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from server_app import create_app; "
        "from server_app.web.classifier import FeatureClassifier; FeatureClassifier(Path(sys.argv[1])); "
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(deployed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )
    assert done.stdout == "['onnxruntime']\n", done.stderr
