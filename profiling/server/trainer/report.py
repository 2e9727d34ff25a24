"""``gkt profile trainer``: the server's trainer beside a bare PyTorch loop, and its memory as a run grows."""

from __future__ import annotations

from collections.abc import Sequence

from profiling.frame import Document, Measurement, Section
from profiling.frame.tables import named, table
from profiling.server.trainer.options import TrainerOptions


def _speed(document: Document) -> Section:
    title = "Samples a second of the trainer beside a bare PyTorch loop over tensors in memory"
    columns = {
        "": "{name:words}",
        "median": "{median:.2f}",
        "lowest": "{lowest:.2f}",
        "highest": "{highest:.2f}",
        "n": "{n}",
    }
    rates = {**document["samples_per_second"], "trainer over bare_loop": document["ratio"]}
    return table(title, columns, named(rates))


def _memory(document: Document) -> Section | None:
    if not document["memory"]:
        return None
    few, many = document["memory"]["small"], document["memory"]["large"]
    share = many["anonymous_bytes"] / few["anonymous_bytes"]
    return table(
        f"Peak memory with {many['num_examples'] // few['num_examples']} times as many samples",
        {
            "run": "{num_clients} devices, {num_examples} samples",
            "features": "{features_bytes:bytes}",
            "anonymous": "{anonymous_bytes:bytes}",
            "mapped files": "{mapped_bytes:bytes}",
        },
        (few, many),
        notes=(f"Mapped files apart, the larger run takes {share:.2f} of the smaller one's memory.",),
    )


class Trainer(Measurement[TrainerOptions]):
    """Measure the server's trainer.

    Its samples a second beside a bare PyTorch loop over the same tensors in memory, interleaved, and its
    memory with eight times as many devices. About five minutes.
    """

    name = "trainer"
    options = TrainerOptions
    measured_by = "profiling.server.trainer.measure:measure_trainer"
    quick = (
        *("--examples", "16", "--clients", "2", "--epochs", "1", "--image-size", "8", "--batch-size", "8"),
        *("--repeats", "2", "--memory-examples", "16"),
    )
    not_measured = (
        "a GPU, and several processes of one trainer",
        "soft labels, which come after the training",
    )
    heading = (
        "The server's trainer, batch {settings[batch_size]}, {settings[image_size]} px, "
        "{settings[threads]} thread(s)"
    )
    tables = (_speed, _memory)

    def readme(self, document: Document) -> Sequence[Section]:
        """Show both."""
        return self.sections(document)
