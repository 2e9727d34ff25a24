"""Memory that training takes on a device and in the trainer, as export estimates it; sizes that follow.

An estimate is a line: so much whatever the batch, and so much for each image of it. What grows with an image
is counted in the graph itself (:mod:`edge_export.memory`); ``gkt profile memory`` holds it to measured peaks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError
from gkt_core.networks import EDGE_LAYOUTS

# Batches are chosen to fit into these, unless export is told otherwise; in megabytes.
DEVICE_LIMIT_MB, TRAINER_LIMIT_MB = 1200, 4000
# A single image has no batch statistics.
LEAST_BATCH = 2
TRAINER = "trainer"
# Beyond so many pixels and below such batches, features as large as the image are too large.
LARGE_PIXELS, FEW_IMAGES, _MOST_SAID = 96, 8, 64
_MEGABYTE = 1_000_000
# Of the images that eval mode takes at once, all together: 64 of 32 pixels, 16 of 64, 1 of 224.
_PIXELS_AT_ONCE = 64 * 32 * 32


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What one process needs.

    Attributes:
        fixed_bytes: Whatever the batch: the process, its libraries, what one image makes in passing.
        image_bytes: For each image of a training batch.
        extracted_bytes: For each image whose features are made at once.
        extracted_at_once: So many at most, however many a shard has.
        sample_bytes: For each sample of a shard, until it is encoded.
    """

    fixed_bytes: int
    image_bytes: int
    extracted_bytes: int = 0
    extracted_at_once: int = 0
    sample_bytes: int = 0

    def of(self, batch_size: int, shard_samples: int = 1) -> int:
        """Bytes for batches and shards of these sizes."""
        extracted = min(shard_samples, self.extracted_at_once) * self.extracted_bytes
        # A last batch of one sample joins the batch before it.
        batch = (batch_size + 1) * self.image_bytes
        return self.fixed_bytes + batch + extracted + shard_samples * self.sample_bytes

    def most_images(self, limit_bytes: int, shard_samples: int = 1) -> int:
        """Find the largest batch that fits, 0 or less for none."""
        return (limit_bytes - self.of(0, shard_samples)) // max(1, self.image_bytes)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a bundle's networks need, and how much each side has for it.

    Attributes:
        needs: By engine of a device, and of :data:`TRAINER`.
        engine: The one that a device takes if it can; batches are chosen for it.
        device_limit_mb: What a device has, in megabytes (10^6 bytes).
        trainer_limit_mb: What the trainer has.
    """

    needs: dict[str, MemoryNeed]
    engine: str
    device_limit_mb: int = DEVICE_LIMIT_MB
    trainer_limit_mb: int = TRAINER_LIMIT_MB

    def __post_init__(self) -> None:
        """Refuse what is no memory.

        Raises:
            ConfigError: A number is out of range, or the engine has no need.
        """
        numbers = [number for need in self.needs.values() for number in dataclasses.astuple(need)]
        numbers += [self.device_limit_mb, self.trainer_limit_mb]
        if self.engine not in self.needs or not all(0 <= number < 2**53 for number in numbers):
            raise ConfigError("the memory that the manifest tells is none that a process can have")

    def limit_mb(self, name: str) -> int:
        """What a device, or the trainer, has."""
        return self.trainer_limit_mb if name == TRAINER else self.device_limit_mb

    def most_images(self, name: str, shard_samples: int = 1) -> int:
        """Find the largest batch that fits; less than :data:`LEAST_BATCH` if none does."""
        return self.needs[name].most_images(self.limit_mb(name) * _MEGABYTE, shard_samples)

    def batch_sizes(self, wanted: Mapping[str, int], shard_samples: int) -> dict[str, int]:
        """Choose ``batch_size`` and ``server_batch_size``: what is wanted, or less if that is what fits."""
        of = {"batch_size": self.engine, "server_batch_size": TRAINER}
        return {
            name: max(LEAST_BATCH, min(wanted[name], self.most_images(process, shard_samples)))
            for name, process in of.items()
            if process in self.needs
        }

    def usual_batches(self, shard_samples: int) -> dict[str, int]:
        """Choose the two of a run that is told none: the usual ones, or less."""
        usual = RunConfig()
        wanted = {"batch_size": usual.batch_size, "server_batch_size": usual.server_batch_size}
        return self.batch_sizes(wanted, shard_samples)

    def check(self, image_size: int) -> None:
        """Refuse networks and images of which not even the smallest batch fits.

        Raises:
            ConfigError: Names what is needed, what there is, and what needs less.
        """
        for name in (self.engine, TRAINER):
            if name in self.needs and self.most_images(name) < LEAST_BATCH:
                option = "--trainer-memory-mb" if name == TRAINER else "--memory-limit-mb"
                raise ConfigError(
                    f"{_words(name)} needs {megabytes(self.needs[name].of(LEAST_BATCH))} MB by estimate "
                    f"for batches of {LEAST_BATCH} images of {image_size} px, {option} is "
                    f"{self.limit_mb(name):,}: allow more, or take smaller images, a network with a strided "
                    "stem (--model resnet8-stride4) or, for a portable step, --low-memory"
                )

    def lines(self, image_size: int, wanted: int) -> list[str]:
        """Say what each process needs with batches that fit, and what it would need with the wanted ones."""
        said = [f"memory by estimate, images of {image_size} px:"]
        for name, need in self.needs.items():
            fitting = max(
                LEAST_BATCH, min(wanted, self.most_images(TRAINER if name == TRAINER else self.engine))
            )
            line = f"  {_words(name)}: {megabytes(need.of(fitting))} MB with batches of {fitting}"
            if name in (self.engine, TRAINER) and fitting < wanted:
                line += (
                    f", as {self.limit_mb(name):,} MB hold; {wanted} would take {megabytes(need.of(wanted))}"
                )
            said.append(line)
        return said

    def strided_hint(self, edge_network: str, image_size: int) -> str:
        """Name the network with a strided stem that lets the trainer have larger batches; empty for none.

        Args:
            edge_network: Of the bundle.
            image_size: In pixels.
        """
        layout = EDGE_LAYOUTS.get(edge_network)
        have = self.most_images(TRAINER) if TRAINER in self.needs else FEW_IMAGES
        if layout is None or layout.stride > 1 or image_size <= LARGE_PIXELS or have >= FEW_IMAGES:
            return ""
        limit, need = self.trainer_limit_mb * _MEGABYTE, self.needs[TRAINER]
        for stride, name in sorted(
            (each.stride, name) for name, each in EDGE_LAYOUTS.items() if each.stem_stride > 1
        ):
            # What grows with an image grows with its features.
            fewer = dataclasses.replace(need, image_bytes=need.image_bytes // stride**2)
            images = fewer.most_images(limit)
            if images >= FEW_IMAGES:
                return (
                    f"  batches of {max(LEAST_BATCH, have)} train worse than larger ones: with a strided "
                    f"stem, --model {name}, the trainer has about {min(images, _MOST_SAID)}; or "
                    "allow it more with --trainer-memory-mb"
                )
        return ""


def images_at_once(image_size: int) -> int:
    """Say how many images are passed forward at once where none needs another, so that memory stays flat."""
    return max(1, _PIXELS_AT_ONCE // image_size**2)


def _words(name: str) -> str:
    return "the trainer" if name == TRAINER else f"a device ({name.replace('_', '-')})"


def megabytes(num_bytes: int) -> str:
    """Write bytes as megabytes (10^6), rounded up."""
    return f"{-(-num_bytes // _MEGABYTE):,}"
