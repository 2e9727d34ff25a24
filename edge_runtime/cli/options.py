"""Options of the commands of ``gkt edge``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from gkt_core.bundle.manifest import ENGINE_FILES
from gkt_core.bundle.tap import TapRequirement
from gkt_core.config.dataclass_options import CheckedOptions, option
from gkt_core.config.output_path import OUTPUT_FILE, OUTPUT_FOLDER
from gkt_core.data.pack import PackOptions
from gkt_core.data.reading.images import FITS
from gkt_core.wire.feature_noise import FeatureNoise
from gkt_core.wire.protocol import as_client_id, check_client_id

SERVER, MACHINE = "The server", "The machine that it shares"
_SHORT_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions(CheckedOptions):
    """What every command that runs an engine takes.

    Attributes:
        num_threads: CPU threads.
    """

    num_threads: int = option(1, flag="--threads", low=1, high=256, group=MACHINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions(EngineOptions):
    """Options of ``gkt edge evaluate``.

    Attributes:
        model: model.onnx of gkt edge run.
        data: test.npz of gkt data split; of a device's file, its validation images.
    """

    model: Path
    data: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions(EngineOptions):
    """Options of ``gkt edge classify``.

    Attributes:
        model: model.onnx of gkt edge run.
        bundle: Bundle that names the classes of a model of an earlier version; others name them themselves.
        fit: What happens to photos that are not square, as in gkt data pack.
        top: How many classes to print of each photo.
    """

    model: Path
    bundle: Path | None = option(None, flag="--for", shown_default="bundle beside the model")
    fit: str = option("crop", choices=FITS)
    top: int = option(3, low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions(EngineOptions):
    """What every command that trains on a device's data takes.

    Attributes:
        data: This device's file of gkt data pack or gkt data split.
        client_id: Name of this device.
    """

    data: Path
    client_id: str | None = option(None, shown_default="the data file's name")

    @property
    def stem(self) -> str:
        """The data file's name as it may begin the name of a device."""
        return as_client_id(self.data.stem)[:64]

    @property
    def name(self) -> str:
        """The device's name, from its data file's unless it was given.

        Raises:
            InputError: The name that was given cannot be one.
        """
        return check_client_id(self.client_id or self.stem)


