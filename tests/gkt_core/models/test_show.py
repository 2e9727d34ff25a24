"""``gkt models show``: ONNX files, bundles as folder and zip, weights; whole, damaged and of others."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from edge_export import save_combined
from edge_export.deployment import Measured, identified
from gkt_core.bundle.manifest import TRAIN_STEP, load_bundle, manifest_sha256
from gkt_core.bundle.model_identity import COMBINED, IDENTITY_KEY, SERVER, identity_of_run, read_identity
from gkt_core.cli import gkt
from gkt_core.errors import ArtifactError, GKTError
from gkt_core.nn import CombinedNetwork, build_combined_network, build_server_network
from gkt_core.onnx_files.metadata import metadata_in, with_metadata
from server_app import open_run
from server_app.run_folder import SERVER_WEIGHTS_BLOB
from server_app.trainer.network import publish_model
from tests.docs.pages import text_of

pytest_plugins = ["tests.server_app.server_fixtures"]
NAMES = ("ant", "bee", "cat")


def invoke(*words: object) -> Result:
    done = CliRunner().invoke(gkt, ["models", "show", *map(str, words)])
    if isinstance(done.exception, GKTError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def shown(path: Path) -> Any:
    return json.loads(invoke(path, "--json").stdout)


@pytest.fixture(scope="module")
def network() -> CombinedNetwork:
    return build_combined_network("resnet8", "resnet55", 3)


@pytest.fixture
def model(network: CombinedNetwork, server_bundle: Path, tmp_path: Path) -> Path:
    """A combined model that says what it is."""
    identity = identity_of_run(
        load_bundle(server_bundle, ()).manifest,
        COMBINED,
        run_id="run-0123456789ab",
        rounds=7,
        validation_accuracy=0.875,
        sources={"server": "5" * 64},
    )
    path = tmp_path / "model.onnx"
    save_combined(network, path, image_size=8, class_names=NAMES, identity=identity)
    return path


def test_a_model_says_what_it_is(model: Path, server_bundle: Path) -> None:
    document = shown(model)
    identity = document["identity"]
    assert document["kind"] == "model" and document["num_bytes"] == model.stat().st_size
    assert identity["input"] == "images [N, 3, 8, 8] float32, NCHW, RGB, 0..1"
    assert identity["output"] == "logits [N, 3] float32" and identity["tap"] == [16, 8, 8]
    assert (identity["run_id"], identity["rounds"]) == ("run-0123456789ab", 7)
    manifest = load_bundle(server_bundle, ()).manifest
    assert identity["sources"] == {"manifest": manifest_sha256(manifest.to_dict()), "server": "5" * 64}
    assert document["details"]["class_names"] == list(NAMES)
    lines = invoke(model).stdout
    for words in (
        "combined, fp32: resnet8 and resnet55",
        "run-0123456789ab, 7 rounds, gkt-edge ",
        "validation 0.8750",
        "images [N, 3, 8, 8] float32, NCHW, RGB, 0..1",
    ):
        assert words in lines, lines


def test_nothing_of_a_model_goes_to_a_terminal_as_it_is(model: Path) -> None:
    said = json.loads(metadata_in(model.read_bytes())[IDENTITY_KEY])
    said["run_id"] = "\x1b[2J" + said["run_id"]
    model.write_bytes(with_metadata(model.read_bytes(), {IDENTITY_KEY: json.dumps(said)}))
    assert "\x1b" not in invoke(model).stdout


def test_a_model_that_says_nothing_and_one_that_says_nonsense(network: CombinedNetwork, model: Path) -> None:
    save_combined(network, model, image_size=8)
    assert shown(model)["identity"] is None
    assert "none: an earlier version" in invoke(model).stdout
    for said in ("[", "[]", '{"holds": 3}', '{"tap": []}'):
        model.write_bytes(with_metadata(model.read_bytes(), {IDENTITY_KEY: said}))
        with pytest.raises(ArtifactError, match="says of itself what cannot be read"):
            invoke(model)


def test_a_later_versions_identity_is_read_as_far_as_it_is_known(model: Path) -> None:
    said = json.loads(metadata_in(model.read_bytes())[IDENTITY_KEY])
    again = read_identity({IDENTITY_KEY: json.dumps({**said, "colour": "blue"})}, "it")
    assert again is not None and again.to_dict() == said


def test_deployed_files_say_what_the_model_says(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    files = []
    for name in ("model_fp32.onnx", "model_int8.onnx", "extractor.onnx", "server.onnx"):
        (tmp_path / name).write_bytes(data)
        files.append(Measured(name, len(data), 0.5 if "model" in name else None))
    told = identified(model, tmp_path, files)
    assert [each.num_bytes for each in told] == [(tmp_path / each.file).stat().st_size for each in told]
    fp32, int8, extractor, server = (shown(tmp_path / each.file)["identity"] for each in told)
    assert (fp32["precision"], fp32["test_accuracy"], fp32["validation_accuracy"]) == ("fp32", 0.5, 0.875)
    assert (int8["precision"], int8["validation_accuracy"]) == ("int8", None)
    assert extractor["output"] == "features [N, 16, 8, 8] float32"
    assert server["input"] == "features [N, 16, 8, 8] float32, NCHW, of resnet8"
    assert fp32["sources"]["model"] == shown(model)["sha256"]
    assert fp32["run_id"] == "run-0123456789ab"


def test_a_bundle_as_folder_and_as_zip(server_bundle: Path, tmp_path: Path) -> None:
    folder = shown(server_bundle)
    assert folder["kind"] == "bundle" and folder["details"]["features"] == [16, 8, 8]
    assert folder["details"]["files"][TRAIN_STEP]
    assert shown(server_bundle / "manifest.json") == folder
    packed = Path(shutil.make_archive(str(tmp_path / "artifacts"), "zip", server_bundle.parent, "artifacts"))
    zipped = shown(packed)
    assert zipped["sha256"] == folder["sha256"] and zipped["details"] == folder["details"]
    assert "resnet8" in invoke(packed).stdout
    with zipfile.ZipFile(packed) as archive, zipfile.ZipFile(tmp_path / "changed.zip", "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            changed.writestr(name, content[:-1] + b"!" if name.endswith(TRAIN_STEP) else content)
    with pytest.raises(ArtifactError, match=f"{TRAIN_STEP} in .* is missing or not the file of the manifest"):
        invoke(tmp_path / "changed.zip")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as empty:
        empty.writestr("readme", "nothing")
    with pytest.raises(ArtifactError, match=r"holds 0 of manifest\.json"):
        invoke(tmp_path / "none.zip")


def test_what_is_none_of_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no .*: give an \.onnx file, a bundle's folder"):
        invoke(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match="is no artifact bundle"):
        invoke(tmp_path)
    for name, words in (
        ("a.txt", "is none of those"),
        ("a.onnx", "ONNX"),
        ("a.safetensors", "no safetensors"),
    ):
        (tmp_path / name).write_bytes(b"what it is nobody knows")
        with pytest.raises(ArtifactError, match=words):
            invoke(tmp_path / name)


@pytest.fixture
def weights(empty_run: Path, tmp_path: Path) -> Path:
    """What the trainer publishes of a run."""
    folder = Path(shutil.copytree(empty_run, tmp_path / "run"))
    run = open_run(folder)
    publish_model(run, build_server_network("resnet55", 3, seed=5), 0.75)
    path = run.blobs.local_path(SERVER_WEIGHTS_BLOB)
    run.store.close()
    return path


def test_the_weights_of_a_run_say_whose_they_are(weights: Path, empty_run: Path) -> None:
    document = shown(weights)
    assert (document["kind"], document["identity"]["holds"]) == ("weights", SERVER)
    # Of two equal runs it is the same file.
    assert (document["identity"]["run_id"], document["identity"]["rounds"]) == ("", 2)
    assert document["identity"]["validation_accuracy"] == 0.75
    assert document["details"]["num_parameters"] > 590_000 and document["details"]["is_sealed"]
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="is damaged: its bytes have changed"):
        invoke(weights)


def test_weights_of_pytorch_alone(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3)}, tmp_path / "a.safetensors")
    document = shown(tmp_path / "a.safetensors")
    assert document["identity"] is None and document["details"]["num_parameters"] == 6


def test_the_documented_line_loads_them(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = re.findall(r"^network = build_server_network\(.*$", text_of("docs/python.md"), re.MULTILINE)
    monkeypatch.chdir(weights.parents[3])
    names: dict[str, Any] = {"build_server_network": build_server_network}
    # The page's run has ten classes.
    exec(line.replace(", 10,", ", 3,"), names)
    expected = build_server_network("resnet55", 3, seed=5).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in names["network"].state_dict().items())
    with pytest.raises(ArtifactError, match="weights of another network"):
        build_server_network("resnet109", 3, weights=weights)
