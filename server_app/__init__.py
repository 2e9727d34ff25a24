"""The server: a Flask application for the devices, and a trainer in a process of its own.

The names are imported when they are used: ``gkt serve --help`` loads this package, also without Flask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server_app.run_folder import RunContext, create_run, open_run
    from server_app.server import Server
    from server_app.web.app import create_app

__all__ = ["RunContext", "Server", "create_app", "create_run", "open_run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from server_app import run_folder  # noqa: PLC0415 - imports an extra

    if name == "Server":
        from server_app import server  # noqa: PLC0415 - imports an extra

        return server.Server
    from server_app.web import app  # noqa: PLC0415 - imports an extra

    return getattr(app if name == "create_app" else run_folder, name)
