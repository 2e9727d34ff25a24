"""A process to measure: one application that takes bodies as ``gkt serve`` does, on a web server by name.

Started as ``python -m profiling.server.web.body_server SERVER PORT FOLDER THREADS STALL_SECONDS``.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from flask import Flask

from server_app.serving import bind
from server_app.web.gunicorn_server import WebServer
from server_app.web.receiving import receive

LARGEST_BODY = 1 << 30
_FOLDER_VARIABLE = "GKT_BODY_SERVER_FOLDER"


def make_app() -> Flask:
    """Hash a body, look at every float, write it to a new file and rename that."""
    folder = Path(os.environ[_FOLDER_VARIABLE])
    app = Flask("bodies", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY

    @app.put("/<name>")
    def put(name: str) -> dict[str, str]:
        path = folder / f"{name}.part"
        received = receive(path, LARGEST_BODY, look_at_floats=True)
        path.replace(folder / name)
        return {"sha256": received.sha256}

    return app


class _OwnReader:
    """A WSGI application whose bodies come by the server's own reader only, as in any other application."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.input"] = _Stream(environ["wsgi.input"])
        return self._app(environ, start_response)


class _Stream:
    def __init__(self, stream: Any) -> None:
        self.read, self.readline = stream.read, stream.readline


def _serve(name: str, port: int, num_threads: int, stall_seconds: float) -> None:
    if name == "gkt":
        WebServer(
            make_app(), bind("127.0.0.1", port), num_threads=num_threads, stall_seconds=stall_seconds
        ).run()
    elif name == "waitress":
        importlib.import_module("waitress").serve(
            make_app(), host="127.0.0.1", port=port, threads=num_threads, max_request_body_size=LARGEST_BODY
        )
    elif name == "gunicorn":
        _gunicorn(port, num_threads)
    else:
        server = importlib.import_module("granian").Granian(
            "profiling.server.web.body_server:make_app",
            address="127.0.0.1",
            port=port,
            interface="wsgi",
            workers=1,
            blocking_threads=num_threads,
            factory=True,
            log_enabled=False,
        )
        server.serve()


def _gunicorn(port: int, num_threads: int) -> None:
    base: Any = importlib.import_module("gunicorn.app.base").BaseApplication

    class Application(base):  # type: ignore[misc]  # gunicorn has no types
        """With its arbiter and one worker, as its command line runs it."""

        def load_config(self) -> None:
            settings = {
                "bind": f"127.0.0.1:{port}",
                "worker_class": "gthread",
                "threads": num_threads,
                "loglevel": "error",
            }
            for key, value in settings.items():
                self.cfg.set(key, value)

        def load(self) -> Any:
            return _OwnReader(make_app())

    Application().run()


if __name__ == "__main__":
    os.environ[_FOLDER_VARIABLE] = sys.argv[3]
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[4]), float(sys.argv[5]))
