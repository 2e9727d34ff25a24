"""Whatever somebody gives as a model is named for what it is, with what was wanted and where to get it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gkt_core.bundle.manifest import Bundle
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import ArtifactError
from gkt_core.onnx_files import judging
from gkt_core.onnx_files.combined import read_combined_model
from tests.server_app.server_fixtures import private_data

WANTED = (
    "expected a combined model, which takes images and gives logits: gkt edge run writes model.onnx to its"
)


def combined(operator: str = "Relu", inputs: tuple[str, ...] = ("images",), output: str = "logits") -> bytes:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 8, 8]) for name in inputs]
    gives = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(np.ones((4, 3, 8, 8), np.float32), "weight")
    nodes = [
        helper.make_node("Conv", [inputs[-1], "weight"], ["square"]),
        helper.make_node("Flatten", ["square"], ["flat"]),
        helper.make_node(operator, ["flat"], [output]),
    ]
    graph = helper.make_graph(nodes, "graph", tensors, [gives], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def refusal(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        read_combined_model(path)
    assert caught.value.exit_code == 2 and "must export again" not in str(caught.value)
    return str(caught.value)


def test_a_combined_model_is_read_and_may_list_its_tensors_as_inputs(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(combined())
    assert read_combined_model(path) == combined()
    older = onnx.load_from_string(combined())
    older.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [4, 3, 8, 8]))
    path.write_bytes(older.SerializeToString())
    assert read_combined_model(path) == older.SerializeToString()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "a picture"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "a picture or a film"),
        (b"\x93NUMPY\x01\0" + bytes(20), "an array of numpy"),
        (b"\x1f\x8b\x08" + bytes(20), "a packed archive"),
        (b"\x20\0\0\0ORTM" + bytes(20), "a model in ONNX Runtime's own format, as devices train with"),
        (b'\x40\0\0\0\0\0\0\0{"w":1}' + bytes(20), "weights without their network"),
        (b'{"a": 1}', "JSON"),
        ("Grüße\n".encode(), "a text"),
        # Cut within a character at the end of what is looked at.
        (b"a" * 4095 + "ü".encode(), "a text"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} is {kind}, {WANTED}")


def test_archives(tmp_path: Path) -> None:
    save_private_data(tmp_path / "device.npz", private_data(1))
    np.savez(tmp_path / "arrays.npz", images=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat/1.jpg", b"")
    for name, kind in (
        ("device.npz", "a device's private data, which --data takes"),
        ("arrays.npz", "an .npz with images or other arrays"),
        ("photos.zip", "a zip"),
    ):
        assert refusal(tmp_path / name).startswith(f"{tmp_path / name} is {kind}, {WANTED}")


def test_every_file_of_a_bundle_and_the_bundle(digits_bundle: Bundle) -> None:
    folder = digits_bundle.path
    for name in digits_bundle.manifest.files:
        said = f"{folder / name} is a file of the bundle {folder}, which devices train with, {WANTED}"
        assert refusal(folder / name).startswith(said)
    manifest = folder / "manifest.json"
    assert refusal(manifest).startswith(f"{manifest} is the manifest of a bundle, {WANTED}")
    said = f"{folder} is an artifact bundle, which devices train with, {WANTED}"
    assert refusal(folder).startswith(said)


def test_a_file_of_a_bundle_that_lies_elsewhere(digits_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(digits_bundle.file("predict.onnx").read_bytes())
    said = f"{path} takes 'images', 'parameters', 'statistics' and gives 'logits', 'features'; {WANTED}"
    assert refusal(path).startswith(said)


def test_folders_and_what_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path} is a folder without model.onnx, {WANTED}")
    (tmp_path / "model.onnx").write_bytes(combined())
    said = f"{tmp_path} is a folder, expected the model in it: give {tmp_path / 'model.onnx'}"
    assert refusal(tmp_path) == said
    assert refusal(tmp_path / "gone").startswith(f"there is no {tmp_path / 'gone'}: gkt edge run writes")
    inside = tmp_path / "model.onnx" / "gone"
    assert refusal(inside).startswith(f"{inside} cannot be read: Not a directory: {WANTED}")


def test_models_that_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    for content, said in (
        (combined()[:-100], f"{path} is not opened: no whole ONNX file: "),
        (combined("NonZero"), f"{path} is not opened: the operator 'NonZero' is none of those allowed"),
        (combined(inputs=("pixels",)), f"{path} takes 'pixels' and gives 'logits'; {WANTED}"),
        (combined(output="features"), f"{path} takes 'images' and gives 'features'; {WANTED}"),
        (combined(inputs=(*"abcde", "images")), f"{path} takes 'a', 'b', 'c', 'd' and gives 'logits'; "),
    ):
        path.write_bytes(content)
        assert refusal(path).startswith(said) and WANTED in refusal(path)
    monkeypatch.setattr(judging, "MOST_BYTES", 10)
    assert refusal(path).startswith(f"{path} is not opened: {path.stat().st_size:,} bytes, allowed are 10; ")
