"""What a device takes of its machine: pauses for battery and heat, memory, priority; and how it says so."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from edge_runtime.cli.options import RunOptions
from edge_runtime.machine import pauses
from edge_runtime.machine.pauses import Pauses, hottest_celsius, read_battery
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import ConfigError, MemoryLimitError
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.edge_runtime.device_fixtures import Served, Silent, command, process, take_part, wait_until
from tests.server_app.server_fixtures import private_data

pytest_plugins = ["tests.server_app.server_fixtures"]


def supply(sysfs: Path, name: str, **files: object) -> None:
    folder = sysfs / "class/power_supply" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in files.items():
        (folder / file).write_text(f"{value}\n")


def zone(sysfs: Path, number: int, millidegrees: object) -> None:
    folder = sysfs / f"class/thermal/thermal_zone{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "temp").write_text(f"{millidegrees}\n")


def test_batteries_as_linux_shows_them(tmp_path: Path) -> None:
    assert read_battery(tmp_path) is None
    supply(tmp_path, "AC", type="Mains", online=0)
    supply(tmp_path, "mouse", type="Battery", scope="Device", capacity=3, status="Discharging")
    assert read_battery(tmp_path) is None, "a mouse's battery is not the machine's"
    supply(tmp_path, "BAT0", type="Battery", capacity=20, status="Discharging", present=1)
    supply(tmp_path, "BAT1", type="Battery", capacity=60, status="Unknown", present=1)
    supply(tmp_path, "BAT2", type="Battery", present=0)
    found = read_battery(tmp_path)
    assert found is not None
    assert (found.percent, found.is_discharging) == (40.0, True)
    for name in ("BAT0", "BAT1"):
        supply(tmp_path, name, status="Unknown")
    assert read_battery(tmp_path).is_discharging  # type: ignore[union-attr]
    supply(tmp_path, "AC", online=1)
    assert not read_battery(tmp_path).is_discharging  # type: ignore[union-attr]


def test_temperatures_as_linux_shows_them(tmp_path: Path) -> None:
    assert hottest_celsius(tmp_path) is None
    zone(tmp_path, 0, 41500)
    zone(tmp_path, 1, -274000)
    zone(tmp_path, 2, "")
    assert hottest_celsius(tmp_path) == 41.5


class Scene:
    """A machine whose battery or temperature changes while training waits."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs, self.seconds = sysfs, 0.0
        self.notes: list[str] = []
        self.changes: list[object] = []

    def clock(self) -> float:
        self.seconds += 10.0
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert self.changes, "waits though it may go on"
        self.changes.pop(0)()  # type: ignore[operator]

    def pauses(self, below_battery: float | None = None, above_celsius: float | None = None) -> Pauses:
        return Pauses(
            below_battery,
            above_celsius,
            sysfs=self.sysfs,
            note=self.notes.append,
            clock=self.clock,
            sleep=self.sleep,
        )


def test_heat_is_left_only_when_it_is_clearly_better(tmp_path: Path) -> None:
    scene, saved = Scene(tmp_path), []
    zone(tmp_path, 0, 80000)
    waiting = scene.pauses(above_celsius=80.0)
    waiting.wait(lambda: saved.append(True))
    assert not scene.notes and not saved, "80 is not above 80"
    zone(tmp_path, 0, 81000)
    scene.changes = [lambda: zone(tmp_path, 0, 76000), lambda: zone(tmp_path, 0, 75000)]
    waiting.wait(lambda: saved.append(True))
    assert not scene.changes, "76 is not yet 5 below"
    assert saved == [True]
    assert scene.notes[0] == "training waits: the machine is hot, 81 °C; goes on at 75 °C"
    assert scene.notes[-1].startswith("training goes on after ")


