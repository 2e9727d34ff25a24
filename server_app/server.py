"""A server from Python: one run that is served while a block runs, with its trainer beside it."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

from gkt_core.errors import ConfigError, RunFailedError
from server_app.cli.options import ServeOptions
from server_app.cli.serve import opened, terms_of
from server_app.rounds.state import Phase
from server_app.run_folder import RunContext
from server_app.serving import served

log = logging.getLogger("gkt.server")
_POLL_SECONDS = 0.2


class Server:
    """One run, served as ``gkt serve`` does it, while a ``with`` block runs.

    ::

        with Server("run", "artifacts", num_clients=2, rounds=3) as server:
            print(server.join)
            server.wait()

    Attributes:
        url: Where devices reach it, once the block has begun.
        join: The link with which devices join.

    Args:
        data_dir: Folder of the run: a new one begins a run, an existing one goes on with it.
        artifacts: Bundle of ``gkt export``; not needed to go on.
        options: Further fields of :class:`server_app.cli.options.ServeOptions`, the port among them: by
            default a free one.
        **hyper_parameters: Fields of :class:`gkt_core.RunConfig`, ``rounds=20``. Of a new run, views are by
            default those that suit the bundle's images, as with ``gkt serve``.

    Raises:
        ConfigError: An option or a value is wrong.
    """

    def __init__(
        self,
        data_dir: Path | str,
        artifacts: Path | str | None = None,
        *,
        options: dict[str, Any] | None = None,
        **hyper_parameters: Any,
    ) -> None:
        given = {"port": 0, **(options or {})}
        if artifacts is not None:
            given["artifacts"] = Path(artifacts)
        try:
            self._options = ServeOptions(data_dir=Path(data_dir), **given)
        except TypeError as error:
            raise ConfigError(f"no option of a server: {error}") from error
        self._hyper_parameters = hyper_parameters
        self._stack = contextlib.ExitStack()
        self._run: RunContext | None = None
        self.url = self.join = ""

    def __enter__(self) -> Server:
        """Begin or go on with the run, and listen.

        Raises:
            InputError: The run cannot be begun, or another server runs on its folder.
        """
        options = self._options
        with contextlib.ExitStack() as stack:
            run, access, listener, trainer, classifier = stack.enter_context(
                opened(options, self._hyper_parameters, log.info)
            )
            stack.callback(run.store.close)
            self.url, link, _ = stack.enter_context(
                served(
                    run,
                    listener,
                    trainer,
                    terms=terms_of(options),
                    access=access,
                    classifier=classifier,
                    targets=options.tracking.targets,
                )
            )
            self.join = link.text()
            self._run, self._stack = run, stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop server and trainer; the run goes on from its folder another time."""
        self._run = None
        self._stack.close()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the run is finished.

        Args:
            seconds: For so long at most; without, as long as it takes.

        Raises:
            RunFailedError: The run failed, or is not finished by then.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while (phase := self.phase) != Phase.FINISHED:
            if phase == Phase.FAILED:
                raise RunFailedError(f"the run failed: {self._running.store.state().error}")
            if deadline is not None and time.monotonic() > deadline:
                raise RunFailedError(f"the run is {phase} after {seconds:g} s")
            time.sleep(_POLL_SECONDS)

    @property
    def phase(self) -> str:
        """What the run is at: joining, collecting, ready, training, finished or failed."""
        return str(self._running.store.state().phase)

    @property
    def _running(self) -> RunContext:
        if self._run is None:
            raise RunFailedError("the server does not run: use it in a with block")
        return self._run
