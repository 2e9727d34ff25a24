"""The folder of a run (``--data-dir``): what is where, and how it is made and opened.

::

    artifacts/      copy of the bundle that the devices download
    run.sqlite      state, in WAL mode, unless storage.json names another database
    blobs/          shards, soft labels, the trained template; copies of them, if storage.json names a bucket
    storage.json    where state and blobs are, if elsewhere; may hold a password, readable by its owner only
    checkpoints/    server network and optimizer after each round, and after each epoch of the current one
    networks.json   modules of a server network of the user's own, if the run has one
    server_init.safetensors    weights that the server network began from, if given
    operator_secret what operators show the server
    join            the link that gkt serve prints, once it has
    token           a token that all devices share, in runs that were begun with one
    authority.pem   who signs the certificate of this server, if it made one for itself, with authority.key
    server.pem      that certificate, with server.key
    server.json     URL and process id while a server is up
    seen.json       when each device was last heard of, and how much it has sent
    told.json       up to where the log has told of everything
    track.json      up to where --track's tools have every round, if there are any
    logs.json       where the server's log is, if it is in a file
    trainer.log     what the trainer process printed
    server.lock     held by the one server process of the run
    trainer.lock    held by the one trainer process that may train
    backup.lock     held while a backup is taken, and while the trainer drops what is spent

Nobody but its owner reads the folder or a file in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load

from gkt_core.bundle.manifest import COMBINED_TEMPLATE, Bundle, load_bundle
from gkt_core.bundle.run_checks import check_run
from gkt_core.bundle.template import SERVER_PREFIX, fill_template
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError, InputError, MessageError
from gkt_core.files import new_folder, write_atomically
from gkt_core.rounds.feature_views import FeatureViews
from gkt_core.rounds.learning_rate import LearningRate, learning_rate_scale
from gkt_core.rounds.shared_extractor import ExtractorSpec
from gkt_core.rounds.staleness import check_mode
from gkt_core.wire.credentials import OPERATOR, Bearer, new_secret
from gkt_core.wire.join_link import JOIN_NAME
from gkt_core.wire.levels.frame import LevelFeatures
from gkt_core.wire.levels.transport import level_features
from gkt_core.wire.protocol import from_dict
from gkt_core.wire.shards import ShardKey, ShardSpec
from server_app.rounds.history import first_value
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import RunState
from server_app.store import BlobStore, RemoteBlobStore, RunStore, validation_accuracies

DATABASE_NAME = "run.sqlite"
STORAGE_NAME = "storage.json"
SERVER_INIT_NAME = "server_init.safetensors"
TOKEN_NAME = "token"
OPERATOR_SECRET_NAME = "operator_secret"
SERVER_INFO_NAME = "server.json"
TRAINER_LOG_NAME = "trainer.log"
TRAINER_LOCK_NAME = "trainer.lock"
# Held by who reads all files of a run, or drops some that others may read.
BACKUP_LOCK_NAME = "backup.lock"
SERVER_LOCK_NAME = "server.lock"
# What lets somebody speak for the run or its devices, or into its database.
SECRETS = (OPERATOR_SECRET_NAME, TOKEN_NAME, JOIN_NAME, STORAGE_NAME, "authority.key", "server.key")


@dataclass(frozen=True, slots=True)
class RunContext:
    """What web processes and the trainer work with.

    Attributes:
        folder: The run's folder.
        store: State.
        blobs: Shards, soft labels, models.
        bundle: The artifacts.
        config: Hyper-parameters.
    """

    folder: Path
    store: RunStore
    blobs: BlobStore
    bundle: Bundle
    config: RunConfig

    @property
    def shard_spec(self) -> ShardSpec:
        """What every shard of this run must look like."""
        manifest = self.bundle.manifest
        return ShardSpec(
            self.config.codec,
            manifest.feature_shape,
            manifest.num_classes,
            self.config.shard_samples,
            self.config.crops_features,
            most_feature=manifest.bound("features"),
            most_logit=manifest.bound("logits"),
        )

    @property
    def level_features(self) -> LevelFeatures | None:
        """What the levels of a coded shard of this run are; None where its shards are not coded."""
        return level_features(self.config.codec, self.bundle.manifest.feature_shape)

    @property
    def feature_views(self) -> FeatureViews:
        """The views of features that its server network is trained on."""
        return FeatureViews.of_run(self.config, self.bundle.manifest.edge_network)

    def learning_rate_scale(self, state: RunState) -> float:
        """What this round's learning rates, of devices and server, are multiplied with."""
        shown_round = rounds_of(state).shown_round(state)
        # Of all rounds: not to be read for each task of a run that has no use for them.
        accuracies = validation_accuracies(self.store) if self.config.plateau_patience else []
        return learning_rate_scale(self.config, shown_round, accuracies)

    def server_learning_rate(self, state: RunState) -> LearningRate:
        """The server's rate in each step of what the trainer does next or does now."""
        base = self.config.server_lr * self.learning_rate_scale(state)
        done, size, total = rounds_of(state).share(state)
        return LearningRate.of_run(self.config, base).part(done, total, size)

    @property
    def told_config(self) -> RunConfig:
        """What devices are told: the run's settings, with the learning rate that it began with.

        A device reads them once, and goes on for as long as it likes: what changes comes with each task.
        """
        began = first_value(self.store.state().history, "edge_lr", self.config.edge_lr)
        return dataclasses.replace(self.config, edge_lr=began)

    @property
    def extractor_spec(self) -> ExtractorSpec:
        """What the extractor of this run is, whose tensors stand in the bundle's template."""
        return ExtractorSpec.of_slots(self.bundle.manifest.slots())

    def edge_learning_rate_scale(self, state: RunState) -> float:
        """What devices multiply the learning rate with that they were told."""
        began = first_value(state.history, "edge_lr", self.config.edge_lr)
        return self.learning_rate_scale(state) * (self.config.edge_lr / began)

    def checkpoint_path(self, round_num: int) -> Path:
        """Server network and optimizer after a round."""
        return self.folder / "checkpoints" / f"round-{round_num:06d}.safetensors"

    @property
    def epoch_checkpoint_path(self) -> Path:
        """Server network and optimizer after the last epoch of a round that is being trained."""
        return self.folder / "checkpoints" / "epoch.safetensors"


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a run keeps its state and its blobs.

    Attributes:
        database: URL of a PostgreSQL database; empty for SQLite in the run's folder.
        blobs: URL of a bucket and folder, ``s3://bucket/folder``; empty for the run's folder.
        run_id: Which run of that database; empty for its only one.
    """

    database: str = ""
    blobs: str = ""
    run_id: str = ""


def shard_blob(key: ShardKey, sha256: str) -> str:
    """Name of a stored shard: another one for other content, so that a name always means the same bytes.

    Args:
        key: Where it belongs.
        sha256: Of the file, by which it is known for whole when it is read.
    """
    place = f"{round_blobs(key.round_num)}/{key.client_id}/{key.split}-{key.index:06d}"
    return f"{place}-{sha256}.safetensors"


def round_blobs(round_num: int) -> str:
    """Common beginning of the names of all shards of a round."""
    return f"rounds/{round_num:06d}"


def is_shard_blob(name: str) -> bool:
    """Whether a blob is what a device sent: without a row that names it, nobody needs it."""
    return name.startswith("rounds/")


def soft_labels_blob(round_num: int, client_id: str) -> str:
    """Name of the server's answer to one device."""
    return f"soft_labels/{round_num:06d}/{client_id}.safetensors"


