"""Prometheus' numbers are those of the status; the dashboard asks for what there is, and for all of it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gkt_core.wire.protocol import TrainerProgress
from server_app import create_app
from server_app.heartbeat import Heartbeat
from server_app.overview.exposition import DEVICE_STATES, PHASES
from server_app.quota import Limits
from server_app.rounds.state import Claimed, Phase
from server_app.run_folder import RunContext
from tests.conftest import ROOT
from tests.server_app.server_fixtures import OPERATOR_SECRET, operator
from tests.server_app.web.api_fixtures import Api
from tests.server_app.web.test_authorisation import Everybody

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]
DASHBOARD = ROOT / "docs" / "examples" / "grafana-dashboard.json"


@pytest.fixture
def everybody(run: RunContext) -> Everybody:
    app = create_app(run, operator_secret=OPERATOR_SECRET, limits=Limits(reserve_bytes=200_000_000))
    return Everybody(app, run)


@pytest.fixture
def boss(everybody: Everybody) -> Api:
    return everybody.api(operator())


def samples(boss: Api) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and labels' values, as Prometheus reads them."""
    answer = boss.http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    made: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation, family.name
        for sample in family.samples:
            made.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return made


def test_the_numbers_are_those_of_the_status(everybody: Everybody, boss: Api) -> None:
    first = samples(boss)
    assert first["gkt_phase"] == {(phase,): float(phase == "collecting") for phase in PHASES}
    assert first["gkt_devices"] == {(s,): {"training": 2.0, "revoked": 1.0, "enrolled": 1.0}.get(s, 0.0)
                                    for s in DEVICE_STATES}  # fmt: skip
    assert (first["gkt_round"], first["gkt_rounds"], first["gkt_devices_awaited"]) == (
        {(): 1},
        {(): 2},
        {(): 2},
    )
    assert "gkt_validation_accuracy" not in first, "nothing was measured yet"
    for client_id, bearer in everybody.bearers.items():
        api = everybody.api(bearer)
        api.put_parts(client_id)
        api.report(client_id)
    boss.train(1)
    second, status = samples(boss), boss.status()
    (metrics,) = status.finished_rounds
    assert second["gkt_validation_accuracy"] == {(): metrics.validation_accuracy}
    assert second["gkt_last_round_upload_bytes"] == {(): metrics.upload_bytes}
    assert second["gkt_traffic_bytes_total"] == {(kind,): n for kind, n in status.traffic.items()}
    assert second["gkt_requests_total"]["uploads.put_shard", "200"] == 6
    assert second["gkt_request_seconds_count"]["uploads.put_report",] == 2
    assert set(second["gkt_device_seen_seconds"]) == {("client-a",), ("client-b",)}
    assert second["gkt_disk_reserve_bytes"] == {(): 200_000_000}


def test_no_label_is_what_anybody_may_choose(everybody: Everybody, boss: Api) -> None:
    """A name that nobody has, or a path, makes no series: they would fill Prometheus' memory."""
    before = {name: set(values) for name, values in samples(boss).items()}
    for number in range(20):
        everybody.ask("GET", f"/v1/nothing/{number}", None)
        everybody.ask("GET", f"/v1/runs/{{run_id}}/clients/name-{number}/task", everybody.operator)
    after = samples(boss)
    new = {(name, each) for name, values in after.items() for each in set(values) - before.get(name, set())}
    assert len({name for name, _ in new if not name.startswith("gkt_request")}) == 0
    assert not [each for _, each in new if any("name-" in part or "/v1/nothing" in part for part in each)]
    assert len({each for name, each in new if name == "gkt_requests_total"}) <= 4


def everything(everybody: Everybody, boss: Api) -> set[str]:
    """Names of all metrics, of a run that has something of everything."""
    for client_id, bearer in everybody.bearers.items():
        api = everybody.api(bearer)
        api.put_parts(client_id)
        api.report(client_id)
    boss.train(1)
    for client_id, bearer in everybody.bearers.items():
        api = everybody.api(bearer)
        api.put_parts(client_id, 2)
        api.report(client_id, 2)
    assert boss.run.store.apply(Claimed(2)).phase is Phase.TRAINING
    boss.run.store.report_progress(TrainerProgress(2, 1, 2, 20.0, 0.5))
    Heartbeat(boss.run.folder).batch("training round 2")
    return set(samples(boss))


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def test_the_dashboard_shows_every_metric_and_no_other(everybody: Everybody, boss: Api) -> None:
    there = everything(everybody, boss)
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = " ".join(each for panel in dashboard["panels"] for each in expressions(panel))
    asked += dashboard["templating"]["list"][0]["query"]["query"]
    names = set(re.findall(r"\bgkt_\w+", asked))
    assert names <= there
    # What is left is the number of the epoch, sizes that others say, and what Prometheus makes of its own.
    left = {name for name in there - names if not re.search(r"_(created|count|sum)$", name)}
    assert left == {"gkt_last_round", "gkt_last_round_samples", "gkt_trainer_epoch"}


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    """What its importer needs: a source that is asked for, panels with a place each, no two in one."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    (source,) = dashboard["__inputs"]
    assert source["pluginId"] == "prometheus" and dashboard["schemaVersion"] >= 36 and dashboard["uid"]
    places: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["type"] in ("stat", "timeseries", "state-timeline") and panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{source['name']}}}"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells
        assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_health_under_the_names_that_tools_ask_by(run: RunContext) -> None:
    trouble = [""]
    app = create_app(run, operator_secret=OPERATOR_SECRET, trainer_trouble=lambda: trouble[0])
    web = app.test_client()
    for path in ("/healthz", "/readyz", "/v1/health", "/v1/health/live"):
        assert web.get(path).status_code == 200
    trouble[0] = "the trainer hangs"
    assert (web.get("/healthz").status_code, web.get("/v1/health/live").status_code) == (200, 200)
    ready, health = web.get("/readyz"), web.get("/v1/health")
    assert (ready.status_code, ready.json) == (503, health.json)
    assert "the trainer hangs" in ready.get_data(as_text=True)
