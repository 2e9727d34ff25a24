"""Server networks of a user's own: which modules register them, kept in the run's folder for its trainers.

The web process imports none of them: they load torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gkt_core.bundle.manifest import Manifest
from gkt_core.errors import ConfigError, InputError
from gkt_core.files import write_atomically
from gkt_core.networks import server_network_names

NETWORKS_NAME = "networks.json"
_TRIAL = "server_app.trainer.own_networks"


def note_networks(folder: Path, sources: Sequence[str]) -> None:
    """Keep in a run's folder what ``--networks`` named: files by where they are, modules by name."""
    if sources:
        kept = [str(Path(each).resolve()) if each.endswith(".py") else each for each in sources]
        write_atomically(folder / NETWORKS_NAME, (json.dumps(kept) + "\n").encode())


def noted_networks(folder: Path) -> tuple[str, ...]:
    """The modules of a run; none for one with a network of the paper.

    Raises:
        InputError: The note cannot be read.
    """
    try:
        return tuple(map(str, json.loads((folder / NETWORKS_NAME).read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder / NETWORKS_NAME} cannot be read: {error}") from error


def check_networks(sources: Sequence[str], manifest: Manifest) -> None:
    """Build the bundle's server network once, in a process of its own, before a run needs it.

    Raises:
        ConfigError: No module registers it, or one cannot be loaded, or it does not take the features.
    """
    name = manifest.server_network
    if not sources:
        if name not in server_network_names():
            raise ConfigError(
                f"the bundle's server network is {name!r}, none of {', '.join(server_network_names())}: give "
                "the module that registers it with --networks FILE.py"
            )
        return
    wanted = {"name": name, "num_classes": manifest.num_classes, "features": manifest.features}
    done = subprocess.run(
        [sys.executable, "-m", _TRIAL, json.dumps(wanted), *sources],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"]
        said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
        raise ConfigError(said.removeprefix("error: "))
