"""Options from the environment and from a file: which wins, and what is refused by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from gkt_core import cli
from gkt_core.config.outside import variable_of
from gkt_core.config.run_config import build_run_config
from gkt_core.errors import ConfigError
from tests.docs.pages import all_commands

TOML = """
rounds = 7

[bread]
flour-grams = 300
with-seeds = true
grain = ["rye", "oat"]

[cake.layer]
number = 3
"""


@pytest.fixture
def bakery() -> click.Group:
    @click.group(cls=cli.Group)
    def made() -> None:
        """Bake."""

    @made.command("bread", example="bread")
    @click.option("--flour-grams", "amount", type=click.IntRange(1, 900), required=True)
    @click.option("--with-seeds/--plain", "has_seeds", default=False)
    @click.option("--grain", multiple=True)
    @click.option("--crust", default="thin", show_default=True)
    def bread(**values: object) -> None:
        """Bake bread."""
        click.echo(repr(sorted(values.items())))

    @made.group("cake", cls=cli.Group)
    def cake() -> None:
        """Bake cakes."""

    @cake.command("layer", example="layer")
    @click.option("--number", type=int, default=1)
    def layer(number: int) -> None:
        """Bake a layer."""
        click.echo(number)

    return made


def run(command: click.Group, words: str, **environment: str) -> Any:
    done = CliRunner().invoke(command, words.split(), env=environment)
    if isinstance(done.exception, ConfigError):
        raise done.exception
    return done


def test_the_file_the_environment_and_what_is_typed(bakery: click.Group, tmp_path: Path) -> None:
    file = tmp_path / "gkt.toml"
    file.write_text(TOML)

    def values(words: str, **environment: str) -> dict[str, Any]:
        done = run(bakery, words, **environment)
        assert done.exit_code == 0, done.output
        return dict(eval(done.stdout))

    assert values(f"bread --config {file}") == {
        "amount": 300, "has_seeds": True, "grain": ("rye", "oat"), "crust": "thin",
    }  # fmt: skip
    assert values("bread", GKT_BREAD_FLOUR_GRAMS="2", GKT_BREAD_GRAIN="a b", GKT_BREAD_WITH_SEEDS="1") == {
        "amount": 2, "has_seeds": True, "grain": ("a", "b"), "crust": "thin",
    }  # fmt: skip
    both = {"GKT_BREAD_FLOUR_GRAMS": "2", "GKT_BREAD_CONFIG": str(file)}
    assert values("bread", **both)["amount"] == 2
    assert values("bread --flour-grams 5 --plain", **both) == {
        "amount": 5, "has_seeds": False, "grain": ("rye", "oat"), "crust": "thin",
    }  # fmt: skip
    assert run(bakery, f"cake layer --config {file}").stdout == "3\n"
    assert run(bakery, "cake layer", GKT_CAKE_LAYER_NUMBER="4").stdout == "4\n"
    # What it does not name, a file leaves alone; the hyper-parameters above its tables are a run's.
    assert run(bakery, "cake layer", GKT_CAKE_LAYER_NUMBER="").stdout == "1\n"
    assert build_run_config({}, file=file).rounds == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[bread]\nflour_gram = 3", r"\[bread\] flour_gram: there is no such option, did you mean flour-gr"),
        ("[bread]\nconfig = 'x'", "config: there is no such option"),
        ("[bred]\nx = 1", r"\[bred\] is no command of gkt, did you mean \[bread\]"),
        ("bread = 1", r"bread is 1, expected a table \[bread\]"),
        ("[bread]\ngrain = 'rye'", "grain is 'rye', expected a list"),
        ("[bread]\ncrust = ['a']", "expected one value"),
        ("[bread", "is not valid TOML"),
        (None, "cannot read --config"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    bakery: click.Group, tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "gkt.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        run(bakery, f"bread --config {file}")


def test_the_groups_are_known_without_being_imported(tmp_path: Path) -> None:
    names = [path.split()[1:] for path in all_commands()]
    assert {name for name, *below in names if below} == cli.GROUPS
    (tmp_path / "run.toml").write_text("rounds = 3\n[edge]\nlr = 0.1")
    with pytest.raises(ConfigError, match=r"\[edge\] lr: expected tables of its commands, \[edge.NAME\]"):
        run(cli.gkt, f"serve --data-dir {tmp_path / 'run'} --config {tmp_path / 'run.toml'}")


def test_values_are_checked_as_if_they_were_typed(bakery: click.Group, tmp_path: Path) -> None:
    (tmp_path / "gkt.toml").write_text("[bread]\nflour-grams = 1000")
    for done in (
        run(bakery, f"bread --config {tmp_path / 'gkt.toml'}"),
        run(bakery, "bread", GKT_BREAD_FLOUR_GRAMS="many"),
    ):
        assert done.exit_code == 2 and "--flour-grams" in done.output


def test_every_option_of_every_command_has_a_variable_of_its_own() -> None:
    names: Counter[str] = Counter()
    for path, command in all_commands().items():
        context = click.Context(command)
        options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
        assert sum("--config" in each.opts for each in options) == 1, path
        names.update(variable_of(path.split()[1:], each) for each in options if each.opts[0][:2] == "--")
    assert names["GKT_SERVE_ROUND_DEADLINE"] == names["GKT_EDGE_RUN_STATE_DIR"] == 1
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) > 400