def mean_extractor_blob(round_num: int) -> str:
    """Name of the mean of the devices' extractors after a round."""
    return f"extractors/{round_num:06d}.safetensors"


TEMPLATE_BLOB = "model/combined_template.onnx"
SERVER_WEIGHTS_BLOB = "model/server.safetensors"


def filled_template(bundle: Bundle, weights: bytes) -> bytes:
    """Fill the server's weights, a file as of SERVER_WEIGHTS_BLOB, into the template of combined models."""
    template = bundle.file(COMBINED_TEMPLATE).read_bytes()
    return fill_template(template, bundle.manifest.slots(), load(weights), SERVER_PREFIX)


def create_run(
    folder: Path,
    artifacts: Path,
    config: RunConfig,
    token: str | None = None,
    storage: Storage | None = None,
    server_init: Path | None = None,
) -> RunContext:
    """Make a run's folder; all or nothing.

    Args:
        folder: A folder that must not exist yet, or be empty.
        artifacts: The bundle, copied into the run.
        config: Hyper-parameters.
        token: One that speaks for all devices that have no secret of their own; none by default.
        storage: Where else than in the folder state and blobs are to be; its run id is given here.
        server_init: Weights that the server network begins from; random ones by default.

    Raises:
        ArtifactError: No bundle, or it is changed.
        ConfigError: The run wants a temperature or optimizer that is not in the exported graph.
        InputError: ``folder`` cannot become a new folder.
    """
    check_mode(config)
    bundle = load_bundle(artifacts)
    check_run(bundle.manifest, config)
    with new_folder(folder, "--data-dir") as temporary:
        shutil.copytree(artifacts, temporary / "artifacts")
        (temporary / "checkpoints").mkdir()
        (temporary / "blobs").mkdir()
        if token is not None:
            _write_token(temporary / TOKEN_NAME, token)
        write_secret(temporary / OPERATOR_SECRET_NAME, new_secret())
        if server_init is not None:
            try:
                shutil.copyfile(server_init, temporary / SERVER_INIT_NAME)
            except OSError as error:
                raise InputError(f"cannot read --server-init {server_init}: {error}") from error
        run_id = f"run-{uuid.uuid4().hex[:12]}"
        state = RunState(
            num_clients=config.num_clients,
            rounds=config.rounds,
            client_fraction=config.client_fraction,
            seed=config.seed,
            mode=config.mode,
            max_staleness=config.max_staleness,
        )
        database: Path | str = temporary / DATABASE_NAME
        if storage is not None:
            database = storage.database or database
            if storage.blobs:
                RemoteBlobStore(storage.blobs, temporary / "blobs").check()
            values = dataclasses.asdict(dataclasses.replace(storage, run_id=run_id))
            write_secret(temporary / STORAGE_NAME, json.dumps(values))
        RunStore.create(database, run_id, config.to_dict(), state).close()
        make_private(temporary)
    return open_run(folder)


