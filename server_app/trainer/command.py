"""``python -m server_app.trainer --data-dir DIR``, which ``gkt serve`` starts: one process that trains."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from gkt_core.config.run_config import COMPILE
from gkt_core.files import remove_leftovers
from gkt_core.nn.execution import prepare_torch
from server_app.heartbeat import LEAST_SILENCE_SECONDS, WAITING_NAME, Heartbeat
from server_app.logs.piped import PipeHandler
from server_app.run_folder import open_run
from server_app.trainer.group import choose_group, end_with_parent, join_spawned, join_torchrun, torchrun_rank
from server_app.trainer.lease import only_trainer
from server_app.trainer.network import own_torch_device
from server_app.trainer.own_networks import load_own_networks
from server_app.trainer.rank_process import train_along
from server_app.trainer.trainer import Trainer

_ORPHAN_SECONDS = 10.0

log = logging.getLogger("gkt.trainer")


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), required=True)
@click.option("--threads", "num_threads", default=0, help="CPU threads of each process; 0 means all cores.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--procs", "num_procs", default=1, show_default=True, help="Processes to train with.")
@click.option("--compile", "compiled", type=click.Choice(COMPILE), default="off", show_default=True)
@click.option("--parent-pid", type=int)
@click.option("--silence", "silence_seconds", default=LEAST_SILENCE_SECONDS, show_default=True)
# What a trainer tells the processes that it starts.
@click.option("--rank", type=int, hidden=True)
@click.option("--store-port", type=int, default=0, hidden=True)
@click.option(
    "--log-fd", type=int, help="Pipe to the server, which writes all logs to one place.", hidden=True
)
def main(
    data_dir: Path,
    num_threads: int,
    device: str,
    num_procs: int,
    compiled: str,
    parent_pid: int | None,
    silence_seconds: float,
    rank: int | None,
    store_port: int,
    log_fd: int | None,
) -> None:
    """Train the server network of the run in --data-dir.

    Alone, with others that it starts (--procs), or as one of those that torchrun has started.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    if log_fd is not None:
        logging.getLogger().addHandler(PipeHandler(log_fd))
    prepare_torch(device, num_threads)
    load_own_networks(data_dir)
    torch_device = own_torch_device(device, rank)
    if rank or torchrun_rank():
        if rank and parent_pid is not None:
            end_with_parent(parent_pid)
        join_spawned(device, store_port, rank, num_procs) if rank else join_torchrun(device)
        train_along(open_run(data_dir), torch_device)
        return
    group = choose_group(data_dir, num_procs, num_threads, device)
    if parent_pid is not None:
        # One that hangs does not look itself; one that does not ends in order, before that.
        end_with_parent(parent_pid, grace_seconds=_ORPHAN_SECONDS)
    waiting = Heartbeat(data_dir, parent_pid, silence_seconds, WAITING_NAME)
    with only_trainer(data_dir, parent_pid, waiting) as alone:
        if alone:
            heartbeat = Heartbeat(data_dir, parent_pid, silence_seconds)
            heartbeat.long_step("opening the run")
            # Of the trainer that was killed, and of its server: a run of weeks must not fill the disk.
            remove_leftovers(data_dir)
            try:
                trainer = Trainer(open_run(data_dir), group, torch_device, compiled, heartbeat)
                state = trainer.run_until_done(parent_pid)
            except BaseException:
                group.abandon()
                raise
            log.info("the run is %s", state.phase)
