"""A combined model that somebody names: read and judged, or told what the file is instead."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from gkt_core.errors import ArtifactError, UnsafeModelError
from gkt_core.onnx_files.judging import IMAGES, check_size, judged
from gkt_core.onnx_files.operators import DEPLOYED
from gkt_core.onnx_files.reading import Graph, shown

LOGITS = "logits"
_MODEL, _MANIFEST = "model.onnx", "manifest.json"
_WRITERS = "gkt edge run writes model.onnx to its --state-dir in the end, gkt deploy smaller files made of it"
EXPECTED = f"expected a combined model, which takes images and gives logits: {_WRITERS}"
_HEAD_BYTES, _FEW = 4096, 4
# What people have beside a model, by how such files begin: the offset, the bytes, what it is.
_BEGINNINGS = (
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"GIF8", "a picture"),
    (4, b"ftyp", "a picture or a film"),
    (0, b"\x93NUMPY", "an array of numpy"),
    (0, b"\x1f\x8b", "a packed archive"),
    (4, b"ORTM", "a model in ONNX Runtime's own format, as devices train with"),
    (4, b"ODTC", "a checkpoint, as devices train with"),
    (8, b'{"', "weights without their network"),
)


def read_combined_model(path: Path) -> bytes:
    """Read and judge a combined model, and give the bytes that were judged: those are to be opened.

    Args:
        path: ``model.onnx`` of a device, or what ``gkt deploy`` made of it: ``images [N, 3, S, S] float32``
            in 0..1 to ``logits [N, C]``.

    Raises:
        ArtifactError: It is missing, cannot be read or is something else; says what.
        UnsafeModelError: It would do more than arithmetic, or is no whole ONNX file.
    """
    try:
        if path.is_dir():
            raise ArtifactError(f"{path} is {_kind_of_folder(path)}")
        if kind := _kind_of_file(path):
            raise ArtifactError(f"{path} is {kind}, {EXPECTED}")
        check_size(path.stat().st_size)
        data = path.read_bytes()
        _check_interface(path, judged(data, DEPLOYED).graph)
    except UnsafeModelError as error:
        raise UnsafeModelError(
            f"{path} is not opened: {error}; {EXPECTED}; if it is one, copy it again"
        ) from error
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no {path}: {_WRITERS}") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}: {EXPECTED}") from error
    return data


def _kind_of_folder(path: Path) -> str:
    if (path / _MODEL).is_file():
        return f"a folder, expected the model in it: give {path / _MODEL}"
    if (path / _MANIFEST).is_file():
        return f"an artifact bundle, which devices train with, {EXPECTED}"
    return f"a folder without {_MODEL}, {EXPECTED}"


def _kind_of_file(path: Path) -> str:
    """Say what a file is that is no ONNX file; empty where it may be one."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        return "empty"
    if path.name in _files_of_bundle(path.parent / _MANIFEST):
        return f"a file of the bundle {path.parent}, which devices train with"
    for offset, beginning, kind in _BEGINNINGS:
        if head[offset:].startswith(beginning):
            return kind
    if zipfile.is_zipfile(path):
        return _kind_of_archive(path)
    # A character may be cut in two at the end.
    text = head.decode("utf-8", errors="ignore")
    if len(text.encode()) < len(head) - 3 or not all(each.isprintable() or each.isspace() for each in text):
        return ""
    if text.lstrip().startswith("{"):
        return "the manifest of a bundle" if _files_of_bundle(path) else "JSON"
    return "a text"


def _kind_of_archive(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "sample_ids.npy" in names:
        return "a device's private data, which --data takes"
    return "an .npz with images or other arrays" if any(name.endswith(".npy") for name in names) else "a zip"


def _files_of_bundle(manifest: Path) -> list[str]:
    """List what a manifest names; nothing where the file is none."""
    try:
        return list(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _check_interface(path: Path, graph: Graph) -> None:
    inputs = [name for name in graph.inputs if name not in graph.tensors]
    if inputs == [IMAGES] and LOGITS in graph.outputs:
        return
    takes, gives = (
        ", ".join(map(shown, list(names)[:_FEW])) or "nothing" for names in (inputs, graph.outputs)
    )
    raise ArtifactError(f"{path} takes {takes} and gives {gives}; {EXPECTED}")
