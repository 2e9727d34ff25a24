"""Files of a bundle beside their entries in its manifest: size and SHA-256, written and checked."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from gkt_core.errors import ArtifactError
from gkt_core.wire.message_json import Range


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the bundle."""

    sha256: str
    num_bytes: Annotated[int, Range(0, 2**31 - 1)]


def sha256_of(path: Path) -> str:
    """Hash a file; SHA-256 in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Give hash and size of each file, as the manifest stores them."""
    return {
        name: dataclasses.asdict(FileEntry(sha256_of(folder / name), (folder / name).stat().st_size))
        for name in sorted(names)
    }


def check_file(path: Path, expected: FileEntry) -> None:
    """Compare one file with its entry.

    Raises:
        ArtifactError: It is missing, has another size or another hash.
    """
    try:
        num_bytes = path.stat().st_size
        sha256 = sha256_of(path) if num_bytes == expected.num_bytes else None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: export or download the bundle again") from error
    if num_bytes != expected.num_bytes:
        raise ArtifactError(
            f"{path} has {num_bytes} bytes, the manifest says {expected.num_bytes}: "
            "it is cut short or changed; export or download the bundle again"
        )
    if sha256 != expected.sha256:
        raise ArtifactError(f"{path} is not the file of the manifest (SHA-256): export or download it again")
