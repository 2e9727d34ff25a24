"""Online inference: extractor on the device, the rest behind POST /v1/infer, together the combined model."""

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper
from safetensors import numpy as safetensors

from gkt_core.bundle.manifest import load_bundle
from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.errors import ArtifactError
from gkt_core.wire.compression import compress
from gkt_core.wire.online_features import MAX_INFERENCE_SAMPLES, max_inference_bytes, write_features
from gkt_core.wire.protocol import ErrorBody, Inference, from_json
from server_app import create_app
from server_app.serving import bind
from server_app.web.classifier import FeatureClassifier
from server_app.web.gunicorn_server import WebServer
from tests.server_app.server_fixtures import CLIENTS, FEATURE_SHAPE, IMAGE_SIZE, NUM_CLASSES, TOKEN

pytest_plugins = [
    "tests.server_app.server_fixtures",
    "tests.server_app.web.api_fixtures",
    "tests.server_app.deployed_fixtures",
]

SECONDS = 60
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def classifier(deployed):
    return FeatureClassifier(deployed)


@pytest.fixture
def client(run, classifier):
    return create_app(run, TOKEN, classifier=classifier).test_client()


def compute(path, **inputs):
    session = onnxruntime_module().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, inputs)
    return output


def images(num, seed=0):
    return np.random.default_rng(seed).random((num, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)


def features_of(num, seed=0):
    return np.random.default_rng(seed).random((num, *FEATURE_SHAPE), dtype=np.float32)


def post(client, body, **headers):
    return client.post("/v1/infer", data=body, headers={**HEADERS, **headers})


@pytest.mark.parametrize("num", [1, 5, MAX_INFERENCE_SAMPLES])
def test_extractor_and_server_are_the_combined_model(client, deployed, num):
    expected = compute(deployed / "model.onnx", images=images(num))
    body = write_features(compute(deployed / "extractor.onnx", images=images(num)))
    answer = post(client, body)
    assert answer.status_code == 200, answer.data
    found = from_json(Inference, answer.data)
    logits = np.array(found.logits, np.float32)
    assert logits.shape == (num, NUM_CLASSES)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert found.labels == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose(np.sum(found.probabilities, axis=1), 1, rtol=1e-12)
    softmax = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, softmax, rtol=1e-5)
    # Every sample has an answer of its own.
    assert num == 1 or np.abs(logits - logits[0])[1:].max(axis=1).min() > 1e-4
    assert post(client, compress(body), Content_Encoding="zstd").data == answer.data


def test_a_server_half_by_name_is_the_same(run, client, deployed):
    body = write_features(features_of(2))
    other = create_app(run, TOKEN, classifier=FeatureClassifier(deployed / "server.onnx")).test_client()
    assert post(other, body).data == post(client, body).data


def test_many_threads_share_it_on_a_real_socket(run, classifier):
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = WebServer(create_app(run, TOKEN, classifier=classifier), listener)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=SECONDS) as http:

            def ask(seed):
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
        thread.join(SECONDS)
        assert not thread.is_alive()


def spoilt(value):
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
def test_what_are_no_features_of_this_deployment(client, name):
    body, words = REFUSED[name]
    answer = post(client, body)
    assert answer.status_code == 400, answer.data
    found = from_json(ErrorBody, answer.data)
    assert found.error == "MessageError" and words in found.message


def test_other_refusals(client, run):
    body = write_features(features_of(1))
    assert client.post("/v1/infer", data=body).status_code == 401
    assert post(client, bytes(2 * max_inference_bytes(FEATURE_SHAPE))).status_code == 413
    for encoding, sent in (("gzip", body), ("zstd", body), ("zstd", compress(bytes(20_000_000)))):
        answer = post(client, sent, Content_Encoding=encoding)
        assert answer.status_code == 400 and from_json(ErrorBody, answer.data).error == "ShardError"
    without = post(create_app(run, TOKEN).test_client(), body)
    assert without.status_code == 404
    assert "gkt serve --infer" in from_json(ErrorBody, without.data).message


def test_the_limit_is_that_of_this_endpoint_alone(client, run):
    """Features of many samples may be larger than a shard of this run, and a shard does not become larger."""
    full = write_features(features_of(MAX_INFERENCE_SAMPLES))
    assert len(full) > run.shard_spec.max_bytes + (64 << 10)
    assert post(client, full).status_code == 200
    path = f"/v1/runs/{run.store.run_id}/rounds/1/clients/{CLIENTS[0]}/shards/train/0"
    assert client.put(path, data=full, headers=HEADERS).status_code == 413


def test_what_is_no_server_half(deployed, server_bundle, tmp_path):
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


def other_networks(path):
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


def test_a_deployment_of_other_networks_begins_no_run(gkt, server_bundle, tmp_path):
    other = other_networks(tmp_path / "server.onnx")
    done = gkt("serve", "--artifacts", server_bundle, "--data-dir", "run", "--infer", other)
    assert done.returncode == 2, done.stderr
    assert "takes features [16, 4, 4] and knows 16 classes, the run has [16, 8, 8] and 3" in done.stderr
    assert not (tmp_path / "run").exists()


def test_gkt_serve_answers_features(empty_run, deployed, classifier, tmp_path):
    shutil.copytree(empty_run, tmp_path / "run")
    command = [sys.executable, "-m", "gkt_core.cli", "serve", "--data-dir", tmp_path / "run", "--json"]
    command += ["--infer", deployed, "--port", "0", "--trainer-procs", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            lines = iter(process.stdout.readline, b"}\n")
            ready = json.loads(b"".join(lines) + b"}")
            features = features_of(3)
            answer = httpx.post(
                f"{ready['url']}/v1/infer",
                content=write_features(features),
                headers={"Authorization": f"Bearer {ready['token']}"},
                timeout=SECONDS,
            )
        finally:
            process.kill()
    found = from_json(Inference, answer.content)
    np.testing.assert_allclose(found.logits, classifier.logits(features), rtol=1e-6)


def test_a_web_process_that_infers_holds_no_torch(deployed):
    code = (
        "import sys; from pathlib import Path; from server_app import create_app; "
        "from server_app.web.classifier import FeatureClassifier; FeatureClassifier(Path(sys.argv[1])); "
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(deployed)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.stdout == "['onnxruntime']\n", done.stderr
