"""Quarantine: poisoned uploads are named, honest ones of any split are not; the commands for a person."""

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from safetensors.numpy import save

from gkt_core.algorithms import Evaluation, ServerUpdate
from gkt_core.config.run_config import RunConfig
from gkt_core.data.partition import partition
from gkt_core.errors import InputError
from gkt_core.rounds.feature_source import ShardSource
from gkt_core.wire.protocol import RoundReport
from gkt_core.wire.shards import ShardKey, ShardSpec, read_feature_shard, write_feature_shard
from server_app import open_run
from server_app.cli.clients import clients as clients_command
from server_app.quarantine import Evidence, Watch, judge
from server_app.quarantine.evidence import MAX_SAMPLES, gather_evidence, summarise
from server_app.quarantine.judge import doubtful_labels, not_compared, odd_among_few
from server_app.quarantine.views import Views
from server_app.rounds.state import (
    Claimed,
    Deserted,
    Failed,
    Joined,
    Pardoned,
    Quarantined,
    Reported,
    Trained,
)
from server_app.status import run_status
from server_app.store import BlobStore, ClientRecord, RunStore
from server_app.trainer import supervisor
from server_app.trainer.step_report import step_metrics
from server_app.trainer.supervisor import TrainerProcess
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.server_app.server_fixtures import closing_runs

NUM_CLASSES, CHANNELS, SIZE = 6, 8, 8
NOTHING: dict[str, Any] = {"first": {}, "last": {}, "same_start": True}
# Rows, features, logits and labels of one device.
Upload = tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
Uploads = dict[str, Upload]


