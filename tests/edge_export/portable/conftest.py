"""One small bundle for all tests of the portable step."""

from __future__ import annotations

import pytest

from edge_export import ExportOptions, export_bundle
from gkt_core.bundle.manifest import Bundle, load_bundle

SMALL = ExportOptions("resnet4", image_size=8, num_classes=3, engines=("portable",))


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A ResNet-4 for three classes of 8 pixels."""
    folder = tmp_path_factory.mktemp("small") / "bundle"
    export_bundle(SMALL, folder, verify="none")
    return load_bundle(folder)
