"""``python -m server_app.trainer --data-dir DIR``."""

from gkt_core.cli import run_command
from server_app.trainer.trainer import main

if __name__ == "__main__":
    run_command(main)
