"""Data that are not for a run spend no use of its link; a device that is enrolled is told how to go on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Client
from edge_runtime.state.credential import kept_credential, place_kept_named
from gkt_core.bundle.manifest import MANIFEST_NAME
from gkt_core.data.private_data import PrivateData, save_private_data
from gkt_core.errors import (
    ArtifactError,
    GKTError,
    MemoryLimitError,
    MessageError,
    MissingExtraError,
    PackageConflictError,
)
from server_app import RunContext, create_app, create_run
from tests.conftest import Gkt
from tests.edge_runtime.test_membership import WHO, link_to, member, served
from tests.edge_runtime.test_own_photos import folder_of
from tests.server_app.server_fixtures import TOKEN, private_data, run_config
from tests.server_app.web.api_fixtures import JOIN

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

RIGHT = private_data(1)


@pytest.fixture
def named_run(server_bundle: Path, tmp_path: Path) -> Iterator[RunContext]:
    """Its bundle names the classes."""
    bundle = tmp_path / "artifacts"
    shutil.copytree(server_bundle, bundle)
    values = json.loads((bundle / MANIFEST_NAME).read_text())
    (bundle / MANIFEST_NAME).write_text(json.dumps(values | {"class_names": RIGHT.class_names}))
    run = create_run(tmp_path / "run", bundle, run_config(), TOKEN)
    with contextlib.closing(run.store):
        yield run


def saved(path: Path, data: PrivateData) -> Path:
    save_private_data(path, data)
    return path


def other_classes(folder: Path) -> Path:
    return saved(folder / "d.npz", dataclasses.replace(RIGHT, class_names=("ant", "bee", "dog")))


def other_size(folder: Path) -> Path:
    train, validation = (
        dataclasses.replace(part, images=np.repeat(np.repeat(part.images, 2, axis=1), 2, axis=2))
        for part in (RIGHT.train, RIGHT.validation)
    )
    return saved(folder / "d.npz", PrivateData(train, validation, RIGHT.class_names))


def other_photos(folder: Path) -> Path:
    return folder_of(folder / "photos", {"lion": 1, "tiger": 2}, 2)


KINDS = pytest.mark.parametrize(
    ("made", "words"),
    [
        (other_classes, "has other classes: ant, bee, dog"),
        (other_size, "has images of 16 px"),
        (other_photos, "holds 0 images of the bundle's classes"),
    ],
)


@KINDS
def test_no_use_of_the_link_is_spent(
    named_run: RunContext, tmp_path: Path, gkt: Gkt, made: Callable[[Path], Path], words: str
) -> None:
    data = made(tmp_path)
    with served(create_app(named_run)) as url:
        link = link_to(named_run, url)
        done = gkt("edge", "run", "--join", link.text(), "--data", data, "--state-dir", tmp_path / "a")
        assert done.returncode == 2 and words in " ".join(done.stderr.split()), done.stderr
        assert "enrolled" not in done.stderr
        with pytest.raises(GKTError, match=words):
            Client(link.text(), data, state_dir=tmp_path / "b").run()
        assert named_run.store.credentials.devices() == {}
        # Its one use is there for the right owner.
        member(tmp_path / "c", link).close()


@KINDS
def test_who_is_enrolled_keeps_the_place(
    named_run: RunContext, tmp_path: Path, gkt: Gkt, made: Callable[[Path], Path], words: str
) -> None:
    state, data = tmp_path / "state", made(tmp_path)
    with served(create_app(named_run)) as url:
        member(state, link_to(named_run, url)).close()
        done = gkt("edge", "run", "--data", data, "--state-dir", state, "--client-id", WHO.client_id)
    text = " ".join(done.stderr.split())
    assert done.returncode == 2 and words in text, done.stderr
    assert (
        f"once that is mended, starting it again with the same --state-dir {state} takes no new use" in text
    )
    kept = kept_credential(state)
    assert kept is not None and kept.is_enrolled


def test_classes_that_only_the_others_name(run: RunContext, tmp_path: Path, gkt: Gkt) -> None:
    """Where the bundle names none they are seen when the device joins, which is after it enrolled."""
    data = other_classes(tmp_path)
    with served(create_app(run)) as url:
        with contextlib.closing(member(tmp_path / "a", link_to(run, url))) as first:
            first.run_info()
            first.join(WHO.client_id, dataclasses.replace(JOIN, class_names=["ant", "bee", "cat"]))
        link = link_to(run, url).text()
        done = gkt("edge", "run", "--join", link, "--data", data, "--state-dir", tmp_path / "b")
    text = " ".join(done.stderr.split())
    assert done.returncode == ArtifactError.exit_code and "has other classes: ant, bee, dog" in text
    assert "takes no new use of a link" in text


def test_settings_that_no_device_agrees_to_cost_no_place(
    server_bundle: Path, tmp_path: Path, gkt: Gkt
) -> None:
    """They are looked at once more when the device has enrolled: they may have changed since."""
    data, state = saved(tmp_path / "d.npz", RIGHT), tmp_path / "state"
    run = create_run(tmp_path / "run", server_bundle, run_config(local_epochs=1001), TOKEN)
    with contextlib.closing(run.store), served(create_app(run)) as url:
        member(state, link_to(run, url)).close()
        done = gkt("edge", "run", "--data", data, "--state-dir", state, "--client-id", WHO.client_id)
    text = " ".join(done.stderr.split())
    assert done.returncode == MessageError.exit_code and "asks for local_epochs 1001" in text
    assert f"with the same --state-dir {state} takes no new use of a link" in text


@pytest.mark.parametrize(
    "error",
    [
        MemoryLimitError("memory does not suffice"),
        ArtifactError("the bundle is for ort_training, installed is portable"),
        MissingExtraError("the module onnxruntime is not installed"),
        PackageConflictError("two distributions"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_machine_lacks_costs_no_place(run: RunContext, tmp_path: Path, error: GKTError) -> None:
    with served(create_app(run)) as url:
        member(tmp_path / "state", link_to(run, url)).close()
    kept = pytest.raises(type(error), match=f"{error}. This device stays enrolled: .* takes no new use")
    with kept, place_kept_named(tmp_path / "state"):
        raise error
    # Who has no place yet is told nothing of one.
    with pytest.raises(type(error), match=f"^{error}$"), place_kept_named(tmp_path / "none"):
        raise error
