"""What a real run on this machine was, as a fleet, and what its device part took beyond the formulas."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkt_core.errors import ConfigError
from profiling.plan.constants import Constant, later_rounds, read_report
from profiling.plan.formulas import plan_fleet
from profiling.plan.options import Fleet

# Loopback: no link limits an upload there.
_LOOPBACK_MBPS = 10_000.0
# What gkt demo tells its server.
_DEMO_POLL_SECONDS = 0.5
# Whatever the server's rate depends on, beside the number of samples.
_SERVER_SETTINGS = ("server_network", "server_batch_size", "server_threads", "precision", "soft_labels")


def fleet_of(report: Mapping[str, Any], num_cores: int) -> Fleet:
    """A finished ``gkt demo`` as a fleet: its devices share the cores of one machine.

    Args:
        report: Its ``report.json``.
        num_cores: Cores that its devices shared.

    Raises:
        ConfigError: Its devices trained a network of a user's own, whose tap no formula knows.
    """
    config, clients = report["config"], report["clients"]
    count = len(clients)
    return Fleet(
        devices=count,
        samples=round(sum(client["num_examples"] for client in clients) / count),
        validation_samples=round(sum(client["num_validation_examples"] for client in clients) / count),
        rounds=config["rounds"],
        uploads=config["rounds"],
        local_epochs=config["local_epochs"],
        server_epochs=config["server_epochs"],
        codec=config["codec"],
        image_size=report["image_size"],
        edge_network=config.get("edge_network", "resnet8"),
        num_classes=len(report["class_names"]),
        uplink_mbps=_LOOPBACK_MBPS,
        downlink_mbps=_LOOPBACK_MBPS,
        slots=max(1, num_cores // config["device_threads"]),
        poll_seconds=_DEMO_POLL_SECONDS,
    )


def handling(demo_dir: Path, constants: Mapping[str, Constant], image_size: int, num_cores: int) -> Constant:
    """Take from a run how fast devices and server of one machine hand samples over.

    The device part of the calibrating run took longer than its computing: connections, the server that
    checks and stores what arrives on the same cores, a device's own files. What is left over, divided by
    the samples, is taken to grow with them.

    Returns:
        Samples a second, of all devices together; infinite where nothing was left over.

    Raises:
        InputError: The folder holds no finished demo.
    """
    report = read_report(demo_dir, image_size)
    fleet = fleet_of(report, num_cores)
    known = {name: value for name, value in constants.items() if name != "handled_samples_per_second"}
    plan = {result.name: result.value or 0.0 for result in plan_fleet(fleet, known)}
    measured = statistics.median(each["edge_seconds"] for each in later_rounds(report))
    left = measured - plan["device part, s a round"]
    samples = fleet.active * (fleet.samples + fleet.validation_samples)
    return Constant(
        samples / left if left > 0 else 1e12, f"gkt demo ({demo_dir.name}), what computing left over"
    )


def check_same_server(demo_dir: Path, other_dir: Path, image_size: int) -> None:
    """Refuse to predict a server from another one.

    Raises:
        ConfigError: Names the setting in which the two runs differ.
    """
    mine, other = (read_report(each, image_size)["config"] for each in (demo_dir, other_dir))
    for name in _SERVER_SETTINGS:
        if mine.get(name) != other.get(name):
            raise ConfigError(
                f"{name} is {mine.get(name)} in {demo_dir} and {other.get(name)} in {other_dir}: the rate "
                "of a server does not carry over, calibrate with the settings of the run to predict"
            )
