"""A device's process that takes part in one session after the other, and says how each ended.

Started with the URL, the data, a folder, the limit of memory, the engine, and the first and last session.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# Waits are the server's idea: none of them lasts. Before anything else takes the function.
_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(float(seconds), 0.001))

from edge_runtime.machine.process_status import status_bytes  # noqa: E402 - see above

ALLOWED = ("/dev/null", "/dev/tty")
written: list[str] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note whatever is written or made outside of the session's folder."""
    paths: list[Any] = []
    if (
        event == "open" and arguments[2] is not None and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ) or event in ("os.mkdir", "os.remove", "os.rmdir"):
        paths = [arguments[0]]
    elif event in ("os.rename", "os.link", "os.symlink"):
        paths = list(arguments[:2])
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.realpath(os.fsdecode(path))
            if not place.startswith(folder_of_now) and place not in ALLOWED:
                written.append(f"{event} {place}")


folder_of_now = ""


def one(url: str, data: str, folder: Path, limit_mb: str, engine: str, number: int) -> dict[str, Any]:
    """Take part in a session, as the command does."""
    from gkt_core.cli import gkt, run_command  # noqa: PLC0415 - after time.sleep was changed

    sys.argv = [
        "gkt", "edge", "run", "--server", url, "--token", f"session-{number}", "--data", data,
        "--state-dir", str(folder / "state"), "--client-id", "client-a", "--patience-seconds", "0",
        "--stall-seconds", "0.3", "--memory-limit-mb", limit_mb, "--progress", "plain", "--no-proxy",
        "--engine", engine,
    ]  # fmt: skip
    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    trace = ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_command(gkt)
        except SystemExit as end:
            code = end.code
        except BaseException:
            trace = traceback.format_exc()
    return {
        "session": number,
        "code": code,
        "trace": trace,
        "said": (err.getvalue() + out.getvalue())[-2000:],
    }


def main() -> None:
    """Take part in all sessions, a line of JSON each."""
    global folder_of_now  # noqa: PLW0603 - the hook of a process can have no other place
    url, data, root, limit_mb, engine, first, last = sys.argv[1:]
    real = os.dup(1)
    sys.addaudithook(watch)
    for number in range(int(first), int(last)):
        folder = Path(root, f"session-{number}")
        folder_of_now = os.path.realpath(folder)
        folder.mkdir()
        os.environ["TMPDIR"] = str(folder)
        written.clear()
        result = one(url, data, folder, limit_mb, engine, number)
        # Not ru_maxrss, which a process takes over from the one that started it.
        result |= {"outside": list(written), "peak_bytes": status_bytes("VmHWM") or 0}
        os.write(real, (json.dumps(result) + "\n").encode())


if __name__ == "__main__":
    main()
