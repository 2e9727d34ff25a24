"""Look at a device: whether its engine opens the bundle, and whether its folder has room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from gkt_core.bundle.onnx_runtime import installed_versions
from gkt_core.doctor.bundles import opened_bundles
from gkt_core.doctor.findings import Finding, advice, fine, wrong
from gkt_core.doctor.options import DoctorOptions
from gkt_core.errors import needs
from gkt_core.files import check_writable, existing_above

_MEGABYTE = 1_000_000
# Beside twice its bundle: checkpoints, the model, the known samples.
_ROOM_MB = 50
_CREDENTIAL = "credential.json"


def engine(options: DoctorOptions) -> Iterator[Finding]:
    """Open the engine that would train, with the bundle if there is one."""
    is_device = options.join is not None or options.server is not None or options.state_dir is not None
    if not (installed_versions() or is_device):
        # A server's; it runs no engine.
        return
    with needs("edge"):
        from edge_runtime.engines.base import open_engine  # noqa: PLC0415 - imports an extra
        from edge_runtime.engines.choice import choose_engine, installed_engines  # noqa: PLC0415

        here = installed_engines()
    yield fine(f"runs here: {' and '.join(name.replace('_', '-') for name in here)}")
    for bundle in opened_bundles(options):
        if options.data_dir is None or bundle.path.parent != options.data_dir:
            chosen = choose_engine(bundle.manifest)
            open_engine(bundle, checkpoint=None, num_threads=1, learning_rate=0.001)
            yield fine(f"{chosen.replace('_', '-')} opens {bundle.path}")


def state_folder(options: DoctorOptions) -> Iterator[Finding]:
    """Look at the folder of a device: whether it can be written, has room, and keeps its secret to itself."""
    folder = options.state_dir
    if folder is None:
        return
    check_writable(folder, "--state-dir", is_folder=True)
    bundles = (
        sum(entry.stat().st_size for entry in place.iterdir()) for place in options.bundles if place.is_dir()
    )
    needed = 2 * max(bundles, default=0) + _ROOM_MB * _MEGABYTE
    free = shutil.disk_usage(existing_above(folder)).free
    text = f"{free / _MEGABYTE:,.0f} MB are free for {folder}, a device takes {needed / _MEGABYTE:,.0f}"
    yield fine(text) if free >= needed else wrong(text, "free some space, or choose another --state-dir")
    secret = folder / _CREDENTIAL
    if os.name == "posix" and secret.exists() and secret.stat().st_mode & 0o077:
        yield wrong(f"others may read {secret}, with which they would speak for it", f"chmod 600 {secret}")
    elif folder.is_dir() and any(folder.iterdir()) and not secret.exists():
        yield advice(f"{folder} belongs to no run yet", "gkt edge run --join LINK --state-dir " + str(folder))
