"""``gkt serve``: the server for one run."""

from __future__ import annotations

import contextlib
import json
import math
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gkt_core.bundle.manifest import load_bundle
from gkt_core.cli import emit_json
from gkt_core.config.run_config import RunConfig
from gkt_core.config.run_options import build_run_config, run_config_options
from gkt_core.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from server_app.store import RunStore

# Of one machine; each is at least a thread or a GPU.
MAX_TRAINER_PROCS = 64


@click.command()
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path),
    help="Bundle of gkt export; not needed to go on with a run.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run: a new one begins a run, an existing one goes on with it.",
)
@click.option(
    "--database",
    envvar="GKT_DATABASE",
    help="PostgreSQL for a new run's state, postgresql://user:password@host/name; a file by default.",
)
@click.option(
    "--blobs",
    help="Bucket for a new run's shards, s3://bucket/folder, with credentials as AWS's tools take them.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8080, show_default=True, help="Port; 0 for a free one.")
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path),
    help="Certificate chain (PEM), to serve https.",
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="Private key of --tls-cert (PEM).")
@click.option(
    "--infer",
    "deployed",
    type=click.Path(path_type=Path),
    help="Folder of gkt deploy --split, or its server.onnx: answers features at POST /v1/infer. Needs ONNX "
    "Runtime, gkt-edge[server,edge].",
)
@click.option("--token", envvar="GKT_TOKEN", help="The devices' bearer token; drawn at random by default.")
@click.option(
    "--threads", "num_threads", default=0, show_default=True, help="Trainer's threads; 0 for all cores."
)
@click.option(
    "--trainer-procs",
    "num_procs",
    default=1,
    show_default=True,
    help="Processes that train together and divide the threads; 0 if torchrun starts them elsewhere.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="What the trainer trains on.",
)
@click.option(
    "--round-deadline",
    "deadline_seconds",
    type=float,
    help="Seconds after which a round goes on without devices that are late; 0 waits for all.  [default: 0]",
)
@click.option(
    "--min-clients",
    type=int,
    help="Devices that a round needs all the same after its deadline.  [default: 1]",
)
@click.option("--poll-seconds", default=1.0, show_default=True, help="How often waiting devices ask again.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file of the options below."
)
@click.option("--json", "as_json", is_flag=True, help="Print URL, run id and token as JSON once listening.")
@run_config_options()
def serve(  # noqa: PLR0915
    artifacts: Path | None,
    data_dir: Path,
    database: str | None,
    blobs: str | None,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    deployed: Path | None,
    token: str | None,
    num_threads: int,
    num_procs: int,
    device: str,
    deadline_seconds: float | None,
    min_clients: int | None,
    poll_seconds: float,
    config_file: Path | None,
    as_json: bool,
    **hyper_parameters: Any,
) -> None:
    """Serve one run: collect features, train the large network, answer with soft labels.

    Prints the command that each device runs. The interface describes itself at /docs, and as an OpenAPI
    document at /v1/openapi.json; neither needs the token. Ctrl-C stops the server and its trainer; the same
    --data-dir goes on where it stopped, with the same deadline unless another is given. The remaining
    options are the run's hyper-parameters.
    """
    try:
        from server_app import run_folder, serving  # noqa: PLC0415 - imports an extra
        from server_app.web.classifier import FeatureClassifier  # noqa: PLC0415 - imports an extra
        from server_app.web.gunicorn_server import check_tls  # noqa: PLC0415 - imports an extra
    except ImportError as error:
        raise MissingExtraError.for_module(str(error.name), "server") from error
    if num_threads < 0 or not 0.01 <= poll_seconds <= 3600:
        raise ConfigError("--threads must be at least 0 and --poll-seconds between 0.01 and 3600")
    if not 0 <= num_procs <= MAX_TRAINER_PROCS:
        raise ConfigError(f"--trainer-procs is {num_procs}, expected 0 to {MAX_TRAINER_PROCS}")
    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("--tls-cert and --tls-key belong together: give both, or none for plain HTTP")
    tls = (tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    if tls is not None:
        check_tls(*tls)
    config = build_run_config(hyper_parameters, file=config_file)
    classifier = None if deployed is None else FeatureClassifier(deployed)
    listener = serving.bind(host, port)
    try:
        if run_folder.has_run(data_dir):
            run = run_folder.open_run(data_dir)
            # What was not given is what the run has.
            found = run.config.to_dict()
            config = build_run_config(hyper_parameters, file=config_file, defaults=found)
            _check_same(config, run.config, data_dir)
            _check_rules(config, min_clients, deadline_seconds)
        elif artifacts is None:
            raise ConfigError(f"{data_dir} holds no run: give --artifacts to begin one")
        else:
            _check_rules(config, min_clients, deadline_seconds)
            if classifier is not None:
                # Before anything is written.
                classifier.check_fits(load_bundle(artifacts).manifest)
            storage = run_folder.Storage(database or "", blobs or "") if database or blobs else None
            run = run_folder.create_run(data_dir, artifacts, config, token, storage)
        shown_token = run_folder.read_token(data_dir)
        if token is not None and token != shown_token:
            raise ConfigError(
                f"the run in {data_dir} has another token, in {data_dir / 'token'}: leave out --token"
            )

        if classifier is not None:
            classifier.check_fits(run.bundle.manifest)
        _change_rules(run.store, min_clients, deadline_seconds)

        def on_ready(url: str) -> None:
            if as_json:
                emit_json({"url": url, "run_id": run.store.run_id, "token": shown_token})
                return
            click.echo(
                f"serving {run.store.run_id} on {url}: {run.config.rounds} rounds, "
                f"{run.config.num_clients} devices"
            )
            click.echo(f"what can be said to it: {url}/docs, and {url}/v1/openapi.json for programs")
            click.echo("each device runs:")
            # Listening on all addresses: devices need one that is this machine's.
            shown = url.replace("0.0.0.0", socket.gethostname()).replace("[::]", socket.gethostname())
            click.echo(f"  gkt edge run --server {shown} --token {shown_token} --data FILE --state-dir DIR")

        serving.serve_run(
            run,
            listener,
            num_threads=num_threads,
            num_procs=num_procs,
            device=device,
            poll_seconds=poll_seconds,
            announce=_announce,
            on_ready=on_ready,
            tls=tls,
            classifier=classifier,
        )
    finally:
        listener.close()


def _announce(line: str) -> None:
    # A log on a disk that is full must not end what keeps the trainer running.
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _check_rules(config: RunConfig, min_clients: int | None, deadline_seconds: float | None) -> None:
    if min_clients is not None and not 1 <= min_clients <= config.num_clients:
        raise ConfigError(f"--min-clients is {min_clients}, expected 1 to {config.num_clients}, as --clients")
    if deadline_seconds is not None and not 0 <= deadline_seconds < math.inf:
        raise ConfigError(f"--round-deadline is {deadline_seconds}, expected a number of seconds, 0 for none")


def _change_rules(store: RunStore, min_clients: int | None, deadline_seconds: float | None) -> None:
    """Note the deadline that was given; what was not given stays as it is."""
    from server_app.rounds.state import RulesChanged  # noqa: PLC0415 - imports an extra

    state = store.state()
    least = state.min_clients if min_clients is None else min_clients
    seconds = state.deadline_seconds if deadline_seconds is None else deadline_seconds
    if (least, seconds) != (state.min_clients, state.deadline_seconds):
        store.apply(RulesChanged(least, seconds))


def _check_same(wanted: RunConfig, found: RunConfig, data_dir: Path) -> None:
    differing = {
        name: (value, found.to_dict()[name])
        for name, value in wanted.to_dict().items()
        if value != found.to_dict()[name]
    }
    if differing:
        listed = json.dumps({name: f"{new} instead of {old}" for name, (new, old) in differing.items()})
        raise ConfigError(
            f"the run in {data_dir} has other settings: {listed}: "
            "leave the options out to go on with it, or choose another --data-dir"
        )
