"""What export estimates of memory: noted, said, refused; and held to the peak of a real process."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from torch import Tensor, nn

from edge_export import ExportOptions, export_bundle
from gkt_core.bundle.manifest import ENGINE_FILES, PORTABLE, load_bundle
from gkt_core.bundle.memory import TRAINER, MemoryPlan
from gkt_core.errors import ConfigError
from gkt_core.networks import register_server_network
from profiling.device.peak_memory import engine_peak_bytes
from tests.conftest import Gkt

SMALL = ("export", "--model", "resnet4", "--engine", "portable", "--verify", "none")


def exported(folder: Path, options: ExportOptions) -> MemoryPlan:
    memory = export_bundle(options, folder, verify="none").memory
    assert memory is not None
    return memory


@pytest.mark.system
@pytest.mark.parametrize("engine", ENGINE_FILES)
def test_a_real_process_stays_within_the_estimate(engine: str, tmp_path: Path) -> None:
    """Batches that make the process itself the smaller part, so that the part of an image is what is held."""
    memory = exported(tmp_path / "bundle", ExportOptions(image_size=64, engines=(engine,)))
    batch_size = 48
    peak = engine_peak_bytes(
        tmp_path / "bundle",
        engine=engine,
        batch_size=batch_size + 1,
        rest_size=3 * batch_size // 4,
        threads=1,
    )
    need = memory.needs[engine]
    assert batch_size * need.image_bytes > need.fixed_bytes
    assert peak < need.of(batch_size) < 1.6 * peak


def test_export_says_what_a_size_takes_and_notes_it(gkt: Gkt, tmp_path: Path) -> None:
    done = gkt(*SMALL, "--image-size", "32", "--memory-limit-mb", "150", "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    memory = load_bundle(tmp_path / "bundle").manifest.memory
    assert memory is not None and memory.engine == PORTABLE and memory.device_limit_mb == 150
    batch_size = memory.most_images(PORTABLE)
    assert 2 < batch_size < 64
    for line in memory.lines(32, 64):
        assert f"{line}\n" in done.stdout
    assert f"MB with batches of {batch_size}, as 150 MB hold; 64 would take" in done.stdout


def test_low_memory_takes_less(tmp_path: Path) -> None:
    plain = ExportOptions(engines=(PORTABLE,))
    low = ExportOptions(engines=(PORTABLE,), low_memory=True)
    needs = [exported(tmp_path / str(number), each).needs for number, each in enumerate((plain, low))]
    assert needs[1][PORTABLE].image_bytes < 0.6 * needs[0][PORTABLE].image_bytes
    assert needs[1][TRAINER] == needs[0][TRAINER]


def test_what_cannot_work_is_refused_before_anything_is_written(gkt: Gkt, tmp_path: Path) -> None:
    options = ExportOptions("resnet8", "resnet109", image_size=224, engines=(PORTABLE,))
    with pytest.raises(ConfigError, match=r"the trainer needs 6,\d{3} MB .* --trainer-memory-mb is 4,000"):
        export_bundle(options, tmp_path / "large", verify="none")
    images = ("--model", "resnet8", "--image-size", "224")
    done = gkt(*SMALL[:1], *SMALL[3:], *images, "--memory-limit-mb", "300", "--out", tmp_path / "bundle")
    assert done.returncode == 2
    said = r"error: a device \(portable\) needs [456]\d\d MB .* images of 224 px, --memory-limit-mb is 300"
    assert re.search(said, done.stderr) and "strided stem" in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


class LooksAtValues(nn.Module):
    """A server network whose way depends on what it sees, which without values there is none of."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(16, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[N, 16, S, S]`` to ``[N, num_classes]``."""
        mean = features.mean(dim=(2, 3))
        logits: Tensor = self.fc(mean if float(mean.sum()) >= 0 else -mean)
        return logits


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_network_that_cannot_be_followed_is_exported_without_an_estimate(tmp_path: Path) -> None:
    register_server_network("looks_at_values", LooksAtValues)
    said: list[str] = []
    options = ExportOptions("resnet4", "looks_at_values", image_size=8, num_classes=3, engines=(PORTABLE,))
    manifest = export_bundle(options, tmp_path / "bundle", verify="none", say=said.append)
    assert manifest.memory is None
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["memory"] is None
    assert any(line.startswith("memory is not estimated: ") for line in said)
    assert load_bundle(tmp_path / "bundle").manifest.memory is None