def open_run(folder: Path) -> RunContext:
    """Open the folder of an existing run.

    Raises:
        InputError: There is no run in this folder.
        ArtifactError: Its artifacts are changed.
    """
    storage = read_storage(folder)
    store = RunStore.open(storage.database or folder / DATABASE_NAME, storage.run_id or None)
    if store is None:
        raise InputError(
            f"{folder} holds no run: start one with gkt serve --artifacts DIR --data-dir {folder}"
        )
    config = RunConfig.from_dict(store.config())
    bundle = load_bundle(folder / "artifacts")
    blobs = folder / "blobs"
    # Runs that share a bucket have a folder each.
    url = f"{storage.blobs.rstrip('/')}/{store.run_id}"
    blob_store = RemoteBlobStore(url, blobs) if storage.blobs else BlobStore(blobs)
    return RunContext(folder, store, blob_store, bundle, config)


def has_run(folder: Path) -> bool:
    """Whether this folder holds a run."""
    return (folder / DATABASE_NAME).is_file() or (folder / STORAGE_NAME).is_file()


def read_storage(folder: Path) -> Storage:
    """Where a run's state and blobs are, if elsewhere."""
    try:
        return from_dict(Storage, json.loads((folder / STORAGE_NAME).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Storage()
    except (OSError, ValueError, MessageError) as error:
        raise InputError(f"{folder / STORAGE_NAME} cannot be read: {error}") from error


def begins_from(folder: Path, weights: Path) -> bool:
    """Whether the server network of this run began from the weights in a file.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        given = weights.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read --server-init {weights}: {error}") from error
    began = folder / SERVER_INIT_NAME
    return began.is_file() and began.read_bytes() == given


def read_token(folder: Path) -> str:
    """The token that all devices of a run share; empty where each has a secret of its own."""
    try:
        return (folder / TOKEN_NAME).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def operator_secret(folder: Path) -> str:
    """What operators show the server of this run; drawn now in a run of a version that had none."""
    path = folder / OPERATOR_SECRET_NAME
    if not path.exists():
        write_secret(path, new_secret())
    return path.read_text(encoding="utf-8").strip()


def operator_bearer(folder: Path) -> str:
    """The operator's secret as it follows ``Bearer`` in a request."""
    return Bearer(OPERATOR, "", operator_secret(folder)).text()


def make_private(folder: Path) -> None:
    """Let nobody but its owner read a run's folder and what is in it."""
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)


def _write_token(path: Path, token: str) -> None:
    if len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError("the token must be at least 8 printable ASCII characters without spaces")
    write_secret(path, token)


def write_secret(path: Path, text: str) -> None:
    """Write a line that nobody but its owner reads."""
    write_atomically(path, (text + "\n").encode(), mode=0o600)
