"""Wait for complete rounds, train on them and publish soft labels.

The trainer holds the only server network that counts, and ends with the process that started it. With
``--procs N``, or under ``torchrun``, N processes train together (:mod:`server_app.trainer.group`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from gkt_core.algorithms import DivergedError, Evaluation, ServerPlace, ServerUpdate, evaluate, server_update
from gkt_core.errors import ArtifactError, GKTError, RoundError, StorageUnavailableError
from gkt_core.networks import reach_of
from gkt_core.nn.checkpoint import load_checkpoint, read_extra, save_checkpoint
from gkt_core.nn.compiling import Compiler
from gkt_core.rounds.feature_source import ShardSource, split_by_client
from gkt_core.rounds.shared_extractor import EXTRACTOR_SPLIT
from gkt_core.wire.shards import SPLITS, ShardKey, write_soft_labels
from server_app.backup.lock import after_backups
from server_app.heartbeat import Heartbeat
from server_app.parts import average_extractors, stored_shards, suspect_extractors
from server_app.quarantine import Watch
from server_app.rounds.deadline import Deadline
from server_app.rounds.history import DAMAGED
from server_app.rounds.machine import rounds_of
from server_app.rounds.members import nobody_left
from server_app.rounds.state import (
    Claimed,
    DeadlinePassed,
    Deserted,
    Event,
    Failed,
    Noted,
    Phase,
    Quarantined,
    Released,
    RunState,
    Trained,
)
from server_app.run_folder import RunContext, soft_labels_blob
from server_app.storage_errors import STORAGE_ERRORS, Patience
from server_app.store import put_with_hash
from server_app.trainer.culprits import whom_to_leave_out
from server_app.trainer.group import Order, TrainingGroup
from server_app.trainer.lease import Lease, LeaseLost
from server_app.trainer.network import build_network, check_finite, is_finite, publish_model
from server_app.trainer.repair import ask_for_damaged, load_round, make_model_again, without_folder
from server_app.trainer.step_report import (
    ProgressReporter,
    ServerGone,
    check_parent,
    describe_step,
    step_metrics,
    waiting_words,
)
from server_app.trainer.tidy import drop_what_is_spent

log = logging.getLogger("gkt.trainer")

# Between two looks at the run; less often while nothing happens.
_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.1, 0.3


class Trainer:
    """Trains the server network of one run, round after round.

    Args:
        run: The run.
        group: The processes that train together; only this one by default.
        torch_device: Where the network is trained; the CPU by default.
        compiled: Whether training is compiled, of :data:`gkt_core.config.run_config.COMPILE`.
        heartbeat: Where signs of life go; by default into the run's folder, for nobody who watches.
    """

    def __init__(
        self,
        run: RunContext,
        group: TrainingGroup | None = None,
        torch_device: torch.device | None = None,
        compiled: str = "off",
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self._run, self._compiled = run, compiled
        self._compiler: Compiler | None = None
        self._heartbeat = heartbeat or Heartbeat(run.folder)
        self._group = group or TrainingGroup()
        self._torch_device = torch_device or torch.device("cpu")
        self._lease = Lease(run.store, run.folder)
        self._parent_pid: int | None = None
        self._network, self._optimizer = build_network(run, self._torch_device)
        manifest = run.bundle.manifest
        reach = reach_of(manifest.edge_network)
        self._watch = Watch(run.blobs, run.config, manifest.num_classes, manifest.image_size, reach)

    def run_until_done(self, parent_pid: int | None = None) -> RunState:
        """Wait for rounds and train on them until the run has ended.

        Args:
            parent_pid: End when this process is no longer our parent.

        Returns:
            The last state.
        """
        self._parent_pid = parent_pid
        patience = Patience()
        while True:
            try:
                state = self._run_rounds()
                self._group.close()
                return state
            except ServerGone:
                log.info("the server is gone; ending")
                self._group.reset()
                return self._run.store.state()
            except LeaseLost:
                log.warning("another trainer has taken this run over")
            except STORAGE_ERRORS as error:
                self._heartbeat.pauses("waiting for the storage")
                patience.wait(error, log)

    def _run_rounds(self) -> RunState:
        store = self._run.store
        while not self._lease.take():
            self._heartbeat.waits("waiting for another machine's trainer")
            check_parent(self._parent_pid)
            time.sleep(_POLL_SECONDS)
        # A round that an earlier trainer left half trained is trained on from its last epoch.
        state = store.apply(Released())
        state = self._restore(state)
        last_sign, pause = 0.0, _POLL_SECONDS
        deadline = Deadline()
        while state.phase not in (Phase.FINISHED, Phase.FAILED):
            check_parent(self._parent_pid)
            self._heartbeat.waits(waiting_words(state))
            self._lease.keep()
            if deadline.has_passed(state):
                state = store.apply(DeadlinePassed(state.round_num))
                log.info(
                    "round %d: the deadline has passed, %d reported", state.round_num, len(state.reported)
                )
            if state.phase is Phase.READY and not state.halt:
                state = self._train(state.round_num)
                continue
            if nobody_left(state):
                state = self._apply(Deserted())
                log.error("%s", state.error)
                continue
            if time.monotonic() - last_sign > 1.0:
                store.report_progress(None)
                last_sign = time.monotonic()
            time.sleep(pause)
            before, state = state, store.state()
            pause = _POLL_SECONDS if state != before else min(1.2 * pause, _LONGEST_POLL_SECONDS)
        self._lease.release()
        return state

    def _restore(self, state: RunState) -> RunState:
        """Take up what stood before this round; the state, which is failed where nothing stands there."""
        self._group.reset()
        self._network, self._optimizer = build_network(self._run, self._torch_device)
        if state.phase is Phase.FINISHED:
            make_model_again(self._run, state, self._network, self._optimizer)
        elif state.phase is not Phase.FAILED and state.round_num > 1:
            try:
                load_round(self._run, state, state.round_num - 1, self._network, self._optimizer)
            except ArtifactError as error:
                log.error("%s", error)
                return self._apply(Failed(str(error)))
            log.info("went on from the checkpoint of round %d", state.round_num - 1)
        return state

    def _restore_epoch(self, state: RunState) -> int:
        """Go on with a round that a trainer left, and return the number of epochs that are done."""
        path = self._run.epoch_checkpoint_path
        if not path.is_file():
            return 0
        clients = sorted(rounds_of(state).parts(state))
        try:
            extra = read_extra(path)
            # A device that was revoked meanwhile is trained on no further.
            if (extra["round_num"], extra["clients"]) != (state.round_num, clients):
                return 0
            load_checkpoint(path, self._network, self._optimizer)
        except (ArtifactError, KeyError) as error:
            text = f"round {state.round_num} begins anew: {without_folder(self._run, error)}"
            log.error("%s", text)
            path.unlink()
            self._run.store.apply(Noted(DAMAGED, text))
            return 0
        log.info("round %d: going on after epoch %d", state.round_num, extra["epoch"])
        return int(extra["epoch"])

    def _on_place(self, state: RunState, place: ServerPlace) -> None:
        # Within an epoch each of several ranks has running statistics of its own.
        if place.num_batches == 0:
            self._save_epoch(state, place.epoch - 1)

    def _save_epoch(self, state: RunState, epoch: int) -> None:
        self._lease.keep()
        if not is_finite(self._network):
            # The next batch shows it; this is nothing to go on from.
            return
        clients = sorted(rounds_of(state).parts(state))
        extra = {"round_num": state.round_num, "epoch": epoch, "clients": clients}
        save_checkpoint(self._run.epoch_checkpoint_path, self._network, self._optimizer, extra)

    def _save(self, round_num: int) -> None:
        extra = {"round_num": round_num, "run_id": self._run.store.run_id}
        save_checkpoint(self._run.checkpoint_path(round_num), self._network, self._optimizer, extra)

    def _train(self, round_num: int) -> RunState:
        run, store = self._run, self._run.store
        state = self._apply(Claimed(round_num))
        rounds = rounds_of(state)
        if not rounds.parts(state):
            return self._end(state)
        self._heartbeat.long_step(f"looking at the uploads of round {round_num}")
        splits = (*SPLITS, EXTRACTOR_SPLIT)
        stored = [each for split in splits for each in stored_shards(run, state, split)]
        state = self._as_holder(lambda: ask_for_damaged(run, state, stored, self._lease.owner))
        if state.phase is not Phase.TRAINING:
            return state
        try:
            if run.config.quarantine:
                state = self._quarantine(state)
                if state.phase is not Phase.TRAINING:
                    return state
            learned = None
            while learned is None:
                try:
                    self._heartbeat.long_step(f"preparing to train round {round_num}")
                    learned = self._learn(state)
                except DivergedError as error:
                    state = self._leave_out(state, error)
                    if state.phase is not Phase.TRAINING:
                        return state
            (source, update, evaluation), own_rounds = learned, rounds.parts(state)
            for client_id, soft_labels in split_by_client(source, update.server_logits).items():
                # A device asks by its own round, which without rounds is not the server's step.
                own_round = own_rounds[client_id]
                data = write_soft_labels(client_id, own_round, soft_labels)
                put_with_hash(run.blobs, soft_labels_blob(own_round, client_id), data)
            average_extractors(run, state)
            self._save(round_num)
            if rounds.is_last(store.state()):
                publish_model(run, self._network, evaluation.accuracy)
        except StorageUnavailableError:
            raise
        except GKTError as error:
            self._apply(Failed(str(error)))
            raise
        store.add_round_metrics(round_num, step_metrics(store, state, update, evaluation))
        trained = self._apply(Trained(round_num))
        if trained.phase is Phase.FINISHED and not rounds.is_last(state):
            # Those that were still waited for have been revoked while it trained.
            publish_model(run, self._network, evaluation.accuracy)
        reached, speed = evaluation.accuracy, update.samples_per_second
        log.info("round %d: validation accuracy %.4f, %.0f samples/s", round_num, reached, speed)
        with after_backups(run, self._waits_for_backup):
            self._watch.tidy(rounds.uploads(state), state.answered_uploads())
            drop_what_is_spent(run, state)
        return trained

    def _waits_for_backup(self) -> None:
        check_parent(self._parent_pid)
        self._heartbeat.waits("waiting for the end of a backup")
        self._lease.keep()

    def _compiler_for(self, state: RunState, num_samples: int) -> Compiler:
        """One for the life of this process, made when it is known how much there is to train on."""
        if self._compiler is None:
            config = self._run.config
            done, size, total = rounds_of(state).share(state)
            num_left = (total - done) * num_samples // size
            num_steps = config.server_epochs * num_left // config.server_batch_size
            self._compiler = Compiler(self._compiled, precision=config.precision, num_steps=num_steps)
        return self._compiler

    def _learn(self, state: RunState) -> tuple[ShardSource, ServerUpdate, Evaluation]:
        """Train on the round, from its last epoch that was saved, and evaluate.

        Raises:
            DivergedError: Something is NaN or infinite.
        """
        run, round_num = self._run, state.round_num
        source = self._source(state, "train")
        epochs_done = self._restore_epoch(state)
        log.info("round %d: %d samples%s", round_num, len(source), describe_step(state))
        learning_rate = run.server_learning_rate(state)
        order = Order(round_num, epochs_done + 1, learning_rate, self._shards(state, "train"))
        update = server_update(
            self._network,
            self._optimizer,
            source,
            run.config,
            round_num=round_num,
            num_classes=run.bundle.manifest.num_classes,
            learning_rate=learning_rate,
            compiler=self._compiler_for(state, len(source)),
            views=run.feature_views,
            begin=ServerPlace(epochs_done + 1),
            on_batch=ProgressReporter(
                run, round_num, self._parent_pid, self._lease, self._heartbeat, len(source)
            ),
            on_place=lambda place: self._on_place(state, place),
            ranks=self._group.begin(order, self._network, self._optimizer),
        )
        self._heartbeat.long_step(f"evaluating round {round_num}")
        evaluation = evaluate(self._network, self._source(state, "validation"))
        check_finite(round_num, update, evaluation)
        return source, update, evaluation

    def _leave_out(self, state: RunState, error: DivergedError) -> RunState:
        """Take the network back to where the round began, and out of the round whose samples broke it.

        The round is then trained anew: what those devices did to the weights of its earlier epochs goes, too.

        Raises:
            GKTError: It is nobody's samples, or everybody's, or nobody may be left out.
        """
        self._heartbeat.long_step(f"looking for the samples that broke round {state.round_num}")
        log.warning("round %d: %s; looking for the samples that did it", state.round_num, error)
        self._rewind(state)
        sources = self._source(state, "train"), self._source(state, "validation")
        reasons = whom_to_leave_out(
            self._network, *sources, self._run.config, set(rounds_of(state).parts(state)), error
        )
        self._rewind(state)
        return self._hold(state, reasons)

    def _rewind(self, state: RunState) -> None:
        """Give network and optimizer in place what they had when the round began: others may hold them."""
        network, optimizer = build_network(self._run, self._torch_device)
        if state.round_num > 1:
            load_round(self._run, state, state.round_num - 1, network, optimizer)
        self._network.load_state_dict(network.state_dict())
        self._optimizer.load_state_dict(optimizer.state_dict())

    def _end(self, state: RunState) -> RunState:
        """End a run in a step without uploads: all of them were trained on before."""
        self._save(state.round_num)
        publish_model(self._run, self._network)
        return self._apply(Trained(state.round_num))

    def _quarantine(self, state: RunState) -> RunState:
        """Leave out the devices of this round whose new uploads, or extractors, are far outside."""
        far = suspect_extractors(self._run, state)
        uploads, before = rounds_of(state).uploads(state), state.answered_uploads()
        new = {each for each, number in uploads.items() if before.get(each) != number}
        if not new:
            return self._hold(state, far)
        # Of devices that take no part now, validation samples were looked at when they came.
        validation = [part for part in self._shards(state, "validation") if part[0].client_id in uploads]
        suspects = self._watch.check(
            self._source(state, "train"),
            self._opened(validation) if validation else None,
            rounds=uploads,
            answered=before,
            trusted=state.trusted,
        )
        return self._hold(state, {each: suspects[each] for each in sorted(suspects.keys() & new)} | far)

    def _hold(self, state: RunState, suspects: dict[str, str]) -> RunState:
        for client_id, reason in suspects.items():
            log.info("round %d: %s is quarantined: %s", state.round_num, client_id, reason)
            state = self._apply(Quarantined(client_id, state.round_num, reason))
        return state

    def _apply(self, event: Event) -> RunState:
        return self._as_holder(lambda: self._run.store.apply(event, self._lease.owner))

    def _as_holder(self, change: Callable[[], RunState]) -> RunState:
        """Change the state, which only the holder of the lease may.

        Raises:
            LeaseLost: This is not the holder any more.
        """
        try:
            return change()
        except RoundError:
            if not self._lease.take():
                raise LeaseLost from None
            raise

    def _shards(self, state: RunState, split: str) -> list[tuple[ShardKey, str]]:
        """Shards of what is trained on, or evaluated on, and their blobs."""
        return [(shard.key, shard.blob) for shard in stored_shards(self._run, state, split)]

    def _source(self, state: RunState, split: str) -> ShardSource:
        return self._opened(self._shards(state, split))

    def _opened(self, shards: list[tuple[ShardKey, str]]) -> ShardSource:
        return ShardSource.from_files(
            ((key, self._run.blobs.local_path(blob)) for key, blob in shards), self._run.shard_spec
        )
