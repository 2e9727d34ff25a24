"""Options made from a dataclass: what is typed, shown, checked and handed to the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from gkt_core.cli import Command
from gkt_core.config.dataclass_options import (
    FieldOption,
    arguments_of,
    check_options,
    dataclass_options,
    descriptions,
    flag_of,
    option,
)
from gkt_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Where:
    """Where things are.

    Attributes:
        out: Where ``report.json`` goes.
    """

    out: Path = Path("out")


@dataclass(frozen=True, slots=True)
class Work:
    """What is done.

    Attributes:
        steps: Calls of each workload,
            warm ones.
        batch_size: Samples a batch.
        rate: Of learning.
        share: Of the samples.
        pause: Between two calls.
        codec: How features travel.
        names: What is measured.
        pinned: Whether processes keep to a core.
        checked: Whether results are compared.
        limit: Of samples; all by default.
        size: Pixels.
        token: The password.
        where: Where it goes.

    Raises:
        ConfigError: Not an attribute.
    """

    batch_size: int
    steps: int = option(30, low=1)
    rate: float = option(1e-3, above=0)
    share: float = option(0.5, above=0, high=1)
    pause: float = option(1.0, low=0.01, high=3600, unit="seconds", group="Timing")
    codec: str = option("fp32", choices=("fp32", "uint8"))
    names: tuple[str, ...] = option(("a", "b"), flag="--name", choices=("a", "b", "c"))
    pinned: bool = option(True, flag="--pin/--no-pin")
    checked: bool = False
    limit: int | None = option(None, low=1, shown_default="all")
    size: int = option(32, low=8, high=256, multiple_of=4)
    token: str = option("", envvar="GKT_WORK_TOKEN")
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class MoreWork(Work):
    """What else is done.

    Attributes:
        again: Whether it is done twice.
    """

    again: bool = True


def run(arguments: Sequence[str], *, cls: type = Work, fails: bool = False, **settings: Any) -> Any:
    got: list[Any] = []

    @click.command(cls=Command)
    @dataclass_options(cls, "work", **settings)
    def command(work: Any) -> None:
        got.append(work)

    result = CliRunner().invoke(command, arguments)
    if fails:
        return result
    assert result.exit_code == 0, result.output
    return got[0]


def shown(cls: type = Work, **settings: Any) -> str:
    @click.command(cls=Command)
    @dataclass_options(cls, **settings)
    def command(options: Any) -> None:
        """Work."""

    return CliRunner().invoke(command, ["--help"], terminal_width=200).output


def parameters(cls: type = Work, **settings: Any) -> dict[str, FieldOption]:
    @click.command()
    @dataclass_options(cls, **settings)
    def command(options: Any) -> None:
        """Work."""

    made = {param.name or "": param for param in command.params}
    assert all(isinstance(param, FieldOption) for param in made.values())
    return made  # type: ignore[return-value] # checked above


def test_defaults_are_the_class_s() -> None:
    assert run(["--batch-size", "8"]) == Work(8)


def test_every_value_arrives_with_its_type() -> None:
    arguments = (
        "--batch-size 8 --steps 2 --rate 0.1 --share 1 --pause 2 --codec uint8 --name c --name a --no-pin "
        "--checked --limit 5 --size 8 --token t --out there"
    )
    given = run(arguments.split())
    expected = Work(
        8, 2, 0.1, 1.0, 2.0, "uint8", ("c", "a"), False, True, 5, 8, "t", Where(Path("there"))
    )  # fmt: skip
    assert given == expected
    assert type(given.share) is float


def test_a_field_without_a_default_is_required() -> None:
    result = run([], fails=True)
    assert result.exit_code == 2
    assert "Missing option '--batch-size'" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps is 0, expected at least 1"),
        (["--rate", "0"], "--rate is 0.0, expected above 0"),
        (["--rate", "nan"], "--rate is nan, expected a finite number, above 0"),
        (["--share", "inf"], "--share is inf, expected a finite number, above 0 and at most 1"),
        (["--share", "1.5"], "--share is 1.5, expected above 0 and at most 1"),
        (["--pause", "0"], "--pause is 0.0, expected 0.01 to 3600"),
        (["--limit", "-1"], "--limit is -1, expected at least 1"),
        (["--size", "30"], "--size is 30, expected 8 to 256, a multiple of 4"),
        (["--size", "4"], "--size is 4, expected 8 to 256, a multiple of 4"),
    ],
)
def test_values_outside_of_their_range_are_refused(arguments: list[str], message: str) -> None:
    result = run(["--batch-size", "8", *arguments], fails=True)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == message


@pytest.mark.parametrize("values", [{"codec": "fp64"}, {"names": ("a", "z")}])
def test_callers_from_python_meet_the_same_checks(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected one of"):
        Work(8, **values)


def test_a_message_calls_a_field_as_the_caller_wishes() -> None:
    @dataclass(frozen=True)
    class Config:
        num_clients: int = option(0, low=1, flag="--clients")

    with pytest.raises(ConfigError, match=r"^num_clients is 0"):
        check_options(Config(), named=lambda field: field.name)
    with pytest.raises(ConfigError, match=r"^--clients is 0"):
        check_options(Config())


def test_true_is_no_number() -> None:
    @dataclass(frozen=True)
    class Config:
        on: bool = option(True, low=2)

    check_options(Config())


def test_help_has_text_default_unit_and_range() -> None:
    text = shown()
    assert "--steps INTEGER" in text
    assert "Calls of each workload, warm ones.  [default: 30; at least 1]" in text
    assert "Between two calls.  [default: 1.0 seconds; 0.01 to 3600]" in text
    assert "Whether processes keep to a core.  [default: pin]" in text
    assert "Of samples; all by default.  [default: all; at least 1]" in text
    assert "Where report.json goes.  [default: out]" in text
    assert "[env: GKT_WORK_TOKEN]" in text
    assert "What is measured.  [default: a, b]" in text
    assert "Samples a batch.  [required]" in text
    assert "Not an attribute" not in text


def test_groups_stand_under_their_headings() -> None:
    text = shown()
    assert text.index("Options:") < text.index("--steps") < text.index("Timing:") < text.index("--pause")
    assert text.index("--pause") < text.index("In every command:") < text.index("--help")


def test_the_parts_of_a_help_text_can_be_read_apart() -> None:
    pause = parameters()["pause"]
    assert (pause.group, pause.described) == ("Timing", "Between two calls.")
    assert (pause.default_words, pause.range_words) == ("1.0 seconds", "0.01 to 3600")


def test_a_base_class_describes_its_attributes() -> None:
    assert descriptions(MoreWork)["steps"] == "Calls of each workload, warm ones."
    assert descriptions(MoreWork)["again"] == "Whether it is done twice."
    assert run(["--batch-size", "8", "--no-again"], cls=MoreWork).again is False


def test_a_default_of_a_command_wins_over_the_class_s() -> None:
    assert run(["--batch-size", "8"], defaults={"steps": 3}).steps == 3
    assert "[default: 3; at least 1]" in shown(defaults={"steps": 3})


def test_a_field_that_is_left_out_keeps_its_default() -> None:
    assert "--steps" not in shown(leave_out=("steps",))
    assert run(["--batch-size", "8"], leave_out=("steps", "where")) == Work(8)


def test_only_what_was_given() -> None:
    assert run([], given_only=True, leave_out=("where", "names")) == {}
    given = run(["--steps", "0", "--no-checked"], given_only=True, leave_out=("where", "names"))
    # Checked where the values are merged, not here.
    assert given == {"steps": 0, "checked": False}
    assert "[default: as it suits; at least 1]" in shown(given_only=True, defaults={"steps": "as it suits"})


def test_a_callable_default_is_made_for_each_instance() -> None:
    @dataclass(frozen=True)
    class Config:
        made: object = option(object)

    assert Config().made is not Config().made


def test_the_environment_gives_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKT_WORK_TOKEN", "secret")
    assert run(["--batch-size", "8"]).token == "secret"


def test_a_field_s_flag() -> None:
    names = {each.name: flag_of(each) for each in Work.__dataclass_fields__.values()}
    assert (names["batch_size"], names["pinned"], names["names"]) == ("--batch-size", "--pin", "--name")


@pytest.mark.parametrize(
    "work",
    [
        Work(8),
        Work(8, 2, 1 / 3, 1.0, 2.0, "uint8", ("c",), False, True, 5, 8, "t", Where(Path("there"))),
    ],
    ids=["defaults", "others"],
)
def test_an_instance_as_arguments_gives_an_equal_one(work: Work) -> None:
    assert run(arguments_of(work)) == work


def test_a_pair_of_flags_without_a_default_is_no_argument() -> None:
    @dataclass(frozen=True)
    class Config:
        at_once: bool | None = option(None, flag="--at-once/--one-by-one")
        checked: bool = True

    assert arguments_of(Config()) == ["--checked"]
    assert arguments_of(Config(True)) == ["--at-once", "--checked"]
    assert arguments_of(Config(False, False)) == ["--one-by-one", "--no-checked"]
    assert run(["--one-by-one"], cls=Config) == Config(False)
