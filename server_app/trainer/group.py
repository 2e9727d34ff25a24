"""Join the processes that train one run's network together, and tell them what rank 0 wants.

Rank 0 is the trainer: it alone has the lease, changes the run's state, saves and publishes. The others hold
nothing that is worth keeping: with each order they get network and optimizer anew, train along, and throw
both away (:mod:`server_app.trainer.rank_process`). Rank 0 either starts them itself, on this machine
(:class:`SpawnedGroup`), or finds them where ``torchrun`` started them, on several (:class:`TorchrunGroup`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from gkt_core.nn.checkpoint import restore_state, state_bytes
from gkt_core.nn.ranks import DistributedRanks, Ranks
from gkt_core.rounds.learning_rate import LearningRate
from gkt_core.wire.shards import ShardKey

log = logging.getLogger("gkt.trainer")

# Processes that wait for devices wait for days. One that dies is noticed at once, by its closed connections.
_LONGEST_WAIT = timedelta(days=30)
_POLL_SECONDS = 0.2
_END_SECONDS = 10.0


class GroupBroken(Exception):
    """Raised when processes that torchrun started are out of step: it must start all of them again."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a round is trained on, and from where.

    Attributes:
        round_num: From 1.
        first_epoch: Where to begin.
        learning_rate: The server's, in each step of this round.
        shards: Every training shard, and its blob.
    """

    round_num: int
    first_epoch: int
    learning_rate: LearningRate
    shards: list[tuple[ShardKey, str]]


class TrainingGroup:
    """The processes, seen from rank 0; of this class itself, rank 0 alone."""

    def begin(self, order: Order, network: nn.Module, optimizer: torch.optim.Optimizer) -> Ranks:
        """Have everybody train with this process, from these weights; before each ``server_update``."""
        return Ranks()

    def reset(self) -> None:
        """Forget a training that was left half done, or another network."""

    def close(self) -> None:
        """Send the others home: all is done."""

    def abandon(self) -> None:
        """Leave the others alone, before this process ends with an error."""


class _Formed(TrainingGroup):
    """A group of several processes, however it is formed."""

    def __init__(self) -> None:
        self._ranks: DistributedRanks | None = None

    def begin(self, order: Order, network: nn.Module, optimizer: torch.optim.Optimizer) -> Ranks:
        """Form the group if it is not there, and send the order."""
        if self._ranks is None:
            self._form()
        _broadcast(state_bytes({"network": network}, {"network": optimizer}, {}, asdict(order)))
        self._ranks = self._ranks or DistributedRanks(network)
        return self._ranks

    def _form(self) -> None:
        raise NotImplementedError

    def _send_home(self) -> None:
        self._ranks = None
        # Some may have ended before us.
        with contextlib.suppress(RuntimeError):
            _broadcast(b"")
        dist.destroy_process_group()


class TorchrunGroup(_Formed):
    """Processes that ``torchrun`` started, ends, and starts again, all of them, when one ends."""

    def __init__(self, torch_device: str) -> None:
        super().__init__()
        self._torch_device = torch_device

    def reset(self) -> None:
        """Refuse to go on after a training that was begun.

        Raises:
            GroupBroken: Others may be in the middle of a training.
        """
        if self._ranks is not None:
            raise GroupBroken("the processes must be started again")

    def close(self) -> None:
        """Send the others home, for whom torchrun waits."""
        if self._ranks is None:
            self._form()
        self._send_home()

    def _form(self) -> None:
        join_torchrun(self._torch_device)


class SpawnedGroup(_Formed):
    """Processes of this machine, started when there is something to train.

    Args:
        folder: The run's folder.
        num_procs: How many with this one.
        num_threads: CPU threads of each.
        torch_device: ``cpu`` or ``cuda``.
        on_death: Called in a thread when another ended by itself. By default this process ends, wherever it
            waits, and whoever watches it starts all of them again.
    """

    def __init__(
        self,
        folder: Path,
        num_procs: int,
        num_threads: int,
        torch_device: str,
        on_death: Callable[[], None] = lambda: os._exit(1),
    ) -> None:
        super().__init__()
        self._folder, self._num_procs = folder, num_procs
        self._num_threads, self._torch_device = num_threads, torch_device
        self._on_death = on_death
        self._others: list[subprocess.Popen[bytes]] = []
        self._leaving = threading.Event()

    def reset(self) -> None:
        """End the others, wherever they are; others are started for the next training."""
        self.abandon()

    def abandon(self) -> None:
        """End the others."""
        self._leaving.set()
        for other in self._others:
            other.kill()
        for other in self._others:
            other.wait()
        self._others.clear()
        self._ranks = None
        if dist.is_initialized():
            dist.destroy_process_group()

    def close(self) -> None:
        """Send the others home, and wait for them."""
        if self._ranks is None:
            return
        self._leaving.set()
        self._send_home()
        deadline = time.monotonic() + _END_SECONDS
        for other in self._others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                other.wait(timeout=max(0.0, deadline - time.monotonic()))
        self.reset()

    def _form(self) -> None:
        store = _store(0, self._num_procs, is_master=True)
        for rank in range(1, self._num_procs):
            command = [sys.executable, "-m", "server_app.trainer", "--data-dir", str(self._folder)]
            command += ["--procs", str(self._num_procs), "--rank", str(rank), "--store-port", str(store.port)]
            command += ["--threads", str(self._num_threads), "--device", self._torch_device]
            # They write where this process writes, and end with it.
            command += ["--parent-pid", str(os.getpid())]
            self._others.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        self._leaving = threading.Event()
        watched = (list(self._others), self._leaving)
        threading.Thread(target=self._watch, args=watched, name="rank-watch", daemon=True).start()
        _init_local(self._torch_device, store, 0, self._num_procs)

    def _watch(self, others: list[subprocess.Popen[bytes]], leaving: threading.Event) -> None:
        while not leaving.wait(_POLL_SECONDS):
            for rank, other in enumerate(others, start=1):
                exit_code = other.poll()
                if exit_code is not None and not leaving.is_set():
                    log.error("rank %d ended with exit code %d: all must begin anew", rank, exit_code)
                    self._on_death()
                    return


def choose_group(folder: Path, num_procs: int, num_threads: int, torch_device: str) -> TrainingGroup:
    """The group that this process, as rank 0, trains with; the arguments are :class:`SpawnedGroup`'s."""
    if torchrun_rank() is not None:
        return TorchrunGroup(torch_device)
    return SpawnedGroup(folder, num_procs, num_threads, torch_device) if num_procs > 1 else TrainingGroup()


