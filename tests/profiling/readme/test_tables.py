"""The README's measured tables are what ``profiling/results`` says, to the last digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gkt_core.errors import InputError
from profiling.readme.blocks import BLOCKS
from profiling.readme.tables import COMMANDS, README, RESULTS, block, rewrite
from tests.profiling.frame.test_diff import measured


def write(results: Path, name: str, document: dict[str, Any]) -> str:
    path = results / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return block(name, results)


def test_the_readme_is_what_the_results_say() -> None:
    text = README.read_text(encoding="utf-8")
    assert rewrite(text) == text, "run `make readme`"


def test_every_report_that_is_there_is_shown() -> None:
    text = README.read_text(encoding="utf-8")
    for name in BLOCKS:
        assert f"<!-- measured: {name} -->" in text, name
        if (RESULTS / f"{name}.json").is_file():
            assert "not measured yet" not in block(name)


def test_another_number_is_another_table(tmp_path: Path) -> None:
    first = write(tmp_path, "edge", measured(1))
    assert "| train step | " in first and "ONNX Runtime training" in first
    assert write(tmp_path, "edge", measured(1, factor=2)) != first
    text = f"before\n<!-- measured: edge -->\nold\n<!-- end of edge -->\nafter {first[:9]}"
    rewritten = rewrite(text, tmp_path)
    assert "old" not in rewritten
    assert rewritten.startswith("before\n<!-- measured: edge -->\n`gkt profile edge`")
    assert rewrite(rewritten, tmp_path) == rewritten


def test_a_plan_says_whether_it_held(tmp_path: Path) -> None:
    rows = [
        {"name": "round, s", "predicted": 9.0, "measured": 12.0, "relative_error": -0.25},
        {"name": "bytes in, all", "predicted": 2e6, "measured": 2e6, "relative_error": 0.0},
    ]
    validation = {"rows": rows, "holds": True, "tolerance": 0.25}
    said = write(tmp_path, "plan", {"validation": validation})
    assert "| round, s | 9.00 | 12.00 | -25.0% |" in said
    assert "| bytes in, all | 2.0 MB | 2.0 MB | +0.0% |" in said
    assert "(all within 25%)" in said
    assert "(NOT all within 25%)" in write(tmp_path, "plan", {"validation": {**validation, "holds": False}})


def test_a_table_of_the_paper_shows_what_was_run(tmp_path: Path) -> None:
    ran = {"row": "both ways", "column": "CIFAR-10", "paper": 90.53, "test_accuracies": [50.04, 52.0],
           "mean_test_accuracy": 51.02, "mean_upload_bytes": 2e6}  # fmt: skip
    without = {"row": "no distillation", "column": "CIFAR-10", "paper": "-/diverge", "test_accuracies": []}
    said = write(tmp_path, "small/table2", {"command": "gkt reproduce table2", "cells": [ran, without]})
    assert "| both ways, CIFAR-10 | 51.0 % (50.0, 52.0) | 90.53 % | 2.0 MB |" in said
    assert said.startswith("`gkt reproduce table2`:")
    assert "no distillation" not in said


def test_modes_are_compared_seed_by_seed(tmp_path: Path) -> None:
    def cell(row: str, seeds: list[int], accuracies: list[float]) -> dict[str, Any]:
        means = {"mean_test_accuracy": 50.0, "mean_upload_bytes": 2e6}
        place = {"row": row, "column": "CIFAR-10", "paper": 92.97}
        return {**place, **means, "seeds": seeds, "test_accuracies": accuracies}

    cells = [cell("synchronous", [0, 1], [50.0, 40.0]), cell("asynchronous", [0, 1], [49.0, 37.0])]
    said = write(tmp_path, "mini/table3", {"command": "gkt reproduce table3", "cells": cells})
    assert said.endswith("Asynchronous minus synchronous, seed by seed: -2.0 points, standard error 1.0.")
    cells[1] = cell("asynchronous", [0], [49.0])
    said = write(tmp_path, "mini/table3", {"command": "gkt reproduce table3", "cells": cells})
    assert "seed by seed" not in said


def test_what_is_not_measured_says_so(tmp_path: Path) -> None:
    for name in BLOCKS:
        command = COMMANDS.get(name, "gkt profile all")
        assert f"not measured yet; `{command}" in block(name, tmp_path)


def test_blocks_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"edge\.json cannot be shown"):
        write(tmp_path, "edge", {"workloads": 1})
    with pytest.raises(InputError, match="README marks 'nothing', expected one of compare"):
        rewrite("<!-- measured: nothing -->\n<!-- end of nothing -->", tmp_path)
    with pytest.raises(InputError, match="has no end"):
        rewrite("<!-- measured: edge -->\n", tmp_path)
