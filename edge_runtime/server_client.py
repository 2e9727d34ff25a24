"""The device's side of the wire: one method a call, retried until the server answers."""

from __future__ import annotations

import functools
import io
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import httpx

from edge_runtime.connection.answers import LEAST_BYTES, message_of, text_of
from edge_runtime.connection.deadlines import HeadDeadline
from edge_runtime.connection.downloads import Download
from edge_runtime.connection.failures import failure_words, trusting, unanswered
from edge_runtime.connection.kept_part import kept_part
from edge_runtime.connection.proxies import ChosenProxy, choose_proxy
from edge_runtime.connection.trouble import TroubleError, judge
from gkt_core import errors
from gkt_core.bundle.bundle_files import FileEntry
from gkt_core.bundle.manifest import check_manifest_sha256
from gkt_core.errors import MessageError, UnsafeModelError
from gkt_core.printable import printable
from gkt_core.wire import paths
from gkt_core.wire.credentials import PROCESS_HEADER, ROTATE_HEADER, Enrolled, NewCredential, new_process
from gkt_core.wire.levels.frame import LevelFeatures
from gkt_core.wire.levels.transport import wire_body
from gkt_core.wire.message_json import PROTOCOL_HEADER, SPOKEN, minor_of
from gkt_core.wire.paths import fill
from gkt_core.wire.protocol import (
    LEVELS,
    MOST_PAGE_ROUNDS,
    JoinRequest,
    MissingShards,
    RoundMetrics,
    RoundPage,
    RoundReport,
    RunInfo,
    RunList,
    RunStatus,
    ShardReceipt,
    Task,
    check_protocol_version,
    check_run_id,
    to_json,
)
from gkt_core.wire.shards import SPLITS, ShardKey

MessageT = TypeVar("MessageT")
AnswerT = TypeVar("AnswerT")

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, _LONGEST_TRY_SECONDS = 0.25, 30.0, 120.0
STALL_SECONDS = 60.0
_KEEP_SECONDS = 55.0  # Of a question that waits for its answer; many proxies wait for a minute.
MOST_FILE_BYTES = 1 << 30  # Of a file of which nothing else is known.
# What lies in the kernel's buffer looks like sent, and the wait for the answer has begun: at 25 kB/s it must
# be gone within STALL_SECONDS. Linux doubles the number.
_SEND_BUFFER_BYTES = 256 * 1024


