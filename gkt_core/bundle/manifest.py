"""The manifest of an artifact bundle: what it holds, for which network and settings, with hashes.

``manifest.json`` is written last, so a folder without one is no bundle. Device and server both load a
bundle through :func:`load_bundle`, which checks every file it is about to use.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from gkt_core.bundle.bundle_files import FileEntry, check_file
from gkt_core.bundle.memory import MemoryPlan
from gkt_core.bundle.portable_state import PortableState
from gkt_core.config.edge_optimizer import EdgeOptimizer
from gkt_core.config.run_config import check_image_size
from gkt_core.errors import ArtifactError, ConfigError, GKTError, UnsafeModelError
from gkt_core.networks import check_name, check_num_classes
from gkt_core.wire.message_json import Range
from gkt_core.wire.protocol import from_dict

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 3
# Of bundles that do not say: a network trains with such numbers, however badly, and all its sums stay finite.
GENEROUS_BOUND = 1e6
# What an engine's files may have together: the largest that gkt exports have a hundredth.
MOST_BUNDLE_BYTES = 1 << 30

TRAINING_MODEL = "training_model.onnx"
EVAL_MODEL = "eval_model.onnx"
OPTIMIZER_MODEL = "optimizer_model.onnx"
CHECKPOINT = "checkpoint"
NOMINAL_CHECKPOINT = "nominal_checkpoint"
TRAIN_STEP = "train_step.onnx"
PREDICT = "predict.onnx"
INITIAL_STATE = "initial_state.safetensors"
COMBINED_TEMPLATE = "combined_template.onnx"
_SHA256 = re.compile("[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
ORT_TRAINING, PORTABLE = "ort_training", "portable"
# What a device with each engine needs.
ENGINE_FILES = {
    PORTABLE: (TRAIN_STEP, PREDICT, INITIAL_STATE),
    ORT_TRAINING: (TRAINING_MODEL, EVAL_MODEL, OPTIMIZER_MODEL, CHECKPOINT),
}
DEVICE_FILES = tuple(name for names in ENGINE_FILES.values() for name in names)
# What gkt export --ort-format adds, for reduced builds of ONNX Runtime: NAME.ort beside NAME.onnx.
ORT_FORMAT_FILES = tuple(
    name.removesuffix(".onnx") + ".ort" for name in DEVICE_FILES if name.endswith(".onnx")
)


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """Where a tensor's bytes lie in a template file: float32, little-endian, row-major."""

    offset: int
    shape: list[int]


