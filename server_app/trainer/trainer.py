"""The trainer: a process of its own that waits for complete rounds and trains on them.

``python -m server_app.trainer --data-dir DIR``; ``gkt serve`` starts it. It holds the only server network
that counts, and ends with the process that started it. With ``--procs N``, or under ``torchrun``, N processes
train together (:mod:`server_app.trainer.group`).
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save

from gkt_core.algorithms import (
    Evaluation,
    ServerUpdate,
    evaluate,
    server_update,
)
from gkt_core.bundle.manifest import COMBINED_TEMPLATE
from gkt_core.bundle.template import SERVER_PREFIX, fill_template
from gkt_core.errors import GKTError, RoundError, StorageUnavailableError
from gkt_core.files import remove_leftovers
from gkt_core.nn.checkpoint import load_checkpoint, read_extra, save_checkpoint
from gkt_core.nn.execution import prepare_torch
from gkt_core.nn.optimizers import set_learning_rate
from gkt_core.rounds.feature_source import ShardSource, split_by_client
from gkt_core.rounds.learning_rate import learning_rate_scale
from gkt_core.wire.shards import ShardKey, write_soft_labels
from server_app.quarantine import Watch
from server_app.rounds.deadline import Deadline
from server_app.rounds.machine import rounds_of
from server_app.rounds.state import (
    Claimed,
    DeadlinePassed,
    Event,
    Failed,
    Phase,
    Quarantined,
    Released,
    RunState,
    Trained,
)
from server_app.run_folder import (
    SERVER_WEIGHTS_BLOB,
    TEMPLATE_BLOB,
    RunContext,
    open_run,
    soft_labels_blob,
)
from server_app.storage_errors import STORAGE_ERRORS, Patience
from server_app.store import validation_accuracies
from server_app.trainer.group import (
    AloneGroup,
    Order,
    TrainingGroup,
    choose_group,
    end_with_parent,
    join_spawned,
    join_torchrun,
    torchrun_rank,
)
from server_app.trainer.lease import Lease, LeaseLost, only_trainer
from server_app.trainer.rank_process import build_network, own_device, train_along
from server_app.trainer.step_report import (
    ProgressReporter,
    ServerGone,
    check_parent,
    describe_step,
    step_metrics,
)
from server_app.trainer.tidy import drop_what_is_spent

log = logging.getLogger("gkt.trainer")

_POLL_SECONDS = 0.1


class Trainer:
    """Trains the server network of one run, round after round.

    Args:
        run: The run.
        group: The processes that train together; only this one by default.
        device: Where the network is trained.
    """

    def __init__(
        self, run: RunContext, group: TrainingGroup | None = None, device: torch.device | None = None
    ) -> None:
        self._run = run
        self._group = group or AloneGroup()
        self._device = device or torch.device("cpu")
        self._lease = Lease(run.store, run.folder)
        self._parent_pid: int | None = None
        self._network, self._optimizer = build_network(run, self._device)
        self._watch = Watch(run.blobs, run.config, run.bundle.manifest.num_classes)

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
                patience.wait(error, log)

    def _run_rounds(self) -> RunState:
        store = self._run.store
        while not self._lease.take():
            check_parent(self._parent_pid)
            time.sleep(_POLL_SECONDS)
        # A round that an earlier trainer left half trained is trained on from its last epoch.
        state = store.apply(Released())
        self._restore(state)
        last_sign = 0.0
        deadline = Deadline()
        while state.phase not in (Phase.FINISHED, Phase.FAILED):
            check_parent(self._parent_pid)
            self._lease.keep()
            if deadline.has_passed(state):
                state = store.apply(DeadlinePassed(state.round_num))
                log.info(
                    "round %d: the deadline has passed, %d reported", state.round_num, len(state.reported)
                )
            if state.phase is Phase.READY:
                state = self._train(state.round_num)
                continue
            if time.monotonic() - last_sign > 1.0:
                store.report_progress(None)
                last_sign = time.monotonic()
            time.sleep(_POLL_SECONDS)
            state = store.state()
        self._lease.release()
        return state

    def _restore(self, state: RunState) -> None:
        self._group.reset()
        self._network, self._optimizer = build_network(self._run, self._device)
        finished = state.round_num - (0 if state.phase is Phase.FINISHED else 1)
        if finished >= 1:
            load_checkpoint(self._run.checkpoint_path(finished), self._network, self._optimizer)
            log.info("restored the checkpoint of round %d", finished)

    def _restore_epoch(self, state: RunState) -> int:
        """Go on with a round that a trainer left; the number of epochs that are done."""
        path = self._run.epoch_checkpoint_path
        if not path.is_file():
            return 0
        extra = read_extra(path)
        # A device that was revoked meanwhile is trained on no further.
        if (extra["round_num"], extra["clients"]) != (state.round_num, sorted(rounds_of(state).parts(state))):
            return 0
        load_checkpoint(path, self._network, self._optimizer)
        log.info("round %d: going on after epoch %d", state.round_num, extra["epoch"])
        return int(extra["epoch"])

    def _save_epoch(self, state: RunState, epoch: int) -> None:
        self._lease.keep()
        extra = {
            "round_num": state.round_num,
            "epoch": epoch,
            "clients": sorted(rounds_of(state).parts(state)),
        }
        save_checkpoint(self._run.epoch_checkpoint_path, self._network, self._optimizer, extra)

    def _train(self, round_num: int) -> RunState:
        run, store = self._run, self._run.store
        state = self._apply(Claimed(round_num))
        rounds = rounds_of(state)
        if not rounds.parts(state):
            return self._end(state)
        try:
            if run.config.quarantine:
                state = self._quarantine(state)
                if state.phase is not Phase.TRAINING:
                    return state
            source = self._source(state, "train")
            epochs_done = self._restore_epoch(state)
            log.info("round %d: %d samples%s", round_num, len(source), describe_step(state))
            scale = learning_rate_scale(run.config, rounds.shown_round(state), validation_accuracies(store))
            set_learning_rate(self._optimizer, run.config.server_lr * scale)
            order = Order(
                round_num, epochs_done + 1, run.config.server_lr * scale, self._shards(state, "train")
            )
            update = server_update(
                self._network,
                self._optimizer,
                source,
                run.config,
                round_num=round_num,
                num_classes=run.bundle.manifest.num_classes,
                first_epoch=epochs_done + 1,
                on_batch=ProgressReporter(run, round_num, self._parent_pid, self._lease),
                on_epoch=lambda epoch: self._save_epoch(state, epoch),
                ranks=self._group.begin(order, self._network, self._optimizer),
            )
            evaluation = evaluate(self._network, self._source(state, "validation"))
            _check_finite(round_num, update, evaluation)
            for client_id, soft_labels in split_by_client(source, update.server_logits).items():
                data = write_soft_labels(client_id, round_num, soft_labels)
                run.blobs.put(soft_labels_blob(round_num, client_id), data)
            extra = {"round_num": round_num, "run_id": store.run_id}
            save_checkpoint(run.checkpoint_path(round_num), self._network, self._optimizer, extra)
            if rounds.is_last(store.state()):
                self._publish_model()
        except StorageUnavailableError:
            raise
        except GKTError as error:
            self._apply(Failed(str(error)))
            raise
        store.add_round_metrics(
            round_num,
            {
                "train_loss": update.loss,
                "train_accuracy": update.accuracy,
                "validation_loss": evaluation.loss,
                "validation_accuracy": evaluation.accuracy,
                "samples_per_second": update.samples_per_second,
                **step_metrics(state),
            },
        )
        trained = self._apply(Trained(round_num))
        if trained.phase is Phase.FINISHED and not rounds.is_last(state):
            # Those that were still waited for have been revoked while it trained.
            self._publish_model()
        log.info(
            "round %d: validation accuracy %.4f, %.0f samples/s",
            round_num,
            evaluation.accuracy,
            update.samples_per_second,
        )
        self._tidy(round_num, state)
        return trained

    def _end(self, state: RunState) -> RunState:
        """A step on nothing: the others' last rounds were trained on before, and nobody is waited for."""
        extra = {"round_num": state.round_num, "run_id": self._run.store.run_id}
        path = self._run.checkpoint_path(state.round_num)
        save_checkpoint(path, self._network, self._optimizer, extra)
        self._publish_model()
        return self._apply(Trained(state.round_num))

    def _quarantine(self, state: RunState) -> RunState:
        """Leave out the devices of this round whose uploads are far outside."""
        found = self._watch.check(
            self._source(state, "train"),
            rounds=rounds_of(state).parts(state),
            answered=dict(state.answered),
            trusted=state.trusted,
        )
        for client_id, reason in found.items():
            log.warning("round %d: %s is quarantined: %s", state.round_num, client_id, reason)
            state = self._apply(Quarantined(client_id, state.round_num, reason))
        return state

    def _apply(self, event: Event) -> RunState:
        try:
            return self._run.store.apply(event, self._lease.owner)
        except RoundError:
            if not self._lease.take():
                raise LeaseLost from None
            raise

    def _shards(self, state: RunState, split: str) -> list[tuple[ShardKey, str]]:
        """Shards of what is trained on, or evaluated on, and their blobs."""
        rounds = rounds_of(state)
        wanted = rounds.parts(state) if split == "train" else rounds.validation_parts(state)
        # Devices that came too late may have left some shards of a round.
        return [
            (shard.key, shard.blob)
            for round_num in sorted(set(wanted.values()))
            for shard in self._run.store.shards(round_num)
            if shard.key.split == split and wanted.get(shard.key.client_id) == round_num
        ]

    def _source(self, state: RunState, split: str) -> ShardSource:
        return ShardSource.from_files(
            ((key, self._run.blobs.local_path(blob)) for key, blob in self._shards(state, split)),
            self._run.shard_spec,
        )

    def _publish_model(self) -> None:
        run = self._run
        tensors = {
            SERVER_PREFIX + name: value.cpu().contiguous()
            for name, value in self._network.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        template = run.bundle.file(COMBINED_TEMPLATE).read_bytes()
        arrays = {name: value.numpy() for name, value in tensors.items()}
        filled = fill_template(template, run.bundle.manifest.slots(), arrays, SERVER_PREFIX)
        run.blobs.put(TEMPLATE_BLOB, filled)
        run.blobs.put(SERVER_WEIGHTS_BLOB, save(tensors))

    def _tidy(self, round_num: int, before: RunState) -> None:
        """Drop what no later round needs: a run of weeks must not fill the disk."""
        self._run.epoch_checkpoint_path.unlink(missing_ok=True)
        self._watch.tidy(rounds_of(before).parts(before), dict(before.answered))
        drop_what_is_spent(self._run, before)
        if round_num >= 2:
            self._run.checkpoint_path(round_num - 1).unlink(missing_ok=True)


def _check_finite(round_num: int, update: ServerUpdate, evaluation: Evaluation) -> None:
    # A loss is computed before its update: the last update shows only in what comes after it.
    if not (np.isfinite(update.server_logits).all() and np.isfinite(evaluation.loss)):
        raise GKTError(
            f"the server network gives NaN or infinity after round {round_num}: "
            "training diverged, lower server_lr"
        )


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--threads", "num_threads", default=0, help="CPU threads of each process; 0 means all cores.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--procs", "num_procs", default=1, show_default=True, help="Processes to train with.")
@click.option("--parent-pid", type=int)
# What a trainer tells the processes that it starts.
@click.option("--rank", type=int, hidden=True)
@click.option("--store-port", type=int, default=0, hidden=True)
def main(
    data_dir: Path,
    num_threads: int,
    device: str,
    num_procs: int,
    parent_pid: int | None,
    rank: int | None,
    store_port: int,
) -> None:
    """Train the server network of the run in --data-dir.

    Alone, with others that it starts (--procs), or as one of those that torchrun has started.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    prepare_torch(device, num_threads)
    own = own_device(device, rank)
    if rank or torchrun_rank():
        if rank and parent_pid is not None:
            end_with_parent(parent_pid)
        join_spawned(device, store_port, rank, num_procs) if rank else join_torchrun(device)
        train_along(open_run(data_dir), own)
        return
    group = choose_group(data_dir, num_procs, num_threads, device)
    with only_trainer(data_dir, parent_pid) as alone:
        if alone:
            # Of the trainer that was killed, and of its server: a run of weeks must not fill the disk.
            remove_leftovers(data_dir)
            try:
                state = Trainer(open_run(data_dir), group, own).run_until_done(parent_pid)
            except BaseException:
                group.abandon()
                raise
            log.info("the run is %s", state.phase)
