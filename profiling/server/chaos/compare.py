"""The same run left alone, disturbed, and robbed of what cannot be restored; and how each ended."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_export import ExportOptions, export_bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.data.datasets import load_dataset
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.errors import ConfigError, RunFailedError
from gkt_core.files import check_new_folder
from profiling.frame import Announce
from profiling.server.chaos.acts import Disturbance
from profiling.server.chaos.clock import MovableClock
from profiling.server.chaos.disk import own_disk
from profiling.server.chaos.losses import LEAST_ROUNDS, Losses
from profiling.server.chaos.options import ChaosOptions
from profiling.server.chaos.run import SupervisedRun, Where
from profiling.server.chaos.strikes import draw_strikes
from server_app.run_folder import create_run

_NO_DISK = "a full disk: no disk of its own could be mounted here, which takes root on Linux"


def measure_chaos(options: ChaosOptions, announce: Announce) -> dict[str, Any]:
    """Split the digits, export a bundle, and compare runs of them.

    Raises:
        ConfigError: There are too few rounds to lose all of it in.
        RunFailedError: A run did not come to its end, or did not name what it had lost.
    """
    if options.rounds < LEAST_ROUNDS:
        raise ConfigError(f"--rounds is {options.rounds}, expected at least {LEAST_ROUNDS}")
    folder = options.work_dir or Path("gkt-chaos") / time.strftime("%Y%m%d-%H%M%S")
    check_new_folder(folder, "--work-dir")
    announce("exporting a bundle")
    dataset = load_dataset("digits", image_size=options.image_size, limit=options.num_examples)
    split = split_dataset(dataset, SplitOptions(options.num_clients, "iid", 0.5, 0.1, 0), folder / "data")
    export = ExportOptions(image_size=options.image_size, num_classes=dataset.num_classes)
    export_bundle(export, folder / "artifacts")
    files = [folder / "data" / client["file"] for client in split["clients"]]
    runs = Runs(options, options.config, folder / "artifacts", files, folder / "runs", announce)
    return {**runs.compared(), "losses": runs.losses()}


class Runs:
    """Runs that begin as copies of one that is empty: they have the same run id, which is in what they leave.

    Args:
        options: How often what happens.
        config: Hyper-parameters of all runs.
        artifacts: Bundle of ``gkt export``.
        data_files: A private file for each device.
        out: A new folder for all runs.
        announce: Told what happens now.
    """

    def __init__(
        self,
        options: ChaosOptions,
        config: RunConfig,
        artifacts: Path,
        data_files: Sequence[Path],
        out: Path,
        announce: Announce,
    ) -> None:
        self._options, self._config, self._announce = options, config, announce
        self._data_files, self._out = tuple(data_files), out.absolute()
        out.mkdir(parents=True, exist_ok=True)
        create_run(out / "empty", artifacts, config).store.close()
        self._clock = MovableClock(self._out / "clock")

    def compared(self) -> dict[str, Any]:
        """Run undisturbed, run disturbed, compare.

        Returns:
            The hashes of both runs, whether they are ``equal``, the strikes, the times.

        Raises:
            RunFailedError: A run did not come to its end.
        """
        options = self._options
        supervised = self._supervised("undisturbed")
        with supervised.running():
            supervised.go_on()
            undisturbed = supervised.outcome()
        self._announce(f"undisturbed run: finished after {undisturbed['seconds']:.1f} s")
        with own_disk(self._out / "disturbed") as disk:
            strikes = draw_strikes(
                options.num_strikes, self._config.rounds, options.seed, fills=disk is not None
            )
            supervised = self._supervised("disturbed")
            disturbance = Disturbance(supervised, strikes, self._clock, disk, self._announce)
            with supervised.running():
                supervised.go_on(disturbance.next)
                disturbed = supervised.outcome()
        self._clock.move(0.0)
        self._announce(f"disturbed run: finished after {disturbed['seconds']:.1f} s")
        if len(disturbance.happened) < options.num_strikes:
            raise RunFailedError(
                f"the run was over after {len(disturbance.happened)} of {options.num_strikes} strikes: take "
                "more rounds"
            )
        hashes = {"undisturbed": undisturbed.pop("hashes"), "disturbed": disturbed.pop("hashes")}
        differing = sorted(
            name for name, value in hashes["undisturbed"].items() if hashes["disturbed"][name] != value
        )
        return {
            "equal": not differing,
            "differing": differing,
            **disturbed,
            "strikes": [asdict(each) for each in disturbance.happened],
            "hashes": hashes,
            "seconds": {"undisturbed": undisturbed["seconds"], "disturbed": disturbed["seconds"]},
            # Where it ran says nothing.
            "settings": {"work_dir": None, "config": self._config.to_dict()},
            "not_measured": [] if disk is not None else [_NO_DISK],
        }

    def losses(self) -> list[dict[str, Any]]:
        """Run once more, lose what cannot be restored, and say how the run named it.

        Raises:
            RunFailedError: It did not name something, or did not come to its end.
        """
        supervised = self._supervised("robbed")
        with supervised.running():
            losses = Losses(supervised, self._options.seed, self._announce).all()
            supervised.go_on()
        self._announce("robbed run: finished all the same")
        return [asdict(loss) for loss in losses]

    def _supervised(self, name: str) -> SupervisedRun:
        self._announce(f"{name} run: {self._config.rounds} rounds, {self._config.num_clients} devices")
        shutil.copytree(self._out / "empty", self._out / name / "server")
        return SupervisedRun(
            Where(self._out / name, self._out / f"{name}-logs", self._data_files),
            num_threads=self._options.num_threads,
            limit_seconds=self._options.limit_seconds,
            environment=self._clock.environment,
        )
