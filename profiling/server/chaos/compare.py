"""The same run twice, left alone and disturbed, and whether it ended with the same bytes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_export import ExportOptions, export_bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.data.datasets import load_dataset
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.errors import RunFailedError
from gkt_core.files import check_new_folder
from profiling.frame import Announce
from profiling.server.chaos.kills import draw_kills
from profiling.server.chaos.options import ChaosOptions
from profiling.server.chaos.run import SupervisedRun
from server_app.run_folder import create_run


def measure_chaos(options: ChaosOptions, announce: Announce) -> dict[str, Any]:
    """Split the digits, export a bundle, and compare two runs of them.

    Raises:
        RunFailedError: A run did not come to its end.
    """
    folder = options.work_dir or Path("gkt-chaos") / time.strftime("%Y%m%d-%H%M%S")
    check_new_folder(folder, "--work-dir")
    announce("exporting a bundle")
    dataset = load_dataset("digits", image_size=options.image_size, limit=options.num_examples)
    split = split_dataset(dataset, SplitOptions(options.num_clients, "iid", 0.5, 0.1, 0), folder / "data")
    export = ExportOptions(image_size=options.image_size, num_classes=dataset.num_classes)
    export_bundle(export, folder / "artifacts")
    files = [folder / "data" / client["file"] for client in split["clients"]]
    return compare_runs(options, options.config, folder / "artifacts", files, folder / "runs", announce)


def compare_runs(
    options: ChaosOptions,
    config: RunConfig,
    artifacts: Path,
    data_files: Sequence[Path],
    out: Path,
    announce: Announce,
) -> dict[str, Any]:
    """Run undisturbed, run disturbed, compare.

    Args:
        options: How often what is killed.
        config: Hyper-parameters of both runs.
        artifacts: Bundle of ``gkt export``.
        data_files: A private file for each device.
        out: A new folder for both runs.
        announce: Told what happens now.

    Returns:
        The hashes of both runs, whether they are ``equal``, the kills, the times.

    Raises:
        RunFailedError: A run did not come to its end.
    """
    kills = draw_kills(options.num_kills, config.rounds, options.seed)
    out.mkdir(parents=True, exist_ok=True)
    # Copies have the same run id, which stands in what is compared.
    create_run(out / "empty", artifacts, config).store.close()
    outcomes = {}
    for name, planned in (("undisturbed", []), ("disturbed", kills)):
        announce(f"{name} run: {config.rounds} rounds, {config.num_clients} devices")
        shutil.copytree(out / "empty", out / name / "server")
        run = SupervisedRun(
            out / name,
            data_files,
            num_threads=options.num_threads,
            limit_seconds=options.limit_seconds,
            announce=announce,
        )
        outcomes[name] = run.run(planned)
        announce(f"{name} run: finished after {outcomes[name]['seconds']:.1f} s")
    disturbed = outcomes["disturbed"]
    if len(disturbed["kills"]) < options.num_kills:
        raise RunFailedError(
            f"the run was over after {len(disturbed['kills'])} of {options.num_kills} kills: take more rounds"
        )
    hashes = {name: outcome["hashes"] for name, outcome in outcomes.items()}
    differing = sorted(
        name for name, value in hashes["undisturbed"].items() if hashes["disturbed"][name] != value
    )
    return {
        "equal": not differing,
        "differing": differing,
        **disturbed,
        "hashes": hashes,
        "seconds": {name: outcome["seconds"] for name, outcome in outcomes.items()},
        # Where it ran says nothing.
        "settings": {"work_dir": None, "config": config.to_dict()},
    }
