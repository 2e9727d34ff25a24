"""What a trained model says of itself, wherever its file goes: what it takes, gives and came from.

An ONNX file has it among its metadata, server.safetensors in its header: JSON under the key ``gkt``. It holds
no time, path or name of a device, so that equal training gives equal bytes. The graphs of a bundle have none:
a device refuses metadata that it does not know, and the manifest beside them says all of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gkt_core.bundle.manifest import Manifest, manifest_sha256
from gkt_core.errors import ArtifactError, MessageError
from gkt_core.version import __version__
from gkt_core.wire.protocol import from_dict

IDENTITY_KEY = "gkt"
# Of what a file holds.
COMBINED, EXTRACTOR, SERVER = "combined", "extractor", "server"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a model says of itself.

    Attributes:
        holds: ``combined`` (images to logits), ``extractor`` (images to features) or ``server`` (features to
            logits).
        edge_network: Whose extractor it begins with.
        server_network: What completes it.
        num_classes: Width of its logits.
        class_names: In their order; empty where they have no names.
        image_size: Images are ``[N, 3, image_size, image_size]``: RGB, NCHW, 0..1; the graph normalises.
        tap: ``[C, H, W]`` of one sample's features, between extractor and server network.
        pixel_mean: Mean of each channel that the graph normalises with.
        pixel_std: Standard deviation of each channel.
        run_id: Of the run that it is from; of a simulation the algorithm; empty in server.safetensors, which
            is the same of equal runs.
        rounds: Rounds that it was trained for.
        precision: ``fp32`` or ``int8``.
        version: Of gkt-edge.
        validation_accuracy: On images that it was not trained on, 0..1; None where it is not known.
        test_accuracy: On a test set, 0..1; None where it was not measured.
        sources: SHA-256, by name, of what it was made of: ``manifest``, ``server``, ``model``, ``split``.
    """

    holds: str
    edge_network: str
    server_network: str
    num_classes: int
    class_names: list[str]
    image_size: int
    tap: list[int]
    pixel_mean: list[float]
    pixel_std: list[float]
    run_id: str = ""
    rounds: int = 0
    precision: str = "fp32"
    version: str = __version__
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def input_words(self) -> str:
        """What it takes, as a person reads it."""
        channels, height, width = self.tap
        if self.holds == SERVER:
            return f"features [N, {channels}, {height}, {width}] float32, NCHW, of {self.edge_network}"
        size = self.image_size
        return f"images [N, 3, {size}, {size}] float32, NCHW, RGB, 0..1"

    @property
    def output_words(self) -> str:
        """What it gives, as a person reads it."""
        channels, height, width = self.tap
        if self.holds == EXTRACTOR:
            return f"features [N, {channels}, {height}, {width}] float32"
        return f"logits [N, {self.num_classes}] float32"

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON-compatible values, with what it takes and gives in words."""
        return {**dataclasses.asdict(self), "input": self.input_words, "output": self.output_words}

    def to_json(self) -> str:
        """Write it, equal for equal values."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)

    def metadata(self) -> dict[str, str]:
        """Give it as metadata of an ONNX file."""
        return {IDENTITY_KEY: self.to_json()}


def identity_of_run(
    manifest: Manifest, holds: str, *, rounds: int, run_id: str = "", **known: Any
) -> ModelIdentity:
    """Say what a model of a served run is.

    Args:
        manifest: Of the run's bundle.
        holds: As of :class:`ModelIdentity`.
        rounds: That it was trained for.
        run_id: Of the run, if it is to be named.
        **known: Further attributes; ``sources`` beside the manifest's hash.
    """
    sources = {"manifest": manifest_sha256(manifest.to_dict()), **known.pop("sources", {})}
    return ModelIdentity(
        holds,
        manifest.edge_network,
        manifest.server_network,
        manifest.num_classes,
        list(manifest.class_names),
        manifest.image_size,
        list(manifest.features),
        list(manifest.pixel_mean),
        list(manifest.pixel_std),
        run_id,
        rounds,
        sources=sources,
        **known,
    )


def read_identity(metadata: Mapping[str, str], name: str) -> ModelIdentity | None:
    """Read what a model says of itself; None for a model of an earlier version, or of others.

    Args:
        metadata: Of the file.
        name: What to call the file in errors.

    Raises:
        ArtifactError: What stands there is none.
    """
    text = metadata.get(IDENTITY_KEY)
    if text is None:
        return None
    known = {each.name for each in dataclasses.fields(ModelIdentity)}
    try:
        values = json.loads(text)
        # A later version says more.
        identity = from_dict(ModelIdentity, {key: value for key, value in values.items() if key in known})
        if len(identity.tap) != 3:
            raise MessageError(f"the tap is {identity.tap}, expected [C, H, W]")
    except (ValueError, RecursionError, AttributeError, MessageError) as error:
        raise ArtifactError(
            f"{name} says of itself what cannot be read ({str(error)[:200]}): take it from where it was made"
        ) from error
    return identity
