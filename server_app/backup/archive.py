"""The archive of a backup: a folder, or the same files in one ``.tar.zst``, each with its checksum.

::

    backup.json     what it is of: the first file
    run.sqlite      the run's rows, whatever database they were in
    artifacts/, blobs/, checkpoints/, operator_secret ...    as in a run's folder
    checksums.json  the SHA-256 of every other file: the last one, without which the archive is cut short

Both are written from the beginning to the end, and read so: no file is held in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from gkt_core.errors import BackupError, InputError
from gkt_core.files import check_writable, new_folder, writing_atomically

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HEADER_NAME, SUMS_NAME = "backup.json", "checksums.json"
SUFFIX = ".tar.zst"
FORMAT = 1
_PIECE_BYTES = 1 << 20
# Of the two files that are held in memory: a run of a million files has 150 MB of checksums.
_MOST_JSON_BYTES = 1 << 28
_AGAIN = "take another backup, or restore another one"
# Of a device, a file or a round, there is none that is longer.
_LONGEST_NAME = 1000


class _Hashed(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.sha256 = stream, hashlib.sha256()

    def read(self, size: int | None = -1) -> bytes:
        data = self._stream.read(-1 if size is None else size)
        self.sha256.update(data)
        return data


class BackupWriter:
    """Writes the files of one archive, one after the other.

    Args:
        write: Writes one: its name, its bytes, how many there are.
    """

    def __init__(self, write: Callable[[str, BinaryIO, int], None]) -> None:
        self._write, self._sums = write, dict[str, str]()
        self.num_bytes = 0

    def add(self, name: str, stream: BinaryIO, num_bytes: int) -> None:
        """Write a file.

        Raises:
            OSError: The stream has fewer bytes than it was said to have.
        """
        hashed = _Hashed(stream)
        self._write(name, cast(BinaryIO, hashed), num_bytes)
        self._sums[name] = hashed.sha256.hexdigest()
        self.num_bytes += num_bytes

    def add_json(self, name: str, values: Any) -> None:
        """Write values as a file."""
        data = (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()
        self.add(name, io.BytesIO(data), len(data))

    def finish(self) -> None:
        """Write the checksums."""
        self.add_json(SUMS_NAME, dict(self._sums))


@contextlib.contextmanager
def writing_backup(path: Path) -> Iterator[BackupWriter]:
    """Write an archive that has its name when it is whole; only its owner reads it.

    Args:
        path: ``NAME.tar.zst``, or a folder.

    Raises:
        InputError: It is there already, or cannot be written.
    """
    if not path.name.endswith(SUFFIX):
        with new_folder(path) as folder:
            folder.chmod(0o700)
            writer = BackupWriter(lambda name, stream, num_bytes: _put(folder, name, stream, num_bytes))
            yield writer
            writer.finish()
        return
    check_writable(path, "--out", is_folder=False)
    if path.exists():
        raise InputError(f"{path} is there already: choose another --out, or remove it")
    with (
        writing_atomically(path, mode=0o600) as stream,
        zstd.ZstdFile(stream, "w", options={zstd.CompressionParameter.checksum_flag: 1}) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):

        def add(name: str, source: BinaryIO, num_bytes: int) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mode = num_bytes, 0o600
            tar.addfile(member, source)

        writer = BackupWriter(add)
        yield writer
        writer.finish()


def _put(folder: Path, name: str, stream: BinaryIO, num_bytes: int) -> None:
    path = folder.joinpath(*name.split("/"))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(path, "xb", opener=_private) as target:
        left = num_bytes
        while left and (data := stream.read(min(left, _PIECE_BYTES))):
            target.write(data)
            left -= len(data)
    if left:
        raise OSError(f"{name} has {num_bytes - left} bytes, expected {num_bytes}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_header(path: Path) -> dict[str, Any]:
    """Read what a backup is of, without looking at the rest.

    Raises:
        BackupError: It is no backup, or one of a later version.
    """
    with _members(path) as members:
        for name, stream, _ in members:
            if name != HEADER_NAME:
                break
            return _checked_header(path, stream.read(_MOST_JSON_BYTES))
    raise BackupError(f"{path} is no backup of gkt: expected {HEADER_NAME} in it, as gkt backup writes it")


def _checked_header(path: Path, data: bytes) -> dict[str, Any]:
    header = _json(path, HEADER_NAME, data)
    if header.get("format") != FORMAT:
        raise BackupError(
            f"{path} is a backup of format {str(header.get('format'))[:20]}, this version reads {FORMAT}: "
            f"restore it with gkt-edge {str(header.get('gkt_version'))[:40]} or later"
        )
    return header


def unpack_backup(path: Path, folder: Path) -> dict[str, Any]:
    """Unpack an archive into an empty folder, and compare each file with its checksum.

    Returns:
        What it is of.

    Raises:
        BackupError: It is damaged, cut short, of a later version or no backup; the message names the file.
    """
    header: dict[str, Any] | None = None
    given, sums = dict[str, str](), dict[str, Any]()
    with _members(path) as members:
        for name, stream, num_bytes in members:
            if sums:
                raise BackupError(f"{path} is damaged: {name} stands behind {SUMS_NAME}: {_AGAIN}")
            if header is None and name != HEADER_NAME:
                break
            hashed = _Hashed(stream)
            if name in (HEADER_NAME, SUMS_NAME):
                data = hashed.read(_MOST_JSON_BYTES)
                if name == HEADER_NAME:
                    header = _checked_header(path, data)
                else:
                    sums = _json(path, name, data)
                    continue
            else:
                _put(folder, name, cast(BinaryIO, hashed), num_bytes)
            given[name] = hashed.sha256.hexdigest()
    if header is None:
        raise BackupError(
            f"{path} is no backup of gkt: expected {HEADER_NAME} first, as gkt backup writes it"
        )
    if not sums:
        raise BackupError(f"{path} is cut short: {SUMS_NAME} is missing, which stands at its end: {_AGAIN}")
    for name in sorted(given.keys() | sums.keys()):
        if name not in given:
            raise BackupError(f"{path} is damaged: {name} is missing: {_AGAIN}")
        if given[name] != sums.get(name):
            raise BackupError(f"{path} is damaged: {name} is not what its checksum says: {_AGAIN}")
    return header


def _json(path: Path, name: str, data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BackupError(f"{path} is damaged: {name} cannot be read: {_AGAIN}") from error
    if not isinstance(values, dict) or not values:
        raise BackupError(f"{path} is damaged: {name} says nothing: {_AGAIN}")
    return values


_Members = Iterator[tuple[str, BinaryIO, int]]


@contextlib.contextmanager
def _members(path: Path) -> Iterator[_Members]:
    """Give the files of an archive: name, bytes, how many; checksums last."""
    try:
        if path.is_dir():
            yield _of_folder(path)
            return
        with open(path, "rb") as stream, zstd.ZstdFile(stream) as packed:
            with tarfile.open(fileobj=packed, mode="r|") as tar:
                yield _of_tar(path, tar)
            # What stands behind the last file: the end of the frame, with its own checksum.
            while packed.read(_PIECE_BYTES):
                pass
    except FileNotFoundError as error:
        raise InputError(f"there is no backup {path}: {error.filename} is not there") from error
    except EOFError as error:
        raise BackupError(f"{path} is cut short: {_AGAIN}") from error
    except zstd.ZstdError as error:
        raise BackupError(
            f"{path} is damaged, or no backup of gkt (NAME{SUFFIX}, or a folder): {error}: {_AGAIN}"
        ) from error
    except tarfile.TarError as error:
        raise BackupError(f"{path} is damaged or cut short: {error}: {_AGAIN}") from error


def _of_tar(path: Path, tar: tarfile.TarFile) -> _Members:
    for member in tar:
        stream = tar.extractfile(member) if member.isreg() else None
        if stream is None:
            raise BackupError(f"{path} is no backup of gkt: {member.name[:100]!r} in it is no file")
        yield _checked_name(path, member.name), cast(BinaryIO, stream), member.size


def _of_folder(path: Path) -> _Members:
    files = {
        str(each.relative_to(path).as_posix()): each
        for each in sorted(path.rglob("*"))
        if each.is_symlink() or not each.is_dir()
    }
    ends = (HEADER_NAME, SUMS_NAME)
    names = [*ends[:1], *(name for name in files if name not in ends), *ends[1:]]
    for name in names:
        if name not in files:
            continue
        if files[name].is_symlink() or not files[name].is_file():
            raise BackupError(f"{path} is no backup of gkt: {name[:100]!r} in it is no file")
        with files[name].open("rb") as stream:
            yield _checked_name(path, name), stream, os.fstat(stream.fileno()).st_size


def _checked_name(path: Path, name: str) -> str:
    """Refuse names that lead out of the folder."""
    parts = PurePosixPath(name).parts
    is_inside = "/".join(parts) == name and name[:1] != "/" and ".." not in parts
    if not is_inside or "\\" in name or "\0" in name or ":" in name or len(name) > _LONGEST_NAME:
        raise BackupError(f"{path} is no backup of gkt: it holds a file called {name[:100]!r}")
    return name


def size_of(path: Path) -> int:
    """Add up the bytes of an archive."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size
