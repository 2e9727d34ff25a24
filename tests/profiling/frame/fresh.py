"""What a fresh process of these tests does: answers, refuses, dies or hangs, as its spec says."""

from __future__ import annotations

import os
import time
from typing import Any

from gkt_core.errors import ConfigError, RunFailedError
from profiling.frame.measuring.fresh_process import answer, say


def act(spec: dict[str, Any]) -> dict[str, Any]:
    say("a first line")
    if spec["act"] == "refuse":
        raise ConfigError("nothing of the kind")
    if spec["act"] == "fail":
        raise RunFailedError("it broke")
    if spec["act"] == "die":
        os.abort()
    if spec["act"] == "hang":
        time.sleep(3600)
    return {"spec": spec, "variable": os.environ.get("GKT_FRESH")}


if __name__ == "__main__":
    answer(act)
