"""The server: a Flask application for the devices, and a trainer in a process of its own."""

from server_app.app import create_app
from server_app.run_folder import RunContext, create_run, open_run

__all__ = ["RunContext", "create_app", "create_run", "open_run"]
