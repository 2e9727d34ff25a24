"""RunConfig: every hyper-parameter of a run, validated where it enters, frozen afterwards."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from gkt_core.errors import ConfigError

DIRECTIONS = ("none", "s2e", "both")
CODECS = ("fp32", "fp16", "uint8", "uint4")
SOFT_LABEL_SOURCES = ("last_epoch", "evaluation")
MODES = ("sync", "async")
SERVER_OPTIMIZERS = ("adam", "sgd")
EDGE_OPTIMIZERS = ("adam", "adamw", "sgd")
LR_SCHEDULES = ("constant", "cosine")
BATCH_MIXING = ("mixed", "by_client")
TEACHER_VIEWS = ("reused", "fresh")
PRECISIONS = ("fp32", "bf16")
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
        server_optimizer: ``adam`` (the paper's choice for IID data) or ``sgd`` (with ``momentum``; for
            non-IID data).
        server_amsgrad: Whether the server's ``adam`` is AMSGrad.
        momentum: Of ``sgd``.
        nesterov: Whether the momentum of ``sgd`` is Nesterov's.
        lr_schedule: ``constant``, or ``cosine``: from the learning rates to nearly 0 over all rounds.
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
        codec: How features travel: ``fp32``, ``fp16``, ``uint8`` or ``uint4``.
        compress: Whether shards are compressed with Zstandard on the wire.
        shard_samples: Samples in one shard.
        precision: Of the large network's training: ``fp32``, or ``bf16`` for mixed precision, faster on GPUs
            and on CPUs with AMX. Devices' networks, and every evaluation, are in float32.
        seed: Seed of every random choice of the run.
        quarantine: Whether the server checks uploads, and leaves out a device whose uploads are far outside.
    """

    num_clients: int = 4
    rounds: int = 5
    mode: str = "sync"
    max_staleness: int = 1
    client_fraction: float = 1.0
    local_epochs: int = 1
    server_epochs: int = 20
    batch_size: int = 64
    server_batch_size: int = 64
    edge_lr: float = 1e-3
    edge_optimizer: str = "adam"
    edge_weight_decay: float = 0.0
    edge_amsgrad: bool = False
    server_lr: float = 1e-3
    weight_decay: float = 1e-4
    server_optimizer: str = "adam"
    server_amsgrad: bool = True
    momentum: float = 0.9
    nesterov: bool = True
    lr_schedule: str = "constant"
    plateau_patience: int = 0
    plateau_factor: float = 0.5
    batch_mixing: str = "mixed"
    temperature: float = 3.0
    alpha: float = 1.0
    direction: str = "s2e"
    soft_labels: str = "last_epoch"
    teacher_view: str = "reused"
    shared_init: bool = True
    crop_padding: int = 4
    horizontal_flip: bool = True
    codec: str = "fp32"
    compress: bool = True
    shard_samples: int = 64
    precision: str = "fp32"
    seed: int = 0
    quarantine: bool = True

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
        for field in ("num_clients", "rounds", "local_epochs", "server_epochs", "shard_samples"):
            self._check(field, getattr(self, field) >= 1, "at least 1")
        # Batch statistics of a single sample are no statistics.
        for field in ("batch_size", "server_batch_size"):
            self._check(field, getattr(self, field) >= 2, "at least 2")
        for field in ("edge_lr", "server_lr", "temperature"):
            value = getattr(self, field)
            self._check(field, math.isfinite(value) and value > 0, "a positive number")
        for field in ("alpha", "weight_decay", "edge_weight_decay"):
            value = getattr(self, field)
            self._check(field, math.isfinite(value) and value >= 0, "a number of at least 0")
        for field in ("momentum", "plateau_factor"):
            self._check(field, 0 < getattr(self, field) < 1, "a number between 0 and 1")
        for field in ("plateau_patience", "max_staleness"):
            self._check(field, getattr(self, field) >= 0, "at least 0")
        self._check("client_fraction", 0 < self.client_fraction <= 1, "above 0 and at most 1")
        self._check("crop_padding", 0 <= self.crop_padding <= 64, "between 0 and 64")
        self._check("seed", 0 <= self.seed < 2**63, "between 0 and 2**63 - 1")
        for field, allowed in (
            ("direction", DIRECTIONS),
            ("codec", CODECS),
            ("soft_labels", SOFT_LABEL_SOURCES),
            ("mode", MODES),
            ("server_optimizer", SERVER_OPTIMIZERS),
            ("edge_optimizer", EDGE_OPTIMIZERS),
            ("lr_schedule", LR_SCHEDULES),
            ("batch_mixing", BATCH_MIXING),
            ("teacher_view", TEACHER_VIEWS),
            ("precision", PRECISIONS),
        ):
            self._check(field, getattr(self, field) in allowed, f"one of {', '.join(allowed)}")

    def _check(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"{field} is {getattr(self, field)!r}, expected {expected}")

    @property
    def edge_distils(self) -> bool:
        """Whether devices use the server's soft labels (Eq. 7)."""
        return self.direction in ("s2e", "both")

    @property
    def server_distils(self) -> bool:
        """Whether the server uses the devices' logits (Eq. 6)."""
        return self.direction == "both"

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-compatible values."""
        return dataclasses.asdict(self)

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
        """Read a run file: one table of ``key = value`` lines, the keys those of this class.

        Raises:
            ConfigError: The file cannot be read or parsed, or a key or value is wrong.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the run file {path}: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


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