@dataclass(frozen=True, slots=True)
class BatchNormState:
    """One batch normalisation whose running variance the Python runtime makes unbiased.

    ONNX's BatchNormalization folds the biased batch variance into ``running_var``, PyTorch the unbiased
    one. With ``n = batch size * num_pixels`` they differ by the factor ``n / (n - 1)``.
    """

    running_var: str
    num_pixels: Annotated[int, Range(1, 2**31)]
    momentum: Annotated[float, Range(0, 1)]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        format_version: Of this file.
        edge_network: ``resnet8`` and so on.
        server_network: Network that completes it, ``resnet55`` or ``resnet109``.
        num_classes: Width of the logits.
        image_size: Images are ``[N, 3, image_size, image_size] float32`` in 0..1.
        features: ``[C, H, W]`` of one sample's features.
        pixel_mean: Mean of each channel, in 0..1; the graph normalises with it.
        pixel_std: Standard deviation of each channel.
        class_names: Names of the classes, or empty.
        temperature: T of the distillation loss inside the graph.
        optimizer: Name of the optimizer inside the bundle.
        optimizer_settings: Its settings; the learning rate is set by the run.
        engines: Engines that the bundle holds files for, of :data:`ENGINE_FILES`.
        runtime_does: What the runtime of an engine must do after each step, because its graph cannot:
            by engine, ``unbiased_variance`` (from ``batch_norms``), ``weight_decay``, ``momentum``.
        onnx_versions: ``[opset, IR version]`` of each ONNX file.
        tensors: ``inputs`` and ``outputs`` of each ONNX file that a device runs, in the graph's order, each
            with ``name``, ``dtype`` (numpy's word) and ``shape`` (``"N"`` for the batch size); empty in
            bundles of earlier versions.
        portable_state: Vectors of the portable step, see :class:`PortableState`; empty without it.
        verification: What ``gkt export`` measured against float64, by engine.
        bounds: Greatest magnitude of ``features`` and of ``logits`` that a server takes; empty in bundles of
            earlier versions.
        memory: What training takes, by estimate; None in bundles of earlier versions, and of networks that
            cannot be followed without running them.
        horizontal_flip: Whether a mirrored image is still of its class, which it is not for digits; None in
            bundles of earlier versions, whose runs mirror unless they are told not to.
        max_bits: Bits of each number of the features that a run of this bundle may ask devices for, at most;
            None for any. With ``edge_network`` and ``features`` it is what a device knows of the tap.
        leakage_penalty: Weight of the distance correlation of images and features in the loss inside the
            graph; a manifest without it says 0.
        opset: ONNX opset of the training graph.
        seed: Seed of the initial weights.
        batch_norms: Corrections that a runtime applies after each step.
        template_slots: Tensors of ``combined_template.onnx``, by name.
        files: Files of the bundle, by name.
        versions: Packages that made it.
    """

    format_version: int
    edge_network: str
    server_network: str
    num_classes: int
    image_size: int
    features: list[int]
    pixel_mean: list[float]
    pixel_std: list[float]
    class_names: list[str]
    temperature: float
    optimizer: str
    optimizer_settings: dict[str, Any]
    opset: int
    seed: int
    batch_norms: list[BatchNormState]
    template_slots: dict[str, Any]
    files: dict[str, Any]
    versions: dict[str, Any] = field(default_factory=dict)
    engines: list[str] = field(default_factory=lambda: [ORT_TRAINING])
    runtime_does: dict[str, Any] = field(default_factory=dict)
    onnx_versions: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)
    portable_state: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, Any] = field(default_factory=dict)
    memory: MemoryPlan | None = None
    horizontal_flip: bool | None = None
    max_bits: int | None = None
    leakage_penalty: Annotated[float, Range(0, 1000)] = 0.0

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of one sample's features."""
        channels, height, width = self.features
        return channels, height, width

    @property
    def edge_optimizer(self) -> EdgeOptimizer:
        """The optimizer inside the bundle.

        Raises:
            GKTError: There is no such optimizer.
        """
        return from_dict(EdgeOptimizer, {"name": self.optimizer, **self.optimizer_settings})

    @property
    def may_mirror(self) -> bool:
        """Whether a run mirrors images unless it is told otherwise."""
        return self.horizontal_flip is not False

    def bound(self, name: str) -> float:
        """Give the greatest magnitude of ``features`` or ``logits`` that a server takes."""
        return float(self.bounds.get(name, GENEROUS_BOUND))

    def file(self, name: str) -> FileEntry:
        """Look up the entry of one file.

        Raises:
            ArtifactError: The bundle has no such file.
        """
        if name not in self.files:
            raise ArtifactError(f"the bundle has no {name}: export it again")
        return from_dict(FileEntry, self.files[name])

    def slots(self) -> dict[str, TensorSlot]:
        """Give the tensors of the template, by name."""
        return {name: from_dict(TensorSlot, slot) for name, slot in self.template_slots.items()}

    def engine_files(self, engine: str) -> tuple[str, ...]:
        """Name the files that a device with this engine needs.

        Raises:
            ArtifactError: The bundle was not made for this engine.
        """
        if engine not in self.engines:
            raise ArtifactError(
                f"the bundle is for {', '.join(self.engines) or 'no engine'}, not for {engine}: "
                f"export it again with --engine {engine.replace('_', '-')}, or both"
            )
        return ENGINE_FILES[engine]

    def portable_layout(self) -> PortableState:
        """Give the vectors of the portable step.

        Raises:
            ArtifactError: There are none, or a tensor lies outside its vector.
        """
        layout = from_dict(PortableState, self.portable_state)
        layout.check()
        return layout

    def _check_tensors(self) -> None:
        """Refuse graphs of other images, classes or features than the rest of the manifest says."""
        side = self.image_size
        expected = {
            "images": ["N", 3, side, side],
            "labels": ["N"],
            "server_logits": ["N", self.num_classes],
            "logits": ["N", self.num_classes],
            "features": ["N", *self.features],
        }
        for file, sides in self.tensors.items():
            try:
                both = (*sides["inputs"], *sides["outputs"])
                shapes = {str(tensor["name"]): tensor["shape"] for tensor in both}
            except (KeyError, TypeError) as error:
                raise ConfigError(f"the tensors of {file[:40]} have no names and shapes") from error
            for name, shape in expected.items():
                if shapes.get(name, shape) != shape:
                    raise ConfigError(f"{name} of {file[:40]} is {shapes[name]}, expected {shape}")

    def _check_pixels(self) -> None:
        """Refuse what no image can be normalised with."""
        is_usable = len(self.pixel_mean) == len(self.pixel_std) == 3 and all(
            1e-6 <= std <= 1e6 and abs(mean) <= 1e6
            for mean, std in zip(self.pixel_mean, self.pixel_std, strict=True)
        )
        if not is_usable:
            raise ConfigError(
                f"pixels have the mean {self.pixel_mean[:5]}, the deviation {self.pixel_std[:5]}"
            )

    def _check_runtimes(self) -> None:
        """Refuse settings of a runtime that are none."""
        for engine, does in self.runtime_does.items():
            numbers = (
                [does.get(name, 0.0) for name in ("momentum", "weight_decay")]
                if isinstance(does, dict)
                else [""]
            )
            if not all(isinstance(each, (int, float)) for each in numbers):
                raise ConfigError(f"what the runtime of {engine[:40]!a} does is no list of settings")
            if "momentum" in does and not isinstance(does.get("nesterov"), bool):
                raise ConfigError(f"whether the momentum of {engine[:40]!a} is Nesterov's is not said")

    def to_dict(self) -> dict[str, Any]:
        """Give all fields as JSON-compatible values; devices of the version before know no penalty."""
        values = dataclasses.asdict(self)
        if not self.leakage_penalty:
            del values["leakage_penalty"]
        return values

    @classmethod
    def from_dict(cls, values: Any) -> Manifest:
        """Validate decoded JSON.

        Raises:
            ArtifactError: Missing, unknown or ill-typed fields, or another format version.
        """
        version = values.get("format_version") if isinstance(values, Mapping) else None
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"the manifest has format version {version!r}, this gkt reads {FORMAT_VERSION}: "
                "export the artifacts again with the installed version"
            )
        try:
            manifest = from_dict(cls, values)
            for name in manifest.files:
                if not _SHA256.fullmatch(manifest.file(name).sha256):
                    raise ConfigError(f"the SHA-256 of {name[:40]!a} is none")
            manifest._check_pixels()
            manifest._check_runtimes()
            manifest.slots()
            if not set(manifest.engines) <= set(ENGINE_FILES):
                raise ConfigError(f"engines {manifest.engines}, expected {', '.join(ENGINE_FILES)}")
            if PORTABLE in manifest.engines:
                manifest.portable_layout()
            check_name(manifest.edge_network)
            check_name(manifest.server_network)
            if len(manifest.features) != 3 or not all(1 <= length <= 65536 for length in manifest.features):
                raise ConfigError(f"the manifest has features {manifest.features}, expected [C, H, W]")
            if manifest.max_bits is not None and not 1 <= manifest.max_bits <= 32:
                raise ConfigError(f"max_bits is {manifest.max_bits}, expected 1 to 32")
            check_num_classes(manifest.num_classes)
            check_image_size(manifest.image_size)
            manifest._check_tensors()
            for name in manifest.bounds:
                if not 0 < manifest.bound(name) < math.inf:
                    raise ConfigError(
                        f"the bound of {name[:40]} is {manifest.bounds[name]}, expected above 0"
                    )
        except ArtifactError:
            raise
        except (GKTError, TypeError, ValueError) as error:
            raise ArtifactError(f"the manifest is not valid: {error}") from error
        if not all(_FILE_NAME.fullmatch(name) for name in manifest.files):
            raise ArtifactError(
                "the manifest names files outside its own folder: export or download the bundle again"
            )
        return manifest