class ServerClient:
    """Talks to one server about its run.

    Attributes:
        proxy_name: The proxy that it goes through, for a log; empty for none.
        upload_bytes: Bodies of requests so far.
        download_bytes: Bodies of answers so far.
        levels: What levels of features are, where a server that knows how may get them coded.
        part_folder: Where what has come of a download is kept for the next process; None to keep nothing.
        on_rotate: Called, if there is one, when the server's operator wants this device to draw another
            secret.

    Args:
        url: Such as ``http://10.0.0.5:8080``.
        token: What is shown to the server as bearer token; None for nothing.
        patience_seconds: How long a call is retried before ``ServerUnavailableError``; may be infinite.
        stall_seconds: How long nothing may move in the middle of a call before it is tried again; one that
            moves may take as long as it likes.
        ca_file: Certificates (PEM) to trust in place of the public authorities', for https.
        trust: What to trust for https, whatever ``ca_file`` says.
        proxy: URL of the proxy to go through; by default the one that the environment names, if any.
        no_proxy: Whether to go through none, whatever the environment says.
        expected_manifest_sha256: What :func:`gkt_core.bundle.manifest.manifest_sha256` gives of the manifest
            that was agreed upon; a server with another one is refused. None where nothing was agreed upon.
        transport: For tests: an application instead of a socket.
        on_retry: Called with a line for the log before each wait.
        sleep: For tests.

    Raises:
        ConfigError: The URL, the token or the certificates cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        patience_seconds: float = 300.0,
        stall_seconds: float = STALL_SECONDS,
        ca_file: Path | None = None,
        trust: ssl.SSLContext | None = None,
        proxy: str | None = None,
        no_proxy: bool = False,
        expected_manifest_sha256: str | None = None,
        transport: httpx.BaseTransport | None = None,
        on_retry: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        # What no header can hold would look like a server that does not answer.
        if token is not None and (not token or not token.isprintable() or " " in token):
            raise errors.ConfigError("the token is empty or holds blanks: give the one of gkt serve")
        try:
            base = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise errors.ConfigError(f"server URL {url!r} or token cannot be used: {error}") from error
        if base.userinfo:
            # It would go in the token's place, and into logs.
            raise errors.ConfigError(
                "the server URL holds a user name: expected one such as http://10.0.0.5:8080"
            )
        if base.scheme not in ("http", "https") or not base.host or (base.port or 0) > 65535:
            raise errors.ConfigError(f"server URL is {url!r}, expected one such as http://10.0.0.5:8080")
        if ca_file is not None and base.scheme != "https":
            raise errors.ConfigError(f"server URL is {url!r} and --ca-file is given: expected https://")
        chosen = choose_proxy(base, proxy, is_off=no_proxy) if transport is None else ChosenProxy(None)
        self.proxy_name = chosen.name
        try:
            self._http = httpx.Client(
                base_url=base,
                headers={"Accept-Encoding": "identity", PROTOCOL_HEADER: SPOKEN}
                | {PROCESS_HEADER: new_process()}
                | ({} if token is None else {"Authorization": f"Bearer {token}"}),
                timeout=httpx.Timeout(stall_seconds, connect=10.0),
                transport=transport
                or httpx.HTTPTransport(
                    verify=trusting(ca_file) if trust is None else trust,
                    trust_env=False,
                    proxy=chosen.proxy,
                    socket_options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)],
                    limits=httpx.Limits(max_connections=1),
                ),
                trust_env=False,
            )
        except (UnicodeError, ValueError) as error:
            raise errors.ConfigError(f"server URL {url!r} or token cannot be used: {error}") from error
        self._url = url
        self._stall_seconds, self._head = stall_seconds, HeadDeadline(stall_seconds)
        self._keep_seconds = int(min(_KEEP_SECONDS, 11 / 12 * stall_seconds))
        self._manifest_sha256, self._patience_seconds = expected_manifest_sha256, patience_seconds
        self._on_retry, self._sleep, self._run_path, self._run_id = on_retry, sleep, "", ""
        self.part_folder: Path | None = None
        self.on_rotate: Callable[[], None] | None = None
        # What the server said: to draw another secret, that it reads coded levels, its version of messages.
        self._shall_rotate, self._takes_levels, self._minor = False, False, 0
        self.levels: LevelFeatures | None = None
        self.upload_bytes = self.download_bytes = 0

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def run_info(self) -> RunInfo:
        """Find the server's run and what it expects.

        Raises:
            ProtocolVersionError: The server speaks another version.
            UnsafeModelError: Its manifest is another one than was agreed upon.
        """
        self.find_run()
        info = self._message(RunInfo, "GET", self._run_path)
        if info.run_id != self._run_id:
            raise MessageError(f"the server names its run {self._run_id}, then {printable(info.run_id[:70])}")
        if self._manifest_sha256 is not None:
            check_manifest_sha256(info.manifest, self._manifest_sha256)
        return info

    def find_run(self) -> None:
        """Find the server's run.

        Raises:
            ProtocolVersionError: The server speaks another version.
            MessageError: It has none, several, or one whose id can be none.
        """
        runs = self._message(RunList, "GET", paths.RUNS)
        check_protocol_version(runs.protocol_version)
        if len(runs.run_ids) != 1:
            raise MessageError(f"the server has {len(runs.run_ids)} runs, expected one")
        self._run_id = check_run_id(runs.run_ids[0])
        self._run_path = fill(paths.RUN, run_id=self._run_id)

    def show(self, token: str) -> None:
        """Show another bearer token from here on."""
        self._http.headers["Authorization"] = f"Bearer {token}"

    def authority(self) -> bytes:
        """Ask for the certificate (PEM) of the server's own authority, which anybody may say."""
        return self._call(
            functools.partial(text_of, stall_seconds=self._stall_seconds), "GET", paths.AUTHORITY
        )

    def enrol(self, client_id: str, credential: NewCredential) -> None:
        """Be known by another secret from here on."""
        body = to_json(credential, self._minor)
        self._message(Enrolled, "PUT", self._of_run(paths.CREDENTIAL, client_id=client_id), body)
        self._shall_rotate = False  # What was asked for before is done with it.

    def status(self) -> RunStatus:
        """Ask for the run at a glance."""
        return self._message(RunStatus, "GET", self._of_run(paths.STATUS))

    def rounds(self, after: int = 0) -> Iterator[RoundMetrics]:
        """Ask for all finished rounds after one, page by page, oldest first."""
        before = -1
        # A server that goes round in circles is not followed.
        while after > before:
            path = f"{self._of_run(paths.ROUNDS)}?after={after}&limit={MOST_PAGE_ROUNDS}"
            page = self._message(RoundPage, "GET", path)
            yield from page.rounds
            before, after = after, page.next_after

    def join(self, client_id: str, request: JoinRequest) -> Task:
        """Introduce a device."""
        path = self._of_run(paths.CLIENT, client_id=client_id)
        return self._message(Task, "PUT", path, to_json(request, self._minor))

    def task(self, client_id: str, *, waits: bool = False) -> Task:
        """Ask what to do next; with ``waits``, the answer may take as long as there is nothing to do."""
        headers = {"Prefer": f"wait={self._keep_seconds}"} if waits and self._keep_seconds else None
        return self._message(Task, "GET", self._of_run(paths.TASK, client_id=client_id), headers=headers)

    def artifact(self, name: str) -> bytes:
        """Download a file of the bundle, of which nothing is known."""
        return self._downloaded(self._of_run(paths.ARTIFACT, name=name), MOST_FILE_BYTES)

    def save_artifact(self, name: str, entry: FileEntry, stream: BinaryIO) -> None:
        """Write a file of the bundle while it comes; it is the one of its entry, or an error.

        Args:
            name: Of the file.
            entry: What the manifest says of it.
            stream: An empty file; what is in it after an error is nothing.

        Raises:
            UnsafeModelError: The server has another file.
        """
        path = self._of_run(paths.ARTIFACT, name=name)
        num_bytes = self._download(path, stream, entry.num_bytes, entry.sha256)
        if num_bytes != entry.num_bytes:
            raise UnsafeModelError(f"{name} has {num_bytes:,} bytes, the manifest says {entry.num_bytes:,}")

    def missing_shards(self, client_id: str, round_num: int) -> MissingShards:
        """Ask what the server does not hold yet of this device's part of the open round.

        Raises:
            RoundClosedError: The round went on without this device.
        """
        path = self._of_run(paths.SHARDS, round_num=round_num, client_id=client_id)
        return self._message(MissingShards, "GET", path)

    def put_shard(self, key: ShardKey, data: bytes, *, compressed: bool) -> ShardReceipt:
        """Upload one shard; the server keeps it once however often it arrives."""
        levels = self.levels if self._takes_levels and key.split in SPLITS else None
        body = wire_body(data, levels, compressed=compressed)
        path = self._of_run(paths.SHARD, **key.metadata())
        return self._message(ShardReceipt, "PUT", path, body.data, body.headers)

    def report(self, client_id: str, round_num: int, report: RoundReport) -> Task:
        """Close this device's part of a round."""
        path = self._of_run(paths.REPORT, round_num=round_num, client_id=client_id)
        return self._message(Task, "PUT", path, to_json(report, self._minor))

    def soft_labels(self, client_id: str, round_num: int, *, most_bytes: int = MOST_FILE_BYTES) -> bytes:
        """Download the server's answer to a round."""
        where = self._of_run(paths.SOFT_LABELS, round_num=round_num, client_id=client_id)
        return self._downloaded(where, most_bytes)

    def extractor(self, round_num: int, *, most_bytes: int = MOST_FILE_BYTES) -> bytes:
        """Download the mean of all devices' extractors after a round."""
        return self._downloaded(self._of_run(paths.EXTRACTOR, round_num=round_num), most_bytes)

    def model_template(self, *, most_bytes: int = MOST_FILE_BYTES) -> bytes:
        """Download the trained network, without an extractor."""
        return self._downloaded(self._of_run(paths.MODEL, part="template"), most_bytes)

    def _of_run(self, path: str, **parts: str | int) -> str:
        return self._run_path + fill(path, **parts)

    def _downloaded(self, path: str, most_bytes: int) -> bytes:
        stream = io.BytesIO()
        self._download(path, stream, most_bytes)
        return stream.getvalue()

    def _download(self, path: str, stream: BinaryIO, most_bytes: int, sha256: str = "") -> int:
        with kept_part(self.part_folder, path, stream) as place:
            file = Download(
                path,
                self._on_retry,
                place,
                most_bytes=most_bytes,
                sha256=sha256,
                stall_seconds=self._stall_seconds,
            )
            return self._call(file.read, "GET", path, headers=file.headers, had=lambda: file.farthest)

    def _message(
        self,
        message_type: type[MessageT],
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> MessageT:
        read = functools.partial(message_of, message_type, stall_seconds=self._stall_seconds)
        return self._call(read, method, path, body, headers)

    def _call(
        self,
        read: Callable[[httpx.Response], AnswerT],
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        had: Callable[[], int] = lambda: 0,
    ) -> AnswerT:
        waited, wait = 0.0, _FIRST_WAIT_SECONDS
        said: set[str] = set()
        while True:
            began = time.monotonic()
            try:
                answer = self._try(read, method, path, body, headers, had)
            except TroubleError as error:
                trouble = error
            else:
                self._rotate_if_asked()
                return answer
            if trouble.has_moved:
                waited, wait, began = 0.0, _FIRST_WAIT_SECONDS, time.monotonic()
            # Jitter, on top of what is asked for too: not all that lost a server come back in step.
            pause = trouble.asked_seconds + wait * (0.5 + random.random() / 2)
            # A lid that was closed in between is not a server that was silent.
            waited += min(time.monotonic() - began, _LONGEST_TRY_SECONDS)
            if waited + pause > self._patience_seconds:
                raise trouble.refusal or unanswered(
                    self._url, self.proxy_name, self._patience_seconds, str(trouble)
                )
            if not trouble.is_odd:
                self._on_retry(f"{method} {path}: {trouble}; next try in {pause:.1f} s")
            elif str(trouble) not in said:
                said.add(str(trouble))
                self._on_retry(f"{method} {path}: {trouble}; asked again until the server answers")
            self._sleep(pause)
            waited += pause
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def _try(
        self,
        read: Callable[[httpx.Response], AnswerT],
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str] | None,
        had: Callable[[], int],
    ) -> AnswerT:
        before = had()
        self.upload_bytes += len(body or b"")
        self._head.begin()
        try:
            with self._http.stream(
                method, path, content=body, headers=headers, extensions={"trace": self._head}
            ) as response:
                try:
                    self._minor = minor_of(response.headers.get(PROTOCOL_HEADER))
                    self._shall_rotate |= ROTATE_HEADER in response.headers
                    self._takes_levels |= LEVELS in response.headers.get("Accept-Encoding", "")
                    return judge(response, read, self._stall_seconds)
                finally:
                    self.download_bytes += response.num_bytes_downloaded
        except httpx.TransportError as error:
            # A download that goes on from there next time; what it had before is no step.
            has_moved = "Range" in (headers or {}) and had() - before >= LEAST_BYTES
            words = failure_words(error)
            if self._head.has_passed:
                words = f"the head of an answer took longer than {self._head.seconds:.0f} s"
            raise TroubleError(words, has_moved=has_moved) from error
        finally:
            self._head.end()

    def _rotate_if_asked(self) -> None:
        if self._shall_rotate and self.on_rotate is not None:
            # Not again in the middle of it.
            rotate, self.on_rotate = self.on_rotate, None
            try:
                rotate()
            finally:
                self.on_rotate, self._shall_rotate = rotate, False
