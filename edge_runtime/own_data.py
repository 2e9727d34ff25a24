"""A device's data, and whether they fit a run: found out before a use of the join link is spent on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.state.credential import place_kept_named
from edge_runtime.state.packed_data import packed_data
from edge_runtime.trust.agreed import agreed_config
from gkt_core.bundle.manifest import Manifest
from gkt_core.bundle.run_checks import check_classes
from gkt_core.bundle.tap import TapRequirement
from gkt_core.data.pack import PackOptions
from gkt_core.data.private_data import PrivateData
from gkt_core.errors import DatasetError
from gkt_core.wire.protocol import RunInfo


def check_data(data: PrivateData, manifest: Manifest, owner: str) -> None:
    """Refuse data that the artifacts were not made for.

    Raises:
        ArtifactError: Another class count, or other classes.
        DatasetError: Another image size, or no validation samples.
    """
    check_classes(manifest, data.num_classes, owner, data.class_names)
    if data.image_size != manifest.image_size:
        raise DatasetError(
            f"{owner} has images of {data.image_size} px, the artifact bundle was made for "
            f"{manifest.image_size} px: split the data with --image-size {manifest.image_size}, "
            f"or export again with --image-size {data.image_size}"
        )
    if len(data.validation) == 0:
        raise DatasetError(f"{owner} holds no validation samples: split the data again with gkt data split")


@dataclass(slots=True)
class OwnData:
    """A device's data from wherever they are.

    Attributes:
        owner: The device, for messages.
        private: The data; None until they are packed.
        source: What they are packed of; see :func:`edge_runtime.state.packed_data.packed_data`.
        options: How they are packed.
        folder: The state folder; without one nothing is kept.
        note: Told what was taken and left out, in lines.
        tap: What of features the owner agreed to.
    """

    owner: str
    private: PrivateData | None
    source: str
    options: PackOptions
    folder: Path | None
    note: Callable[[str], None]
    tap: TapRequirement = field(default_factory=TapRequirement)

    def fit(self, info: RunInfo) -> PrivateData:
        """Pack the data for a run if they are not packed yet, and see whether they are for it.

        Raises:
            ArtifactError: They are of other classes, or the bundle does not name its own.
            DatasetError: They are of another size, or cannot be read.
            UnsafeModelError: The run's features are others than the owner was told.
        """
        manifest = Manifest.from_dict(info.manifest)
        with place_kept_named(self.folder):
            self.tap.check(manifest, agreed_config(info.config).codec)
            if self.private is None:
                self.private = packed_data(self.source, manifest, self.options, self.folder, self.note)
            check_data(self.private, manifest, self.owner)
        return self.private
