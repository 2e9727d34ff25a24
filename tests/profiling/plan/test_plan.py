"""``gkt plan``: formulas against counting by hand, constants with sources, a real run predicted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.errors import ConfigError, InputError
from profiling.plan.calibration import check_same_server, fleet_of, handling
from profiling.plan.constants import Constant, run_constants
from profiling.plan.formulas import plan_fleet
from profiling.plan.options import Fleet
from profiling.plan.report import plan
from profiling.plan.validation import validate
from tests.conftest import ROOT, Gkt
from tests.profiling.frame.test_diff import measured

pytest_plugins = ["tests.profiling.profile_fixtures"]

README = (ROOT / "docs" / "results-format.md").read_text(encoding="utf-8")
RATES = {
    "train_step_images_per_second": 100.0,
    "extract_images_per_second": 1000.0,
    "pack_images_per_second": 2000.0,
    "compression_ratio": 0.5,
    "server_samples_per_second": 500.0,
    "server_overhead_seconds": 3.0,
}
OPTIONS = (
    "--train-rate", "100", "--extract-rate", "1000", "--pack-rate", "2000", "--compression-ratio", "0.5",
    "--server-rate", "500", "--server-overhead", "3",
)  # fmt: skip


FLEET_CONFIG = {"rounds": 2, "local_epochs": 1, "server_epochs": 1, "codec": "uint8", "device_threads": 1}


def constants(**changes: float) -> dict[str, Constant]:
    return {name: Constant(value, "given") for name, value in {**RATES, **changes}.items()}


def results(fleet: Fleet, **changes: float) -> dict[str, Any]:
    return {result.name: result.value for result in plan_fleet(fleet, constants(**changes))}


def test_a_plan_by_hand() -> None:
    fleet = Fleet(
        devices=10, samples=200, validation_samples=20, rounds=4, uploads=2, local_epochs=2, server_epochs=5,
        codec="uint8", uplink_mbps=8.0, downlink_mbps=80.0, poll_seconds=0.0,
    )  # fmt: skip
    found = results(fleet, ingest_mbps=16.0, gpu_hour_price=2.0, egress_gb_price=10.0)
    compute = 200 * 2 / 100 + 220 / 1000 + 220 / 2000
    assert found["device compute, s a round"] == pytest.approx(compute)
    # 16 maps of 32 x 32 bytes halved, 10 float32 logits, a label and an id of 8 bytes each.
    upload = 220 * (16 * 1024 * 0.5 + 40 + 8 + 8)
    assert found["upload, bytes a device and round"] == upload
    assert found["device upload, s a round"] == pytest.approx(upload / 1e6)
    assert found["device download, s a round"] == pytest.approx(200 * 48 / 10e6)
    edge, server = compute + upload / 1e6 + 200 * 48 / 10e6, 10 * (200 * (5 + 1 / 4) + 20 / 4) / 500 + 3
    assert found["round, s"] == pytest.approx(edge + server)
    assert found["run, hours"] == pytest.approx((2 * (edge + server) + 2 * compute) / 3600)
    assert found["device hours"] == pytest.approx(10 * 4 * compute / 3600)
    assert found["bytes in, all"] == 2 * 10 * upload
    assert found["bytes out, all"] == 1 * 10 * 200 * 48
    assert found["storage, bytes"] == 10 * 220 * 16 * 1024
    # Ten devices with 8 Mbit/s each, into servers of 16.
    assert found["ingest servers"] == 5
    assert found["GPU hours"] == pytest.approx(2 * server / 3600)
    assert found["cost of GPUs"] == pytest.approx(4 * server / 3600)
    assert found["cost of storage"] is None
    assert found["cost, all known parts"] == pytest.approx(found["cost of GPUs"] + found["cost of traffic"])


def test_a_plan_sends_what_the_tap_gives() -> None:
    plain, narrow = (
        results(Fleet(devices=1, samples=100, edge_network=name, codec="uint8", poll_seconds=0.0))
        for name in ("resnet8", "resnet8-16x8x8")
    )
    assert plain["storage, bytes"] == 16 * narrow["storage, bytes"] == 100 * 16 * 1024
    report = {
        "config": {**FLEET_CONFIG, "edge_network": "own"},
        "clients": [{"num_examples": 9, "num_validation_examples": 1}],
        "image_size": 32,
        "class_names": ["a", "b"],
    }
    with pytest.raises(ConfigError, match=r"model is .?own.?, expected one of resnet4"):
        fleet_of(report, 2)
    assert fleet_of(report | {"config": FLEET_CONFIG | {"edge_network": "resnet8-8x8x8"}}, 2).devices == 1


def test_devices_of_one_machine_share_it() -> None:
    """Four devices on two cores: two turns, each slower, and a server that takes their samples in."""
    alone = results(Fleet(devices=4, samples=90, validation_samples=10, poll_seconds=0.0))
    shared = Fleet(devices=4, samples=90, validation_samples=10, poll_seconds=0.0, slots=2)
    compute = alone["device compute, s a round"]
    extra = results(shared, contention=1.5, handled_samples_per_second=200.0)["device part, s a round"]
    assert extra - alone["device part, s a round"] == pytest.approx((2 * 1.5 - 1) * compute + 400 / 200)
    # One device has the machine for itself; a fleet never shares.
    one = Fleet(devices=1, samples=90, validation_samples=10, poll_seconds=0.0, slots=2)
    assert results(one, contention=1.5)["device part, s a round"] == alone["device part, s a round"]
    apart = Fleet(devices=4, samples=90, validation_samples=10, poll_seconds=0.0)
    assert results(apart, contention=9.0, handled_samples_per_second=1.0) == alone
    drawn = results(apart, augment_images_per_second=90.0)["device compute, s a round"]
    assert drawn - compute == pytest.approx(2.0)


@given(
    devices=st.integers(1, 10**6),
    samples=st.integers(1, 10**4),
    factor=st.integers(2, 9),
    slots=st.integers(1, 64),
)
def test_twice_of_anything_costs_twice(devices: int, samples: int, factor: int, slots: int) -> None:
    fleet = Fleet(devices=devices, samples=samples, poll_seconds=0.0, slots=slots)
    more = Fleet(devices=factor * devices, samples=samples, poll_seconds=0.0, slots=slots)
    first, second = results(fleet), results(more)
    for name in ("device hours", "bytes in, all", "bytes out, all", "storage, bytes"):
        assert second[name] == pytest.approx(factor * first[name])
    # A device does not notice how many others there are, unless they share its machine.
    assert second["device compute, s a round"] == first["device compute, s a round"]
    assert second["device part, s a round"] >= first["device part, s a round"]
    shared = Fleet(devices=devices, samples=samples, poll_seconds=0.0, trainers=factor)
    overhead = RATES["server_overhead_seconds"]
    assert (results(shared)["server part, s a round"] - overhead) * factor == pytest.approx(
        first["server part, s a round"] - overhead
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devices": 0}, "devices is 0"),
        ({"uplink_mbps": 0.0}, "--uplink-mbps is 0.0, expected above 0"),
        ({"downlink_mbps": float("inf")}, "--downlink-mbps is inf"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"slots": 0}, "slots is 0"),
        ({"trainers": 0}, "trainers is 0"),
    ],
)
def test_fleets_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fleet(**{"devices": 1, "samples": 1, **values})


def test_a_missing_constant_is_named_with_its_remedy() -> None:
    fleet = Fleet(devices=1, samples=1)
    known = constants()
    del known["server_samples_per_second"]
    with pytest.raises(ConfigError, match="server samples per second is neither measured nor given"):
        plan_fleet(fleet, known)
    with pytest.raises(ConfigError, match="extract images per second is 0"):
        plan_fleet(fleet, constants(extract_images_per_second=0))


@pytest.mark.system
def test_a_real_run_is_predicted(demo_dir: Path) -> None:
    """The bytes within a quarter; how long it takes is compared, and judged only on a quiet machine."""
    measured_there = run_constants(demo_dir, 8)
    known = {**constants(), **measured_there}
    handled = handling(demo_dir, known, 8, 2)
    assert handled.value > 0
    found = validate(demo_dir, {**known, "handled_samples_per_second": handled}, 8, 2)
    rows = {row["name"]: row for row in found["rows"]}
    assert abs(rows["bytes in, all"]["relative_error"]) < 0.25
    assert rows["round, s"]["measured"] > 0
    assert rows["round, s"]["predicted"] == pytest.approx(
        rows["device part, s a round"]["predicted"] + rows["server part, s a round"]["predicted"]
    )
    # The server's constants come from this very run of two rounds: its part must be met, but for devices
    # of different sizes, of which the plan knows the mean.
    assert rows["server part, s a round"]["relative_error"] == pytest.approx(0, abs=0.02)
    # What computing left over came from this run too: it is met, unless nothing was left.
    if handled.value < 1e12:
        assert rows["device part, s a round"]["relative_error"] == pytest.approx(0, abs=1e-6)
    assert rows["bytes out, all"]["measured"] > 0
    assert abs(rows["bytes out, all"]["relative_error"]) < 0.25
    assert found["holds"] == all(abs(row["relative_error"]) <= 0.25 for row in found["rows"])
    report = json.loads((demo_dir / "report.json").read_text())
    rate = measured_there["server_samples_per_second"]
    # One epoch, and a soft label for a quarter of its price.
    assert rate.value == pytest.approx(1.25 * report["rounds"][1]["server_samples_per_second"])
    assert demo_dir.name in rate.source


@pytest.mark.system
def test_a_server_is_not_predicted_from_another(demo_dir: Path, tmp_path: Path) -> None:
    report = json.loads((demo_dir / "report.json").read_text())
    report["config"]["server_batch_size"] = 99
    (tmp_path / "report.json").write_text(json.dumps(report))
    check_same_server(demo_dir, demo_dir, 8)
    with pytest.raises(ConfigError, match=r"server_batch_size is 32 in .* and 99 in"):
        check_same_server(demo_dir, tmp_path, 8)


@pytest.mark.system
def test_constants_of_another_image_size_are_refused(demo_dir: Path) -> None:
    with pytest.raises(ConfigError, match="measured with images of 8 px, the plan has 32"):
        run_constants(demo_dir, 32)


@pytest.mark.system
def test_the_command(demo_dir: Path, tmp_path: Path) -> None:
    edge = {**measured(1)}
    edge["settings"] = {**edge["settings"], "image_size": 8}
    (tmp_path / "edge.json").write_text(json.dumps(edge))
    outs = [str(tmp_path / name) for name in ("plan.json", "plan.md", "plan.html")]
    arguments = ["--devices", "1e6", "--samples", "200", "--image-size", "8", "--run", str(demo_dir)]
    arguments += ["--edge", str(tmp_path / "edge.json"), "--validate", str(demo_dir)]
    result = CliRunner().invoke(
        plan, [*arguments, *(part for out in outs for part in ("--out", out))], catch_exceptions=False
    )
    assert result.exit_code == 0
    document = json.loads(Path(outs[0]).read_text())
    for key in {*document, *document["results"][0], *document["constants"][0], *document["validation"]}:
        assert re.search(rf"`[\w.\[\]]*{key}`", README), key
    assert document["fleet"]["devices"] == 1_000_000
    # Every number has its formula beside it, in the table too.
    markdown = Path(outs[1]).read_text()
    for line in document["results"]:
        assert line["formula"] and line["formula"] in markdown
    sources = {line["name"]: line["source"] for line in document["constants"]}
    assert "gkt profile edge" in sources["train_step_images_per_second"]
    assert "gkt demo" in sources["compression_ratio"]
    assert Path(outs[2]).read_text().count("data:image/svg+xml;base64,") == 1


def test_bad_input_ends_with_exit_code_2(gkt: Gkt, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    base = ("plan", "--devices", "10", "--samples", "200")
    for arguments, message in (
        (base, "train step images per second is neither measured nor given"),
        ((*base, "--edge", "other.json"), "other.json"),
        ((*base, "--run", "nowhere"), "holds no finished gkt demo"),
    ):
        done = gkt(*arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    for options, message in (
        (("--devices", "0"), "--devices is 0"),
        (("--uploads", "201"), "uploads is 201"),
    ):
        result = CliRunner().invoke(plan, ["--devices", "9", "--samples", "200", *OPTIONS, *options])
        assert isinstance(result.exception, ConfigError) and message in str(result.exception)
    result = CliRunner().invoke(plan, ["--devices", "9", "--samples", "200", *OPTIONS, "--json"])
    assert json.loads(result.stdout)["schema"] == "gkt-plan/1"


def test_a_run_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"config": {}}')
    with pytest.raises(InputError, match="holds no finished gkt demo"):
        run_constants(tmp_path, 8)
