"""The server: a Flask application for the devices, and a trainer in a process of its own."""

from server_app.run_folder import RunContext, create_run, open_run
from server_app.web.app import create_app

__all__ = ["RunContext", "create_app", "create_run", "open_run"]
