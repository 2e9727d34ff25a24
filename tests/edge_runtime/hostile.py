"""Bundles that a hostile server gives, and what makes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gkt_core.bundle.bundle_files import describe_files
from gkt_core.bundle.manifest import EVAL_MODEL, INITIAL_STATE, MANIFEST_NAME, PREDICT, Bundle, load_bundle

# The file in which the features of an engine are made.
FEATURE_FILES = {"portable": PREDICT, "ort_training": EVAL_MODEL}
Change = Callable[[onnx.ModelProto], None]


def changed_bundle(bundle: Path, out: Path, name: str, change: Change) -> Bundle:
    """A bundle of which one ONNX file is another, and its hash with it: both come from the same server."""
    shutil.copytree(bundle, out)
    model = onnx.load(out / name)
    change(model)
    (out / name).write_bytes(model.SerializeToString())
    return rehashed(out, name)


def rehashed(folder: Path, *names: str) -> Bundle:
    """Let the manifest say of files what they are."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["files"].update(describe_files(folder, names))
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return load_bundle(folder)


def _instead(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Let other nodes make the features."""
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "features":
                node.output[index] = "honest"
        for index, name in enumerate(node.input):
            if name == "features":
                node.input[index] = "honest"
    model.graph.node.extend(nodes)


def concatenated(model: onnx.ModelProto) -> None:
    """Features are the images, as often as there is room for them: no layer between."""
    _instead(
        model,
        helper.make_node("Concat", ["images"] * 6, ["many"], axis=1),
        helper.make_node("Split", ["many"], ["features", "rest"], axis=1),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([16, 2], np.int64), "sizes"))
    model.graph.node[-1].input.append("sizes")


def copied_by_convolution(model: onnx.ModelProto) -> None:
    """Features are the images, by a convolution that copies."""
    kernel = np.zeros((16, 3, 1, 1), np.float32)
    kernel[np.arange(16), np.arange(16) % 3] = 1
    model.graph.initializer.append(numpy_helper.from_array(kernel, "copies"))
    _instead(model, helper.make_node("Conv", ["images", "copies"], ["features"]))


def thinned_images(model: onnx.ModelProto) -> None:
    """Features of a narrow tap are every second or fourth pixel of the image, in as many channels."""
    (shape,) = (value.type.tensor_type.shape for value in model.graph.output if value.name == "features")
    channels, side = (shape.dim[axis].dim_value for axis in (1, 2))
    (images,) = (value.type.tensor_type.shape for value in model.graph.input if value.name == "images")
    stride = images.dim[2].dim_value // side
    kernel = np.zeros((channels, 3, 1, 1), np.float32)
    kernel[np.arange(channels), np.arange(channels) % 3] = 1
    model.graph.initializer.append(numpy_helper.from_array(kernel, "copies"))
    _instead(model, helper.make_node("Conv", ["images", "copies"], ["features"], strides=[stride, stride]))


def hidden_in_features(model: onnx.ModelProto) -> None:
    """Features as they should be, and a little of the images on top of them."""
    kernel = np.zeros((16, 3, 1, 1), np.float32)
    kernel[:3, :3, 0, 0] = np.eye(3)
    model.graph.initializer.append(numpy_helper.from_array(kernel, "copies"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.02, np.float32), "little"))
    _instead(
        model,
        helper.make_node("Conv", ["images", "copies"], ["copy"]),
        helper.make_node("Mul", ["copy", "little"], ["part"]),
        helper.make_node("Add", ["honest", "part"], ["features"]),
    )


def _beside_logits(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Let something of the images, which these nodes make of three of their values, stand in the logits."""
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "logits":
                node.output[index] = "honest_logits"
    for name, values in (("from", [0, 0]), ("to", [1, 1]), ("axes", [2, 3])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"pixel_{name}"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, -1], np.int64), "pixel_shape"))
    model.graph.node.extend(
        [
            helper.make_node("Slice", ["images", "pixel_from", "pixel_to", "pixel_axes"], ["pixel"]),
            helper.make_node("Reshape", ["pixel", "pixel_shape"], ["flat_pixel"]),
            *nodes,
            helper.make_node("Add", ["honest_logits", "told"], ["logits"]),
        ]
    )


def pixels_in_logits(model: onnx.ModelProto) -> None:
    """Logits, of three classes, are the first pixel's three channels on top of what they should be."""
    _beside_logits(model, helper.make_node("Identity", ["flat_pixel"], ["told"]))


def pixels_of_the_dark(model: onnx.ModelProto) -> None:
    """The same, of images darker than noise on average: what is tried with noise looks honest."""
    for name, value in (("bright", -0.35), ("steep", -1e6), ("none", 0.0), ("all", 1.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    _beside_logits(
        model,
        helper.make_node("GlobalAveragePool", ["images"], ["averages"]),
        helper.make_node("Reshape", ["averages", "pixel_shape"], ["flat_averages"]),
        helper.make_node("Add", ["flat_averages", "bright"], ["above"]),
        helper.make_node("Mul", ["above", "steep"], ["gate"]),
        helper.make_node("Clip", ["gate", "none", "all"], ["open"]),
        helper.make_node("Mul", ["flat_pixel", "open"], ["told"]),
    )


def external_data(path: Path) -> Change:
    """A tensor of the graph is a file of the device."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer.add(name="stolen", data_type=onnx.TensorProto.UINT8, dims=[64])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=str(path))

    return change


def copying_weights(bundle: Path, out: Path) -> Bundle:
    """The graphs of an honest bundle, and weights with which its first convolution copies the images."""
    import safetensors.numpy  # noqa: PLC0415 - beside the functions that need onnx alone

    shutil.copytree(bundle, out)
    layout = load_bundle(bundle).manifest.portable_layout()
    vectors = {
        name: np.array(value) for name, value in safetensors.numpy.load_file(out / INITIAL_STATE).items()
    }
    kernel = np.zeros((16, 3, 3, 3), np.float32)
    kernel[np.arange(16), np.arange(16) % 3, 1, 1] = 1
    for name, value in (
        ("extractor.conv.weight", kernel),
        ("extractor.bn.weight", np.ones(16, np.float32)),
        # No ReLU touches them.
        ("extractor.bn.bias", np.full(16, 5, np.float32)),
    ):
        slot = layout.slots[name]
        vectors[slot.vector][slot.offset : slot.offset + value.size] = value.reshape(-1)
    safetensors.numpy.save_file(vectors, out / INITIAL_STATE)
    return rehashed(out, INITIAL_STATE)
