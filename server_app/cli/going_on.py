"""What may change of a run that goes on with ``gkt serve``, and what is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gkt_core.bundle.manifest import load_bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError, InputError, RoundError
from gkt_core.files import lock_exclusively
from server_app.cli.options import ServeOptions

if TYPE_CHECKING:
    from server_app.rounds.state import RunState
    from server_app.run_folder import RunContext

GROWS, CHANGES = ("rounds", "num_clients"), ("server_lr", "edge_lr")
_FLAGS = {"num_clients": "--clients"}


def differences(wanted: RunConfig, existing: RunConfig) -> tuple[tuple[str, float, float], ...]:
    """What changes of a run, as (name, before, after).

    Raises:
        ConfigError: Something differs that belongs to the run for good, or would shrink.
    """
    was = existing.to_dict()
    differing = {name: (was[name], value) for name, value in wanted.to_dict().items() if value != was[name]}
    fixed = {name: pair for name, pair in differing.items() if name not in (*GROWS, *CHANGES)}
    if fixed:
        listed = ", ".join(
            f"{_flag(name)} {now} instead of {before}" for name, (before, now) in fixed.items()
        )
        raise ConfigError(
            f"the run has other settings, and these cannot change: {listed}: leave the options out to go on "
            f"with it, or choose another --data-dir; what can: {', '.join(map(_flag, (*GROWS, *CHANGES)))}"
        )
    for name in GROWS:
        before, now = differing.get(name, (0, 0))
        if now < before:
            raise ConfigError(f"{_flag(name)} is {now}, the run has {before}: it can only grow")
    return tuple((name, before, now) for name, (before, now) in differing.items())


def _flag(name: str) -> str:
    return _FLAGS.get(name, "--" + name.replace("_", "-"))


def check_same_places(run: RunContext, options: ServeOptions) -> None:
    """Refuse another bundle, storage or first weights than those that the run has.

    Raises:
        ConfigError: Names the option.
    """
    from server_app.run_folder import begins_from, read_storage  # noqa: PLC0415 - imports an extra

    if options.artifacts is not None:
        given = load_bundle(options.artifacts).manifest
        if given.files != run.bundle.manifest.files:
            raise ConfigError(
                f"--artifacts {options.artifacts} is not the bundle of the run in {run.folder}: a run keeps "
                "its own, leave the option out or choose another --data-dir"
            )
    storage = read_storage(run.folder)
    for flag, asked, has in (
        ("--database", options.database, storage.database),
        ("--blobs", options.blobs, storage.blobs),
    ):
        if asked is not None and asked != has:
            raise ConfigError(
                f"{flag} is not where the run in {run.folder} keeps things: leave the option out, or begin "
                "another run in another --data-dir"
            )
    if options.server_init is not None and not begins_from(run.folder, options.server_init):
        raise ConfigError(
            f"--server-init {options.server_init}: the run in {run.folder} began from other weights, which "
            "its training has changed since: leave the option out, or choose another --data-dir"
        )


def go_on(
    run: RunContext, wanted: RunConfig, options: ServeOptions, announce: Callable[[str], None]
) -> RunContext:
    """Let the run grow, and take it up again, as the options say; what that does is announced.

    Returns:
        The run with its new settings.

    Raises:
        InputError: A server of this run is up, or a finished run is given devices and no rounds.
    """
    from server_app.overview.watcher import tells_changes  # noqa: PLC0415 - imports an extra
    from server_app.rounds.state import Grown, Phase, Resumed  # noqa: PLC0415
    from server_app.run_folder import SERVER_LOCK_NAME, SERVER_WEIGHTS_BLOB, TEMPLATE_BLOB  # noqa: PLC0415

    changes, is_told_of = differences(wanted, run.config), tells_changes(run.folder)
    refusal = f"another gkt serve runs on {run.folder}: stop it, then give this command again"
    with lock_exclusively(run.folder / SERVER_LOCK_NAME, refusal):
        if changes:
            try:
                state = run.store.grow(Grown(wanted.rounds, wanted.num_clients, changes), wanted.to_dict())
            except RoundError as error:
                # Here it is not a peer that misunderstood something, but what a person asked for.
                raise InputError(str(error)) from error
            if not is_told_of:
                announce(f"from here on: {state.history[-1].text}")
            for blob in (TEMPLATE_BLOB, SERVER_WEIGHTS_BLOB):
                # Of a bucket: the trained model gets other bytes at its next end.
                run.blobs.drop_copy(blob)
        if options.resumes_failed:
            state = run.store.state()
            if state.phase is Phase.FAILED:
                run.store.apply(Resumed())
                if not is_told_of:
                    announce(f"the run goes on; it had failed: {state.error}")
            else:
                announce(f"--resume-failed: the run has not failed, it is {state.phase}")
    if failure := _failure_of(run.store.state()):
        announce(failure)
    return dataclasses.replace(run, config=wanted)


def _failure_of(state: RunState) -> str:
    """How a failed run is taken up again, as a line; empty for one that has not failed."""
    from server_app.rounds.state import Phase  # noqa: PLC0415 - imports an extra

    if state.phase is not Phase.FAILED:
        return ""
    return f"the run has failed: {state.error}. When the cause is gone: gkt serve --resume-failed"


def check_machine(
    options: ServeOptions,
    config: RunConfig,
    artifacts: Path,
    networks: Sequence[str],
    *,
    is_new: bool = False,
) -> None:
    """Refuse before anything starts what this machine's trainer could not do.

    Raises:
        ConfigError: No such GPU, or the network cannot begin from the weights given.
    """
    from server_app.trainer.supervisor import check_trainer  # noqa: PLC0415 - imports an extra

    check_trainer(
        artifacts,
        device=options.device,
        num_procs=options.num_procs,
        precision=config.precision,
        init=options.server_init if is_new else None,
        networks=networks,
    )
