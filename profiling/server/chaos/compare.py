"""The same run twice, left alone and disturbed, and whether it ended with the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gkt_core.config.run_config import RunConfig
from gkt_core.errors import RunFailedError
from profiling.frame.machine import describe_machine
from profiling.server.chaos.kills import draw_kills
from profiling.server.chaos.run import SupervisedRun
from server_app.run_folder import create_run

SCHEMA = "gkt-chaos/1"


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """What is run twice.

    Attributes:
        artifacts: Bundle of ``gkt export``.
        data_files: A private file for each device.
        config: Hyper-parameters; no deadline, so that nothing depends on time.
        num_kills: SIGKILLs before the last round.
        seed: Of when what is killed.
        num_threads: CPU threads of trainer and devices.
        limit_seconds: Longer than that neither run may take.
    """

    artifacts: Path
    data_files: Sequence[Path]
    config: RunConfig
    num_kills: int
    seed: int
    num_threads: int = 1
    limit_seconds: float = 900.0


def compare_runs(options: ChaosOptions, out: Path, announce: Callable[[str], None]) -> dict[str, Any]:
    """Run undisturbed, run disturbed, compare.

    Args:
        options: What.
        out: A new folder for both runs.
        announce: Takes a line for the person who watches.

    Returns:
        The report: the hashes of both runs, whether they are ``equal``, the kills, the times.

    Raises:
        RunFailedError: A run did not come to its end.
    """
    kills = draw_kills(options.num_kills, options.config.rounds, options.seed)
    out.mkdir(parents=True, exist_ok=True)
    # Copies have the same run id, which stands in what is compared.
    create_run(out / "empty", options.artifacts, options.config).store.close()
    outcomes = {}
    for name, planned in (("undisturbed", []), ("disturbed", kills)):
        announce(f"{name} run: {options.config.rounds} rounds, {options.config.num_clients} devices")
        shutil.copytree(out / "empty", out / name / "server")
        run = SupervisedRun(
            out / name,
            options.data_files,
            num_threads=options.num_threads,
            limit_seconds=options.limit_seconds,
            announce=announce,
        )
        outcomes[name] = run.run(planned)
        announce(f"{name} run: finished after {outcomes[name].seconds:.1f} s")
    happened = outcomes["disturbed"].kills
    if len(happened) < options.num_kills:
        raise RunFailedError(
            f"the run was over after {len(happened)} of {options.num_kills} kills: take more rounds"
        )
    hashes = {name: outcome.hashes for name, outcome in outcomes.items()}
    differing = sorted(
        name for name, found in hashes["undisturbed"].items() if hashes["disturbed"][name] != found
    )
    return {
        "schema": SCHEMA,
        "equal": not differing,
        "differing": differing,
        "settings": {
            "seed": options.seed,
            "num_kills": options.num_kills,
            "num_threads": options.num_threads,
            "config": options.config.to_dict(),
        },
        "hashes": hashes,
        "kills": outcomes["disturbed"].to_dict()["kills"],
        "starts": outcomes["disturbed"].starts,
        "leftovers": outcomes["disturbed"].leftovers,
        "seconds": {name: outcome.seconds for name, outcome in outcomes.items()},
        "machine": describe_machine(),
    }