@dataclass(frozen=True, slots=True, kw_only=True)
class AloneOptions(DeviceOptions):
    """Options of ``gkt edge train-alone``.

    Attributes:
        artifacts: Bundle of gkt export.
        test: test.npz of gkt data split.
        rounds: Exactly so many rounds of local epochs.
        patience: Rounds in which validation accuracy has not risen before training ends.
        config_file: TOML run file for the rest.
    """

    artifacts: Path
    test: Path
    rounds: int | None = option(None, low=1, shown_default="until validation accuracy stops rising")
    patience: int = option(20, low=1)
    config_file: Path | None = option(None, flag="--config")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions(CheckedOptions):
    """The way to a server.

    Attributes:
        ca_file: Certificates (PEM) to trust, for a server whose certificate no public authority signed.
        proxy: URL of the proxy to go through; better in HTTPS_PROXY if it holds a password.
        no_proxy: Go through no proxy, whatever the environment says.
        stall_seconds: Try again when nothing has moved for so long; what moves is never cut off.
    """

    ca_file: Path | None = option(None, group=SERVER)
    proxy: str | None = option(
        None, shown_default="HTTPS_PROXY or HTTP_PROXY, unless NO_PROXY names the server", group=SERVER
    )
    no_proxy: bool = option(False, group=SERVER)
    stall_seconds: float = option(60.0, above=0, unit="seconds", group=SERVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackCommandOptions(CheckedOptions):
    """Options of ``gkt data pack``.

    Attributes:
        place: What names the classes, their order and the image size: a bundle, a join link or a file
            that holds it.
        token: Token that all devices of an earlier version share, where --for is the URL of a server.
        out: The private file, NAME.npz.
        pack: How photos are packed.
        connection: The way to the server.
        patience_seconds: Give up on a server that has not answered for so long.
    """

    place: str = option(flag="--for")
    token: str | None = option(None, envvar="GKT_TOKEN")
    out: Path = option(click_type=OUTPUT_FILE)
    pack: PackOptions = field(default_factory=PackOptions)
    connection: ConnectionOptions = field(default_factory=ConnectionOptions)
    patience_seconds: float = option(_SHORT_PATIENCE_SECONDS, low=0, unit="seconds", group=SERVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(DeviceOptions):
    """Options of ``gkt edge run``.

    Attributes:
        data: This device's file of gkt data pack or gkt data split; or a folder of photos, an .npz of arrays
            or MODULE:FUNCTION, which are packed into --state-dir, photos again when they change.
        client_id: Name of this device.
        pack: How photos are packed.
        join: The link into the run that gkt serve prints and gkt enroll makes, or a file that holds it; not
            needed once this device has enrolled.
        url: Where the server is by now, if it has moved; with --token, where it is.
        token: Token that all devices of a run of an earlier version share; goes with the next release.
        state_dir: Folder of what survives a restart: bundle, weights, model. Needed but for --dry-run.
        is_dry_run: Show what would leave this device; send nothing of it.
        noise: What happens to features before they leave.
        tap: What the owner was told of the features that leave.
        connection: The way to the server.
        patience_seconds: Give up on a server that has not answered for so long.
        engine: What trains.
        checkpoint_seconds: How often the middle of a round is saved to --state-dir; 0 after every step.
        nice: Priority: 0 as others, 19 when nobody else works.
        memory_limit_mb: Memory that this process may ask for, in 10^6 bytes; tried before the device joins.
        pause_below_battery: Wait between steps while the battery has less, until it has 5 points more.
        pause_above_celsius: Wait between steps while the hottest zone is above that, until it is 5 below.
        sysfs: Where the kernel shows battery and temperature; another path in some containers.
        progress: On stderr: a bar, plain lines, or JSON lines.
    """

    client_id: str | None = option(None, shown_default="drawn once, and kept in --state-dir")
    join: str | None = option(None, envvar="GKT_JOIN", metavar="LINK|FILE", group=SERVER)
    url: str | None = option(None, flag="--server", group=SERVER)
    token: str | None = option(None, envvar="GKT_TOKEN", group=SERVER)
    state_dir: Path | None = option(None, click_type=OUTPUT_FOLDER)
    is_dry_run: bool = option(False, flag="--dry-run")
    noise: FeatureNoise = field(default_factory=FeatureNoise)
    tap: TapRequirement = field(default_factory=TapRequirement)
    pack: PackOptions = field(default_factory=PackOptions)
    connection: ConnectionOptions = field(default_factory=ConnectionOptions)
    patience_seconds: float | None = option(
        None,
        shown_default=f"never, or {_SHORT_PATIENCE_SECONDS:.0f} seconds in a dry run",
        group=SERVER,
    )
    engine: str | None = option(
        None,
        choices=tuple(name.replace("_", "-") for name in ENGINE_FILES),
        shown_default="the fastest that the bundle holds and that is installed",
    )
    checkpoint_seconds: float = option(30.0, unit="seconds", group=MACHINE)
    nice: int = option(0, low=0, high=19, group=MACHINE)
    memory_limit_mb: int | None = option(None, low=1, shown_default="no limit", group=MACHINE)
    pause_below_battery: float | None = option(
        None, above=0, high=95, shown_default="never", unit="percent", group=MACHINE
    )
    pause_above_celsius: float | None = option(None, above=0, below=150, shown_default="never", group=MACHINE)
    sysfs: Path = option(Path("/sys"), group=MACHINE)
    progress: str | None = option(
        None,
        choices=("bar", "plain", "json"),
        shown_default="a bar on a terminal, JSON lines with --json, else plain lines",
    )

    @property
    def patience(self) -> float:
        """Seconds that a call is retried; endless unless it was given, but in a dry run."""
        if self.patience_seconds is None:
            return _SHORT_PATIENCE_SECONDS if self.is_dry_run else math.inf
        return self.patience_seconds