def devices(split: str, seed: int, num_clients: int = 8, num_samples: int = 960) -> Uploads:
    """What honest devices send: each class has its smooth pattern, extractors drift from a common one."""
    rng = np.random.default_rng([seed, 5])
    labels = rng.integers(0, NUM_CLASSES, num_samples)
    # Blobs of 2 pixels: neighbours go together, as after a convolution.
    coarse = rng.normal(size=(NUM_CLASSES, CHANNELS, SIZE // 2, SIZE // 2))
    patterns = coarse.repeat(2, axis=2).repeat(2, axis=3)
    sent: Uploads = {}
    for number, rows in enumerate(partition(labels, num_clients, scheme=split, alpha=0.1, seed=seed)):
        mine = labels[rows]
        noise = rng.normal(size=(len(rows), CHANNELS, SIZE // 2, SIZE // 2)).repeat(2, 2).repeat(2, 3)
        drift = rng.lognormal(0, 0.3, (1, CHANNELS, 1, 1))
        features = np.maximum(drift * (patterns[mine] + noise), 0).astype(np.float32)
        logits = rng.normal(0, 0.3, (len(rows), NUM_CLASSES)).astype(np.float32)
        sent[f"d{number}"] = (rows, features, logits, mine)
    return sent


def looked_at(sent: Uploads) -> dict[str, Evidence]:
    return {
        client_id: summarise(*upload, Views.plain(len(upload[0]), SIZE)) for client_id, upload in sent.items()
    }


def plain_views(client_id: str, sample_ids: NDArray[np.int64]) -> Views:
    return Views.plain(len(sample_ids), SIZE)


def poisoned(upload: Upload, attack: str, seed: int = 0) -> Upload:
    rows, features, logits, labels = upload
    rng = np.random.default_rng(seed)
    if attack == "shifted_labels":
        return rows, features, logits, (labels + 1) % NUM_CLASSES
    if attack == "random_features":
        noise = rng.normal(features.mean(), features.std(), features.shape)
        return rows, np.maximum(noise, 0).astype(np.float32), logits, labels
    hostile = np.full_like(logits, -5)
    hostile[np.arange(len(labels)), (labels + 1) % NUM_CLASSES] = 5
    return rows, features, hostile, labels


WORDS = {
    "shifted_labels": "labels do not go with its features",
    "random_features": "no image leads to them",
    "hostile_logits": "confidently name another class",
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("attack", WORDS)
def test_one_of_eight_is_named_and_nobody_else(attack: str, seed: int) -> None:
    sent = devices("iid", seed)
    assert judge(looked_at(sent), num_classes=NUM_CLASSES, **NOTHING) == {}
    attacker = f"d{seed + 2}"
    sent[attacker] = poisoned(sent[attacker], attack)
    found = judge(looked_at(sent), num_classes=NUM_CLASSES, **NOTHING)
    assert list(found) == [attacker]
    assert WORDS[attack] in found[attacker]
    trusting = judge(looked_at(sent), num_classes=NUM_CLASSES, trusted=(attacker,), **NOTHING)
    assert attacker not in trusting


@pytest.mark.parametrize("attack", ["hostile_logits", "random_features"])
def test_attacks_without_labels_are_named_on_skewed_splits_too(attack: str) -> None:
    sent = devices("dirichlet", 1)
    sent["d4"] = poisoned(sent["d4"], attack)
    assert list(judge(looked_at(sent), num_classes=NUM_CLASSES, **NOTHING)) == ["d4"]


def test_nobody_of_a_skewed_split_is_named() -> None:
    for seed in range(12):
        evidence = looked_at(devices("dirichlet", seed))
        assert judge(evidence, num_classes=NUM_CLASSES, **NOTHING) == {}, seed


def test_what_other_devices_cannot_tell_is_not_held_against_anybody() -> None:
    # Two devices: labels against labels, and nobody to say whose are right.
    sent = dict(list(devices("iid", 0).items())[:2])
    sent["d1"] = poisoned(sent["d1"], "shifted_labels")
    assert judge(looked_at(sent), num_classes=NUM_CLASSES, **NOTHING) == {}
    # Extractors that began apart cannot be compared.
    sent = devices("iid", 0)
    sent["d1"] = poisoned(sent["d1"], "shifted_labels")
    apart = {**NOTHING, "same_start": False}
    assert judge(looked_at(sent), num_classes=NUM_CLASSES, **apart) == {}


@pytest.mark.parametrize(
    ("num_clients", "factor", "odd"), [(2, 4000, 1), (4, 4000, 1), (4, 1, 0), (5, 4000, 0)]
)
def test_a_scale_that_few_cannot_judge_is_told(num_clients: int, factor: float, odd: int) -> None:
    evidence = looked_at(devices("iid", 0, num_clients=num_clients))
    evidence["d1"] = dataclasses.replace(evidence["d1"], scale=evidence["d1"].scale * factor)
    found = odd_among_few(evidence)
    assert list(found) == ["d1"] * odd and all(
        "too few to say who is right" in each for each in found.values()
    )
    # Nobody is left out for it; of five, one is.
    named = judge(evidence, num_classes=NUM_CLASSES, **NOTHING)
    assert list(named) == (["d1"] if num_clients == 5 else [])


def randomised(upload: Upload, kept: float, seed: int) -> Upload:
    """Each label stays with this chance, and is any other one otherwise."""
    rows, features, logits, labels = upload
    rng = np.random.default_rng([seed, 7])
    moved = (labels + rng.integers(1, NUM_CLASSES, len(labels))) % NUM_CLASSES
    return rows, features, logits, np.where(rng.random(len(labels)) < kept, labels, moved)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kept", [0.89, 0.6, 0.3])
def test_randomised_labels_are_no_cover_for_moved_ones(kept: float, seed: int) -> None:
    sent = devices("iid", seed)
    sent["d3"] = randomised(sent["d3"], kept, seed)
    known: dict[str, Any] = {**NOTHING, "kept_labels": {"d3": kept}}
    assert judge(looked_at(sent), num_classes=NUM_CLASSES, **known) == {}
    if kept < 0.5:
        # So little is left of labels that moved ones are like them, and count as little in the loss.
        return
    sent["d3"] = poisoned(sent["d3"], "shifted_labels")
    (reason,) = judge(looked_at(sent), num_classes=NUM_CLASSES, **known).values()
    assert "even as randomised ones" in reason


def test_labels_in_doubt_are_told_where_nobody_is_named() -> None:
    for seed in range(6):
        for split in ("iid", "dirichlet"):
            assert doubtful_labels(looked_at(devices(split, seed)), {}) == {}, (split, seed)
    sent = devices("iid", 0)
    rows, features, logits, labels = sent["d4"]
    # It sees what the others do not, so that its labels cannot be called wrong.
    strange = np.maximum(features[:, ::-1] + 3 * features.mean(), 0)
    sent["d4"] = rows, np.ascontiguousarray(strange, np.float32), logits, (labels + 1) % NUM_CLASSES
    evidence = looked_at(sent)
    assert judge(evidence, num_classes=NUM_CLASSES, **NOTHING) == {}
    (doubt,) = doubtful_labels(evidence, {}).items()
    assert doubt[0] == "d4" and "either it sees other things, or its labels are wrong" in doubt[1]
    assert doubtful_labels(evidence, {}, trusted=("d4",)) == doubtful_labels(evidence, evidence) == {}


def test_half_of_the_devices_is_no_outlier() -> None:
    sent = devices("iid", 0)
    for number in range(4):
        sent[f"d{number}"] = poisoned(sent[f"d{number}"], "shifted_labels", number)
    assert judge(looked_at(sent), num_classes=NUM_CLASSES, **NOTHING) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda each: dataclasses.replace(each, labels=(each.labels + 1) % NUM_CLASSES), "another label"),
        (lambda each: dataclasses.replace(each, scale=each.scale * 20), "scale of its features"),
        (lambda each: dataclasses.replace(each, patches=each.patches[::-1]), "no longer the images"),
        (lambda each: dataclasses.replace(each, copies=0.9), "sample before"),
    ],
)
def test_a_device_that_turns_is_unlike_its_past(change: Callable[[Evidence], Evidence], words: str) -> None:
    before = looked_at(devices("iid", 0))
    past: dict[str, Any] = {"first": before, "last": before, "same_start": True}
    assert judge(before, num_classes=NUM_CLASSES, **past) == {}
    now = {**before, "d3": change(before["d3"])}
    found = judge(now, num_classes=NUM_CLASSES, **past)
    assert list(found) == ["d3"] and words in found["d3"]


def test_random_features_are_named_however_many_send_them() -> None:
    sent = devices("iid", 0, num_clients=2)
    sent = {client_id: poisoned(upload, "random_features") for client_id, upload in sent.items()}
    found = judge(looked_at(sent), num_classes=NUM_CLASSES, **NOTHING)
    assert list(found) == ["d0", "d1"] and all(WORDS["random_features"] in each for each in found.values())


def test_features_that_are_all_zero() -> None:
    sent = devices("iid", 0, num_clients=2)
    rows, features, logits, labels = sent["d0"]
    sent["d0"] = (rows, np.zeros_like(features), logits, labels)
    found = judge(looked_at(sent), num_classes=NUM_CLASSES, **NOTHING)
    assert found == {"d0": "100.0% of its features are zero"}


def source_of(sent: Uploads) -> ShardSource:
    spec = ShardSpec("fp32", (CHANNELS, SIZE, SIZE), NUM_CLASSES, 1000)
    shards = []
    for client_id, (rows, features, logits, labels) in sent.items():
        key = ShardKey(client_id, 1, "train", 0)
        data = write_feature_shard(key, rows.astype(np.int64), features, logits, labels, "fp32")
        shards.append((client_id, read_feature_shard(data, key, spec)))
    return ShardSource(shards)


def test_evidence_is_bounded_spread_and_survives_a_file(tmp_path: Path) -> None:
    source = source_of(devices("iid", 0, num_clients=2))
    evidence = gather_evidence(source, plain_views)
    for number, client_id in enumerate(source.client_ids):
        mine = source.sample_ids[source.owners == number]
        found = evidence[client_id]
        assert len(found.labels) == MAX_SAMPLES < len(mine)
        assert (found.sample_ids[0], found.sample_ids[-1]) == (mine[0], mine[-1])
        (tmp_path / "file").write_bytes(found.to_bytes())
        again = Evidence.from_file(str(tmp_path / "file"))
        assert again is not None
        assert again.numbers() == found.numbers()
        np.testing.assert_array_equal(again.labels, found.labels)
        np.testing.assert_array_equal(again.sample_ids, found.sample_ids)
        np.testing.assert_allclose(again.pooled, found.pooled, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(again.patches, found.patches, rtol=1e-3, atol=1e-6)


def test_evidence_of_another_version_is_no_past(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(
        save({"labels": np.zeros(3, np.int64)}, metadata={"numbers": json.dumps({"scale": 1.0})})
    )
    assert Evidence.from_file(str(tmp_path / "file")) is None


def test_what_the_judge_is_silent_of_is_said() -> None:
    own = looked_at(devices("iid", 0))["d0"]
    assert not_compared(own) == ["padding of its views (few samples with much padding)"]
    dark = dataclasses.replace(
        own, padded_samples=40.0, image_covariance=0.01, patches=np.zeros_like(own.patches)
    )
    assert not_compared(dark) == [
        "padding of its views (hardly any contrast)",
        "its past (few samples, or all of one image)",
    ]


def test_the_watch_remembers_those_that_it_accepts(tmp_path: Path) -> None:
    config = RunConfig(num_clients=8, crop_padding=0, horizontal_flip=False)
    watch = Watch(BlobStore(tmp_path), config, NUM_CLASSES, SIZE)
    sent = devices("iid", 0)

    def check(round_num: int, answered: dict[str, int], uploads: Uploads) -> dict[str, str]:
        rounds = dict.fromkeys(uploads, round_num)
        found = watch.check(source_of(uploads), None, rounds=rounds, answered=answered, trusted=())
        watch.tidy(rounds, answered)
        return found

    bad = {**sent, "d5": poisoned(sent["d5"], "shifted_labels")}
    assert list(check(1, {}, bad)) == ["d5"]
    # The same again, as after a restart of the trainer in the middle of the round.
    assert list(check(1, {}, bad)) == ["d5"]
    rest = {client_id: upload for client_id, upload in sent.items() if client_id != "d5"}
    assert check(2, dict.fromkeys(rest, 1), rest) == {}
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.safetensors")}
    assert kept == {f"watch/{place}/{each}.safetensors" for place in ("first", "000002") for each in rest}
    # Two that turn in the third round; one that was released is judged by everybody's first uploads.
    turned = {**sent, "d1": poisoned(sent["d1"], "shifted_labels"), "d5": bad["d5"]}
    found = check(3, dict.fromkeys(rest, 2), turned)
    assert list(found) == ["d1", "d5"]
    assert "another label than before" in found["d1"] and WORDS["shifted_labels"] in found["d5"]


def held_run(empty_run: Path, tmp_path: Path) -> RunStore:
    shutil.copytree(empty_run, tmp_path / "run")
    store = open_run(tmp_path / "run").store
    for client_id in ("client-a", "client-b"):
        store.join(ClientRecord(client_id, 12, 5, "portable"))
    for event in (Reported("client-a", 1), Reported("client-b", 1), Claimed(1)):
        store.apply(event)
    store.apply(Quarantined("client-b", 1, "noise"))
    return store


def test_a_quarantined_device_does_not_count_in_the_metrics_of_its_round(
    empty_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(empty_run, tmp_path / "run")
    store = open_run(tmp_path / "run").store
    for client_id in ("client-a", "client-b"):
        store.join(ClientRecord(client_id, 30, 5, "portable"))
    for client_id, num_examples, accuracy in (("client-a", 12, 0.5), ("client-b", 30, 1.0)):
        report = RoundReport(
            num_train_shards=0,
            num_validation_shards=0,
            num_examples=num_examples,
            loss=1.0,
            accuracy=accuracy,
            train_seconds=1.0,
            extract_seconds=1.0,
            images_per_second=1.0,
        )
        store.close_part(client_id, 1, report)
    store.apply(Claimed(1))
    state = store.apply(Quarantined("client-b", 1, "noise"))
    update = ServerUpdate(np.zeros((12, NUM_CLASSES), np.float32), 0.0, 0.0, 0.0)
    store.add_round_metrics(1, step_metrics(store, state, update, Evaluation(0.0, 0.0)))
    store.apply(Trained(1))
    (finished,) = run_status(store).finished_rounds
    assert (finished.num_examples, finished.edge_accuracy) == (12, 0.5)
    store.close()


def test_the_commands_of_the_person_who_runs_the_server(
    gkt: Gkt, empty_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once as a process; then in this one, which saves an import of everything each time."""
    store = held_run(empty_run, tmp_path)
    listed = json.loads(gkt("clients", "list", "--data-dir", "run", "--json").stdout)
    assert [(each["client_id"], each["state"], each["reason"]) for each in listed["clients"]] == [
        ("client-a", "reported", ""),
        ("client-b", "quarantined", "noise"),
    ]
    monkeypatch.chdir(tmp_path)

    def clients(*arguments: str) -> Result:
        with closing_runs():
            return CliRunner().invoke(clients_command, [*arguments, "--data-dir", "run"])

    assert "client-b  quarantined" in clients("list").stdout
    released = clients("release", "client-b", "--trust", "--json")
    assert json.loads(released.stdout)["state"] == "waiting"
    assert (store.state().quarantined, store.state().trusted) == ((), ("client-b",))
    revoked = clients("revoke", "client-b")
    assert revoked.exit_code == 0 and "client-b is revoked" in revoked.stdout
    assert store.state().revoked == ("client-b",)
    for arguments, words in (
        (("release", "client-a"), "not quarantined"),
        (("revoke", "nobody"), "expected one of: client-a, client-b"),
    ):
        refused = clients(*arguments).exception
        assert isinstance(refused, InputError) and refused.exit_code == 2 and words in str(refused)
    store.close()


def test_a_running_server_takes_up_what_a_person_releases(
    empty_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer has ended with the run; with the release another one begins."""
    store = held_run(empty_run, tmp_path)
    for event in (Quarantined("client-a", 1, "noise"), Deserted()):
        store.apply(event)
    run, said, started = open_run(tmp_path / "run"), list[str](), list[str]()

    def spawn() -> subprocess.Popen[bytes]:
        started.append(str(run.store.state().phase))
        if len(started) > 1:
            run.store.apply(Failed("the end of this test"))
        return subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)

    trainer, has_ended = TrainerProcess(run, 1, said.append), threading.Event()
    waits = trainer._is_taken_up

    def waiting() -> bool:
        has_ended.set()
        return waits()

    monkeypatch.setattr(trainer, "_spawn", spawn)
    monkeypatch.setattr(trainer, "_is_taken_up", waiting)
    monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0.02)
    trainer.start()
    try:
        assert has_ended.wait(LONGEST_SECONDS)
        assert store.state().error.startswith("nobody is left to train with: client-a is quarantined")
        has_ended.clear()
        store.apply(Pardoned("client-b", trusted=True))
        assert has_ended.wait(LONGEST_SECONDS)
    finally:
        trainer.stop()
    assert (said, store.state().error) == ([], "the end of this test")
    assert started == ["failed", "collecting"]
    for each in (store, run.store):
        each.close()


def test_joining_again_does_not_lift_a_quarantine(empty_run: Path, tmp_path: Path) -> None:
    store = held_run(empty_run, tmp_path)
    state = store.apply(Joined("client-b"))
    assert dict(state.quarantined) == {"client-b": "noise"}
    store.close()


def test_devices_whose_labels_are_randomised_are_not_named_for_that() -> None:
    """Their heads learn what most labels say, and deny the others: untold, the judge would name them."""
    sent = devices("iid", 3)
    rng = np.random.default_rng(0)
    rows, features, _, labels = sent["d1"]
    sure = 12 * np.eye(NUM_CLASSES, dtype=np.float32)[labels]
    said = np.where(rng.random(len(labels)) < 0.5, rng.integers(0, NUM_CLASSES, len(labels)), labels)
    evidence = looked_at({**sent, "d1": (rows, features, sure, said)})
    assert set(judge(evidence, num_classes=NUM_CLASSES, **NOTHING)) == {"d1"}
    assert judge(evidence, num_classes=NUM_CLASSES, **NOTHING, kept_labels={"d1": 0.5}) == {}
    # One that only says so, with an epsilon that hardly exchanges a label, is judged as ever.
    assert set(judge(evidence, num_classes=NUM_CLASSES, **NOTHING, kept_labels={"d1": 0.99})) == {"d1"}
