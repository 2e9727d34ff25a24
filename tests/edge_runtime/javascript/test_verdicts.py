"""Files that were bent are taken and refused in TypeScript as in Python, each by the same name."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import numpy as np
import pytest

from gkt_core.bundle.manifest import PREDICT, TRAIN_STEP
from gkt_core.errors import GKTError
from gkt_core.onnx_files.judging import check_computed, check_model
from gkt_core.onnx_files.operators import STANDARD
from gkt_core.wire.shards import SoftLabels, read_soft_labels, write_soft_labels
from tests.edge_runtime.javascript.node_package import DIST, run_node

NUM = 300


def bent(data: bytes, rng: random.Random) -> bytes:
    """One to three bytes of a file otherwise, a piece gone, doubled, or cut off; most near its beginning."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = int(len(changed) * rng.random() ** rng.choice((1, 4)))
        kind = rng.randrange(5)
        if kind < 2:
            changed[place % len(changed)] = rng.randrange(256)
        elif kind == 2:
            del changed[place : place + rng.randrange(1, 9)]
        elif kind == 3:
            changed[place:place] = changed[place : place + rng.randrange(1, 9)]
        else:
            del changed[max(16, place) :]
    return bytes(changed)


def judged(kind: str, data: bytes) -> str:
    try:
        if kind == "model":
            check_computed(check_model(data, "it", STANDARD).graph, "it", output="features", source="images")
        else:
            read_soft_labels(data, "client-a", 3, 3)
    except GKTError as error:
        return f"{error.code}: {error}"
    return "taken"


def soft_labels() -> bytes:
    logits = np.arange(12, dtype=np.float32).reshape(4, 3)
    return write_soft_labels("client-a", 3, SoftLabels(np.array([5, 1, 2**40, 7], np.int64), logits))


@pytest.mark.parametrize("kind", ["model", "soft labels"])
def test_bent_files_are_judged_alike(
    gkt_edge: list[str], server_bundle: Path, tmp_path: Path, kind: str
) -> None:
    rng = random.Random(kind)
    sources = [soft_labels()]
    if kind == "model":
        sources = [(server_bundle / name).read_bytes() for name in (PREDICT, TRAIN_STEP)]
    files = [*sources, *(bent(rng.choice(sources), rng) for _ in range(NUM))]
    cases = [{"kind": kind, "data": base64.b64encode(data).decode()} for data in files]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    done = run_node(DIST / "tests" / "verdicts.js", tmp_path / "cases.json")
    assert done.returncode == 0, done.stderr
    ours = [json.loads(line) for line in done.stdout.splitlines()]
    theirs = [judged(kind, data) for data in files]
    assert len(ours) == len(theirs)
    for found, expected in zip(ours, theirs, strict=True):
        # The same name; words may be others where a text of the file is in them.
        assert found.split(":")[0] == expected.split(":")[0], (found, expected)
    assert theirs[0] == "taken"
    refused = [verdict for verdict in theirs if verdict != "taken"]
    assert len(refused) > NUM / 4 and len({verdict[:60] for verdict in refused}) > 5
    # Most say the very same.
    assert sum(found == expected for found, expected in zip(ours, theirs, strict=True)) > 0.6 * len(theirs)