def manifest_sha256(values: Mapping[str, Any]) -> str:
    """Hash a manifest, as decoded JSON: the SHA-256, as digits, of the file that it is written as."""
    return hashlib.sha256(_text(values).encode()).hexdigest()


def check_manifest_sha256(values: Mapping[str, Any], expected: str) -> None:
    """Refuse another manifest than was agreed upon; the hashes in it vouch for every file.

    Raises:
        UnsafeModelError: Names both hashes.
    """
    found = manifest_sha256(values)
    if found != expected.lower():
        raise UnsafeModelError(
            "the server's bundle is not the one that was agreed upon: its manifest has the SHA-256 "
            f"{found[:16]}..., agreed was {expected.lower()[:16]}...: ask whoever runs the server; "
            "somebody between may have changed it"
        )


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified artifact bundle on disk."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Give the path of one file that the manifest names."""
        self.manifest.file(name)
        return self.path / name


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``: the last step of making a bundle."""
    (folder / MANIFEST_NAME).write_text(_text(manifest.to_dict()), encoding="utf-8")


def load_bundle(path: Path, names: Iterable[str] | None = None) -> Bundle:
    """Open the bundle in a folder and check files against its manifest, by default all that it names.

    Raises:
        ArtifactError: No bundle, or a file is missing, cut short or changed.
    """
    manifest_path = path / MANIFEST_NAME
    try:
        values = json.loads(manifest_path.read_text(encoding="utf-8"))
    except OSError as error:
        why = f"{MANIFEST_NAME} cannot be read" if path.exists() else "there is no such folder"
        raise ArtifactError(f"{path} is no artifact bundle ({why}): make one with gkt export") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{manifest_path} is not JSON: export the artifacts again") from error
    manifest = Manifest.from_dict(values)
    for name in manifest.files if names is None else names:
        check_file(path / name, manifest.file(name))
    return Bundle(path, manifest)
