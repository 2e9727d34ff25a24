"""Run :mod:`server_app.trainer.command` as a process."""

from gkt_core.cli import run_command
from server_app.trainer.command import main

if __name__ == "__main__":
    run_command(main)
