"""The server: a Flask application for the devices, and a trainer in a process of its own.

The names are imported when they are used: ``gkt serve --help`` loads this package, also without Flask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gkt_core.lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from server_app.run_folder import RunContext, create_run, open_run
    from server_app.server import Server
    from server_app.web.app import create_app

__all__ = ["RunContext", "Server", "create_app", "create_run", "open_run"]

_WHERE = {
    "RunContext": "server_app.run_folder",
    "Server": "server_app.server",
    "create_app": "server_app.web.app",
    "create_run": "server_app.run_folder",
    "open_run": "server_app.run_folder",
}

__getattr__ = _lazy_names(__name__, _WHERE)
