"""The measured tables of docs/results.md are what ``profiling/results`` says, to the last digit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gkt_core.errors import InputError
from profiling.readme.paper import PAPER_TABLES
from profiling.readme.tables import PAGE, RESULTS, block, command_of, rewrite
from tests.profiling.frame.test_diff import measured

TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- measured: ([\w/-]+) -->", TEXT)


def write(results: Path, name: str, document: dict[str, Any]) -> str:
    path = results / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return block(name, results)


def test_the_page_is_what_the_results_say() -> None:
    assert rewrite(TEXT) == TEXT, "run `make readme`"


def test_every_report_that_is_there_is_shown() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} | set(PAPER_TABLES) == set(BLOCKS)
    for name in BLOCKS:
        assert (RESULTS / f"{name}.json").is_file() != ("not measured yet" in block(name))


def test_another_number_is_another_table(tmp_path: Path) -> None:
    first = write(tmp_path, "edge", measured(1))
    assert "| training step | " in first and "engine ort_training" in first
    assert write(tmp_path, "edge", measured(1, factor=2)) != first
    text = f"before\n<!-- measured: edge -->\nold\n<!-- end of edge -->\nafter {first[:9]}"
    rewritten = rewrite(text, tmp_path)
    assert "old" not in rewritten
    assert rewritten.startswith(
        "before\n<!-- measured: edge -->\n[resnet8 on this device, engine ort_training]("
    )
    assert rewrite(rewritten, tmp_path) == rewritten


def test_what_is_too_noisy_to_quote_says_so_beside_its_numbers(tmp_path: Path) -> None:
    assert "TOO NOISY" not in write(tmp_path, "edge", measured(1))
    assert write(tmp_path, "edge", measured(1, spread=0.5)).count("TOO NOISY TO QUOTE") == 1
    # A report that has no such note itself.
    traffic = json.loads((RESULTS / "simulation.json").read_text())
    noise = {"too_noisy_to_quote": True, "reasons": ["it hailed"]}
    assert "TOO NOISY TO QUOTE: it hailed." in write(tmp_path, "simulation", {**traffic, "noise": noise})


@pytest.mark.parametrize(("holds", "verdict"), [(True, "holds"), (False, "DOES NOT HOLD")])
def test_a_plan_says_whether_it_held(tmp_path: Path, holds: bool, verdict: str) -> None:
    plan = json.loads((RESULTS / "plan.json").read_text())
    rows = [
        {"name": "round, s", "predicted": 9.0, "measured": 12.0, "relative_error": -0.25},
        {"name": "bytes in, all", "predicted": 2e6, "measured": 2e6, "relative_error": 0.0},
    ]
    validation = {"demo_dir": "other", "rows": rows, "holds": holds, "tolerance": 0.25}
    said = write(tmp_path, "plan", {**plan, "validation": validation})
    assert "| round, s | 9 | 12 | -25.0% |" in said
    assert "| bytes in, all | 2.0 MB | 2.0 MB | +0.0% |" in said
    assert f"The promise of 25% {verdict}." in said


def test_a_table_of_the_paper_shows_what_was_run(tmp_path: Path) -> None:
    ran = {"row": "both ways", "column": "CIFAR-10", "paper": 90.53, "test_accuracies": [50.04, 52.0],
           "mean_test_accuracy": 51.02, "mean_upload_bytes": 2e6}  # fmt: skip
    without = {"row": "no distillation", "column": "CIFAR-10", "paper": "-/diverge", "test_accuracies": []}
    said = write(tmp_path, "small/table2", {"command": "gkt reproduce table2", "cells": [ran, without]})
    assert "| both ways, CIFAR-10 | 51.0 ± 12.5 % (n = 2: 50.0, 52.0) | 90.53 % | 2.0 MB |" in said
    assert said.startswith("`gkt reproduce table2`:")
    assert "no distillation" not in said


def test_modes_are_compared_seed_by_seed(tmp_path: Path) -> None:
    def cell(row: str, seeds: list[int], accuracies: list[float]) -> dict[str, Any]:
        means = {"mean_test_accuracy": 50.0, "mean_upload_bytes": 2e6}
        place = {"row": row, "column": "CIFAR-10", "paper": 92.97}
        return {**place, **means, "seeds": seeds, "test_accuracies": accuracies}

    cells = [cell("synchronous", [0, 1], [50.0, 40.0]), cell("asynchronous", [0, 1], [49.0, 37.0])]
    said = write(tmp_path, "mini/table3", {"command": "gkt reproduce table3", "cells": cells})
    assert said.endswith("Asynchronous minus synchronous, seed by seed: -2.0 ± 12.7 points (95 %, n = 2).")
    cells[1] = cell("asynchronous", [0], [49.0])
    said = write(tmp_path, "mini/table3", {"command": "gkt reproduce table3", "cells": cells})
    assert "seed by seed" not in said


def test_what_is_not_measured_says_so(tmp_path: Path) -> None:
    for name in BLOCKS:
        assert block(name, tmp_path) == f"`{name}`: not measured yet; `{command_of(name)}` does."


def test_blocks_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"edge\.json cannot be shown"):
        write(tmp_path, "edge", {**measured(1), "workloads": 1})
    with pytest.raises(InputError, match="the document has schema 'None'"):
        write(tmp_path, "edge", {"workloads": 1})
    for text in ("<!-- measured: edge -->\n", "<!-- measured: edge -->\n<!-- end of compare -->"):
        with pytest.raises(InputError, match="has no end"):
            rewrite(text, tmp_path)
