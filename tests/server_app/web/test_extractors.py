"""Extractors over HTTP: kept, asked for before a part is closed, averaged without those who were left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig
from gkt_core.rounds.shared_extractor import mean_extractor, read_extractor, write_extractor
from gkt_core.wire.compression import compress
from gkt_core.wire.protocol import RunInfo, from_json
from gkt_core.wire.shards import ShardKey
from server_app import RunContext, create_app
from server_app.parts import average_extractors, suspect_extractors
from server_app.rounds.state import Claimed, Quarantined
from server_app.run_folder import mean_extractor_blob
from tests.server_app.server_fixtures import CLIENTS, OPERATOR_SECRET, TOKEN, run_config
from tests.server_app.web.api_fixtures import Api, refused

KEY = ShardKey("client-a", 1, "extractor", 0)


@pytest.fixture
def sharing(run: RunContext) -> Iterator[Api]:
    """The run with extractors that are averaged after the first round, joined by its devices."""
    run = dataclasses.replace(run, config=run_config(share_extractor="rounds=1"))
    app = create_app(run, TOKEN, operator_secret=OPERATOR_SECRET, poll_seconds=0.5)
    with httpx.Client(
        transport=httpx.WSGITransport(app=app),
        base_url="http://server",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as http:
        api = Api(http, run)
        for client_id in CLIENTS:
            assert api.join(client_id).status_code == 200
        yield api


def weights(api: Api, seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape, dtype=np.float32) for name, shape in api.run.extractor_spec.shapes}


def extractor(api: Api, client_id: str, seed: int, round_num: int = 1) -> bytes:
    return write_extractor(api.run.extractor_spec, weights(api, seed), client_id, round_num)


def test_a_part_is_closed_once_its_extractor_is_there(sharing: Api) -> None:
    sharing.put_parts("client-a")
    refused(sharing.report("client-a"), 409, "RoundError", "its extractor of round 1", "has not arrived")
    data = extractor(sharing, "client-a", 1)
    assert sharing.put_shard(KEY, compress(data), Content_Encoding="zstd").status_code == 200
    again = sharing.put_shard(KEY, compress(data), Content_Encoding="zstd")
    assert again.json()["already_stored"] is True
    assert sharing.report("client-a").status_code == 200


def test_the_mean_leaves_out_who_was_left_out(sharing: Api) -> None:
    for seed, client_id in enumerate(CLIENTS):
        sharing.put_parts(client_id)
        key = dataclasses.replace(KEY, client_id=client_id)
        assert sharing.put_shard(key, extractor(sharing, client_id, seed)).status_code == 200
        sharing.report(client_id)
    run = sharing.run
    state = run.store.apply(Claimed(1))
    state = run.store.apply(Quarantined(CLIENTS[0], 1, "far outside"))
    average_extractors(run, state)
    answer = sharing.http.get(f"{sharing.root}/rounds/1/extractor")
    assert answer.status_code == 200
    spec = run.extractor_spec
    mean = read_extractor(answer.content, spec, "", 1)
    expected = mean_extractor(spec, [(12, weights(sharing, seed)) for seed in range(1, len(CLIENTS))])
    assert all(np.array_equal(mean[name], expected[name]) for name in mean)
    assert run.store.traffic()["download/extractor", 1] == len(answer.content)
    refused(sharing.http.get(f"{sharing.root}/rounds/2/extractor"), 404, "NotFound", "no mean of extractors")


def test_an_extractor_that_is_far_off_is_named_and_moves_nothing(sharing: Api) -> None:
    run, spec = sharing.run, sharing.run.extractor_spec
    own = {client_id: weights(sharing, seed) for seed, client_id in enumerate(CLIENTS)}
    own[CLIENTS[0]] = {name: np.full_like(values, 9999) for name, values in own[CLIENTS[0]].items()}
    for client_id in CLIENTS:
        sharing.put_parts(client_id)
        key = dataclasses.replace(KEY, client_id=client_id)
        assert sharing.put_shard(key, write_extractor(spec, own[client_id], client_id, 1)).status_code == 200
        sharing.report(client_id)
    state = run.store.apply(Claimed(1))
    suspects = suspect_extractors(run, state)
    assert list(suspects) == [CLIENTS[0]] and "its extractor changed by" in suspects[CLIENTS[0]]
    trusted = dataclasses.replace(state, trusted=(CLIENTS[0],))
    assert suspect_extractors(run, trusted) == {}
    # A run without quarantine averages all of them, none of which carries the others away.
    average_extractors(run, state)
    mean = read_extractor(run.blobs.local_path(mean_extractor_blob(1)).read_bytes(), spec, "", 1)
    assert max(float(np.abs(values).max()) for values in mean.values()) < 3


def test_what_is_no_extractor_is_refused_by_name(sharing: Api) -> None:
    spec = sharing.run.extractor_spec
    broken = weights(sharing, 1)
    name = spec.shapes[0][0]
    cases = {
        "NaN or infinity": _with(sharing, {name: np.full_like(broken[name], np.nan)}),
        "reach 1e+06": _with(sharing, {name: np.full_like(broken[name], 1e6)}),
        "client_id 'client-b'": extractor(sharing, "client-b", 1),
        "round_num '2'": extractor(sharing, "client-a", 1, round_num=2),
        "cut short": b"",
    }
    for match, body in cases.items():
        refused(sharing.put_shard(KEY, body), 400, "ShardError", match)
    assert sharing.run.store.shards(1) == []
    other = dataclasses.replace(KEY, index=1)
    refused(sharing.put_shard(other, extractor(sharing, "client-a", 1)), 400, "ShardError", "extractor 1")


def _with(api: Api, changes: dict[str, NDArray[np.float32]]) -> bytes:
    """A file whose values no device of ours would write."""
    values = weights(api, 1)
    data = bytearray(write_extractor(api.run.extractor_spec, values, "client-a", 1))
    flat = api.run.extractor_spec.flat(values | changes).tobytes()
    data[len(data) - len(flat) :] = flat
    return bytes(data)


def test_a_run_that_does_not_share_takes_none(joined: Api) -> None:
    refused(joined.put_shard(KEY, b"any"), 400, "ShardError", "after rounds 'never'")


def test_devices_of_the_version_before_are_told_nothing_of_what_they_do_not_know(
    joined: Api, sharing: Api
) -> None:
    told = from_json(RunInfo, joined.http.get(joined.root).content).config
    assert "share_extractor" not in told
    assert RunConfig.from_dict(told) == joined.run.config
    told = from_json(RunInfo, sharing.http.get(sharing.root).content).config
    assert told["share_extractor"] == "rounds=1"
