"""A device in a run: join, train, upload, wait, and in the end take the model."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.engines.base import open_engine
from edge_runtime.engines.choice import choose_engine
from edge_runtime.evaluation import Accuracy, named_model, try_model
from edge_runtime.listener import DeviceListener
from edge_runtime.machine.limits import memory_note, try_for_memory
from edge_runtime.machine.pauses import Pauses
from edge_runtime.own_data import check_data
from edge_runtime.returning import check_place, go_back, is_ahead, other_folder
from edge_runtime.server_client import MOST_FILE_BYTES, ServerClient
from edge_runtime.state.credential import place_kept_named
from edge_runtime.state.known_samples import KnownData, take_up
from edge_runtime.state.round_saver import RoundSaver, train_seconds
from edge_runtime.state.state_dir import MODEL_NAME, Arrays, DeviceState, KeptUpload, StateDir
from edge_runtime.trust.agreed import agreed_config
from edge_runtime.trust.endless import EndlessWatch
from edge_runtime.trust.features import GuardedEngine
from edge_runtime.turn import next_task
from edge_runtime.upload import upload
from gkt_core.bundle.manifest import COMBINED_TEMPLATE, MOST_BUNDLE_BYTES, Manifest
from gkt_core.bundle.tap import TapRequirement
from gkt_core.bundle.template import EXTRACTOR_PREFIX, fill_template
from gkt_core.config.upload_schedule import NEVER
from gkt_core.data.private_data import PrivateData
from gkt_core.errors import ProtocolError, RoundClosedError, RunFailedError
from gkt_core.files import full_disk_named, write_atomically
from gkt_core.printable import printable
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import LocalProgress, client_update
from gkt_core.rounds.drift import fixed_features, uploads_now
from gkt_core.rounds.engine import DeviceEngine
from gkt_core.rounds.label_privacy import with_private_labels
from gkt_core.rounds.shared_extractor import ExtractorSpec, take_mean, write_extractor
from gkt_core.version import __version__
from gkt_core.wire.feature_noise import FeatureNoise
from gkt_core.wire.levels.transport import level_features
from gkt_core.wire.protocol import PROTOCOL_VERSION, JoinRequest, RunInfo, Task
from gkt_core.wire.shards import SoftLabels, most_soft_label_bytes, read_soft_labels

CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """What a device ends with.

    Attributes:
        validation_accuracy: Of the combined model on this device's validation images, 0..1.
        num_validation_images: That were looked at.
    """

    client_id: str
    run_id: str
    rounds: int
    model: str
    upload_bytes: int
    download_bytes: int
    validation_accuracy: float
    num_validation_images: int


@dataclass(slots=True, kw_only=True)
class Device:
    """One device's part in one run.

    Attributes:
        server: The wire.
        data: The private data; only features, logits, labels and sample ids leave.
        state_dir: What survives a restart.
        client_id: The device's name.
        client_key: A secret that shows that the name is this device's.
        num_threads: CPU threads of the engine.
        engine: ``portable`` or ``ort_training``; by default what is installed and fastest. A state folder
            goes on with the engine that it began with.
        checkpoint_seconds: How often the middle of a round is saved; what is lost when a device is killed.
        noise: What happens to features before they leave; the state folder adds the key.
        tap: What the owner was told of the features that leave; a run of others is refused.
        pauses: When to wait between two steps.
        tries_memory: Whether to find out before joining that memory suffices.
        most_bundle_bytes: What the files of an engine may have together.
        watch: What looks whether steps of the server's graphs end; None for nobody.
        listener: Hears what happens.
        sleep: Another one than time's, for tests.
    """

    server: ServerClient = field(kw_only=False)
    data: PrivateData = field(kw_only=False)
    state_dir: StateDir = field(kw_only=False)
    client_id: str
    client_key: str = ""
    num_threads: int
    engine: str | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    noise: FeatureNoise = field(default_factory=FeatureNoise)
    tap: TapRequirement = field(default_factory=TapRequirement)
    pauses: Pauses = field(default_factory=Pauses)
    tries_memory: bool = False
    most_bundle_bytes: int = MOST_BUNDLE_BYTES
    watch: EndlessWatch | None = None
    listener: DeviceListener
    sleep: Callable[[float], None] = time.sleep
    _known: KnownData = field(init=False, repr=False)
    _came_back: bool = field(init=False, default=False, repr=False)

    def run(self) -> DeviceResult:
        """Take part until the run has ended.

        Raises:
            RunFailedError: The server says that the run failed.
            GKTError: Anything else that stops this device; its state folder goes on later.
        """
        self.server.part_folder = self.state_dir.path
        info = self.server.run_info()
        if info.gkt_version not in ("", __version__):
            theirs = printable(info.gkt_version[:40])
            self.listener.note(f"the server runs gkt-edge {theirs}, here is {__version__}")
        with place_kept_named(self.state_dir.path):
            config = agreed_config(info.config)
            manifest = Manifest.from_dict(info.manifest)
            self.tap.check(manifest, config.codec)
            check_data(self.data, manifest, self.client_id)
        self.server.levels = level_features(config.codec, manifest.feature_shape)
        state = self.state_dir.state(info.run_id, self.client_id)
        with full_disk_named(self.state_dir.path):
            noise = self.state_dir.feature_noise(self.noise, state)
            known, state = take_up(self.state_dir, self.data, state)
        self._known = known
        for line in known.change.lines():
            self.listener.note(line)
        data = with_private_labels(known.data, noise, manifest.num_classes)
        part = ClientPart(self.client_id, data, config, manifest.num_classes, noise, known.first_rounds)
        with place_kept_named(self.state_dir.path):
            engine = self._open(info, part, state)
        request = JoinRequest(
            PROTOCOL_VERSION,
            len(self.data.train),
            len(self.data.validation),
            self.data.num_classes,
            engine.name,
            list(self.data.class_names),
            self.client_key,
            known.samples_sha256(),
            self.tap.require_tap or "",
            self.tap.max_bits or 0,
        )
        # Other devices' classes count where the bundle names none.
        with place_kept_named(self.state_dir.path):
            task = self.server.join(self.client_id, request)
        while (ahead := is_ahead(state, task := self._without_lost(task, state), config.mode)) or (
            task.action != "finish"
        ):
            if ahead:
                state, self._came_back = go_back(self.state_dir, state, task, self.listener.note), True
                engine = self._open(info, part, state)
                # What was said since the backup was taken, the server does not know.
                task = self.server.join(self.client_id, request)
            elif task.action == "train":
                state, task = self._round(engine, part, state, task)
            elif task.action == "wait":
                self.listener.phase("wait", task.round_num, 0, task.reason)
                task = next_task(self.server, self.client_id, self.sleep)
            elif task.action == "stop":
                raise RunFailedError(f"the server stopped the run: {task.reason}")
            else:
                raise ProtocolError(
                    f"unknown task {task.action[:40]!a}: install the server's version of gkt-edge"
                )
        # The template would take the weights of any round, fresh ones too.
        if state.trained_round < task.soft_labels_round:
            raise other_folder(task.soft_labels_round, state)
        if state.trained_round == 0:
            raise RunFailedError(
                "the run ended before this device had taken part in a round: there is no model of its own"
            )
        model, measured = self._take_model(self._deployed(engine, task), manifest, state)
        return DeviceResult(
            self.client_id,
            info.run_id,
            state.trained_round,
            str(model),
            self.server.upload_bytes,
            self.server.download_bytes,
            measured.accuracy,
            measured.num_examples,
        )

    def _open(self, info: RunInfo, part: ClientPart, state: DeviceState) -> DeviceEngine:
        name = choose_engine(Manifest.from_dict(info.manifest), state.engine or self.engine)
        with full_disk_named(self.state_dir.path):
            bundle = self.state_dir.bundle(
                info.manifest, self.server.save_artifact, name, most_bytes=self.most_bundle_bytes
            )
        if too_much := memory_note(bundle.manifest, part.config, name):
            self.listener.note(too_much)
        if self.tries_memory:
            with self._step():
                try_for_memory(bundle, part.config, engine=name, num_threads=self.num_threads)
        begun = state.trained_round > 0 or state.partial is not None
        checkpoint = self.state_dir.checkpoint_path(state) if begun else None
        opened = open_engine(
            bundle,
            checkpoint=checkpoint,
            num_threads=self.num_threads,
            learning_rate=part.config.edge_lr,
            engine=name,
        )
        engine = GuardedEngine(opened, bundle.manifest, self.watch)
        engine.try_now()
        begin = f"goes on after round {state.trained_round}" if checkpoint else "begins"
        if state.partial is not None:
            begin += f" and {state.partial.num_steps} steps of the next"
        line = f"{self.client_id} {begin} on {engine.name} with {self.num_threads} thread(s)"
        if part.noise.is_on:
            line += f", features clipped at {part.noise.clip:g} and with noise {part.noise.noise:g}"
        if part.noise.label_privacy:
            line += f", labels exchanged at random with epsilon {part.noise.label_privacy:g}"
        if part.config.share_extractor != NEVER:
            line += f"; its extractor leaves it, to be averaged (after rounds: {part.config.share_extractor})"
        if not engine.is_known:
            line += f"; {engine.stranger()}"
        if name not in bundle.manifest.verification:
            line += "; nobody verified this engine when it was exported (gkt verify does it)"
        self.listener.note(line)
        return engine

    def _round(
        self, engine: DeviceEngine, part: ClientPart, state: DeviceState, task: Task
    ) -> tuple[DeviceState, Task]:
        """Do lines 17 to 30 of Algorithm 1, from wherever an earlier process left off."""
        round_num = task.round_num
        check_place(state, task)
        try:
            if round_num > state.trained_round:
                state = self._train(engine, part, state, task)
            held_round = self._held_round(engine, part, task)
            after = upload(
                self.server,
                engine,
                part,
                state,
                listener=self.listener,
                pauses=self.pauses,
                held_round=held_round,
                extractor=self._own_extractor(engine, part, round_num),
            )
            self._drop_uploads(after)
            return state, after
        except RoundClosedError as error:
            self.listener.note(f"{self.client_id} is too late for round {round_num}: {error}")
            return state, self.server.task(self.client_id)
        except ProtocolError:
            after = self.server.task(self.client_id)
            if after.round_num >= round_num:
                raise
            # What it asked for was of a round that the server has not come to, as of the backup.
            return state, after

    def _without_lost(self, task: Task, state: DeviceState) -> Task:
        """Begin anew where the server knows this device and its folder is new: what it had is lost."""
        if state.trained_round > 0 or not task.soft_labels_round:
            return task
        self.listener.note(
            f"{self.client_id} had a part in round {task.soft_labels_round}, and this state folder is "
            "new: it goes on "
            "from fresh weights, without soft labels for once"
        )
        return dataclasses.replace(task, soft_labels_round=0, upload_round=0, view_round=0)

    def _own_extractor(self, engine: DeviceEngine, part: ClientPart, round_num: int) -> bytes | None:
        """Write the extractor for the server to average, in a round after which it does."""
        if not part.config.shares_after(round_num):
            return None
        weights = engine.parameters()
        return write_extractor(ExtractorSpec.of_arrays(weights), weights, part.client_id, round_num)

    def _take_mean(self, engine: DeviceEngine, part: ClientPart, round_num: int) -> None:
        """Begin a round from the mean of all extractors after the one before, if they were averaged."""
        if round_num < 2 or not part.config.shares_after(round_num - 1):
            return
        spec = ExtractorSpec.of_arrays(engine.parameters())
        data = self.server.extractor(round_num - 1, most_bytes=spec.max_bytes)
        if trouble := take_mean(engine, part, spec, data, round_num - 1):
            self.listener.note(f"{self.client_id} goes on from its own extractor: {trouble}")

    def _held_round(self, engine: DeviceEngine, part: ClientPart, task: Task) -> int:
        """Decide whether to upload after this round's training: 0, or the round of an upload that will do.

        What makes a new upload is kept first: the model needs that very extractor. One of other samples than
        the device has now will not do: the server counts what it holds against what was announced.
        """
        if part.config.uploads_every_round:
            return 0
        held, round_num = task.upload_round, task.round_num
        samples = self._known.samples_sha256()
        if self._came_back and held and not self.state_dir.has_upload(held):
            # Longer ago than anything is kept of: it sends a new one.
            held = 0
        then = self.state_dir.upload(held) if held else None
        if then is not None and then.samples_sha256 not in ("", samples):
            held, then = 0, None
        if not uploads_now(engine, part, round_num, held, None if then is None else then.features):
            return held
        compares = part.config.upload_schedule.drift is not None
        features = fixed_features(engine, part) if compares else None
        self.state_dir.keep_upload(round_num, KeptUpload(engine.parameters(), features, samples))
        return 0

    def _drop_uploads(self, task: Task) -> None:
        """Forget those uploads that neither the server has nor its last soft labels answer."""
        if task.upload_round:
            self.state_dir.drop_uploads(min(task.upload_round, task.view_round or task.upload_round))

    def _deployed(self, engine: DeviceEngine, task: Task) -> Arrays:
        """Give the weights whose extractor the server's network was trained behind."""
        return self.state_dir.upload(task.view_round).weights if task.view_round else engine.parameters()

    def _train(self, engine: DeviceEngine, part: ClientPart, state: DeviceState, task: Task) -> DeviceState:
        """Train in the task's round, saving every so often; the state after it, which is saved too."""
        config, round_num = part.config, task.round_num
        soft_labels = self._soft_labels(part, task)
        self.listener.phase("train", round_num, len(part.data.train) * config.local_epochs)
        started = time.perf_counter()
        # What was begun for a round that is closed stays in the weights; its place is forgotten.
        begun = (round_num, task.soft_labels_round)
        if (state.partial_round, state.partial_teacher) != begun:
            state = dataclasses.replace(state, partial=None, partial_round=begun[0], partial_teacher=begun[1])
        if state.partial is None:
            self._take_mean(engine, part, round_num)
        saver = RoundSaver(self.state_dir, engine, state, started, self.checkpoint_seconds)

        def after_step(progress: LocalProgress) -> None:
            saver(progress)
            self.pauses.wait(lambda: saver.save(progress))

        update = client_update(
            engine,
            part,
            soft_labels,
            round_num,
            teacher_round=task.view_round or task.soft_labels_round,
            learning_rate_scale=task.learning_rate_scale,
            done=state.partial,
            on_batch=self.listener.images,
            on_progress=after_step,
        )
        state = dataclasses.replace(
            state,
            trained_round=round_num,
            engine=engine.name,
            loss=update.loss,
            accuracy=update.accuracy,
            train_seconds=train_seconds(state, started),
            partial=None,
        )
        self.state_dir.save(state, engine.save)
        return state

    def _step(self) -> contextlib.AbstractContextManager[None]:
        """What stands around a step of a graph of the server's."""
        return contextlib.nullcontext() if self.watch is None else self.watch.step()

    def _soft_labels(self, part: ClientPart, task: Task) -> SoftLabels | None:
        round_num = task.soft_labels_round
        if round_num < 1 or not part.config.edge_distils:
            return None
        # A row a sample of the upload that it answers, which may be gone since.
        most = self._known.most_uploaded(task.view_round or round_num)
        most_bytes = MOST_FILE_BYTES if most is None else most_soft_label_bytes(most, part.num_classes)
        data = self.server.soft_labels(part.client_id, round_num, most_bytes=most_bytes)
        return read_soft_labels(data, part.client_id, round_num, part.num_classes)

    def _take_model(self, weights: Arrays, manifest: Manifest, state: DeviceState) -> tuple[Path, Accuracy]:
        """Fill this device's extractor into the server's template, and try the model before it is kept."""
        self.listener.phase("model", 0, 0)
        num_bytes = manifest.file(COMBINED_TEMPLATE).num_bytes
        template = self.server.model_template(most_bytes=num_bytes)
        filled = fill_template(template, manifest.slots(), weights, EXTRACTOR_PREFIX)
        measured = try_model(
            filled,
            self.data.validation,
            manifest.num_classes,
            num_threads=self.num_threads,
            around_step=self._step,
        )
        named = named_model(filled, template, manifest, measured, state.run_id, state.trained_round)
        path = self.state_dir.path / MODEL_NAME
        with full_disk_named(path):
            write_atomically(path, named, mode=0o600)
        return path, measured
