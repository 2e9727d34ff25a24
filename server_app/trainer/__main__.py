"""Run :mod:`server_app.trainer.command` as a process."""

from gkt_core.cli import run_command
from gkt_core.config.waiting import wait_patiently

if __name__ == "__main__":
    wait_patiently()
    # Loads PyTorch, which reads then how threads are to wait; under torchrun nobody else has said it.
    from server_app.trainer.command import main

    run_command(main)
