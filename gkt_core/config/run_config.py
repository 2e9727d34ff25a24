"""RunConfig: every hyper-parameter of a run, validated where it enters, frozen afterwards."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from gkt_core.config.dataclass_options import check_options, dataclass_options, option
from gkt_core.config.upload_schedule import EVERY, NEVER, UploadSchedule, shared_after
from gkt_core.errors import ConfigError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

DIRECTIONS = ("none", "s2e", "both")
# Of a number of the features, as it leaves a device.
CODEC_BITS = {"fp32": 32, "fp16": 16, "uint8": 8, "uint4": 4, "uint3": 3, "uint2": 2, "uint1": 1}
CODECS = tuple(CODEC_BITS)
# Of less than a byte a number.
PACKED_CODECS = ("uint4", "uint3", "uint2", "uint1")
SOFT_LABEL_SOURCES = ("last_epoch", "evaluation")
MODES = ("sync", "async")
SERVER_OPTIMIZERS = ("adam", "sgd")
EDGE_OPTIMIZERS = ("adam", "adamw", "sgd")
LR_SCHEDULES = ("constant", "cosine", "cosine_by_step", "one_cycle")
BATCH_MIXING = ("mixed", "by_client")
TEACHER_VIEWS = ("reused", "fresh")
AUTO = "auto"
PRECISIONS = ("fp32", "bf16")
# Of a machine, and no hyper-parameter: with float32 it changes no number unless it is asked for.
COMPILE = ("auto", "on", "off")
FEATURE_AUGMENTATIONS = ("none", "crop", "flip", "crop+flip")
# Headings of the options in a command's help.
ROUNDS, EDGE, SERVER = "Rounds and devices", "Training on the devices", "Training on the server"
BOTH, DISTILLATION, VIEWS, UPLOADS = "Training on both sides", "Distillation", "Augmented views", "Uploads"
# Fields that devices of the version before refuse, with what stands for their not being there.
LATER: Mapping[str, Any] = {"share_extractor": NEVER, "leakage_penalty": 0.0}
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 256


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Hyper-parameters that devices and server must agree on.

    Defaults are the paper's (section 4.1 and Appendix B.4) where it gives a value; ``alpha`` and the
    factor ``temperature ** 2`` are the reference implementation's additions to Eq. 6 and 7.

    Attributes:
        num_clients: Devices that take part; a round closes when all have reported.
        rounds: Communication rounds, T in Algorithm 1.
        mode: ``sync``: the server trains when all devices have reported; ``async``: on whatever has arrived,
            and each device gets its soft labels as soon as its own features were trained on (section 4.4).
        max_staleness: Rounds that a device may be ahead of the slowest in ``async`` mode.
        client_fraction: Share of the devices that is drawn for each round, C in FedAvg's Algorithm 1.
        local_epochs: Passes of a device over its data in a round, E_c.
        server_epochs: Passes of the server over the uploaded features in a round, E_s.
        batch_size: Samples in a device's training batch.
        server_batch_size: Samples in the server's training batch, mixed across devices.
        edge_lr: Learning rate of the devices.
        edge_optimizer: ``adam``, ``adamw`` or ``sgd`` (with ``momentum``).
        edge_weight_decay: L2 penalty of the devices' optimizer; of ``adamw`` its decoupled decay.
        edge_amsgrad: Whether the devices' ``adam`` is AMSGrad.
        server_lr: Learning rate of the server network.
        weight_decay: L2 penalty of the server network's optimizer.
        decay_norms: Whether that penalty is also on batch norm and biases.
        label_smoothing: Share of the server's cross entropy that is on all classes alike.
        server_ema: Decay of the moving average of the server's weights in a step, which is then what is
            evaluated, gives soft labels and is deployed; 0 for none.
        server_optimizer: ``adam`` (the paper's choice for IID data) or ``sgd`` (with ``momentum``; for
            non-IID data).
        server_amsgrad: Whether the server's ``adam`` is AMSGrad.
        momentum: Of ``sgd``.
        nesterov: Whether the momentum of ``sgd`` is Nesterov's.
        lr_schedule: ``constant``; ``cosine``: from the learning rates to nearly 0 over all rounds, a round at
            a time, or ``cosine_by_step``: with every step; ``one_cycle``: up to the learning rates, then
            down to nearly 0, in straight lines and with every step.
        lr_warmup: Share of the run in which learning rates rise to their full value, with every step; 0 for
            none, and of ``one_cycle`` for 0.3.
        plateau_patience: Rounds without a better validation accuracy before learning rates are reduced;
            0 for never.
        plateau_factor: What it is then multiplied with.
        batch_mixing: ``mixed`` over devices, or ``by_client`` as Algorithm 1 writes it.
        temperature: Temperature of both softmaxes in the KL term.
        alpha: Weight of the KL term; the devices use 0 in the first round, when no teacher spoke yet.
        direction: ``none`` (cross entropy only), ``s2e`` (devices distil from the server, Eq. 7) or
            ``both`` (the server distils from the devices too, Eq. 6).
        soft_labels: ``last_epoch``: Algorithm 1, line 11, after each update of the last server epoch;
            ``evaluation``: one pass after training.
        teacher_view: ``reused``: devices train on the very view that the teacher saw; ``fresh``: on another.
        shared_init: Whether all devices begin from the same weights, as with one bundle, or each from others.
        crop_padding: Pixels of zero padding of the random crop.
        horizontal_flip: Whether views are flipped at random (not for digits).
        feature_augmentation: Views that the server draws of features, another one in every epoch: random
            ``crop`` of at most ``crop_padding`` pixels, ``flip``, both or ``none``. Flips are those of images
            with an edge network whose filters come with their mirrors (``resnet8-tied``); of a narrow tap
            neither is.
        codec: How features travel, or what FedAvg's devices send: ``fp32``, ``fp16``, ``uint8``, or ``uint4``
            to ``uint1``, in so many bits a number.
        uploads: When devices upload: in ``every`` round; in ``rounds=1,4,16`` alone; or after a ``drift=X``,
            the relative change of their features since their last upload, on 64 fixed samples. In other
            rounds they train and report, and the server trains on what it has of them. A device's first
            upload is in its first round; the model gets the extractor of its last.
        leakage_penalty: Weight of the distance correlation of images and features in a device's loss: with
            it, features say less of images, and of classes; 0 for none. Bundles are exported with one.
        share_extractor: Rounds after which the server averages the devices' extractors, weighted by samples,
            for all to begin the next round from: ``never``, ``every`` or ``rounds=1,4,16``. Extractors then
            leave their devices.
        compress: Whether shards are compressed on the wire: with Zstandard, and features of 4 bits and fewer
            by a coder that expects each number from its neighbours.
        shard_samples: Samples in one shard.
        precision: Of the large network's training: ``fp32``, or ``bf16`` for mixed precision, faster on GPUs
            and on CPUs with AMX; ``auto`` is the one that suits the machine on which the run begins. Devices'
            networks, soft labels and every evaluation are in float32.
        seed: Seed of every random choice of the run.
        quarantine: Whether the server checks uploads, and leaves out a device whose uploads are far outside.
    """

    num_clients: int = option(4, low=1, flag="--clients")
    rounds: int = option(5, low=1)
    mode: str = option("sync", choices=MODES, group=ROUNDS)
    max_staleness: int = option(1, low=0, group=ROUNDS)
    client_fraction: float = option(1.0, above=0, high=1, group=ROUNDS)
    local_epochs: int = option(1, low=1)
    server_epochs: int = option(20, low=1)
    # Batch statistics of a single sample are no statistics.
    batch_size: int = option(64, low=2, group=EDGE)
    server_batch_size: int = option(64, low=2, group=SERVER)
    edge_lr: float = option(1e-3, above=0, group=EDGE)
    edge_optimizer: str = option("adam", choices=EDGE_OPTIMIZERS, group=EDGE)
    edge_weight_decay: float = option(0.0, low=0, group=EDGE)
    edge_amsgrad: bool = option(False, group=EDGE)
    server_lr: float = option(1e-3, above=0, group=SERVER)
    weight_decay: float = option(1e-4, low=0, group=SERVER)
    decay_norms: bool = option(True, group=SERVER)
    label_smoothing: float = option(0.0, low=0, below=1, group=SERVER)
    server_ema: float = option(0.0, low=0, below=1, group=SERVER)
    server_optimizer: str = option("adam", choices=SERVER_OPTIMIZERS, group=SERVER)
    server_amsgrad: bool = option(True, group=SERVER)
    momentum: float = option(0.9, above=0, below=1, group=BOTH)
    nesterov: bool = option(True, group=BOTH)
    lr_schedule: str = option("constant", choices=LR_SCHEDULES, group=BOTH)
    lr_warmup: float = option(0.0, low=0, below=1, group=BOTH)
    plateau_patience: int = option(0, low=0, group=BOTH)
    plateau_factor: float = option(0.5, above=0, below=1, group=BOTH)
    batch_mixing: str = option("mixed", choices=BATCH_MIXING, group=SERVER)
    temperature: float = option(3.0, above=0, group=DISTILLATION)
    alpha: float = option(1.0, low=0, group=DISTILLATION)
    direction: str = option("s2e", choices=DIRECTIONS, group=DISTILLATION)
    soft_labels: str = option("last_epoch", choices=SOFT_LABEL_SOURCES, group=DISTILLATION)
    teacher_view: str = option("reused", choices=TEACHER_VIEWS, group=DISTILLATION)
    shared_init: bool = option(True, group=EDGE)
    crop_padding: int = option(4, low=0, high=64, group=VIEWS)
    horizontal_flip: bool = option(True, group=VIEWS)
    feature_augmentation: str = option("none", choices=FEATURE_AUGMENTATIONS, group=VIEWS)
    codec: str = option("fp32", choices=CODECS)
    uploads: str = option(EVERY, group=UPLOADS, metavar="every|rounds=N,...|drift=X")
    leakage_penalty: float = option(0.0, low=0, high=1000, group=EDGE)
    share_extractor: str = option(NEVER, group=UPLOADS, metavar="never|every|rounds=N,...")
    compress: bool = option(True, group=UPLOADS)
    shard_samples: int = option(64, low=1, group=UPLOADS)
    precision: str = option("fp32", choices=(*PRECISIONS, AUTO), group=SERVER)
    seed: int = option(0, low=0, high=2**63 - 1)
    quarantine: bool = option(True, group=ROUNDS)

    def __post_init__(self) -> None:
        """Refuse values that no run can have.

        Raises:
            ConfigError: Names the field, what was found and what is expected.
        """
        for field, expected_type in get_type_hints(RunConfig).items():
            value = getattr(self, field)
            # Beyond 64 bits a whole number may have no float at all.
            if expected_type is float and type(value) is int and abs(value) < 2**63:
                object.__setattr__(self, field, float(value))
            elif type(value) is not expected_type:
                raise ConfigError(f"{field} is {value!r}, expected {_WORDS[expected_type]}")
        # A run file has the fields' names, not the options'.
        check_options(self, named=lambda field: field.name)
        UploadSchedule.parse(self.uploads)
        shared_after(self.share_extractor, 1)

    @property
    def edge_distils(self) -> bool:
        """Whether devices use the server's soft labels (Eq. 7)."""
        return self.direction in ("s2e", "both")

    @property
    def server_distils(self) -> bool:
        """Whether the server uses the devices' logits (Eq. 6)."""
        return self.direction == "both"

    @property
    def upload_schedule(self) -> UploadSchedule:
        """When devices upload."""
        return UploadSchedule.parse(self.uploads)

    @property
    def uploads_every_round(self) -> bool:
        """Whether devices upload in every round that they take part in."""
        return self.upload_schedule.is_every

    @property
    def crops_features(self) -> bool:
        """Whether the server crops features; devices then tell it what lies outside of an image."""
        return "crop" in self.feature_augmentation

    @property
    def flips_features(self) -> bool:
        """Whether the server mirrors features."""
        return "flip" in self.feature_augmentation

    def shares_after(self, round_num: int) -> bool:
        """Whether the devices' extractors are averaged after a round."""
        return shared_after(self.share_extractor, round_num)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-compatible values."""
        return dataclasses.asdict(self)

    def told(self) -> dict[str, Any]:
        """What devices are told: those of earlier versions know no fields of :data:`LATER` ones."""
        return {
            name: value for name, value in self.to_dict().items() if name not in LATER or value != LATER[name]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Build a config, refusing unknown keys.

        Raises:
            ConfigError: A key is unknown or a value is wrong.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def from_toml(cls, path: Path) -> RunConfig:
        """Read a run file; see :func:`read_run_file`."""
        return cls.from_dict(read_run_file(path))


def read_run_file(path: Path) -> dict[str, Any]:
    """Read a run file: one table of ``key = value`` lines, the keys those of :class:`RunConfig`.

    Returns:
        Only the keys that the file has.

    Raises:
        ConfigError: The file cannot be read or parsed, or a key or value is wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        # Tables are options of commands (gkt_core.config.outside).
        fields = {field.name for field in dataclasses.fields(RunConfig)}
        values = {
            name: value for name, value in values.items() if name in fields or not isinstance(value, dict)
        }
        RunConfig.from_dict(values)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the run file {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return values


_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def check_image_size(image_size: int) -> None:
    """Refuse image sizes that the networks' two strides of 2 cannot halve.

    Raises:
        ConfigError: The size is not a multiple of 4 within the limits.
    """
    if image_size % 4 or not MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE:
        raise ConfigError(
            f"image size is {image_size}, expected a multiple of 4 from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}"
        )


def run_config_options(
    *, defaults: Mapping[str, Any] | None = None, leave_out: tuple[str, ...] = ()
) -> Callable[[FunctionT], FunctionT]:
    """Add an option for every hyper-parameter; those that were given arrive as the dict ``hyper_parameters``.

    Arguments are those of :func:`dataclass_options`; ``defaults`` are for the help text only.
    """
    return dataclass_options(
        RunConfig, "hyper_parameters", defaults=defaults, leave_out=leave_out, given_only=True
    )


def build_run_config(
    given: Mapping[str, Any], *, file: Path | None = None, defaults: Mapping[str, Any] | None = None
) -> RunConfig:
    """Merge defaults, a run file and options, the later ones winning.

    Raises:
        ConfigError: A value is wrong.
    """
    from_file = {} if file is None else read_run_file(file)
    chosen = {name: value for name, value in given.items() if value is not None}
    return RunConfig.from_dict({**RunConfig().to_dict(), **(defaults or {}), **from_file, **chosen})
