"""Artifact bundles are checked before they are used, and templates are filled in byte by byte."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.bundle.bundle_files import FileEntry, check_file, describe_files
from gkt_core.bundle.manifest import (
    CHECKPOINT,
    EVAL_MODEL,
    MANIFEST_NAME,
    TRAINING_MODEL,
    Manifest,
    TensorSlot,
    load_bundle,
    write_manifest,
)
from gkt_core.bundle.run_checks import check_classes
from gkt_core.bundle.template import fill_template
from gkt_core.errors import ArtifactError, TemplateError

FILES = {TRAINING_MODEL: b"training graph", EVAL_MODEL: b"eval graph", CHECKPOINT: bytes(range(256))}


def manifest_of(folder: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "format_version": 3,
        "edge_network": "resnet8",
        "server_network": "resnet55",
        "num_classes": 10,
        "image_size": 32,
        "features": [16, 32, 32],
        "pixel_mean": [0.5, 0.5, 0.5],
        "pixel_std": [0.25, 0.25, 0.25],
        "class_names": [],
        "temperature": 3.0,
        "optimizer": "adamw",
        "optimizer_settings": {"alpha": 0.9},
        "opset": 17,
        "seed": 0,
        "batch_norms": [{"running_var": "bn1.running_var", "num_pixels": 1024, "momentum": 0.1}],
        "template_slots": {"extractor.conv1.weight": {"offset": 8, "shape": [2, 3]}},
        "files": describe_files(folder, FILES),
        "versions": {"torch": "2"},
    }
    return {**values, **changes}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A tiny bundle: its files hold no graphs, only bytes to hash."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    write_manifest(folder, Manifest.from_dict(manifest_of(folder)))
    return folder


def rewrite(bundle: Path, **changes: Any) -> None:
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest_of(bundle, **changes)))


def message_of(*arguments: Any) -> str:
    with pytest.raises(ArtifactError) as caught:
        load_bundle(*arguments)
    return str(caught.value)


def test_a_good_bundle_is_loaded(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.path == bundle
    assert loaded.file(CHECKPOINT).read_bytes() == FILES[CHECKPOINT]
    assert loaded.manifest.feature_shape == (16, 32, 32)
    assert loaded.manifest.file(EVAL_MODEL) == FileEntry(hashlib.sha256(b"eval graph").hexdigest(), 10)
    assert loaded.manifest.slots() == {"extractor.conv1.weight": TensorSlot(8, [2, 3])}
    assert loaded.manifest.batch_norms[0].num_pixels == 1024


def test_a_manifest_survives_its_file(bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest
    before = (bundle / MANIFEST_NAME).read_bytes()
    write_manifest(bundle, manifest)
    assert (bundle / MANIFEST_NAME).read_bytes() == before


def test_only_the_wanted_files_must_be_there(bundle: Path) -> None:
    (bundle / EVAL_MODEL).unlink()
    assert load_bundle(bundle, [TRAINING_MODEL, CHECKPOINT]).path == bundle
    assert "eval_model.onnx" in message_of(bundle, [EVAL_MODEL])


def test_a_folder_without_a_manifest_is_no_bundle(bundle: Path, tmp_path: Path) -> None:
    (bundle / MANIFEST_NAME).unlink()
    for path in (bundle, tmp_path / "none", bundle / CHECKPOINT):
        message = message_of(path)
        assert f"{path} is no artifact bundle" in message
        assert "make one with gkt export" in message


def test_a_manifest_that_is_a_folder(bundle: Path) -> None:
    (bundle / MANIFEST_NAME).unlink()
    (bundle / MANIFEST_NAME).mkdir()
    assert "make one with gkt export" in message_of(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"format_version: 1", b"[" * 100_000])
def test_a_manifest_that_is_not_json(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST_NAME).write_bytes(content)
    message = message_of(bundle)
    assert "is not JSON" in message
    assert "export the artifacts again" in message


@pytest.mark.parametrize("version", [0, 1, 2, "3", None, 1.5, True])
def test_another_format_version(bundle: Path, version: object) -> None:
    rewrite(bundle, format_version=version)
    message = message_of(bundle)
    assert f"{version!r}" in message or "format_version" in message
    if version is not True:
        assert "this gkt reads 3: export the artifacts again with the installed version" in message


@pytest.mark.parametrize("values", [[], {}, None, 1, "manifest"])
def test_json_that_is_no_manifest(bundle: Path, values: object) -> None:
    (bundle / MANIFEST_NAME).write_text(json.dumps(values))
    assert "format version None" in message_of(bundle)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_classes": "ten"}, "num_classes"),
        ({"num_classes": 1}, "number of classes is 1"),
        ({"edge_network": "../resnet8"}, "network name '../resnet8': expected up to 40 of"),
        ({"server_network": ""}, "network name '': expected up to 40 of"),
        ({"features": [16, 32]}, "the manifest has features [16, 32], expected [C, H, W]"),
        ({"features": [16, 0, 32]}, "the manifest has features [16, 0, 32], expected [C, H, W]"),
        ({"pixel_mean": ["0.5"]}, "pixel_mean"),
        ({"pixel_mean": 0.5}, "pixel_mean"),
        ({"batch_norms": [{"running_var": "x"}]}, "BatchNormState"),
        ({"template_slots": {"w": {"offset": "8", "shape": [2]}}}, "TensorSlot.offset"),
        ({"template_slots": {"w": {"offset": 8, "shape": [2.5]}}}, "TensorSlot.shape"),
        ({"template_slots": {"w": 8}}, "TensorSlot"),
        ({"template_slots": []}, "template_slots"),
        ({"files": {"a": {"sha256": 5, "num_bytes": 5}}}, "FileEntry.sha256"),
        ({"files": {"a": {"num_bytes": 5}}}, "missing fields"),
        ({"files": {"a": None}}, "FileEntry"),
        ({"files": []}, "files"),
        ({"more": 1}, "unknown fields"),
    ],
    ids=str,
)
def test_a_manifest_with_wrong_values(bundle: Path, changes: dict[str, Any], match: str) -> None:
    rewrite(bundle, **changes)
    message = message_of(bundle)
    assert message.startswith("the manifest is not valid: ")
    assert match in message


def test_a_manifest_that_lacks_a_field(bundle: Path) -> None:
    for name in manifest_of(bundle):
        values = {key: value for key, value in manifest_of(bundle).items() if key != name}
        if name == "versions":
            assert Manifest.from_dict(values).versions == {}
            continue
        with pytest.raises(ArtifactError, match=name if name != "format_version" else "version None"):
            Manifest.from_dict(values)


@pytest.mark.parametrize("name", list(FILES))
def test_a_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    message = message_of(bundle)
    assert str(bundle / name) in message
    assert "export or download the bundle again" in message


@pytest.mark.parametrize("data", [b"", FILES[CHECKPOINT][:-1], FILES[CHECKPOINT] + b"x"])
def test_a_file_of_another_length(bundle: Path, data: bytes) -> None:
    (bundle / CHECKPOINT).write_bytes(data)
    message = message_of(bundle)
    assert f"{bundle / CHECKPOINT} has {len(data)} bytes, the manifest says 256" in message
    assert "export or download the bundle again" in message


@given(st.integers(0, 255), st.integers(0, 7))
def test_one_changed_bit_of_a_file_of_equal_length(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "checkpoint"
    expected = FileEntry(hashlib.sha256(FILES[CHECKPOINT]).hexdigest(), 256)
    path.write_bytes(FILES[CHECKPOINT])
    check_file(path, expected)
    changed = bytearray(FILES[CHECKPOINT])
    changed[place] ^= 1 << bit
    path.write_bytes(changed)
    with pytest.raises(ArtifactError, match=r"not the file of the manifest \(SHA-256\): export or download"):
        check_file(path, expected)


def test_a_folder_where_a_file_should_be(bundle: Path) -> None:
    (bundle / CHECKPOINT).unlink()
    (bundle / CHECKPOINT).mkdir()
    expected = FileEntry("0" * 64, (bundle / CHECKPOINT).stat().st_size)
    with pytest.raises(ArtifactError, match="export or download"):
        check_file(bundle / CHECKPOINT, expected)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "a/b",
        "..",
        ".",
        "",
        ".hidden",
        "a\\b",
        "C:checkpoint",
        "a\0b",
        "a\n",
        "x" * 200,
    ],
)
def test_a_file_name_that_leads_elsewhere(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_bytes(b"secret")
    entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "num_bytes": 6}
    rewrite(bundle, files={**describe_files(bundle, FILES), name: entry})
    message = message_of(bundle)
    assert "names files outside its own folder" in message
    assert "export or download the bundle again" in message


def test_a_file_that_the_bundle_does_not_name(bundle: Path) -> None:
    (bundle / "more.onnx").write_bytes(b"x")
    assert "the bundle has no more.onnx: export it again" in message_of(bundle, ["more.onnx"])
    with pytest.raises(ArtifactError, match=r"has no more\.onnx: export it again"):
        load_bundle(bundle).file("more.onnx")


def test_data_of_another_class_count(bundle: Path) -> None:
    manifest = load_bundle(bundle).manifest
    check_classes(manifest, 10, "client-000.npz")
    with pytest.raises(ArtifactError) as caught:
        check_classes(manifest, 7, "client-000.npz")
    assert str(caught.value) == (
        "client-000.npz has 7 classes, the artifact bundle was made for 10: "
        "export it again with --num-classes 7"
    )


# --- templates

TEMPLATE = bytes(range(100, 200))
SLOTS = {
    "extractor.conv.weight": TensorSlot(4, [2, 3]),
    "extractor.conv.bias": TensorSlot(40, [3]),
    "server.fc.weight": TensorSlot(60, [1, 4]),
    "server.scale": TensorSlot(90, []),
}
WEIGHTS = {
    "extractor.conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "extractor.conv.bias": np.array([-1, 0.5, 1e-3], np.float32),
}


def test_each_tensor_lands_in_its_place_and_nowhere_else() -> None:
    filled = fill_template(TEMPLATE, SLOTS, WEIGHTS, "extractor.")
    assert len(filled) == len(TEMPLATE)
    assert np.array_equal(np.frombuffer(filled[4:28], "<f4"), np.arange(6))
    assert np.array_equal(np.frombuffer(filled[40:52], "<f4"), WEIGHTS["extractor.conv.bias"])
    assert filled[:4] == TEMPLATE[:4]
    assert filled[28:40] == TEMPLATE[28:40]
    assert filled[52:] == TEMPLATE[52:]
    assert list(TEMPLATE) == list(range(100, 200))


def test_both_halves_are_filled_one_after_the_other_in_any_order() -> None:
    server = {"server.fc.weight": np.ones((1, 4), np.float32), "server.scale": np.array(2, np.float32)}
    one = fill_template(fill_template(TEMPLATE, SLOTS, WEIGHTS, "extractor."), SLOTS, server, "server.")
    other = fill_template(fill_template(TEMPLATE, SLOTS, server, "server."), SLOTS, WEIGHTS, "extractor.")
    assert one == other
    assert one[90:94] == np.float32(2).tobytes()
    # Weights of the other half may be given too; they are not written.
    assert fill_template(TEMPLATE, SLOTS, {**server, **WEIGHTS}, "server.")[:60] == TEMPLATE[:60]


def test_memory_layout_and_byte_order_of_the_weights_do_not_matter() -> None:
    plain = fill_template(TEMPLATE, SLOTS, WEIGHTS, "extractor.")
    strange = {name: np.asfortranarray(value).astype(">f8") for name, value in WEIGHTS.items()}
    assert fill_template(TEMPLATE, SLOTS, strange, "extractor.") == plain


def test_a_missing_or_unknown_tensor_is_named() -> None:
    fewer = {"extractor.conv.weight": WEIGHTS["extractor.conv.weight"]}
    with pytest.raises(TemplateError, match=r"missing \['extractor.conv.bias'\], unknown \[\]"):
        fill_template(TEMPLATE, SLOTS, fewer, "extractor.")
    more = {**WEIGHTS, "extractor.fc": np.zeros(1, np.float32)}
    with pytest.raises(TemplateError, match=r"missing \[\], unknown \['extractor.fc'\]"):
        fill_template(TEMPLATE, SLOTS, more, "extractor.")
    with pytest.raises(TemplateError, match="missing"):
        fill_template(TEMPLATE, SLOTS, {}, "extractor.")
    with pytest.raises(TemplateError, match="do not fit"):
        fill_template(TEMPLATE, SLOTS, WEIGHTS, "decoder.")


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), (2, 2), (0,), ()])
def test_a_tensor_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    wrong = {**WEIGHTS, "extractor.conv.weight": np.zeros(shape, np.float32)}
    with pytest.raises(
        TemplateError, match=r"extractor.conv.weight is \[.*\], the template expects \[2, 3\]"
    ):
        fill_template(TEMPLATE, SLOTS, wrong, "extractor.")


@pytest.mark.parametrize("offset", [-1, -24, 77, 100, 10**12])
def test_a_slot_outside_the_file_is_refused(offset: int) -> None:
    slots = {**SLOTS, "extractor.conv.weight": TensorSlot(offset, [2, 3])}
    with pytest.raises(TemplateError, match=r"extractor\.conv\.weight lies outside the template"):
        fill_template(TEMPLATE, slots, WEIGHTS, "extractor.")


def test_the_last_slot_that_fits_is_filled() -> None:
    slots = {**SLOTS, "extractor.conv.weight": TensorSlot(76, [2, 3])}
    filled = fill_template(TEMPLATE, slots, WEIGHTS, "extractor.")
    assert np.array_equal(np.frombuffer(filled[76:], "<f4"), np.arange(6))


def test_slots_and_entries_are_values() -> None:
    assert TensorSlot(1, [2]) == TensorSlot(1, [2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        TensorSlot(1, [2]).offset = 3  # type: ignore[misc]  # what is tested
