"""A name is one device's, and the classes of a run's devices are the same, or the server says who differs."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from gkt_core.bundle.manifest import Bundle
from gkt_core.errors import ArtifactError, RoundError
from gkt_core.wire.protocol import MissingShards, from_json
from server_app.run_folder import RunContext
from server_app.store.joining import Identity, check_joining
from tests.server_app.server_fixtures import CLIENTS, open_store
from tests.server_app.web.api_fixtures import JOIN, NUM_TRAIN, PARTS, REPORT, Api, refused

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

NAMES = ["bar", "circle", "square"]


def says(names: list[str], key: str = "") -> Any:
    return dataclasses.replace(JOIN, class_names=names, client_key=key)


@pytest.fixture
def named_bundle(bundle: Bundle, run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle of the run names its classes."""
    manifest = dataclasses.replace(bundle.manifest, class_names=NAMES)
    object.__setattr__(run, "bundle", dataclasses.replace(bundle, manifest=manifest))


@pytest.mark.usefixtures("named_bundle")
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["circle", "square", "triangle"], ["other classes: circle, square, triangle; the artifact"]),
        (
            ["circle", "bar", "square"],
            ["the same classes in another order", "bundle has bar, circle, square"],
        ),
        (["bar", "circle"], ["other classes: bar, circle;", "gkt data pack --for the bundle"]),
    ],
)
def test_classes_that_are_not_the_bundles_are_refused_with_both_lists(
    api: Api, names: list[str], words: list[str]
) -> None:
    before = api.contents()
    refused(api.join("client-a", says(names)), 422, "ArtifactError", "the data of client-a has", *words)
    assert api.contents() == before
    assert api.join("client-a", says(NAMES)).status_code == 200


def test_where_the_bundle_names_none_two_devices_must_agree(api: Api) -> None:
    assert api.join("client-a", says(["circle", "square", "triangle"])).status_code == 200
    before = api.contents()
    refused(
        api.join("client-b", says(NAMES)),
        422,
        "ArtifactError",
        "client-b has other classes: bar, circle, square; client-a has circle, square, triangle",
    )
    assert api.contents() == before
    assert api.join("client-a", says(["circle", "square", "triangle"])).status_code == 200


def test_an_old_device_that_says_no_names_is_taken_with_a_line_in_the_log(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert api.join("client-a").status_code == 200
    assert "client-a does not say what its classes are" in caplog.text
    caplog.clear()
    assert api.join("client-b", says(NAMES)).status_code == 200
    assert "does not say" not in caplog.text


def test_a_name_belongs_to_the_device_that_joined_with_it(api: Api) -> None:
    assert api.join("client-a", says(NAMES, "first")).status_code == 200
    before = api.contents()
    for key in ("second", ""):
        refused(
            api.join("client-a", says(NAMES, key)),
            409,
            "RoundError",
            "the name client-a belongs to another device of this run: give another --client-id",
        )
    assert api.contents() == before
    assert api.join("client-a", says(NAMES, "first")).status_code == 200


def test_an_old_devices_name_becomes_its_own_when_it_comes_with_a_key(api: Api) -> None:
    for key, status in (("", 200), ("new", 200), ("", 409), ("other", 409)):
        assert api.join("client-a", says([], key)).status_code == status


def test_the_secret_is_kept_as_a_hash_and_a_long_one_is_refused(api: Api, run: RunContext) -> None:
    api.join("client-a", says(NAMES, "the-secret-itself"))
    store = open_store(run.folder / "run.sqlite")
    store.close()
    stored = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    assert b"client-a" in stored and b"the-secret-itself" not in stored
    refused(
        api.join("client-b", says(NAMES, "x" * 129)), 400, "MessageError", "client_key has 129 characters"
    )


def holding(samples_sha256: str, num_examples: int = NUM_TRAIN) -> Any:
    return dataclasses.replace(JOIN, samples_sha256=samples_sha256, num_examples=num_examples)


def test_what_was_sent_of_other_samples_is_forgotten_but_in_a_closed_part(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    for client_id in CLIENTS:
        assert api.join(client_id, holding("the first")).status_code == 200
    api.collect()
    api.train()
    # Round 1 is closed. Of round 2 the device had sent one shard of eight samples when its data changed.
    api.put_parts("client-a", 2, PARTS[:1])
    api.put_parts("client-b", 2, PARTS[:1])
    caplog.clear()
    assert api.join("client-a", holding("the first")).status_code == 200
    assert "other samples" not in caplog.text and missing(api, "client-a") == ([1], [0])
    assert api.join("client-a", holding("the second", num_examples=4)).status_code == 200
    assert "client-a has other samples than before; 1 shard that it sent of those is forgotten" in caplog.text
    assert missing(api, "client-a") == ([0], [0]) and missing(api, "client-b") == ([1], [0])
    api.put_parts("client-a", 2, [("train", 0, 4, 50), PARTS[2]])
    report = dataclasses.replace(REPORT, num_train_shards=1, num_examples=4)
    assert api.report("client-a", 2, report).status_code == 200
    # What the device closed with those samples stays, whatever it has now.
    before = len(api.run.store.shards(2, "client-a"))
    assert api.join("client-a", holding("the third")).status_code == 200
    assert len(api.run.store.shards(2, "client-a")) == before == 2


def missing(api: Api, client_id: str) -> tuple[list[int], list[int]]:
    path = f"{api.root}/rounds/2/clients/{client_id}/shards"
    answer = from_json(MissingShards, api.http.get(path).content)
    return answer.train, answer.validation


def test_the_rule_by_itself() -> None:
    first = Identity.of("a", "key", ("x", "y"))
    check_joining(first, [])
    check_joining(first, [first, Identity("b"), Identity.of("c", "key", ("x", "y"))])
    with pytest.raises(RoundError, match="the name a belongs to another device"):
        check_joining(Identity.of("a", "other", ()), [first])
    with pytest.raises(ArtifactError, match="b has the same classes in another order: y, x; a has x, y"):
        check_joining(Identity.of("b", "", ("y", "x")), [first])
