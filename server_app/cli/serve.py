"""``gkt serve``: the server for one run."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import click

from gkt_core.bundle.manifest import Manifest, load_bundle
from gkt_core.cli import LOG_LEVEL, Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.config.precision import with_precision
from gkt_core.config.run_config import CODEC_BITS, RunConfig, build_run_config, run_config_options
from gkt_core.data.augment import CROP_PADDING_WORDS, view_defaults
from gkt_core.errors import ConfigError, needs
from gkt_core.rounds.feature_views import inexact_views
from gkt_core.tracking.trackers import writer_of
from gkt_core.wire.addresses import is_loopback
from gkt_core.wire.join_link import JOIN_NAME
from gkt_core.wire.shards import ShardSpec
from server_app.cli.going_on import check_machine, check_same_places, differences, go_on
from server_app.cli.memory import check_memory, fitting_batches
from server_app.cli.options import (
    MOST_SHARD_SAMPLES,
    NEW_DEADLINE_SECONDS,
    SERVE_DEFAULTS,
    SHARD_BYTES,
    ServeOptions,
)
from server_app.logs.erasing import note_place
from server_app.logs.setup import LogOptions, logging_to
from server_app.own_networks import check_networks, note_networks, noted_networks

if TYPE_CHECKING:
    from gkt_core.wire.join_link import JoinLink
    from server_app.run_folder import RunContext
    from server_app.serving import Access, Terms
    from server_app.store import RunStore
    from server_app.trainer.supervisor import TrainerProcess
    from server_app.web.classifier import FeatureClassifier

log = logging.getLogger("gkt.server")

_SHARED_HERE = (
    "warning: the shared token speaks for every device without a secret of its own, and goes with the next "
    "release: give devices the join link instead"
)
_SHARED_ELSEWHERE = "the run's shared token is taken on this machine alone: devices join with the link"
_INSECURE = (
    "warning: --insecure-http: features, labels and secrets travel readable, and whoever is between can "
    "change "
    "them and what devices run; leave it out for https"
)


@click.command(
    cls=Command,
    example="gkt serve --artifacts artifacts --data-dir run --host 0.0.0.0 --clients 4 --rounds 20",
)
@dataclass_options(ServeOptions)
@json_option("URL, run id, join link, file of the operator's secret as JSON, once listening,")
@run_config_options(
    defaults={
        **SERVE_DEFAULTS,
        "crop_padding": CROP_PADDING_WORDS,
        "horizontal_flip": "as the bundle says",
        "shard_samples": f"as many as {SHARD_BYTES // 1000} kB hold, {MOST_SHARD_SAMPLES} at most",
    }
)
@dataclass_options(LogOptions, "log_options")
def serve(
    options: ServeOptions, hyper_parameters: dict[str, Any], log_options: LogOptions, as_json: bool
) -> None:
    """Serve one run: collect features, train the large network, answer with soft labels.

    Prints the link with which devices join. Beyond this machine it serves https: with --tls-cert, or with a
    certificate of its own that the link makes devices trust. The interface describes itself at /docs, and
    as an OpenAPI document at /v1/openapi.json; neither needs a secret. Ctrl-C stops the server and its
    trainer; the same --data-dir goes on where it stopped, with the same deadline unless another is given.
    A line says when a device joins, a round ends, something is wrong, and what is waited for; gkt status
    shows all of it at a glance.
    The run's hyper-parameters, which --config takes too, are --clients to --seed and all from "Rounds and
    devices" on; they stay as they are, but that a run may grow (--rounds, --clients) and learn at another
    rate from here on (--server-lr, --edge-lr).
    """
    with needs("server"):
        from server_app import run_folder, serving  # noqa: PLC0415 - imports an extra
        from server_app.storage_errors import storage_named  # noqa: PLC0415 - imports an extra
    # What the run writes, shards and features among it, is its owner's alone; the trainer inherits it.
    os.umask(0o077)
    level = click.get_current_context().meta.get(LOG_LEVEL)
    with (
        logging_to(log_options, level),
        storage_named(),
        opened(options, hyper_parameters, _announce) as (run, access, listener, trainer, classifier),
    ):

        def on_ready(url: str, link: JoinLink) -> None:
            if log_options.log_file is not None:
                note_place(run.folder, log_options.log_file)
            secret_file = run.folder / run_folder.OPERATOR_SECRET_NAME
            if as_json:
                told = {"url": url, "run_id": run.store.run_id, "join": link.text(), "page": link.page()}
                emit_json({**told, "operator_secret_file": str(secret_file)})
            else:
                _print_address(run, url, link)

        serving.serve_run(
            run,
            listener,
            trainer,
            terms=terms_of(options),
            on_ready=on_ready,
            access=access,
            classifier=classifier,
            targets=options.tracking.targets,
        )


def terms_of(options: ServeOptions) -> Terms:
    """Give what devices are told and allowed."""
    from server_app.quota import Limits  # noqa: PLC0415 - imports an extra
    from server_app.serving import Terms  # noqa: PLC0415 - imports an extra

    return Terms(options.poll_seconds, Limits(options.max_samples, options.reserve_disk * 1_000_000))


class Opened(NamedTuple):
    """What serving a run takes; the trainer is not started."""

    run: RunContext
    access: Access
    listener: socket.socket
    trainer: TrainerProcess
    classifier: FeatureClassifier | None


@contextlib.contextmanager
def opened(
    options: ServeOptions, hyper_parameters: dict[str, Any], announce: Callable[[str], None]
) -> Iterator[Opened]:
    """Listen, and begin the run of the options or go on with it.

    Args:
        options: Where and how.
        hyper_parameters: Those that were given.
        announce: Told what the trainer does, in lines.

    Raises:
        GKTError: Something of it cannot be used.
    """
    with needs("server"):
        from server_app import run_folder, serving  # noqa: PLC0415 - imports an extra
        from server_app.trainer.supervisor import TrainerProcess  # noqa: PLC0415 - imports an extra
        from server_app.web.certificates import server_context  # noqa: PLC0415 - imports an extra
        from server_app.web.classifier import FeatureClassifier  # noqa: PLC0415 - imports an extra
    if options.tls is not None:
        server_context(*options.tls)
    for target in options.tracking.targets:
        # One that is not installed is no reason to begin a run.
        writer_of(target)
    # What is wrong with them is said before anything is bound or read.
    build_run_config(hyper_parameters, file=options.config_file)
    classifier = None if options.deployed is None else FeatureClassifier(options.deployed)
    with contextlib.closing(serving.bind(options.host, options.port)) as listener:
        run, wanted = run_of(options, hyper_parameters, classifier)
        token = run_folder.read_token(options.data_dir)
        if options.token not in (None, token):
            other = f"another token, in {options.data_dir / 'token'}" if token else "no shared token"
            raise ConfigError(f"the run in {options.data_dir} has {other}: leave out --token")
        access = access_of(options, token, announce)
        if classifier is not None:
            classifier.check_fits(run.bundle.manifest)
        run = go_on(run, wanted, options, announce)
        change_rules(run.store, options)
        trainer = TrainerProcess(
            run,
            options.num_threads,
            announce,
            num_procs=options.num_procs,
            device=options.device,
            compiled=options.compiled,
            silence_seconds=options.silence_seconds,
        )
        yield Opened(run, access, listener, trainer, classifier)


def access_of(options: ServeOptions, token: str, announce: Callable[[str], None]) -> Access:
    """Decide who is let in, and how the server shows itself; with a run's folder that is there.

    Args:
        options: Where and how.
        token: One that all devices of the run share; empty for none.
        announce: Told what is not as it should be.
    """
    with needs("server"):
        from server_app.own_certificate import names_of_this_machine, own_certificate  # noqa: PLC0415
        from server_app.serving import Access  # noqa: PLC0415 - imports an extra
    public_url, is_here = options.public_url or "", is_loopback(options.host)
    if token:
        announce(_SHARED_HERE if is_here else _SHARED_ELSEWHERE)
    token = token if is_here else ""
    with contextlib.suppress(OSError):
        options.data_dir.chmod(0o700)
    if options.tls is not None or is_here:
        return Access(options.tls, public_url=public_url, shared_token=token)
    if options.insecure_http:
        announce(_INSECURE)
        return Access(public_url=public_url, shared_token=token)
    names = names_of_this_machine(options.host, urlsplit(public_url).hostname or "")
    own = own_certificate(options.data_dir, names)
    return Access(own.files, own.authority, public_url, token)


def run_of(
    options: ServeOptions, hyper_parameters: dict[str, Any], classifier: FeatureClassifier | None
) -> tuple[RunContext, RunConfig]:
    """Open the run of the folder, or begin one; with the settings that it is to have."""
    from server_app import run_folder  # noqa: PLC0415 - imports an extra

    if run_folder.has_run(options.data_dir):
        run = run_folder.open_run(options.data_dir)
        # What was not given is what the run has.
        defaults = run.config.to_dict()
        config = build_run_config(hyper_parameters, file=options.config_file, defaults=defaults)
        config = with_precision(config, options.device, _announce)
        differences(config, run.config)
        check_same_places(run, options)
        _check_rules(config, options)
        networks = options.networks or noted_networks(options.data_dir)
        check_networks(networks, run.bundle.manifest)
        check_machine(options, config, run.folder / "artifacts", networks)
        note_networks(options.data_dir, options.networks)
        return run, config
    if options.artifacts is None:
        raise ConfigError(f"{options.data_dir} holds no run: give --artifacts to begin one")
    config = new_config(options, options.artifacts, hyper_parameters)
    _check_rules(config, options)
    # Before anything is written.
    check_networks(options.networks, load_bundle(options.artifacts).manifest)
    if classifier is not None:
        classifier.check_fits(load_bundle(options.artifacts).manifest)
    check_machine(options, config, options.artifacts, options.networks, is_new=True)
    elsewhere = options.database or options.blobs
    storage = run_folder.Storage(options.database or "", options.blobs or "") if elsewhere else None
    run = run_folder.create_run(
        options.data_dir, options.artifacts, config, options.token, storage, options.server_init
    )
    if options.deadline_seconds is None:
        change_rules(run.store, dataclasses.replace(options, deadline_seconds=NEW_DEADLINE_SECONDS))
    note_networks(options.data_dir, options.networks)
    return run, config


def new_config(options: ServeOptions, artifacts: Path, hyper_parameters: dict[str, Any]) -> RunConfig:
    """Merge what was given with what suits a network.

    That are small codes, shards that proxies let through and batches that memory holds. Views are
    mirrored if the bundle does not say otherwise, and moved by an eighth of its images, or a sixteenth where
    none is mirrored.

    Raises:
        ConfigError: A value is wrong, or the trainer's machine cannot hold what was asked for.
    """
    manifest = load_bundle(artifacts).manifest
    defaults = {**SERVE_DEFAULTS, "horizontal_flip": manifest.may_mirror, "codec": _codec(manifest)}
    config = build_run_config(hyper_parameters, file=options.config_file, defaults=defaults)
    crops = config.crops_features
    spec = ShardSpec(config.codec, manifest.feature_shape, manifest.num_classes, 1, crops)
    defaults |= {
        "crop_padding": view_defaults(manifest.image_size, config.horizontal_flip)["crop_padding"],
        "shard_samples": min(MOST_SHARD_SAMPLES, spec.samples_within(SHARD_BYTES)),
    }
    config = build_run_config(hyper_parameters, file=options.config_file, defaults=defaults)
    sizes = fitting_batches(manifest.memory, config.shard_samples, on_cpu=options.device == "cpu")
    config = build_run_config(hyper_parameters, file=options.config_file, defaults={**defaults, **sizes})
    for line in (*check_memory(manifest, config, options), inexact_views(config, manifest.edge_network)):
        if line:
            _announce(line)
    return with_precision(config, options.device, _announce)


def _codec(manifest: Manifest) -> str:
    """Choose how features travel: as usual, or in as many bits as the bundle promises devices at most."""
    usual, most = SERVE_DEFAULTS["codec"], manifest.max_bits
    fitting = [codec for codec, bits in CODEC_BITS.items() if most is not None and bits <= most]
    if most is None or CODEC_BITS[usual] <= most or not fitting:
        return usual
    return max(fitting, key=CODEC_BITS.__getitem__)


def _print_address(run: RunContext, url: str, link: JoinLink) -> None:
    click.echo(
        f"serving {run.store.run_id} on {url}: {run.config.rounds} rounds, {run.config.num_clients} devices"
    )
    click.echo(f"what can be said to it: {url}/docs, and {url}/v1/openapi.json for programs")
    state = run.store.state()
    if state.deadline_seconds:
        seconds = state.deadline_seconds
        wait = f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds:g} s"
        least = f"where {state.min_clients} of {state.num_clients} are there"
        click.echo(f"a round waits {wait} for devices that are late, and goes on without them {least}")
    else:
        click.echo("rounds wait for every device that is late: --round-deadline SECONDS goes on without it")
    click.echo(f"the link into this run, for all its devices; it is in {run.folder / JOIN_NAME}, too:")
    click.echo(f"  {link.text()}")
    click.echo("each device runs, with the link in the file join.txt:")
    click.echo("  gkt edge run --join join.txt --data FILE --state-dir DIR")
    click.echo("a phone opens the same link as a page (its browser must trust the certificate):")
    click.echo(f"  {link.page()}")
    if sys.stdout.isatty():
        _draw(link.page())
    click.echo(f"a link for one device alone: gkt enroll --data-dir {run.folder}")


def _draw(address: str) -> None:
    """Draw an address for a phone's camera."""
    import segno  # noqa: PLC0415 - imports an extra

    segno.make(address, error="l").terminal(compact=True)


def _announce(line: str) -> None:
    text = line.removeprefix("warning: ")
    log.log(logging.INFO if text == line else logging.WARNING, "%s", text)


def _check_rules(config: RunConfig, options: ServeOptions) -> None:
    if options.min_clients is not None and options.min_clients > config.num_clients:
        raise ConfigError(
            f"--min-clients is {options.min_clients}, expected 1 to {config.num_clients}, as --clients"
        )


def change_rules(store: RunStore, options: ServeOptions) -> None:
    """Note the deadline that was given; what was not given stays as it is."""
    from server_app.rounds.state import RulesChanged  # noqa: PLC0415 - imports an extra

    state = store.state()
    least = state.min_clients if options.min_clients is None else options.min_clients
    is_new = bool(options.deadline_seconds) and not state.deadline_seconds
    if is_new and options.min_clients is None and state.min_clients == 1:
        # A round of one device of many, as the others were offline, would be trained on that one's data.
        least = -(-state.num_clients // 2)
    seconds = state.deadline_seconds if options.deadline_seconds is None else options.deadline_seconds
    if (least, seconds) != (state.min_clients, state.deadline_seconds):
        store.apply(RulesChanged(least, seconds))
