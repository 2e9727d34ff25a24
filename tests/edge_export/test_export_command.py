"""What ``gkt export`` makes of its options, without exporting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_export import ExportOptions
from edge_export.cli.export import export
from gkt_core.config.edge_optimizer import EdgeOptimizer


class Exported(Exception):
    """Ends the command where the export would begin."""


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def stop(options: ExportOptions, out: Path, **_: Any) -> None:
        raise Exported(options, out)

    def run(*arguments: str) -> ExportOptions:
        result = CliRunner().invoke(export, [*arguments, "--out", str(tmp_path / "out")])
        assert isinstance(result.exception, Exported), result.output
        options, out = result.exception.args
        assert out == tmp_path / "out"
        assert isinstance(options, ExportOptions)
        return options

    monkeypatch.setattr("edge_export.bundle.export_bundle", stop)
    return run


def test_without_options_it_is_the_default(exported: Any) -> None:
    assert exported() == ExportOptions()


def test_every_option(exported: Any) -> None:
    arguments = (
        "--model resnet56 --server-model resnet109 --num-classes 3 --image-size 8 --pixel-mean 0.1,0.2,0.3 "
        "--pixel-std 0.4 --temperature 2 --engine portable --optimizer sgd --weight-decay 0.1 --momentum 0.5 "
        "--nesterov --init w.safetensors --low-memory --ort-format --seed 7"
    )
    assert exported(*arguments.split()) == ExportOptions(
        edge_network="resnet56",
        server_network="resnet109",
        num_classes=3,
        image_size=8,
        pixel_mean=(0.1, 0.2, 0.3),
        pixel_std=(0.4, 0.4, 0.4),
        temperature=2.0,
        optimizer=EdgeOptimizer("sgd", weight_decay=0.1, momentum=0.5, nesterov=True),
        engines=("portable",),
        init=Path("w.safetensors"),
        low_memory=True,
        ort_format=True,
        seed=7,
    )


@pytest.mark.parametrize(
    ("name", "engines"),
    [
        ("portable", ("portable",)),
        ("ort-training", ("ort_training",)),
        ("both", ("portable", "ort_training")),
    ],
)
def test_an_engine_by_its_name_and_by_the_name_of_before(
    exported: Any, name: str, engines: tuple[str, ...]
) -> None:
    assert exported("--engine", name).engines == exported("--backend", name).engines == engines
    assert "--backend" not in CliRunner().invoke(export, ["--help"]).output


def test_classes_by_name_or_from_a_file(exported: Any, tmp_path: Path) -> None:
    names = ("cat", "dog", "Schäferhund, alt")
    file = tmp_path / "classes.txt"
    file.write_text("cat\n dog\r\n\nSchäferhund, alt\n", encoding="utf-8")
    assert exported("--classes", str(file)) == ExportOptions(num_classes=3, class_names=names)
    assert exported("--classes", "cat, dog") == ExportOptions(num_classes=2, class_names=("cat", "dog"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--classes", "cat,dog,cat"), "the class 'cat' is there twice"),
        (("--classes", "cat,\x1bdog"), "no name that can be printed"),
        (
            ("--classes", "cat,dog", "--num-classes", "3"),
            "--classes names 2 classes, --num-classes says 3: leave",
        ),
        (
            ("--classes", "cat"),
            "--classes names 1 class (cat), expected at least 2: name what it is told from",
        ),
    ],
)
def test_classes_that_are_none_are_refused(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(export, [*arguments, "--out", str(tmp_path / "out")])
    assert words in str(result.exception)


def test_a_split_has_its_own_names(exported: Any, digits_split: Path) -> None:
    split = str(digits_split / "partition.json")
    digits = ",".join(map(str, range(10)))
    assert exported("--split", split, "--classes", digits) == exported("--split", split)
    refused = CliRunner().invoke(export, ["--split", split, "--classes", digits[::-1], "--out", "out"])
    assert "partition.json names the classes 0, 1, 2" in str(refused.exception)


def test_a_split_says_whether_its_images_may_be_mirrored(exported: Any, digits_split: Path) -> None:
    split = str(digits_split / "partition.json")
    assert exported("--split", split).horizontal_flip is False
    assert exported("--split", split, "--horizontal-flip").horizontal_flip is True
    assert exported().horizontal_flip is True and exported("--no-horizontal-flip").horizontal_flip is False


def test_a_split_says_what_its_images_are(exported: Any, digits_split: Path) -> None:
    options = exported("--split", str(digits_split / "partition.json"))
    assert (options.num_classes, options.image_size) == (10, 16)
    assert options.class_names == tuple("0123456789")
    assert options.pixel_mean != ExportOptions().pixel_mean


def test_another_number_of_classes_than_the_split_s_is_refused(digits_split: Path, tmp_path: Path) -> None:
    arguments = [
        "--split",
        str(digits_split / "partition.json"),
        "--num-classes",
        "3",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(export, arguments)
    assert "has 10 classes of 16 px images: leave out --num-classes" in str(result.exception)
