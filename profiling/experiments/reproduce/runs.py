"""Running what is missing: each run is a ``gkt simulate`` of its own, several at a time, resumable.

::

    OUT/runs/NAME.json     a finished run: what was run, its result, metrics, split, time and machine
    OUT/work/NAME/         the folder of ``gkt simulate``, with checkpoints; goes on where it stopped
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from gkt_core.config.dataclass_options import arguments_of
from gkt_core.data.private_data import SPLIT_NAME
from gkt_core.errors import GKTError, RunFailedError
from gkt_core.files import HeldLock, lock_exclusively, write_atomically
from profiling.experiments.reproduce.cells import Job
from profiling.experiments.reproduce.live import ReproductionDisplay
from profiling.experiments.reproduce.options import ReproduceOptions
from profiling.experiments.reproduce.scales import Scale
from profiling.frame.machine import describe_machine
from profiling.frame.processes import Child, arguments

_FORMAT_VERSION = 1


class RunFolder:
    """Finished and unfinished runs of one scale.

    Args:
        out: Where they are kept.
        scale: Of all of them.
    """

    def __init__(self, out: Path, scale: Scale) -> None:
        self.out, self.scale = out, scale

    def result_path(self, job: Job) -> Path:
        """Where a finished run is kept."""
        return self.out / "runs" / f"{job.name}.json"

    def work_path(self, job: Job) -> Path:
        """Where it is run."""
        return self.out / "work" / job.name

    def load(self, job: Job) -> dict[str, Any] | None:
        """A finished run, or None.

        Raises:
            GKTError: The file is there, but is another run's, or damaged.
        """
        path = self.result_path(job)
        try:
            run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise GKTError(f"cannot read {path}: {error}: remove it, and the run is made again") from error
        expected = self._identity(job)
        differing = [name for name in expected if run.get(name) != expected[name]]
        if differing:
            raise GKTError(
                f"{path} is a run with other settings ({', '.join(differing)}): "
                "choose another --out, or remove it"
            )
        return run

    def store(self, job: Job, precision: str) -> dict[str, Any]:
        """Keep what a finished run left in its work folder; where the data lay is no part of it."""
        work = self.work_path(job)
        split = json.loads((work / "data" / SPLIT_NAME).read_text(encoding="utf-8"))
        timings = _json_lines(work / "timings.jsonl")
        result = json.loads((work / "result.json").read_text(encoding="utf-8"))
        result["config"]["dataset"] = job.spec.dataset
        words = job.spec.arguments(self.scale, job.seed, job.spec.dataset)
        run = {
            **self._identity(job),
            "command": " ".join(["gkt simulate", *words, "--precision", precision]),
            "result": result,
            "metrics": _json_lines(work / "metrics.jsonl"),
            "training_seconds": sum(line["seconds"] for line in timings),
            "round_seconds": [line["seconds"] for line in timings],
            "class_names": split["class_names"],
            "class_counts": {entry["client_id"]: entry["class_counts"] for entry in split["clients"]},
            "machine": describe_machine(),
        }
        write_atomically(self.result_path(job), (json.dumps(run, indent=1, sort_keys=True) + "\n").encode())
        return run

    def command(self, job: Job, options: ReproduceOptions) -> list[str]:
        """Give the arguments of ``gkt`` that run it."""
        words = arguments(
            "simulate",
            out=self.work_path(job),
            precision=options.chosen_precision,
            device=options.device,
            threads=options.threads,
            data_root=options.data_root,
        )
        words += arguments_of(options.tracking)
        return words + job.spec.arguments(self.scale, job.seed, options.sources[job.spec.dataset])

    def num_rounds(self, job: Job) -> int:
        """Count the rounds that an unfinished run has behind it."""
        try:
            return (self.work_path(job) / "metrics.jsonl").read_bytes().count(b"\n")
        except OSError:
            return 0

    def seconds_left(self, job: Job) -> float | None:
        """Estimate from its own rounds, or from a finished run of another seed; None without either."""
        rounds, done = int(self.scale.common["rounds"]), self.num_rounds(job)
        if done:
            seconds = sum(
                float(line["seconds"]) for line in _json_lines(self.work_path(job) / "timings.jsonl")
            )
            return (rounds - done) * seconds / done
        others = [self.result_path(Job(job.spec, seed)) for seed in range(self.scale.num_seeds)]
        finished = [json.loads(path.read_text(encoding="utf-8")) for path in others if path.is_file()]
        return float(finished[0]["training_seconds"]) if finished else None

    def _identity(self, job: Job) -> dict[str, Any]:
        settings = job.spec.arguments(self.scale, job.seed, job.spec.dataset)
        return {
            "format_version": _FORMAT_VERSION,
            "scale": self.scale.name,
            "spec": job.spec.to_dict(),
            "seed": job.seed,
            "settings": settings,
        }


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_missing(
    folder: RunFolder, jobs: Iterable[Job], options: ReproduceOptions, display: ReproductionDisplay
) -> None:
    """Run every job that has no result yet, several at a time.

    Args:
        folder: Where results are and go.
        jobs: What is wanted, in the order in which to run it.
        options: How runs are computed, which is no part of what they are.
        display: Hears of each run that begins or goes on, of its rounds, and of each result.

    Raises:
        RunFailedError: A run failed; the others that had begun were stopped, and go on next time.
    """
    todo = [job for job in jobs if folder.load(job) is None]
    stop = threading.Event()
    with ThreadPoolExecutor(options.jobs) as pool, _folder_lock(folder):
        running: dict[Future[dict[str, Any]], Job] = {}
        try:
            while todo or running:
                while todo and len(running) < options.jobs:
                    job = todo.pop(0)
                    display.start(job)
                    running[pool.submit(_run, folder, job, options, display, stop)] = job
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    display.end(running.pop(future), future.result())
        except BaseException:
            stop.set()
            raise


def _folder_lock(folder: RunFolder) -> HeldLock:
    work = folder.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    return lock_exclusively(work / ".lock", f"another gkt reproduce works in {folder.out}: wait for its end")


def _run(
    folder: RunFolder,
    job: Job,
    options: ReproduceOptions,
    display: ReproductionDisplay,
    stop: threading.Event,
) -> dict[str, Any]:
    work = folder.work_path(job)
    work.mkdir(parents=True, exist_ok=True)
    run = Child(f"the run {job.name}", folder.command(job, options), log=work / "log.txt")
    try:
        while run.exit_code is None and not stop.wait(0.5):
            display.progress(job, folder.num_rounds(job))
    finally:
        run.stop()
    if run.exit_code != 0:
        raise RunFailedError(f"{run.failure()}. The same command goes on where it stopped")
    return folder.store(job, options.chosen_precision)
