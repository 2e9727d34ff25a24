"""Noise on features: what is drawn, that a device sends it, and that a stopped device sends it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.dry_run import dry_run
from edge_runtime.server_client import ServerClient
from edge_runtime.state.state_dir import DeviceState, StateDir
from gkt_core.algorithms.registry import AlgorithmOptions, build_algorithm
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.bundle.manifest import load_bundle
from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import ConfigError
from gkt_core.rounds.label_privacy import with_private_labels
from gkt_core.wire.feature_noise import KEY_BYTES, FeatureNoise, gaussian, simulated_key
from gkt_core.wire.protocol import RoundReport, ShardReceipt, from_json, to_json
from gkt_core.wire.shards import ShardKey, ShardSpec, read_feature_shard
from server_app.status import run_status
from tests.edge_runtime.device_fixtures import Served, StoppedError, take_part
from tests.server_app.server_fixtures import FEATURE_SHAPE, NUM_CLASSES, private_data

pytest_plugins = ["tests.server_app.server_fixtures"]
KEY = simulated_key(0, "a device")


def test_the_numbers_are_standard_normal() -> None:
    drawn = np.stack([gaussian(KEY, sample_id, 1, 4096) for sample_id in range(50)])
    assert abs(float(drawn.mean())) < 0.01
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)
    shares = [float((np.abs(drawn) < bound).mean()) for bound in (0.5, 1, 2, 3)]
    assert shares == pytest.approx([0.3829, 0.6827, 0.9545, 0.9973], abs=0.01)
    # Neither samples nor neighbouring values know of each other.
    assert abs(np.corrcoef(drawn) - np.eye(50)).max() < 0.1
    assert abs(float((drawn[:, 1:] * drawn[:, :-1]).mean())) < 0.01


def test_the_numbers_belong_to_key_sample_and_round() -> None:
    drawn = gaussian(KEY, 3, 7, 100)
    assert gaussian(KEY, 3, 7, 100).tobytes() == drawn.tobytes()
    for other in ((simulated_key(1, "a device"), 3, 7), (KEY, 4, 7), (KEY, -3, 7), (KEY, 3, 8)):
        assert not np.allclose(gaussian(*other, 100), drawn)
    # A device that goes on after an update must send the same: this value never changes.
    assert gaussian(b"\0" * KEY_BYTES, 0, 1, 3).tolist() == pytest.approx(
        [-0.69906712, 0.13468857, -2.17263770], rel=1e-6
    )


def test_blurring_knows_no_order_and_no_batch() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 2, 4, 4)).astype(np.float32)
    ids = np.array([9, 2, 5, 7, 1, 3])
    noise = FeatureNoise(clip=0.5, noise=0.25, key=KEY)
    together = noise.blur(features, ids, 3)
    assert together.dtype == np.float32
    backwards = noise.blur(features[::-1], ids[::-1], 3)[::-1]
    alone = np.concatenate([noise.blur(features[[row]], ids[[row]], 3) for row in range(6)])
    assert together.tobytes() == backwards.tobytes() == alone.tobytes()
    clipped = FeatureNoise(clip=0.5).blur(features, ids, 3)
    assert float(np.abs(clipped).max()) == 0.5
    assert float((together - clipped).std()) == pytest.approx(0.25, rel=0.2)
    assert FeatureNoise().blur(features, ids, 3) is features


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-1.0, 0.0), "--feature-clip is -1"),
        ((0.0, float("nan")), "--feature-noise is nan"),
        ((0.0, float("inf")), "--feature-noise is inf"),
    ],
)
def test_values_that_make_no_sense(values: tuple[float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FeatureNoise(*values)


def test_noise_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 0 bytes"):
        FeatureNoise(noise=1.0).blur(np.zeros((1, 1, 2, 2), np.float32), np.array([1]), 1)
    assert KEY.hex() not in repr(FeatureNoise(noise=1.0, key=KEY))


class Recording(ServerClient):
    """Keeps what it sends; may stop the device after some shards."""

    sent: dict[ShardKey, bytes]
    stop_after = 10**6

    def put_shard(self, key: ShardKey, data: bytes, *, compressed: bool) -> ShardReceipt:
        if len(self.sent) >= self.stop_after:
            raise StoppedError
        self.sent[key] = data
        return super().put_shard(key, data, compressed=compressed)


def recording(stop_after: int = 10**6) -> type[Recording]:
    return type("Recorder", (Recording,), {"sent": {}, "stop_after": stop_after})


def test_a_device_sends_noised_features_and_again_after_a_stop(server_bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "client-a.npz"
    save_private_data(data, private_data(1, num_train=20))
    noise = FeatureNoise(clip=0.4, noise=0.3)
    bare, whole, first, second = recording(), recording(), recording(stop_after=2), recording()
    take_part(Served(server_bundle, tmp_path / "r0"), data, tmp_path / "bare", client=bare)
    served = Served(server_bundle, tmp_path / "r1")
    take_part(served, data, tmp_path / "whole", client=whole, noise=noise)

    # The server knows, and the secret stays.
    (status,) = run_status(served.run.store).clients
    assert (status.feature_clip, status.feature_noise) == (0.4, 0.3)
    kept = json.loads((tmp_path / "whole" / "noise.json").read_text())
    assert (tmp_path / "whole" / "noise.json").stat().st_mode & 0o077 == 0
    assert not any(bytes.fromhex(kept["key"]) in body for body in whole.sent.values())

    # What arrived is the bare features, clipped, with this device's noise.
    keyed = replace(noise, key=bytes.fromhex(kept["key"]))
    spec = ShardSpec("uint8", FEATURE_SHAPE, NUM_CLASSES, 8)
    assert whole.sent.keys() == bare.sent.keys()
    for key in whole.sent:
        plain, blurred = (read_feature_shard(sent[key], key, spec) for sent in (bare.sent, whole.sent))
        expected = keyed.blur(plain.features(), plain.sample_ids, 1)
        # Both were rounded to 8 bits: half a level each, of the bare and of the wider blurred range.
        level = float(plain.encoded.scale.max() + blurred.encoded.scale.max())
        assert float(np.abs(blurred.features() - expected).max()) <= level
        assert float((blurred.features() - plain.features()).std()) > 0.25
        assert blurred.labels.tolist() == plain.labels.tolist()

    # A device that is stopped between two shards and started again sends the very bytes.
    again = Served(server_bundle, tmp_path / "r2")
    state = tmp_path / "stopped"
    state.mkdir()
    (state / "noise.json").write_text(json.dumps(kept))
    take_part(again, data, state, client=first, noise=noise)
    assert len(first.sent) == 2
    take_part(again, data, state, client=second, noise=noise)
    assert {**second.sent, **first.sent} == whole.sent
    with pytest.raises(ConfigError, match=r"began with --feature-clip 0.4 --feature-noise 0.3"):
        take_part(again, data, state)


def test_a_device_sends_responses_for_labels_and_says_so(server_bundle: Path, tmp_path: Path) -> None:
    path, data, noise = (
        tmp_path / "client-a.npz",
        private_data(1, num_train=60),
        FeatureNoise(label_privacy=0.5),
    )
    save_private_data(path, data)
    one, two = recording(), recording()
    served = Served(server_bundle, tmp_path / "r0")
    take_part(served, path, tmp_path / "state", client=one, noise=noise)
    (status,) = run_status(served.run.store).clients
    assert status.label_epsilon == 0.5
    kept = json.loads((tmp_path / "state" / "noise.json").read_text())
    keyed = replace(noise, key=bytes.fromhex(kept["key"]))
    expected = with_private_labels(data, keyed, NUM_CLASSES)
    spec = ShardSpec("uint8", FEATURE_SHAPE, NUM_CLASSES, 8)
    said: dict[str, list[int]] = {"train": [], "validation": []}
    for key, body in sorted(one.sent.items(), key=lambda each: each[0].index):
        shard = read_feature_shard(body, key, spec)
        assert shard.label_epsilon == 0.5
        said[key.split] += shard.labels.tolist()
    assert said == {
        "train": expected.train.labels.tolist(),
        "validation": expected.validation.labels.tolist(),
    }
    assert said["train"] != data.train.labels.tolist()

    # With the key of that folder again, in another run: the very responses.
    again = tmp_path / "again"
    again.mkdir()
    (again / "noise.json").write_text(json.dumps(kept))
    other = Served(server_bundle, tmp_path / "r1")
    take_part(other, path, again, client=two, noise=noise)
    assert two.sent == one.sent
    with pytest.raises(
        ConfigError, match=r"--label-privacy 0\.5, now it is --feature-clip 0 --feature-noise 0:"
    ):
        take_part(other, path, again)


def test_a_dry_run_says_what_becomes_of_labels(server_bundle: Path) -> None:
    config, bundle, data = (
        RunConfig(crop_padding=1, shard_samples=8),
        load_bundle(server_bundle),
        private_data(1),
    )
    shown = dry_run(bundle, data, config, client_id="a", num_threads=1, noise=FeatureNoise(label_privacy=1.0))
    assert shown.label_privacy == 1.0
    (line,) = [line for line in shown.leaves if line.startswith("labels of")]
    assert "each exchanged for another with chance 42% (epsilon 1), once for the whole run" in line


def test_simulated_devices_send_responses(federation: Federation, tmp_path: Path) -> None:
    config = RunConfig(num_clients=2, rounds=1, server_epochs=1, crop_padding=1, batch_size=16)
    private = FeatureNoise(label_privacy=1.0)
    losses = []
    for noise in (None, private, private):
        algorithm = build_algorithm(AlgorithmOptions("fedgkt", noise=noise), federation, config, tmp_path)
        losses.append(algorithm.run_round(1, 1.0, lambda who, num: None).train_loss)
    assert losses[1] == losses[2] != losses[0]
    with pytest.raises(ConfigError, match="leave out --label-privacy"):
        build_algorithm(AlgorithmOptions("fedavg", noise=private), federation, config, tmp_path)


def test_a_device_that_began_bare_goes_on_bare(tmp_path: Path) -> None:
    folder = StateDir(tmp_path / "state")
    try:
        begun = DeviceState("run", "device", trained_round=1)
        with pytest.raises(ConfigError, match="another --state-dir"):
            folder.feature_noise(FeatureNoise(noise=1.0), begun)
        assert not folder.feature_noise(FeatureNoise(), begun).is_on
        drawn = folder.feature_noise(FeatureNoise(noise=1.0), DeviceState("run", "device"))
        assert len(drawn.key) == KEY_BYTES
        assert folder.feature_noise(FeatureNoise(noise=1.0), begun) == drawn
    finally:
        folder.close()


def test_a_dry_run_shows_the_noise(server_bundle: Path) -> None:
    config = RunConfig(crop_padding=1, shard_samples=8)
    bundle, data = load_bundle(server_bundle), private_data(1)
    bare = dry_run(bundle, data, config, client_id="client-a", num_threads=1)
    noise = FeatureNoise(2.0, bare.feature_spread / 2)
    shown = dry_run(bundle, data, config, client_id="client-a", num_threads=1, noise=noise)
    assert "noise" not in " ".join(bare.leaves)
    assert "limited to -2..2 and with Gaussian noise" in shown.leaves[0]
    assert "0.5 times their own" in shown.leaves[0]
    assert (shown.feature_clip, shown.feature_noise) == (2.0, bare.feature_spread / 2)
    # Noise does not compress.
    assert shown.shard_bytes > bare.shard_bytes


def test_reports_of_older_devices_still_fit() -> None:
    values = json.loads(to_json(RoundReport(1, 1, 10, 0.5, 0.5, 1.0, 1.0, 10.0)))
    del values["feature_clip"], values["feature_noise"]
    assert from_json(RoundReport, json.dumps(values).encode()).feature_noise == 0.0


def test_simulated_devices_send_noised_features(federation: Federation, tmp_path: Path) -> None:
    config = RunConfig(
        num_clients=2, rounds=1, server_epochs=1, crop_padding=1, batch_size=16, horizontal_flip=False
    )
    losses = []
    for noise in (None, FeatureNoise(noise=2.0), FeatureNoise(noise=2.0)):
        algorithm = build_algorithm(AlgorithmOptions("fedgkt", noise=noise), federation, config, tmp_path)
        losses.append(algorithm.run_round(1, 1.0, lambda who, num: None).train_loss)
    assert losses[1] == losses[2] != losses[0]
    with pytest.raises(ConfigError, match="leave out --feature-clip"):
        build_algorithm(
            AlgorithmOptions("fedavg", noise=FeatureNoise(noise=1.0)), federation, config, tmp_path
        )
