"""The demo's steps, in order, each a ``gkt`` command in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge_runtime.server_client import ServerClient
from gkt_core.config.dataclass_options import arguments_of
from gkt_core.config.run_config import RunConfig, build_run_config
from gkt_core.data.private_data import CONTACT_SHEET_NAME, SPLIT_NAME, TEST_NAME
from gkt_core.errors import RunFailedError
from gkt_core.files import write_atomically
from gkt_core.wire.protocol import RunStatus
from profiling.experiments.demo.live import LiveDisplay
from profiling.experiments.demo.options import DEMO_DEFAULTS, DemoOptions, derived_defaults
from profiling.frame.machine import describe_machine
from profiling.frame.processes import Child, ProcessGroup, arguments, wait_for_server
from profiling.traffic.wire_meter import WIRE_NAME, WireMeter

_POLL_SECONDS = 0.5


class DemoRun:
    """One demo run in one output folder.

    Args:
        options: What to do.
        given: Hyper-parameters that the user set; the others get the demo's defaults.
        display: Shows what happens.
    """

    def __init__(self, options: DemoOptions, given: dict[str, Any], display: LiveDisplay) -> None:
        self._options = options
        self._given = given
        self._display = display
        self._out = options.out
        self._logs = options.out / "logs"
        self._seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Do it all and return what ``report.json`` holds.

        Raises:
            GKTError: A step failed; what was done so far stays in the output folder.
        """
        started = time.time()
        with ProcessGroup() as processes:
            split = self._timed("data", lambda: self._split(processes))
            config = build_run_config(self._given, defaults=DEMO_DEFAULTS | derived_defaults(split))
            self._write_run_file(config)
            self._timed("export", lambda: self._export(processes))
            client_ids = [client["client_id"] for client in split["clients"]]
            status = self._timed("training", lambda: self._train(processes, client_ids))
            models = self._collect_models(client_ids)
            self._display.say(f"testing {len(models)} combined models, and each device alone")
            accuracies = self._timed("evaluation", lambda: self._evaluate(processes, client_ids))
            alone = self._timed("edge_only", lambda: self._train_alone(processes, client_ids))
        return {
            "test_accuracy": sum(accuracies) / len(accuracies),
            "test_accuracies": accuracies,
            "edge_only_test_accuracy": sum(alone) / len(alone),
            "edge_only_test_accuracies": alone,
            "num_test_examples": split["num_test_examples"],
            "rounds": [asdict(metrics) for metrics in status.finished_rounds],
            "traffic": status.traffic,
            "models": models,
            "clients": split["clients"],
            "class_names": split["class_names"],
            "image_size": split["image_size"],
            "config": self._options.describe(config),
            "seconds": {**self._seconds, "total": time.time() - started},
            "machine": {k: v for k, v in describe_machine().items() if k != "packages"},
            "versions": describe_machine()["packages"],
        }

    def _timed(self, name: str, step: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = step()
        self._seconds[name] = time.perf_counter() - started
        return result

    def _split(self, processes: ProcessGroup) -> dict[str, Any]:
        options, data = self._options, self._out / "data"
        num_clients = self._given.get("num_clients") or DEMO_DEFAULTS["num_clients"]
        how = replace(options.split, num_clients=num_clients, seed=self._given.get("seed") or 0)
        words = arguments("data split", out=data) + arguments_of(options.images) + arguments_of(how)
        existed = self._out.exists()
        try:
            processes.run("gkt data split", words, log=self._logs / "data.log")
        except Exception:
            # Input that was refused leaves nothing behind.
            shutil.rmtree(self._logs if existed else self._out, ignore_errors=True)
            raise
        split: dict[str, Any] = json.loads((data / SPLIT_NAME).read_text(encoding="utf-8"))
        (data / TEST_NAME).rename(self._out / TEST_NAME)
        self._display.say(
            f"{options.images.dataset}: {sum(c['num_examples'] for c in split['clients'])} training, "
            f"{sum(c['num_validation_examples'] for c in split['clients'])} validation and "
            f"{split['num_test_examples']} test images of {split['image_size']} px, "
            f"{len(split['clients'])} devices ({options.split.partition})"
        )
        if (data / CONTACT_SHEET_NAME).exists():
            self._display.say(
                f"what was taken, converted and left out: {self._logs / 'data.log'}; "
                f"some images of each class: {data / CONTACT_SHEET_NAME}"
            )
        return split

    def _write_run_file(self, config: RunConfig) -> None:
        lines = [f"{name} = {json.dumps(value)}" for name, value in config.to_dict().items()]
        (self._out / "run.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _export(self, processes: ProcessGroup) -> None:
        options, run_file = self._options, RunConfig.from_toml(self._out / "run.toml")
        words = arguments(
            "export",
            split=self._out / "data" / SPLIT_NAME,
            temperature=run_file.temperature,
            seed=run_file.seed,
            out=self._out / "artifacts",
        )
        words += arguments_of(options.networks)
        log = self._logs / "export.log"
        child = processes.start("gkt export", words, log=log, stdout=self._logs / "export.txt")
        num_shown = 0
        for _ in processes.watch([child]):
            # Whole lines alone: what stands after the last end of a line is still being written.
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
            for line in lines[num_shown:]:
                self._display.say(f"gkt export: {line}")
            num_shown = len(lines)
            time.sleep(_POLL_SECONDS)
        self._display.say(f"exported {options.networks.edge_network} as ONNX Runtime training artifacts")

    def _train(self, processes: ProcessGroup, client_ids: list[str]) -> RunStatus:
        server = self._start_server(processes)
        info = wait_for_server(server, self._out / "server")
        token = (self._out / "server" / "token").read_text(encoding="utf-8").strip()
        with self._wire(info["url"]) as url:
            devices = [self._start_device(processes, client_id, url, token) for client_id in client_ids]
            self._display.say(f"server {info['url']}, its trainer and {len(devices)} devices are running")
            status = self._watch(processes, server, devices, info["url"], token)
        processes.stop([server])
        if status.phase != "finished":
            raise RunFailedError(
                f"the devices ended, yet the run is {status.phase} in round {status.round_num}"
            )
        return status

    @contextlib.contextmanager
    def _wire(self, url: str) -> Iterator[str]:
        """Where devices connect: the server itself, or a relay that counts."""
        if not self._options.meter_wire:
            yield url
            return
        with WireMeter(url) as meter:
            yield meter.url
            counts = meter.counts()
        write_atomically(self._out / WIRE_NAME, (json.dumps(counts, indent=2) + "\n").encode())

    def _watch(
        self, processes: ProcessGroup, server: Child, devices: list[Child], url: str, token: str
    ) -> RunStatus:
        """Show the run until every device has ended."""
        client = ServerClient(url, token, patience_seconds=60.0)
        try:
            client.run_info()
            for _ in processes.watch(devices):
                if server.exit_code is not None:
                    raise server.failure()
                self._display.status(client.status())
                time.sleep(_POLL_SECONDS)
            status = client.status()
            self._display.status(status)
            self._display.finish()
            return status
        finally:
            client.close()

    def _start_server(self, processes: ProcessGroup) -> Child:
        words = arguments(
            "serve",
            artifacts=self._out / "artifacts",
            data_dir=self._out / "server",
            port=self._options.port,
            poll_seconds=_POLL_SECONDS,
            threads=self._options.trainer_threads,
            config=self._out / "run.toml",
        )
        return processes.start("gkt serve", words, log=self._logs / "server.log")

    def _start_device(self, processes: ProcessGroup, client_id: str, url: str, token: str) -> Child:
        words = arguments(
            "edge run",
            server=url,
            client_id=client_id,
            data=self._data_file(client_id),
            state_dir=self._state_dir(client_id),
            threads=self._options.device_threads,
        )
        log, secret = self._logs / f"{client_id}.log", {"GKT_TOKEN": token}
        return processes.start(f"device {client_id}", words, log=log, environment=secret)

    def _data_file(self, client_id: str) -> Path:
        return self._out / "data" / "clients" / f"{client_id}.npz"

    def _state_dir(self, client_id: str) -> Path:
        return self._out / "devices" / client_id

    def _collect_models(self, client_ids: list[str]) -> dict[str, str]:
        folder = self._out / "models"
        folder.mkdir()
        models = {}
        for client_id in client_ids:
            target = folder / f"{client_id}.onnx"
            shutil.copyfile(self._state_dir(client_id) / "model.onnx", target)
            models[client_id] = str(target)
        return models

    def _evaluate(self, processes: ProcessGroup, client_ids: list[str]) -> list[float]:
        test = self._out / TEST_NAME
        commands = {
            client_id: arguments("edge evaluate", model=self._out / "models" / f"{client_id}.onnx", data=test)
            for client_id in client_ids
        }
        return self._accuracies(processes, "evaluate", commands)

    def _train_alone(self, processes: ProcessGroup, client_ids: list[str]) -> list[float]:
        commands = {
            client_id: arguments(
                "edge train-alone",
                artifacts=self._out / "artifacts",
                data=self._data_file(client_id),
                test=self._out / TEST_NAME,
                client_id=client_id,
                config=self._out / "run.toml",
            )
            for client_id in client_ids
        }
        return self._accuracies(processes, "alone", commands)

    def _accuracies(
        self, processes: ProcessGroup, name: str, commands: Mapping[str, list[str]]
    ) -> list[float]:
        """Run one single-threaded command a device, as many at once as there are cores."""
        results = {client_id: self._logs / f"{name}-{client_id}.json" for client_id in commands}
        waiting, at_once = list(commands), os.cpu_count() or 1
        while waiting:
            chosen, waiting = waiting[:at_once], waiting[at_once:]
            processes.wait(
                [
                    processes.start(
                        f"{name} {client_id}",
                        [*commands[client_id], "--threads", "1", "--json"],
                        log=results[client_id].with_suffix(".log"),
                        stdout=results[client_id],
                    )
                    for client_id in chosen
                ]
            )
        return [json.loads(path.read_text(encoding="utf-8"))["accuracy"] for path in results.values()]
