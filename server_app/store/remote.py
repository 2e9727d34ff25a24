"""Keep blobs in a bucket, or wherever else fsspec reaches, with a local copy of what was read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from gkt_core.errors import ConfigError, GKTError, MissingExtraError, StorageUnavailableError
from server_app.store.folder import BlobStore, is_of

# Together shorter than devices wait for an answer. A bucket that is gone must not hold a thread for minutes
# (Amazon's defaults: 60 seconds, five times, and five times again); devices and trainer come back anyway.
CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0


def _patience(url: str) -> dict[str, Any]:
    if not url.startswith(("s3://", "s3a://")):
        return {}
    timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
    return {"config_kwargs": {**timeouts, "retries": {"total_max_attempts": 2}}}


class RemoteBlobStore(BlobStore):
    """Blobs behind a URL such as ``s3://bucket/folder``; the local folder holds copies of them.

    A name is never given to other content (:func:`server_app.run_folder.shard_blob`), so that a local copy
    never grows old.

    Args:
        url: What fsspec takes; credentials come from the environment (``AWS_ACCESS_KEY_ID`` and so on,
            ``AWS_ENDPOINT_URL`` for a server that is not Amazon's).
        cache: Folder of the local copies.

    Raises:
        ConfigError: fsspec knows no such protocol.
        MissingExtraError: What it needs for it is not installed.
    """

    def __init__(self, url: str, cache: Path) -> None:
        try:
            # Another process writes and deletes as well: a listing may be old as soon as it is there.
            self._fs, root = fsspec.core.url_to_fs(
                url, use_listings_cache=False, skip_instance_cache=True, **_patience(url)
            )
        except ImportError as error:
            raise MissingExtraError.for_module(str(error.name or "s3fs"), "server") from error
        except ValueError as error:
            raise ConfigError(
                f"blob store {url!r} cannot be used: {error}: expected s3://bucket/folder"
            ) from error
        if hasattr(self._fs, "retries"):
            # Of s3fs itself, around botocore's.
            self._fs.retries = 1
        self._url, self._remote_root = url, root.rstrip("/")
        super().__init__(cache)

    def check(self) -> None:
        """Write, read and delete a blob, to learn early whether that is possible.

        Raises:
            ConfigError: One of the three fails.
        """
        try:
            self.put("check", b"gkt")
            self.drop_copy("check")
            if self.local_path("check").read_bytes() != b"gkt":
                raise ConfigError(f"blob store {self._url} gives back other bytes than it was given")
            self.delete("check")
        except (StorageUnavailableError, FileNotFoundError) as error:
            raise ConfigError(
                f"blob store {self._url} cannot be used: {error}: is there such a bucket, and its key?"
            ) from error

    def put(self, name: str, data: bytes) -> None:
        """Store whole or not at all; repeating it replaces."""
        path = self._remote_path(name)
        with self._reachable():
            self._fs.pipe_file(path, data, **self._bounded())
        # Whoever stored it usually reads it next.
        super().put(name, data)

    def put_file(self, name: str, path: Path) -> None:
        """Store whole or not at all; it is durable when this returns."""
        target = self._remote_path(name)
        with self._reachable():
            self._fs.put_file(str(path), target, **self._bounded())
        super().put_file(name, path)

    def make_durable(self, names: Iterable[str]) -> list[str]:
        """Do nothing: a bucket has what it has taken."""
        return []

    def local_path(self, name: str) -> Path:
        """A local copy, fetched if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return super().local_path(name)
        path = self._remote_path(name)
        with self._reachable():
            data = self._fs.cat_file(path, **self._bounded())
        super().put(name, data)
        return super().local_path(name)

    def opened(self, name: str) -> tuple[BinaryIO, int]:
        """A stream from the bucket, whatever copy there is."""
        with self._reachable():
            stream = self._fs.open(self._remote_path(name), "rb")
            return cast(BinaryIO, stream), int(stream.size)

    def names(self) -> list[str]:
        """Names of all blobs, sorted; those of copies that the bucket does not have are none."""
        begin = self._remote_root + "/"
        try:
            with self._reachable():
                return sorted(str(path).removeprefix(begin) for path in self._fs.find(self._remote_root))
        except FileNotFoundError:
            return []

    def drop_copy(self, name: str) -> None:
        """Remove the local copy; it is fetched again where it is needed again."""
        super().delete(name)

    def delete(self, name: str) -> None:
        """Remove one blob."""
        path = self._remote_path(name)
        super().delete(name)
        with self._reachable(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def names_of(self, client_id: str) -> list[str]:
        """Names of all blobs that are of one device, those of local copies among them."""
        begin = self._remote_root + "/"
        with self._reachable(), contextlib.suppress(FileNotFoundError):
            there = [str(path).removeprefix(begin) for path in self._fs.find(self._remote_root)]
            mine = [name for name in there if is_of(client_id, name.split("/"))]
            return sorted({*super().names_of(client_id), *mine})
        return super().names_of(client_id)

    def delete_below(self, prefix: str) -> None:
        """Remove all blobs whose names begin with ``prefix/``."""
        path = self._remote_path(prefix)
        super().delete_below(prefix)
        with self._reachable(), contextlib.suppress(FileNotFoundError):
            self._fs.rm(path + "/", recursive=True)

    def _remote_path(self, name: str) -> str:
        self.check_name(name)
        return f"{self._remote_root}/{name}"

    def _bounded(self) -> dict[str, float]:
        # Of everything together: a bucket that is silent when a client asks whether to go on
        # ("Expect: 100-continue") is waited for without any of the limits above.
        return {"timeout": 2 * (CONNECT_SECONDS + READ_SECONDS)} if self._fs.async_impl else {}

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, GKTError):
            raise
        except Exception as error:
            # Each of fsspec's many backends has errors of its own.
            raise StorageUnavailableError(
                f"the blob store does not answer: {type(error).__name__}: {error}"
            ) from error
