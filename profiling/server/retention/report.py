"""``gkt profile retention``: what a run of ten thousand rounds keeps, and how long a status takes."""

from __future__ import annotations

from profiling.frame import Document, Measurement, Section
from profiling.server.retention.options import RetentionOptions

# Of a run of 10,000 rounds by 50 devices, without the bundle, checkpoints and the model.
MOST_BYTES, MOST_STATUS_MS = 64_000_000, 50.0


def _looks(document: Document) -> Section:
    return Section(
        title="What is kept, and how long a status takes",
        headings=("after round", "bytes", "of the database", "files", "rows", "status"),
        rows=[
            (
                f"{look['round_num']:,}",
                f"{look['num_bytes'] / 1e6:.1f} MB",
                f"{look['database_bytes'] / 1e6:.1f} MB",
                f"{look['num_files']:,}",
                f"{sum(look['num_rows'].values()):,}",
                f"{look['status_ms']:.1f} ms",
            )
            for look in document["looks"]
        ],
        notes=(f"At most {MOST_BYTES / 1e6:.0f} MB and {MOST_STATUS_MS:.0f} ms are allowed.",),
    )


class Retention(Measurement[RetentionOptions]):
    """Take a run through thousands of rounds, and look at what it keeps.

    The store of a real run, SQLite and a folder, with all that server and trainer do with it in each round;
    nothing is trained, and shards are a few bytes. Fails where the run's folder has more than 64 MB in the
    end, or a status takes longer than 50 ms. About forty minutes with 10,000 rounds.
    """

    name = "retention"
    options = RetentionOptions
    measured_by = "profiling.server.retention.measure:measure_retention"
    quick = ("--rounds", "20", "--devices", "2", "--looks", "2")
    not_measured = (
        "PostgreSQL and buckets: rows are the same there, bytes are not",
        "logs: their size is an option of gkt serve",
    )
    heading = "A run of {settings[rounds]} rounds by {settings[num_devices]} devices"
    tables = (_looks,)

    def failures(self, document: Document) -> list[str]:
        """Name what grew too large or too slow."""
        said = []
        last, slowest = document["looks"][-1], max(each["status_ms"] for each in document["looks"])
        if last["num_bytes"] > MOST_BYTES:
            said.append(f"the run keeps {last['num_bytes']:,} bytes, more than {MOST_BYTES:,}")
        if slowest > MOST_STATUS_MS:
            said.append(f"a status takes {slowest:.0f} ms, more than {MOST_STATUS_MS:.0f}")
        return said
