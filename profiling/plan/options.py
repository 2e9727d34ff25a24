"""Options of ``gkt plan``: a fleet, and the constants that are given instead of measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gkt_core.config.dataclass_options import check_options, option
from gkt_core.config.run_config import CODECS
from gkt_core.networks import EDGE_LAYOUTS

_LINKS, _SERVER, _GIVEN, _PRICES = "Links and waiting", "The server", "Given constants", "Prices"


def number(text: str) -> int:
    """Read a whole number that may be typed as 1e6.

    Raises:
        ValueError: It is no number, or not a whole one.
    """
    value = float(text)
    if not (abs(value) < 1e15 and value == int(value)):
        raise ValueError(f"{text} is not a whole number")
    return int(value)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A deployment to plan.

    Attributes:
        devices: Devices in all, such as 1e6.
        samples: Training samples of one device.
        validation_samples: Validation samples of one device.
        fraction: Share of the devices that takes part in a round.
        rounds: Rounds.
        uploads: Rounds with an upload.
        local_epochs: E_c.
        server_epochs: E_s.
        codec: How features travel.
        image_size: Pixels.
        edge_network: What devices train; its tap is what they upload.
        num_classes: Number of classes.
        uplink_mbps: Of one device.
        downlink_mbps: Of one device.
        slots: Devices that compute at the same time: all of them, but on one machine only its cores.
        poll_seconds: How often waiting devices ask.
        trainers: GPUs (or machines) that share the server's training perfectly.
    """

    devices: int = option(low=1, click_type=number)
    samples: int = option(low=1, click_type=number)
    validation_samples: int = option(0, low=0)
    fraction: float = option(1.0, above=0, high=1)
    rounds: int = option(200, low=1)
    # None stands for `rounds`, which an instance then has.
    uploads: int = option(None, shown_default="all")
    local_epochs: int = option(1, low=1)
    server_epochs: int = option(20, low=1)
    codec: str = option("uint8", choices=CODECS)
    image_size: int = 32
    edge_network: str = option("resnet8", flag="--model", choices=tuple(EDGE_LAYOUTS))
    num_classes: int = 10
    uplink_mbps: float = option(5.0, above=0, unit="megabits a second", group=_LINKS)
    downlink_mbps: float = option(20.0, above=0, unit="megabits a second", group=_LINKS)
    slots: int | None = option(None, low=1, shown_default="all", group=_LINKS)
    poll_seconds: float = option(1.0, low=0, group=_LINKS)
    trainers: int = option(1, low=1, group=_SERVER)

    def __post_init__(self) -> None:
        """Refuse fleets that cannot be: a ConfigError names the option, its value and what is expected."""
        if self.uploads is None:
            object.__setattr__(self, "uploads", self.rounds)
        check_options(self)

    @property
    def active(self) -> int:
        """Devices of one round."""
        return max(1, round(self.devices * self.fraction))


@dataclass(frozen=True, slots=True)
class GivenConstants:
    """Constants that win over measured ones.

    Attributes:
        train_step_images_per_second: Images a second in training, instead of --edge.
        extract_images_per_second: Images a second in extraction, instead of --edge.
        pack_images_per_second: Images a second in packing, instead of --edge.
        augment_images_per_second: Images a second in augmentation, instead of --edge.
        contention: How much longer a step takes when all --slots are busy.
        handled_samples_per_second: Samples a second handed over on one machine (--slots).
        server_samples_per_second: Samples a second of the server's training.
        server_overhead_seconds: Seconds of the server's part that do not scale.
        compression_ratio: Bytes sent over bytes encoded.
        ingest_mbps: Megabits a second that one ingest server takes.
        gpu_hour_price: Of what the server rate was measured on.
        server_hour_price: Of one ingest server.
        egress_gb_price: Of a gigabyte out.
        storage_gb_month_price: Of a gigabyte for a month.
    """

    train_step_images_per_second: float | None = option(None, flag="--train-rate", group=_GIVEN)
    extract_images_per_second: float | None = option(None, flag="--extract-rate", group=_GIVEN)
    pack_images_per_second: float | None = option(None, flag="--pack-rate", group=_GIVEN)
    augment_images_per_second: float | None = option(None, flag="--augment-rate", group=_GIVEN)
    contention: float | None = option(None, group=_GIVEN)
    handled_samples_per_second: float | None = option(None, flag="--handling-rate", group=_GIVEN)
    server_samples_per_second: float | None = option(None, flag="--server-rate", group=_GIVEN)
    server_overhead_seconds: float | None = option(None, flag="--server-overhead", group=_GIVEN)
    compression_ratio: float | None = option(None, group=_GIVEN)
    ingest_mbps: float | None = option(None, group=_GIVEN)
    gpu_hour_price: float | None = option(None, group=_PRICES)
    server_hour_price: float | None = option(None, group=_PRICES)
    egress_gb_price: float | None = option(None, group=_PRICES)
    storage_gb_month_price: float | None = option(None, group=_PRICES)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What to plan, and with which constants.

    Attributes:
        fleet: The deployment.
        edge: File of gkt profile edge --out FILE.json: the device.
        run: Folder of a gkt demo: the server.
        validate: Folder of another gkt demo on this machine: predict it with the same constants and compare.
        given: Constants that are not measured.
    """

    fleet: Fleet
    edge: Path | None = None
    run: Path | None = None
    validate: Path | None = None
    given: GivenConstants = field(default_factory=GivenConstants)
