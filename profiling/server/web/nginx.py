"""An nginx of our own that stores PUT bodies as files: what receiving bytes costs at best.

Own configuration, own port, own folder, no privileges; it ends with the block.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gkt_core.errors import InputError

# One worker, as the server has one process. Debian's module needs no more than this to store a body.
_CONFIG = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_max_body_size 64m;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/stored;
        location / {{
            dav_methods PUT;
            create_full_put_path on;
        }}
    }}
}}
"""


@contextlib.contextmanager
def running_nginx(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start nginx on a port of the loopback address; bodies are stored below ``folder/stored``.

    Raises:
        InputError: There is no nginx.
    """
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise InputError("nginx is not installed: apt-get install nginx, which this measures against")
    (folder / "stored").mkdir(parents=True)
    import pwd  # noqa: PLC0415 - there is none on Windows, where the list of measurements is read as well

    # As root, nginx would give its worker another user, who may not write here.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, user=user), encoding="utf-8")
    process = subprocess.Popen(
        [program, "-e", str(folder / "error.log"), "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
