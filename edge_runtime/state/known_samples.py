"""What a device's samples were at its last start, so that what changed since is taken for what it is.

A server knows a sample by its id: it answers with a soft label an id, and compares what comes under an id
with what came before. So an id stands for one image with one label for the whole run. What the data say
otherwise under an old id is another sample, which goes under an id that is drawn for it.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.state.data_change import DataChange
from edge_runtime.state.state_dir import DeviceState, StateDir
from gkt_core.data.private_data import PrivateData, Samples, array_names, read_arrays
from gkt_core.errors import ArtifactError, DatasetError
from gkt_core.files import write_atomically

SAMPLES_NAME = "samples.npz"
_TRAIN, _VALIDATION, _GONE = 0, 1, 2
_DIGEST_BYTES = 16
_COLUMNS = ("file_ids", "sent_ids", "labels", "parts", "first_rounds")
_DIGESTS = "digests"
# The last round before the note was kept; files that do not say it were kept from the first on.
_UNKNOWN = "unknown_rounds"


@dataclass(frozen=True, slots=True)
class KnownData:
    """A device's data as it takes part with them.

    Attributes:
        data: Under the ids that the server knows, or will know, them by.
        first_rounds: ``[N] int64``: the first round whose soft labels can hold each training sample.
        change: Since the last start.
        num_ever: Samples that the data have held at any start, each id once: no upload holds more of them.
        unknown_rounds: In rounds up to this one an earlier version trained, on samples that nobody noted.
    """

    data: PrivateData
    first_rounds: NDArray[np.int64]
    change: DataChange
    num_ever: int
    unknown_rounds: int = 0

    def samples_sha256(self) -> str:
        """Hash the ids that the server sees: another hash for other samples, and it gives nothing away."""
        hashed = hashlib.sha256()
        for part in (self.data.train, self.data.validation):
            hashed.update(len(part).to_bytes(8, "little") + part.sample_ids.astype("<i8").tobytes())
        return hashed.hexdigest()

    def most_uploaded(self, round_num: int) -> int | None:
        """Say how many samples the upload of a round held at most; None where that is not known."""
        return self.num_ever if round_num > self.unknown_rounds else None


@dataclass(frozen=True, slots=True)
class _Known:
    """What was under an id of the data, in which part, and what the server calls it."""

    digest: bytes
    label: int
    sent_id: int
    part: int
    first_round: int


def take_up(folder: StateDir, data: PrivateData, state: DeviceState) -> tuple[KnownData, DeviceState]:
    """Compare the data with those of the last start, and remember them for the next one.

    Where they changed, a round that was under way is begun anew: its order of batches was another one.

    Args:
        folder: The state folder.
        data: As the device's file has them.
        state: Where this device stands. The first soft label of a new sample is of the round after the last
            one that it trained in.

    Returns:
        The data to take part with, and the state to go on from.

    Raises:
        ArtifactError: What was kept cannot be read.
        DiskFullError: It cannot be kept.
    """
    path = folder.path / SAMPLES_NAME
    before, unknown_rounds = _read(path, state)
    after, counts = _compared(before, data, state.trained_round + 1 if before else 1)
    change = DataChange(**counts) if before else DataChange()
    if change:
        # Before what tells a change is overwritten: who is killed in between begins anew all the same.
        state = folder.forget_place(state)
    if change or not before:
        _write(path, after, unknown_rounds)
    first_rounds = {known.sent_id: known.first_round for known in after.values()}
    sent = PrivateData(
        _under_sent_ids(data.train, after), _under_sent_ids(data.validation, after), data.class_names
    )
    ids = sent.train.sample_ids.tolist()
    rounds = np.asarray([first_rounds[each] for each in ids], np.int64)
    return KnownData(sent, rounds, change, len(after), unknown_rounds), state


def _compared(
    before: dict[int, _Known], data: PrivateData, first_round: int
) -> tuple[dict[int, _Known], Counter[str]]:
    """What is known after this start, and how much of it changed in which way."""
    # What is gone is remembered as gone: its id may come back with another image.
    after = {
        file_id: _Known(known.digest, known.label, known.sent_id, _GONE, 0)
        for file_id, known in before.items()
    }
    sent = {known.sent_id for known in before.values()}
    counts: Counter[str] = Counter()
    for part, samples in ((_TRAIN, data.train), (_VALIDATION, data.validation)):
        ids, labels = samples.sample_ids.tolist(), samples.labels.tolist()
        for file_id, label, image in zip(ids, labels, samples.images, strict=True):
            now = _Known(_digest(image), label, file_id, part, first_round)
            old = before.get(file_id)
            what = _what(old, now)
            if old is not None and (old.digest, old.label) == (now.digest, now.label):
                since = old.first_round if what == "kept" else first_round
                now = _Known(now.digest, label, old.sent_id, part, since)
            elif old is not None or file_id in sent:
                now = _Known(now.digest, label, _drawn(sent), part, first_round)
            after[file_id] = now
            counts[what] += 1
    there = sum(known.part != _GONE for known in before.values())
    counts["removed"] = there - sum(counts[what] for what in counts if what != "added")
    return after, counts


def _what(old: _Known | None, now: _Known) -> str:
    if old is None or old.part == _GONE:
        return "added"
    if old.digest != now.digest:
        return "exchanged"
    if old.label != now.label:
        return "relabelled"
    if old.part != now.part:
        return "moved_to_train" if now.part == _TRAIN else "moved_to_validation"
    return "kept"


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=_DIGEST_BYTES).digest()


def _drawn(sent: set[int]) -> int:
    """Draw an id: it says nothing of the image, and no other sample has it."""
    while (number := secrets.randbits(63)) in sent:
        pass
    sent.add(number)
    return number


def _under_sent_ids(samples: Samples, known: dict[int, _Known]) -> Samples:
    sent_ids = np.asarray([known[each].sent_id for each in samples.sample_ids.tolist()], np.int64)
    if np.array_equal(sent_ids, samples.sample_ids):
        return samples
    order = np.argsort(sent_ids)
    return Samples(np.ascontiguousarray(samples.images[order]), samples.labels[order], sent_ids[order])


def _read(path: Path, state: DeviceState) -> tuple[dict[int, _Known], int]:
    """Give what is known, and the last round of which it is not."""
    if not path.exists():
        return {}, state.trained_round
    try:
        unknown = read_arrays(path, [_UNKNOWN])[_UNKNOWN] if _UNKNOWN in array_names(path) else 0
        arrays = read_arrays(path, (*_COLUMNS, _DIGESTS))
        rows = zip(
            *(arrays[name].astype(np.int64).tolist() for name in _COLUMNS),
            map(bytes, arrays[_DIGESTS].reshape(-1, _DIGEST_BYTES)),
            strict=True,
        )
        known = {
            file_id: _Known(digest, label, sent_id, part, first_round)
            for file_id, sent_id, label, part, first_round, digest in rows
        }
        return known, int(unknown)
    except (DatasetError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}: what the data were at the last start is not known; remove "
            f"{path.parent} to begin anew"
        ) from error


def _write(path: Path, known: dict[int, _Known], unknown_rounds: int) -> None:
    rows = [(number, each.sent_id, each.label, each.part, each.first_round) for number, each in known.items()]
    table = np.asarray(rows, np.int64).reshape(-1, len(_COLUMNS))
    arrays: dict[str, Any] = dict(zip(_COLUMNS, table.T, strict=True))
    digests = np.frombuffer(b"".join(each.digest for each in known.values()), np.uint8)
    arrays[_DIGESTS] = digests.reshape(-1, _DIGEST_BYTES)
    arrays[_UNKNOWN] = np.int64(unknown_rounds)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_atomically(path, stream.getvalue(), mode=0o600)
