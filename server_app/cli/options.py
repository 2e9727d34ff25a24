"""Options of ``gkt serve``, and of those commands with which its run is operated."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.output_path import OUTPUT_FOLDER
from gkt_core.config.run_config import COMPILE
from gkt_core.errors import ConfigError
from gkt_core.tracking.options import TrackOptions
from gkt_core.wire.addresses import is_loopback
from server_app.heartbeat import LEAST_SILENCE_SECONDS

NETWORK, STORAGE = "Address and access", "Storage of a new run"
TRAINING, LATE, GOING_ON = "The trainer's machine", "Late devices", "Beginning and going on"
QUOTA = "What devices may store"
# Of a disk: what the database, checkpoints, soft labels and the model of a run of ResNet-109 want at once,
# several times.
RESERVE_MB, MOST_SAMPLES = 200, 1_000_000
# What nginx lets through as it comes is 1 MB; smaller shards are lost less often, and resumed sooner.
SHARD_BYTES, MOST_SHARD_SAMPLES = 512_000, 64
# Of a new run's hyper-parameters, where they differ from a simulation's: what travels is dear here.
SERVE_DEFAULTS = {"codec": "uint8"}
# Two nights: a device that trains while it is charged is there once in them.
NEW_DEADLINE_SECONDS = 172_800.0
# Of one machine; each is at least a thread or a GPU.
MAX_TRAINER_PROCS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where a run is.

    Attributes:
        data_dir: Folder of the run, as for gkt serve.
    """

    data_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorOptions:
    """Where a run is: in a folder of this machine, or behind the URL of its server.

    Attributes:
        data_dir: Folder of the run, as for gkt serve.
        server: URL of its server instead, from another machine.
        operator_secret: With --server: a copy of operator_secret of the run's folder, readable by you alone.
        ca_file: With --server: whom to trust there (PEM), such as a copy of the run's authority.pem.
    """

    data_dir: Path | None = None
    server: str | None = None
    operator_secret: Path | None = option(None, flag="--operator-secret-file")
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse values outside of their ranges.

        Raises:
            ConfigError: Names the option.
        """
        check_options(self)
        if (self.data_dir is None) == (self.server is None):
            raise ConfigError("give --data-dir, or --server with --operator-secret-file: one of the two")
        if (self.server is None) != (self.operator_secret is None):
            raise ConfigError("--server and --operator-secret-file belong together")
        if self.server is None and self.ca_file is not None:
            raise ConfigError("--ca-file is for --server")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions(OperatorOptions):
    """Options of ``gkt status``.

    Attributes:
        watch: Go on showing it, until Ctrl-C or the end of the run.
        every: How often to look, with --watch.
    """

    watch: bool = False
    every: float = option(2.0, low=0.1, high=3600, unit="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltOptions(OperatorOptions):
    """Options of ``gkt runs pause`` and ``gkt runs stop``.

    Attributes:
        reason: What devices are told, and the run's history.
    """

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOptions(OperatorOptions):
    """Options of ``gkt clients release``.

    Attributes:
        trust: Do not check this device again in this run.
    """

    trust: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions(RunFolder):
    """Options of what makes join links.

    Attributes:
        hours: How long a link holds.
        public_url: URL at which devices find the server, where it is another than gkt serve's.
    """

    hours: float = option(168.0, above=0, high=24 * 366, unit="hours")
    public_url: str | None = option(None, shown_default="as gkt serve prints it")

    def __post_init__(self) -> None:
        """Refuse values outside of their ranges.

        Raises:
            ConfigError: Names the option.
        """
        check_options(self)
        if self.public_url is not None:
            check_public_url(self.public_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReenrolOptions(OperatorOptions):
    """Options of ``gkt clients re-enroll``.

    Attributes:
        hours: How long the link holds.
        public_url: URL at which devices find the server, where it is another than gkt serve's, or --server.
    """

    hours: float = option(168.0, above=0, high=24 * 366, unit="hours")
    public_url: str | None = option(None, shown_default="as gkt serve prints it, or --server")

    def __post_init__(self) -> None:
        """Refuse values outside of their ranges.

        Raises:
            ConfigError: Names the option.
        """
        OperatorOptions.__post_init__(self)
        if self.public_url is not None:
            check_public_url(self.public_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollOptions(LinkOptions):
    """Options of ``gkt enroll``.

    Attributes:
        devices: How many links, each for one device.
    """

    devices: int = option(1, low=1, high=10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions(RunFolder):
    """Options of ``gkt serve`` beside the hyper-parameters.

    Attributes:
        data_dir: Folder of the run: a new one begins a run, an existing one goes on with it.
        artifacts: Bundle of gkt export; not needed to go on with a run.
        config_file: TOML file of the run's hyper-parameters.
        server_init: Weights that a new run's server network begins from: .safetensors with PyTorch's names,
            such as model/server.safetensors among the blobs of another run.
        resumes_failed: Take up a run that has failed where it stopped, once the cause is gone.
        host: Address to listen on; 0.0.0.0 for all.
        port: Port; 0 for a free one.
        public_url: URL at which devices find the server, where it is another than the one that it listens on:
            behind a proxy, or a router.
        token: A token that all devices share; on this machine only, and gone with the next release: devices
            have join links.
        tls_cert: Certificate chain (PEM); without, a server beyond this machine makes its own.
        tls_key: Private key of --tls-cert (PEM).
        insecure_http: Serve plain http to other machines: whoever is between reads and changes what he likes.
        deployed: Folder of gkt deploy --split, or its server.onnx: answers features at POST /v1/infer. Needs
            ONNX Runtime, gkt-edge[server,edge].
        poll_seconds: How often waiting devices ask again whose questions are not kept until their turn.
        deadline_seconds: Seconds after which a round goes on without devices that are late; 0 waits for all.
        min_clients: Devices that a round needs all the same after its deadline.
        reserve_disk: Room on the disk that uploads leave to everything else: with less, devices are told to
            wait, while status, health, gkt clients and the trainer go on; 0 for none.
        max_samples: Samples that a device may announce, both parts together; what it may store in a round
            follows from what it announced.
        database: PostgreSQL for a new run's state, postgresql://user:password@host/name.
        blobs: Bucket for a new run's shards, s3://bucket/folder, with credentials as AWS's tools take them.
        num_threads: Trainer's threads; 0 for all cores.
        num_procs: Processes that train together and divide the threads; 0 if torchrun starts them elsewhere.
        device: What the trainer trains on.
        compiled: Whether its training is compiled: auto where that was measured to be faster, training is in
            bf16 and lasts a quarter of an hour or more; not with several processes. Without a C++ compiler
            training goes on as it is.
        networks: A module that registers a server network of your own, which the trainer imports; kept with
            the run.
        silence_seconds: How long a trainer may give no sign of life before another takes its place; longer
            where its slowest step takes longer.
        tracking: Where rounds go beside the log.
    """

    data_dir: Path = option(click_type=OUTPUT_FOLDER)
    artifacts: Path | None = None
    config_file: Path | None = option(None, flag="--config")
    server_init: Path | None = option(None, shown_default="random weights", group=GOING_ON)
    resumes_failed: bool = option(False, flag="--resume-failed", group=GOING_ON)
    host: str = option("127.0.0.1", group=NETWORK)
    port: int = option(8080, low=0, high=65535, group=NETWORK)
    public_url: str | None = option(None, group=NETWORK)
    token: str | None = option(None, envvar="GKT_TOKEN", group=NETWORK)
    tls_cert: Path | None = option(None, group=NETWORK)
    tls_key: Path | None = option(None, group=NETWORK)
    insecure_http: bool = option(False, group=NETWORK)
    deployed: Path | None = option(None, flag="--infer", group=NETWORK)
    poll_seconds: float = option(1.0, low=0.01, high=3600, unit="seconds", group=NETWORK)
    deadline_seconds: float | None = option(
        None,
        flag="--round-deadline",
        low=0,
        shown_default=f"{NEW_DEADLINE_SECONDS:g} in a new run, two days",
        group=LATE,
    )
    min_clients: int | None = option(None, low=1, shown_default="half of them", group=LATE)
    reserve_disk: int = option(RESERVE_MB, low=0, high=10**9, unit="MB", group=QUOTA)
    max_samples: int = option(MOST_SAMPLES, low=3, high=2**31, group=QUOTA)
    database: str | None = option(None, envvar="GKT_DATABASE", shown_default="a file", group=STORAGE)
    blobs: str | None = option(None, shown_default="files", group=STORAGE)
    num_threads: int = option(0, flag="--threads", low=0, group=TRAINING)
    num_procs: int = option(1, flag="--trainer-procs", low=0, high=MAX_TRAINER_PROCS, group=TRAINING)
    device: str = option("cpu", choices=("cpu", "cuda"), group=TRAINING)
    compiled: str = option("auto", flag="--compile", choices=COMPILE, group=TRAINING)
    networks: tuple[str, ...] = option((), metavar="FILE.py", group=TRAINING)
    silence_seconds: float = option(
        LEAST_SILENCE_SECONDS, flag="--trainer-silence", low=1, unit="seconds", group=TRAINING
    )
    tracking: TrackOptions = field(default_factory=TrackOptions)

    def __post_init__(self) -> None:
        """Refuse values outside of their ranges, and half of a certificate.

        Raises:
            ConfigError: Names the option.
        """
        check_options(self)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key belong together: give both, or none")
        if self.insecure_http and self.tls_cert is not None:
            raise ConfigError("--insecure-http and --tls-cert were given: expected one of them")
        if self.token is not None and not is_loopback(self.host):
            raise ConfigError(
                f"--token (or GKT_TOKEN) speaks for every device, and --host is {self.host}: it is for "
                "this machine "
                "alone and goes with the next release; leave it out, devices join with the link that is "
                "printed"
            )
        if self.public_url is not None:
            check_public_url(self.public_url)

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """Certificate and key, or None for plain HTTP."""
        return None if self.tls_cert is None or self.tls_key is None else (self.tls_cert, self.tls_key)


def check_public_url(url: str) -> None:
    """Refuse what cannot stand in a join link.

    Raises:
        ConfigError: It is no http or https URL of a server.
    """
    check_url("--public-url", url)


def check_url(name: str, url: str) -> None:
    """Refuse what is no http or https URL of a server.

    Args:
        name: Of the option.
        url: What was given.

    Raises:
        ConfigError: Says what is expected.
    """
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or "@" in url or "#" in url or "?" in url or not url.isascii() or " " in url:
        raise ConfigError(f"{name} is {url!r}, expected one such as https://gkt.example.org:8080")
