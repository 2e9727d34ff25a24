"""Give a run's numbers to Prometheus: from the same document that a person sees, and from each request.

Nothing is computed for it twice: the document is put together when somebody asks, requests are counted as
they are logged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as Counted
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server_app.logs.requests import Asked
from server_app.overview.messages import ERROR, INFO, WARNING, Overview

MEDIA_TYPE = CONTENT_TYPE_LATEST
PHASES = ("joining", "collecting", "ready", "training", "finished", "failed")
DEVICE_STATES = ("enrolled", "training", "reported", "waiting", "quarantined", "revoked")
_HALTS = ("paused", "stopped")
# From what is answered from memory to a shard over a slow link.
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Exposition:
    """The metrics of one run.

    Args:
        look: Puts the document together.
    """

    def __init__(self, look: Callable[[], Overview]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_OfTheRun(look))
        self._seconds = Histogram(
            "gkt_request_seconds",
            "Time until a request was answered, its body included",
            ["operation"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._requests = Counted(
            "gkt_requests",
            "Requests by operation and status",
            ["operation", "status"],
            registry=self._registry,
        )

    def count(self, asked: Asked) -> None:
        """Count one request."""
        self._seconds.labels(asked.operation).observe(asked.seconds)
        self._requests.labels(asked.operation, str(asked.status)).inc()

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format.

        Raises:
            StorageUnavailableError: The database does not answer.
        """
        return generate_latest(self._registry)


class _OfTheRun(Collector):
    """What the document says, as metrics; read when somebody asks."""

    def __init__(self, look: Callable[[], Overview]) -> None:
        self._look = look

    def describe(self) -> list[Metric]:
        """Name nothing beforehand: that would look at a run that is being opened."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give all of them."""
        document = self._look()
        yield from _rounds(document)
        yield from _devices(document)
        yield from _trainer(document)
        yield _gauge("gkt_disk_free_bytes", "Free on the disk of the run's folder", document.disk.free_bytes)
        yield _gauge("gkt_disk_reserve_bytes", "Below which uploads wait", document.disk.reserve_bytes)
        traffic = CounterMetricFamily("gkt_traffic_bytes", "Bodies by kind, of all rounds", labels=["kind"])
        for kind, num_bytes in sorted(document.traffic.items()):
            traffic.add_metric([kind], num_bytes)
        yield traffic
        worst = Counter(finding.severity for finding in document.findings)
        yield _by(
            "gkt_findings",
            "What somebody should look at, as gkt status says it",
            "severity",
            {severity: worst[severity] for severity in (ERROR, WARNING, INFO)},
        )


def _rounds(document: Overview) -> Iterator[Metric]:
    yield _by("gkt_phase", "1 for the phase of the run", "phase", _one_of(PHASES, document.phase))
    yield _by("gkt_halt", "1 where a person has halted the run", "halt", _one_of(_HALTS, document.halt))
    yield _gauge("gkt_round", "The current round", document.round_num)
    yield _gauge("gkt_rounds", "Rounds in all", document.rounds)
    yield _gauge("gkt_round_waits_seconds", "How long devices are waited for", document.waits_seconds)
    if document.seconds_left >= 0:
        yield _gauge("gkt_left_seconds", "Until the last round is done, estimated", document.seconds_left)
    if not document.finished_rounds:
        return
    last = document.finished_rounds[-1]
    for name, text, value in (
        ("last_round", "The last round, or step, that was finished", last.round_num),
        ("validation_accuracy", "Of extractor and server network, 0 to 1", last.validation_accuracy),
        ("validation_loss", "Cross entropy on validation samples", last.validation_loss),
        ("train_loss", "Of the server network, last epoch", last.train_loss),
        ("last_round_seconds", "How long the last round took", last.seconds),
        ("last_round_edge_seconds", "Until its last device had reported", last.edge_seconds),
        ("last_round_server_seconds", "Training and evaluation on the server", last.server_seconds),
        ("last_round_upload_bytes", "Bodies that devices sent for it", last.upload_bytes),
        ("last_round_samples", "Training samples of it", last.num_examples),
        ("trainer_samples_per_second", "The trainer's speed in it", last.server_samples_per_second),
        ("devices_images_per_second", "The devices' speed in it, summed", last.edge_images_per_second),
    ):
        yield _gauge(f"gkt_{name}", text, value)


def _devices(document: Overview) -> Iterator[Metric]:
    states = Counter(device.state for device in document.devices)
    yield _by("gkt_devices", "Devices by state", "state", {each: states[each] for each in DEVICE_STATES})
    yield _gauge("gkt_devices_wanted", "Devices that the run is for", document.num_clients)
    yield _gauge("gkt_devices_awaited", "Devices whose part is awaited", len(document.waits_for))
    seen = {each.client_id: each.seen_seconds for each in document.devices if each.seen_seconds >= 0}
    yield _by("gkt_device_seen_seconds", "Since a device's last request", "client_id", seen)


def _trainer(document: Overview) -> Iterator[Metric]:
    trainer = document.trainer
    if trainer.silent_seconds >= 0:
        yield _gauge("gkt_trainer_silent_seconds", "Since its last sign of life", trainer.silent_seconds)
        yield _gauge("gkt_trainer_allowed_seconds", "How long it may be silent", trainer.allowed_seconds)
    yield _gauge("gkt_trainer_trouble", "1 where it died or hangs", float(bool(trainer.trouble)))
    if trainer.progress is not None:
        now = trainer.progress
        yield _gauge("gkt_trainer_epoch", "The epoch that it trains", now.epoch)
        yield _gauge("gkt_trainer_now_samples_per_second", "Its speed now", now.samples_per_second)


def _one_of(names: tuple[str, ...], name: str) -> dict[str, float]:
    return {each: float(each == name) for each in names}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by(name: str, text: str, label: str, values: dict[str, float] | dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
