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
from gkt_core.bundle.manifest import MANIFEST_NAME, load_bundle
from gkt_core.config.dataclass_options import arguments_of
from gkt_core.config.network_options import RegisteredNetworks
from gkt_core.config.run_config import RunConfig, build_run_config
from gkt_core.data.private_data import CONTACT_SHEET_NAME, SPLIT_NAME, TEST_NAME
from gkt_core.errors import InputError, RunFailedError
from gkt_core.files import write_atomically
from gkt_core.wire.protocol import RunStatus
from gkt_core.wire.shards import ShardSpec
from profiling.experiments.demo.live import LiveDisplay
from profiling.experiments.demo.logistic import logistic_regression_accuracy
from profiling.experiments.demo.options import DEMO_DEFAULTS, DemoOptions, derived_defaults
from profiling.frame.machine import describe_machine
from profiling.frame.processes import Child, ProcessGroup, arguments, wait_for_server
from profiling.traffic.wire_meter import WIRE_NAME, WireMeter
from server_app.members.inviting import moved_link
from server_app.run_folder import SERVER_INFO_NAME, operator_bearer

_POLL_SECONDS = 0.5
# More than shards have of images up to 64 pixels: nothing here stands between devices and server.
_SHARD_BYTES = 8_000_000


class DemoRun:
    """One demo run in one output folder.

    Args:
        options: What to do.
        given: Hyper-parameters that the user set; the others get the demo's defaults.
        display: Shows what happens.
        num_starts: Which start of this demo it is: what an earlier one finished is not made again.
    """

    def __init__(
        self, options: DemoOptions, given: dict[str, Any], display: LiveDisplay, *, num_starts: int = 1
    ) -> None:
        self._options, self._num_starts = options, num_starts
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
            config = self._fitted(config)
            self._write_run_file(config)
            client_ids = [client["client_id"] for client in split["clients"]]
            status = self._timed("training", lambda: self._train(processes, client_ids))
            models = self._collect_models(client_ids)
            tested = self._timed("evaluation", lambda: self._evaluate(processes, client_ids))
            alone = self._timed("edge_only", lambda: self._train_alone(processes, client_ids))
        accuracies, alone_accuracies = ([each["accuracy"] for each in results] for results in (tested, alone))
        simple = self._timed("logistic_regression", lambda: self._logistic_regression(client_ids))
        return {
            "test_accuracy": sum(accuracies) / len(accuracies),
            "test_accuracies": accuracies,
            "edge_only_test_accuracy": sum(alone_accuracies) / len(alone),
            "edge_only_test_accuracies": alone_accuracies,
            "edge_only_rounds": [each["num_rounds"] for each in alone],
            "logistic_regression_test_accuracy": sum(simple) / len(simple) if simple else None,
            "logistic_regression_test_accuracies": simple,
            "num_test_examples": split["num_test_examples"],
            "rounds": [asdict(metrics) for metrics in status.finished_rounds],
            "traffic": status.traffic,
            "models": models,
            "clients": split["clients"],
            "class_names": split["class_names"],
            "image_size": split["image_size"],
            "config": self._options.describe(config),
            "num_starts": self._num_starts,
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
        if (data / SPLIT_NAME).is_file():
            split = self._read_split()
            self._display.say(f"goes on in {self._out}, start number {self._num_starts}")
            return split
        num_clients = self._given.get("num_clients") or DEMO_DEFAULTS["num_clients"]
        how = replace(options.split, num_clients=num_clients, seed=self._given.get("seed") or 0)
        words = arguments("data split", out=data) + arguments_of(options.images) + arguments_of(how)
        self._run(processes, "gkt data split", words, "data", f"splitting {options.images.dataset}")
        split = self._read_split()
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

    def _read_split(self) -> dict[str, Any]:
        data = self._out / "data"
        split: dict[str, Any] = json.loads((data / SPLIT_NAME).read_text(encoding="utf-8"))
        if (data / TEST_NAME).is_file():
            (data / TEST_NAME).rename(self._out / TEST_NAME)
        return split

    def _run(self, processes: ProcessGroup, name: str, words: list[str], log: str, line: str) -> None:
        """Run one command to its end, showing that it goes on."""
        children = [processes.start(name, words, log=self._logs / f"{log}.log")]
        with self._display.step(line) as goes_on:
            processes.wait(children, goes_on)

    def _write_run_file(self, config: RunConfig) -> None:
        lines = [f"{name} = {json.dumps(value)}" for name, value in config.to_dict().items()]
        (self._out / "run.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _export(self, processes: ProcessGroup) -> None:
        options, run_file = self._options, RunConfig.from_toml(self._out / "run.toml")
        if (self._out / "artifacts" / MANIFEST_NAME).is_file():
            return
        words = arguments(
            "export",
            split=self._out / "data" / SPLIT_NAME,
            temperature=run_file.temperature,
            leakage_penalty=run_file.leakage_penalty,
            seed=run_file.seed,
            out=self._out / "artifacts",
        )
        words += arguments_of(options.networks)
        name, size = options.networks.edge_network, self._read_split()["image_size"]
        line = f"exporting {name} for images of {size} px, and proving it against PyTorch"
        self._run(processes, "gkt export", words, "export", line)
        self._display.say(f"exported {name} as ONNX Runtime training artifacts")

    def _fitted(self, config: RunConfig) -> RunConfig:
        """Choose smaller batches and shards where the usual ones take too much memory, as gkt serve does."""
        manifest = load_bundle(self._out / "artifacts", ()).manifest
        spec = ShardSpec(config.codec, manifest.feature_shape, manifest.num_classes, 1)
        usual = config.to_dict()
        fitting = {"shard_samples": min(config.shard_samples, spec.samples_within(_SHARD_BYTES))}
        if manifest.memory is not None:
            fitting |= manifest.memory.batch_sizes(usual, fitting["shard_samples"])
        chosen = {
            name: size for name, size in fitting.items() if size < usual[name] and not self._given.get(name)
        }
        for name, size in chosen.items():
            self._display.say(f"{name} is {size} instead of {usual[name]}, as memory holds")
        return build_run_config(chosen, defaults=usual)

    def _train(self, processes: ProcessGroup, client_ids: list[str]) -> RunStatus:
        if self._options.meter_wire and (self._out / "server").is_dir():
            raise InputError(
                f"{self._out} was stopped while its bytes were counted, and what was counted is lost: begin "
                "anew with another --out, or without --meter-wire"
            )
        # Of a server that was killed; this one writes its own.
        (self._out / "server" / SERVER_INFO_NAME).unlink(missing_ok=True)
        server = self._start_server(processes)
        info = wait_for_server(server, self._out / "server")
        with self._wire(info["url"]) as url:
            link = moved_link(self._out / "server", url)
            devices = [self._start_device(processes, client_id, link) for client_id in client_ids]
            self._display.say(f"server {info['url']}, its trainer and {len(devices)} devices are running")
            secret = operator_bearer(self._out / "server")
            status = self._watch(processes, server, devices, info["url"], secret)
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
        self, processes: ProcessGroup, server: Child, devices: list[Child], url: str, secret: str
    ) -> RunStatus:
        """Show the run until every device has ended."""
        client = ServerClient(url, secret, patience_seconds=60.0)
        try:
            client.run_info()
            for _ in processes.watch(devices):
                if server.exit_code is not None:
                    raise server.failure()
                self._display.status(client.status())
                time.sleep(_POLL_SECONDS)
            status = client.status()
            self._display.status(status)
            # A status holds the last ones.
            status = replace(status, finished_rounds=list(client.rounds()))
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
        words += arguments_of(RegisteredNetworks(networks=self._options.networks.networks))
        words += arguments_of(self._options.tracking)
        # What it prints holds the link into the run; logs are shown around.
        nowhere = Path(os.devnull)
        return processes.start("gkt serve", words, log=self._logs / "server.log", stdout=nowhere)

    def _start_device(self, processes: ProcessGroup, client_id: str, link: str) -> Child:
        words = arguments(
            "edge run",
            client_id=client_id,
            data=self._data_file(client_id),
            state_dir=self._state_dir(client_id),
            threads=self._options.device_threads,
        )
        # In the environment, as everybody sees the words of a command.
        log, secret = self._logs / f"{client_id}.log", {"GKT_JOIN": link}
        return processes.start(f"device {client_id}", words, log=log, environment=secret)

    def _data_file(self, client_id: str) -> Path:
        return self._out / "data" / "clients" / f"{client_id}.npz"

    def _state_dir(self, client_id: str) -> Path:
        return self._out / "devices" / client_id

    def _collect_models(self, client_ids: list[str]) -> dict[str, str]:
        folder = self._out / "models"
        folder.mkdir(exist_ok=True)
        models = {}
        for client_id in client_ids:
            target = folder / f"{client_id}.onnx"
            shutil.copyfile(self._state_dir(client_id) / "model.onnx", target)
            models[client_id] = str(target)
        return models

    def _evaluate(self, processes: ProcessGroup, client_ids: list[str]) -> list[dict[str, Any]]:
        test = self._out / TEST_NAME
        commands = {
            client_id: arguments("edge evaluate", model=self._out / "models" / f"{client_id}.onnx", data=test)
            for client_id in client_ids
        }
        line = f"testing {len(commands)} combined models"
        return self._results(processes, "evaluate", commands, line)

    def _train_alone(self, processes: ProcessGroup, client_ids: list[str]) -> list[dict[str, Any]]:
        commands = {
            client_id: arguments(
                "edge train-alone",
                artifacts=self._out / "artifacts",
                data=self._data_file(client_id),
                test=self._out / TEST_NAME,
                client_id=client_id,
                config=self._out / "run.toml",
                rounds=self._options.alone_rounds or None,
            )
            for client_id in client_ids
        }
        until = "" if self._options.alone_rounds else " until its validation accuracy stops rising"
        line = f"training {self._options.networks.edge_network} on each device alone{until}, to compare with"
        return self._results(processes, "alone", commands, line)

    def _logistic_regression(self, client_ids: list[str]) -> list[float]:
        """On digits, which are so easy that it belongs beside any network's accuracy."""
        if self._options.images.dataset != "digits":
            return []
        test = self._out / TEST_NAME
        return [logistic_regression_accuracy(self._data_file(client_id), test) for client_id in client_ids]

    def _results(
        self, processes: ProcessGroup, name: str, commands: Mapping[str, list[str]], line: str
    ) -> list[dict[str, Any]]:
        """Run one single-threaded command a device, as many at once as there are cores."""
        results = {client_id: self._logs / f"{name}-{client_id}.json" for client_id in commands}
        waiting, at_once = list(commands), os.cpu_count() or 1
        with self._display.step(line) as goes_on:
            while waiting:
                chosen, waiting = waiting[:at_once], waiting[at_once:]
                children = [
                    processes.start(
                        f"{name} {client_id}",
                        [*commands[client_id], "--threads", "1", "--json"],
                        log=results[client_id].with_suffix(".log"),
                        stdout=results[client_id],
                    )
                    for client_id in chosen
                ]
                processes.wait(children, goes_on)
        return [json.loads(path.read_text(encoding="utf-8")) for path in results.values()]