def join_spawned(torch_device: str, store_port: int, rank: int, num_procs: int) -> None:
    """Join the group of the trainer on this machine that has started this process."""
    _init_local(torch_device, _store(store_port, num_procs, is_master=False), rank, num_procs)


def join_torchrun(torch_device: str) -> None:
    """Join the group that torchrun has started."""
    dist.init_process_group(_backend(torch_device), timeout=_LONGEST_WAIT)


def receive_order(network: nn.Module, optimizer: torch.optim.Optimizer) -> Order | None:
    """Wait for rank 0's next order, and take its weights; None at the end."""
    data = _broadcast(None)
    if not data:
        return None
    _, extra = restore_state(data, {"network": network}, {"network": optimizer}, "of rank 0")
    shards = [(ShardKey(**key), blob) for key, blob in extra.pop("shards")]
    learning_rate = LearningRate(**extra.pop("learning_rate"))
    return Order(**extra, learning_rate=learning_rate, shards=shards)


def end_with_parent(parent_pid: int, grace_seconds: float = 0.0) -> None:
    """End this process when another is no longer its parent, even while it waits for others.

    Args:
        parent_pid: The other.
        grace_seconds: How long it may take to end by itself.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_POLL_SECONDS)
        time.sleep(grace_seconds)
        log.info("who started this process is gone; ending")
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def torchrun_rank() -> int | None:
    """This process's rank among those that torchrun has started; None without torchrun."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def _backend(torch_device: str) -> str:
    return "cpu:gloo,cuda:nccl" if torch_device == "cuda" else "gloo"


def _store(port: int, num_procs: int, *, is_master: bool) -> Any:
    return dist.TCPStore(  # type: ignore[attr-defined] # exported only where PyTorch can do this
        "127.0.0.1", port, num_procs, is_master, timeout=_LONGEST_WAIT, wait_for_workers=False
    )


def _init_local(torch_device: str, store: Any, rank: int, num_procs: int) -> None:
    # The name of a machine may lead to an address that it cannot reach itself at.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    dist.init_process_group(
        _backend(torch_device), store=store, rank=rank, world_size=num_procs, timeout=_LONGEST_WAIT
    )


def _broadcast(data: bytes | None) -> bytes:
    """Send rank 0's bytes to every rank; the others give None."""
    size = torch.tensor([len(data or b"")])
    dist.broadcast(size, 0)
    if not int(size):
        return b""
    content = torch.empty(int(size), dtype=torch.uint8)
    if data is not None:
        content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    dist.broadcast(content, 0)
    return bytes(content.numpy())