def test_a_battery_is_waited_for_until_it_is_plugged_in_or_fuller(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    supply(tmp_path, "BAT0", type="Battery", capacity=29, status="Discharging")
    scene.changes = [
        lambda: supply(tmp_path, "BAT0", capacity=34),
        lambda: supply(tmp_path, "BAT0", capacity=35),
    ]
    scene.pauses(below_battery=30.0).wait()
    assert not scene.changes
    assert "the battery is low, 29 %" in scene.notes[0]
    supply(tmp_path, "BAT0", capacity=10)
    scene.changes = [lambda: supply(tmp_path, "BAT0", status="Charging")]
    scene.pauses(below_battery=30.0).wait()
    assert not scene.changes


def test_where_there_are_no_files_nothing_waits(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    limited = scene.pauses(below_battery=50.0, above_celsius=10.0)
    limited.wait()
    assert not scene.notes
    assert limited.missing() == [
        "--pause-below-battery (no battery)",
        "--pause-above-celsius (no thermal zone)",
    ]
    for below_battery, above_celsius in ((99.0, None), (0.0, None), (None, 500.0)):
        with pytest.raises(ConfigError, match="expected"):
            RunOptions(
                url="http://server",
                token="t",
                data=tmp_path,
                pause_below_battery=below_battery,
                pause_above_celsius=above_celsius,
            )


def test_a_device_waits_between_two_steps_with_its_state_saved(
    server_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, state_dir = tmp_path / "client-a.npz", tmp_path / "state"
    save_private_data(data, private_data(1))
    zone(tmp_path, 0, 50000)
    scene, seen = Scene(tmp_path), []

    class Heating(Silent):
        def images(self, num_images: int) -> None:
            zone(tmp_path, 0, 95000)

    def cool() -> None:
        partial = json.loads((state_dir / "state.json").read_text())["partial"]
        seen.append(partial and partial["num_steps"])
        zone(tmp_path, 0, 40000)

    scene.changes = [cool] * 20
    monkeypatch.setattr(pauses, "_LOOK_EVERY_SECONDS", 0.0)
    take_part(
        Served(server_bundle, tmp_path / "run"),
        data,
        state_dir,
        pauses=scene.pauses(above_celsius=70.0),
        listener=Heating(),
        checkpoint_seconds=3600.0,
    )
    # 12 samples in batches of 4: three steps, each heats, each is saved before the wait.
    assert seen[:3] == [1, 2, 3]
    assert len(seen) > 3 and set(seen[3:]) == {None}


def test_json_lines_priority_and_pauses_through_the_command(server_bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "client-a.npz"
    save_private_data(data, private_data(1))
    zone(tmp_path, 0, 99000)
    options = ["--json", "--nice", "3", "--pause-above-celsius", "60", "--pause-below-battery", "20"]
    with Served(server_bundle, tmp_path / "run").listening() as served:
        arguments = command(served, data, tmp_path / "state", *options, "--sysfs", str(tmp_path))
        with process(arguments) as device:
            assert device.stderr is not None
            lines = []
            for line in device.stderr:
                lines.append(json.loads(line))
                if "training waits" in lines[-1].get("message", ""):
                    assert (
                        os.getpriority(os.PRIO_PROCESS, device.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3
                    )
                    assert not served.has_report
                    zone(tmp_path, 0, 20000)
                if lines[-1].get("phase") == "wait":
                    break
    assert {line["event"] for line in lines} == {"phase", "images", "note"}
    assert {line["client_id"] for line in lines} == {"client-a"}
    told = [line["message"] for line in lines if line["event"] == "note"]
    assert any("no battery" in message for message in told)
    assert any("goes on after" in message for message in told)
    done = [line for line in lines if line["event"] == "images" and line["phase"] == "train"]
    assert done[-1]["done"] == done[-1]["num_images"] == 12


def test_too_little_memory_is_found_before_the_device_joins(server_bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "client-a.npz"
    save_private_data(data, private_data(1))
    with Served(server_bundle, tmp_path / "run", batch_size=8192).listening() as served:

        def tried(megabytes: int) -> subprocess.CompletedProcess[str]:
            arguments = command(served, data, tmp_path / "state", "--memory-limit-mb", str(megabytes))
            return subprocess.run(
                arguments, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
            )

        for megabytes, message in ((1, "are taken before training begins"), (400, "batches of 8192")):
            done = tried(megabytes)
            assert done.returncode == MemoryLimitError.exit_code == 8, done.stderr
            assert message in done.stderr
            assert "Traceback" not in done.stderr
        assert not served.run.store.clients()
    with Served(server_bundle, tmp_path / "other").listening() as served:
        arguments = command(served, data, tmp_path / "enough", "--memory-limit-mb", "1500")
        with process(arguments) as device:
            wait_until(lambda: served.has_report, device)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--nice", "20", "--nice is 20"), ("--pause-below-battery", "100", "--pause-below-battery is 100")],
)
def test_limits_that_make_no_sense(gkt: Gkt, tmp_path: Path, option: str, value: str, message: str) -> None:
    data = tmp_path / "client-a.npz"
    save_private_data(data, private_data(1))
    done = gkt("edge", "run", "--server", "http://127.0.0.1:9", "--token", "t", "--data", data,
               "--state-dir", tmp_path / "s", option, value)  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
