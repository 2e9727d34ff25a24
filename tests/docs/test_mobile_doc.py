"""docs/mobile.md says what is so: its code is the examples' own, its calls and tensors are the real ones."""

from __future__ import annotations

import json
import re

import onnx
import pytest

from gkt_core.bundle.manifest import MANIFEST_NAME, PREDICT, TRAIN_STEP, Bundle
from server_app import create_app
from server_app.run_folder import RunContext
from tests.conftest import ROOT
from tests.server_app.server_fixtures import TOKEN
from tests.server_app.web.documented import Documented

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

DOCS = ROOT / "docs"
TEXT = (DOCS / "mobile.md").read_text(encoding="utf-8")


def lines(text: str) -> list[str]:
    """Without indentation, empty lines, and comments at the end of a line."""
    stripped = [re.sub(r"(?<=\S)\s{2,}//.*", "", line).strip() for line in text.splitlines()]
    return [line for line in stripped if line]


@pytest.mark.parametrize(
    ("language", "example"),
    [("kotlin", "TrainStep.kt"), ("swift", "TrainStep.swift"), ("cpp", "train_step.cpp")],
)
def test_the_code_is_the_examples_own(language: str, example: str) -> None:
    (code,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    theirs = iter(lines((DOCS / "examples" / example).read_text(encoding="utf-8")))
    # In order; what lies between is left out.
    assert [line for line in lines(code) if line not in theirs] == []


def test_every_call_of_the_wire_is_one_of_the_server(run: RunContext) -> None:
    table = TEXT[TEXT.index("## The wire") :]
    calls = re.findall(r"`(GET|PUT|POST) ([^`]+)`", table)
    assert len(calls) >= 9
    documented = Documented(create_app(run, TOKEN))
    for verb, path in calls:
        whole = path if path.startswith("/") else f"/v1/runs/{{run}}/{path}"
        assert documented.find(verb, re.sub(r"{\w+}", "1", whole)), f"{verb} {path}"


def test_tensors_and_fields_are_those_of_a_bundle(digits_bundle: Bundle) -> None:
    manifest = json.loads((digits_bundle.path / MANIFEST_NAME).read_text(encoding="utf-8"))
    step, predict = (onnx.load(digits_bundle.path / name).graph for name in (TRAIN_STEP, PREDICT))
    vectors = set(manifest["portable_state"]["vectors"])
    section = TEXT[TEXT.index("## The portable step") : TEXT.index("### JavaScript")]
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", section, re.M)
    named = set(re.findall(r"`([^`]+)`", " ".join(rows)))
    assert {value.name for value in step.input} == (named & {v.name for v in step.input}) | vectors
    outputs = {value.name for value in step.output} - {f"next_{name}" for name in vectors}
    assert outputs == named & outputs
    assert {"images", "parameters", "statistics"} == {value.name for value in predict.input}
    assert {"features", "logits"} == {value.name for value in predict.output}
    opset, ir_version = manifest["onnx_versions"][TRAIN_STEP]
    assert f"`ai.onnx`, opset {opset}, IR version {ir_version}" in TEXT
    assert {"vectors", "dtypes", "slots"} <= set(manifest["portable_state"])
    assert {"runtime_does", "batch_norms", "template_slots", "tensors"} <= set(manifest)
