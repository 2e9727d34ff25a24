"""What a server that means harm begins from: the bundle and the trained network of an honest one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkt_core.bundle.manifest import Bundle, load_bundle
from tests.edge_runtime.hostile_server import trained_template


@pytest.fixture(scope="module")
def honest(server_bundle: Path) -> Bundle:
    return load_bundle(server_bundle)


@pytest.fixture(scope="module")
def template(honest: Bundle) -> bytes:
    return trained_template(honest)
