"""Describe a model file: an ONNX model, a bundle as folder or zip, the weights of a server network."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from gkt_core.bundle.bundle_files import FileEntry
from gkt_core.bundle.manifest import MANIFEST_NAME, Manifest, load_bundle, manifest_sha256
from gkt_core.bundle.model_identity import IDENTITY_KEY, ModelIdentity, read_identity
from gkt_core.bundle.model_metadata import class_names_in
from gkt_core.errors import ArtifactError
from gkt_core.onnx_files.reading import read_model
from gkt_core.seal import has_seal, is_whole

_MOST_MANIFEST_BYTES = 16 << 20
_KINDS = "an .onnx file, a bundle's folder or .zip, or a .safetensors file of weights"


@dataclass(frozen=True, slots=True)
class Description:
    """What a file is, and what it says of itself.

    Attributes:
        file: Its path as it was given.
        kind: ``model``, ``bundle`` or ``weights``.
        num_bytes: Its size; of a bundle that of all its files.
        sha256: Of the file; of a bundle that of its manifest, as a join link has it.
        identity: What it says of itself; None where it says nothing.
        details: What is in it besides, by name.
    """

    file: str
    kind: str
    num_bytes: int
    sha256: str
    identity: ModelIdentity | None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON-compatible values."""
        own = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return own | {"identity": None if self.identity is None else self.identity.to_dict()}


def describe(path: Path) -> Description:
    """Describe a file or a bundle's folder; nothing of it is run.

    Raises:
        ArtifactError: It is none of these, or is not whole.
        OSError: It cannot be read.
    """
    if path.is_dir():
        return _of_manifest(path, load_bundle(path).manifest)
    if path.name == MANIFEST_NAME:
        return describe(path.parent)
    if not path.is_file():
        raise ArtifactError(f"there is no {path}: give {_KINDS}")
    if zipfile.is_zipfile(path):
        return _of_zip(path)
    if path.suffix == ".safetensors":
        return _of_weights(path)
    if path.suffix != ".onnx":
        raise ArtifactError(f"{path} is none of those that are shown: give {_KINDS}")
    return _of_model(path)


def _of_model(path: Path) -> Description:
    data = path.read_bytes()
    model = read_model(data)
    identity = read_identity(model.metadata, str(path))
    details = {
        "inputs": list(model.graph.inputs),
        "outputs": list(model.graph.outputs),
        "num_nodes": len(model.graph.nodes),
        "class_names": list(class_names_in(model.metadata)),
    }
    return Description(str(path), "model", len(data), hashlib.sha256(data).hexdigest(), identity, details)


def _of_weights(path: Path) -> Description:
    data = path.read_bytes()
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors = {name: each["shape"] for name, each in header.items() if name != "__metadata__"}
        num_parameters = sum(math.prod(shape) for shape in tensors.values())
        metadata: Mapping[str, str] = header.get("__metadata__", {})
        said = json.loads(metadata.get(IDENTITY_KEY, "{}"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is no safetensors file: take it from where it was made") from error
    if not is_whole(data):
        raise ArtifactError(f"{path} is damaged: its bytes have changed; take it from where it was made")
    # A checkpoint has other values there.
    identity = read_identity(metadata, str(path)) if "holds" in said else None
    details = {"num_tensors": len(tensors), "num_parameters": num_parameters, "is_sealed": has_seal(data)}
    return Description(str(path), "weights", len(data), hashlib.sha256(data).hexdigest(), identity, details)


def _of_zip(path: Path) -> Description:
    """Read a bundle's zip where it lies; each file must be the one of the manifest.

    Raises:
        ArtifactError: It holds no bundle, several, or other files than the manifest says.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if PurePosixPath(name).name == MANIFEST_NAME]
        if len(names) != 1 or archive.getinfo(names[0]).file_size > _MOST_MANIFEST_BYTES:
            raise ArtifactError(f"{path} holds {len(names)} of {MANIFEST_NAME}, expected a bundle's one")
        folder = names[0].removesuffix(MANIFEST_NAME)
        try:
            manifest = Manifest.from_dict(json.loads(archive.read(names[0])))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{names[0]} in {path} is not JSON: export again") from error
        for name in manifest.files:
            _check_packed(archive, folder + name, manifest.file(name))
    return dataclasses.replace(_of_manifest(path, manifest), num_bytes=path.stat().st_size)


def _check_packed(archive: zipfile.ZipFile, name: str, expected: FileEntry) -> None:
    """Refuse a file of a zip that is not the one of its entry.

    Raises:
        ArtifactError: It is missing, or another one.
    """
    sha256 = ""
    with contextlib.suppress(KeyError, zipfile.BadZipFile):
        info = archive.getinfo(name)
        if info.file_size == expected.num_bytes:
            with archive.open(info) as stream:
                sha256 = hashlib.sha256(stream.read(expected.num_bytes + 1)).hexdigest()
    if sha256 != expected.sha256:
        raise ArtifactError(
            f"{name} in {archive.filename} is missing or not the file of the manifest: pack the bundle again"
        )


def _of_manifest(path: Path, manifest: Manifest) -> Description:
    """Describe a bundle: what its manifest says is what its graphs are."""
    kept = (
        "edge_network", "server_network", "num_classes", "class_names", "image_size", "features",
        "pixel_mean", "pixel_std", "engines", "optimizer", "temperature", "max_bits", "versions",
    )  # fmt: skip
    sizes = [manifest.file(name).num_bytes for name in manifest.files]
    details = {name: getattr(manifest, name) for name in kept}
    details["files"] = {name: manifest.file(name).sha256 for name in sorted(manifest.files)}
    return Description(str(path), "bundle", sum(sizes), manifest_sha256(manifest.to_dict()), None, details)
