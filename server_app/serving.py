"""Run one server: a listening socket, the web server on it, the trainer beside it."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gkt_core.errors import AddressInUseError, GKTError, InputError, RunFailedError
from gkt_core.files import lock_exclusively, write_atomically
from gkt_core.tracking.about import About
from gkt_core.tracking.options import Target
from gkt_core.tracking.trackers import Trackers
from gkt_core.wire.join_link import JoinLink
from server_app.members.inviting import serve_link
from server_app.overview.watcher import RunWatcher
from server_app.quota import Limits
from server_app.rounds.state import Phase
from server_app.run_folder import SERVER_INFO_NAME, SERVER_LOCK_NAME, RunContext, operator_secret
from server_app.storage_errors import STORAGE_ERRORS
from server_app.trainer.supervisor import TrainerProcess
from server_app.web.app import create_app
from server_app.web.classifier import FeatureClassifier
from server_app.web.gunicorn_server import WebServer

# Of requests that are being handled when the server stops.
_LAST_REQUESTS_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in, and how the server shows itself.

    Attributes:
        tls: Certificate and key files (PEM); None for plain HTTP.
        authority: Certificate (PEM) of the authority that the server made for itself; empty for none.
        public_url: At which devices find the server; empty where it is the one that it listens on.
        shared_token: One that speaks for all devices without a secret of their own; empty for none.
    """

    tls: tuple[Path, Path] | None = None
    authority: bytes = b""
    public_url: str = ""
    shared_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """What devices are told and allowed.

    Attributes:
        poll_seconds: How often waiting devices ask again.
        limits: What they may store.
    """

    poll_seconds: float
    limits: Limits = field(default_factory=Limits)


def bind(host: str, port: int) -> socket.socket:
    """Take the address before anything is written.

    Args:
        host: Address to listen on.
        port: Port, or 0 for a free one.

    Raises:
        AddressInUseError: Another process has it.
        InputError: The address is not one of this machine, or not allowed.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise AddressInUseError(
                f"port {port} of {host} is in use: choose another --port, or 0 for a free one"
            ) from error
        raise InputError(f"cannot listen on {host} port {port}: {error}") from error
    return listener


def serve_run(
    run: RunContext,
    listener: socket.socket,
    trainer: TrainerProcess,
    *,
    terms: Terms,
    on_ready: Callable[[str, JoinLink], None],
    access: Access,
    classifier: FeatureClassifier | None = None,
    targets: Sequence[Target] = (),
) -> None:
    """Serve until interrupted.

    Args:
        run: The run.
        listener: The bound socket.
        trainer: The run's, not yet started.
        terms: What devices are told and allowed.
        on_ready: Called with the URL and the link for devices once the server listens.
        access: Who is let in, and how the server shows itself.
        classifier: What answers features; None for a server that does not.
        targets: Where rounds go beside the log.

    Raises:
        ConfigError: Certificate and key cannot be used.
        KeyboardInterrupt: Always, in the end.
    """
    serving = served(
        run, listener, trainer, terms=terms, access=access, classifier=classifier, targets=targets
    )
    with serving as (url, link, web):
        on_ready(url, link)
        while web.is_alive():
            web.join(timeout=1.0)
        raise RunFailedError("the web server ended by itself")


@contextlib.contextmanager
def served(
    run: RunContext,
    listener: socket.socket,
    trainer: TrainerProcess,
    *,
    terms: Terms,
    access: Access,
    classifier: FeatureClassifier | None = None,
    targets: Sequence[Target] = (),
) -> Iterator[tuple[str, JoinLink, threading.Thread]]:
    """Serve while the block runs; arguments are those of :func:`serve_run`.

    Yields:
        The URL, the link for devices, and the thread in which requests are answered.

    Raises:
        ConfigError: Certificate and key cannot be used.
        InputError: Another server runs on the run's folder.
    """
    url = _url_of(listener, access)
    app = create_app(
        run,
        access.shared_token,
        operator_secret=operator_secret(run.folder),
        authority=access.authority,
        poll_seconds=terms.poll_seconds,
        classifier=classifier,
        trainer_trouble=lambda: trainer.trouble,
        make_model=trainer.make_model,
        limits=terms.limits,
        shows_locally=not access.public_url,
    )
    server = WebServer(app, listener, tls=access.tls)
    sight = app.extensions["gkt"].sight
    sight.url = url
    trackers = Trackers(targets, run.folder, About(run.store.run_id, run.config.to_dict()))
    watcher = RunWatcher(run, sight.ledger, sight.look, trackers=trackers)
    info = {
        "url": url,
        "pid": os.getpid(),
        "run_id": run.store.run_id,
        "reserve_bytes": terms.limits.reserve_bytes,
    }
    info_path = run.folder / SERVER_INFO_NAME
    with lock_exclusively(
        run.folder / SERVER_LOCK_NAME,
        f"another gkt serve runs on {run.folder}: stop it, or choose another --data-dir",
    ):
        run.blobs.drop_incoming()
        # In a thread of its own: a signal interrupts what waits, never the handling of a request, where the
        # interrupt could be swallowed.
        web = threading.Thread(target=server.run, name="web", daemon=True)
        lines = app.extensions["gkt"].feed.lines
        try:
            logging.getLogger().addHandler(lines)
            watcher.start()
            trainer.start()
            web.start()
            link = serve_link(run, access.public_url or _reachable(url), access.authority)
            write_atomically(info_path, (json.dumps(info) + "\n").encode())
            yield access.public_url or url, link, web
        finally:
            logging.getLogger().removeHandler(lines)
            info_path.unlink(missing_ok=True)
            trainer.stop()
            watcher.stop()
            _end_tracking(run, trackers)
            # Requests that are being handled may end; devices repeat the others.
            server.stop()
            app.extensions["gkt"].turns.close()
            web.join(timeout=_LAST_REQUESTS_SECONDS)


def _end_tracking(run: RunContext, trackers: Trackers) -> None:
    """Send what is left; a run that is over is so in every tool, one that stops goes on there, too."""
    phase = None
    with contextlib.suppress(*STORAGE_ERRORS, GKTError):
        phase = run.store.state().phase
    trackers.close(ended=phase in (Phase.FINISHED, Phase.FAILED), failed=phase is Phase.FAILED)


def _url_of(listener: socket.socket, access: Access) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if access.tls is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _reachable(url: str) -> str:
    """Listening on all addresses: devices need one that is this machine's."""
    return url.replace("//0.0.0.0", f"//{socket.gethostname()}").replace(
        "//[::]", f"//{socket.gethostname()}"
    )
