"""The command as a whole: help, exit codes, what each package shows."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import gkt_core
from gkt_core import cli, errors
from gkt_core.bundle.manifest import Bundle
from gkt_core.config.run_config import RunConfig, build_run_config, run_config_options
from gkt_core.errors import ConfigError
from tests.conftest import LONGEST_SECONDS, ROOT, Gkt

PACKAGES = ("gkt_core", "edge_export", "edge_runtime", "server_app", "profiling")


@pytest.mark.parametrize("arguments", [["--help"], ["profile", "--help"]], ids=" ".join)
def test_help_imports_no_command(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom gkt_core.cli import main\n"
        f"sys.argv = ['gkt', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "slow = {'torch', 'numpy', 'onnx', 'onnxruntime', 'flask', 'sqlalchemy', 'matplotlib'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
    )
    assert done.returncode == 0, done.stderr


def test_help_says_of_each_command_what_it_says_itself() -> None:
    """The one line is not asked of the command, which would import it."""
    listed = {name: text for summaries in cli.SUMMARIES.values() for name, text in summaries.items()}
    context = click.Context(cli.gkt)
    assert list(listed) == cli.gkt.list_commands(context)
    for name, text in listed.items():
        command = cli.gkt.get_command(context, name)
        assert command is not None and command.help is not None
        said = inspect.cleandoc(command.help).partition("\n\n")[0].replace("\n", " ")
        assert said == text or said.startswith(f"{text} "), name


def test_a_command_whose_extra_is_missing_is_listed_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = EntryPoint("serve", "absent_module:serve", cli.COMMAND_GROUP)
    other = EntryPoint("bake", "absent_module:bake", cli.COMMAND_GROUP)
    monkeypatch.setattr(cli.gkt, "_entries", lambda: {"serve": missing, "bake": other})
    text = CliRunner().invoke(cli.gkt, ["--help"]).output
    assert "  serve  Serve one run: collect features" in text
    assert "Of other packages:\n  bake" in text
    assert "simulate" not in text
    result = CliRunner().invoke(cli.gkt, ["serve", "--data-dir", "run"])
    assert isinstance(result.exception, errors.MissingExtraError)
    assert "gkt serve needs absent_module, which is not installed: pip install" in str(result.exception)


def test_levels_of_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: levels.append(settings["level"]))

    @click.group(cls=cli.Group)
    def bakery() -> None:
        """Bake."""

    @bakery.command(example="bakery bread")
    def bread() -> None:
        """Bake bread."""

    for words in ("bread", "-v bread", "bread -v", "bread -vv", "-q bread", "bread --quiet"):
        levels.append(0)
        assert CliRunner().invoke(bakery, words.split()).exit_code == 0
    assert levels == [
        0,
        *(0, logging.INFO),
        *(0, logging.INFO),
        *(0, logging.DEBUG),
        *(0, logging.ERROR),
        *(0, logging.ERROR),
    ]


def test_where_an_error_was_raised_is_logged_if_asked_for(gkt: Gkt) -> None:
    plain, detailed = gkt("data", "show", "x.npz"), gkt("data", "show", "x.npz", "-vv")
    assert plain.returncode == detailed.returncode == 2
    assert plain.stderr.count("\n") == 1
    assert "DEBUG gkt: raised here" in detailed.stderr and "Traceback" in detailed.stderr
    assert detailed.stderr.endswith(plain.stderr)


def test_the_version() -> None:
    assert CliRunner().invoke(cli.gkt, ["--version"]).output == f"gkt, version {gkt_core.__version__}\n"


def _commands(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        return [
            found
            for name in command.list_commands(context)
            for found in _commands(command.get_command(context, name), (*path, name))  # type: ignore[arg-type]
        ]
    return [path]


COMMANDS = _commands(cli.gkt, ())


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli.gkt
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)  # type: ignore[assignment] # it is there
    return command


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_json(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli.gkt, [*path, "--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output
    command = command_at(path)
    assert command.help
    undocumented = [
        option.opts
        for option in command.params
        if isinstance(option, click.Option) and not option.help and not isinstance(option.type, click.Choice)
    ]
    # Seeds, thread counts and --json explain themselves where they stand without help.
    assert all(set(opts) <= {"--seed", "--threads", "--json", "--data-root"} for opts in undocumented)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_ends_its_help_with_an_example_that_it_takes(path: tuple[str, ...]) -> None:
    command = command_at(path)
    assert isinstance(command, cli.Command)
    lines = command.example.splitlines()
    assert lines
    for line in lines:
        gkt, *words = shlex.split(line)
        assert (gkt, *words[: len(path)]) == ("gkt", *path)
        command.make_context(path[-1], words[len(path) :])
    shown = CliRunner().invoke(cli.gkt, [*path, "--help"]).output
    assert shown.endswith("Example:\n" + "".join(f"  {line}\n" for line in lines))


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("nothing",), 2, "No such command"),
        (("serve", "--data-dir", "run"), 2, "give --artifacts"),
        (("serve", "--data-dir", "run", "--artifacts", "missing"), 2, "is no artifact bundle"),
        (("export", "--out", "x", "--num-classes", "1"), 2, "--num-classes is 1"),
        (("export", "--out", "x", "--pixel-std", "0"), 2, "pixel_std is"),
        (("export", "--out", "x", "--pixel-mean", "a,b"), 2, "expected three numbers"),
        (("export", "--out", "x", "--split", "missing.json"), 2, "cannot read the split"),
        (("edge", "evaluate", "--model", "m.onnx", "--data", "t.npz"), 2, "t.npz: there is no such file:"),
        (("edge", "run", "--server", "http://x", "--token", "t", "--data", "d.npz"), 2, "d.npz: there is no"),
        (("edge", "run", "--data", "d", "--state-dir", "s"), 2, "gkt data pack PHOTOS --for LINK"),
    ],
)  # fmt: skip
def test_exit_codes(
    arguments: tuple[str, ...], exit_code: int, message: str, gkt: Gkt, tmp_path: Path
) -> None:
    done = gkt(*arguments)
    assert done.returncode == exit_code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there(gkt: Gkt, digits_split: Path, tmp_path: Path) -> None:
    data = digits_split / "clients" / "client-000.npz"
    arguments = ("--server", "http://127.0.0.1:9", "--token", "t", "--data", data)
    done = gkt("edge", "run", *arguments, "--state-dir", tmp_path / "s", "--patience-seconds", "0.2")
    assert done.returncode == errors.ServerUnavailableError.exit_code, done.stderr
    assert "is gkt serve running" in done.stderr


def test_a_bundle_of_another_class_count(gkt: Gkt, digits_split: Path, tmp_path: Path) -> None:
    exported = gkt(
        "export", "--num-classes", "3", "--image-size", "16", "--verify", "none", "--out", "bundle"
    )
    assert exported.returncode == 0, exported.stderr
    data, test = digits_split / "clients" / "client-000.npz", digits_split / "test.npz"
    done = gkt("edge", "train-alone", "--artifacts", "bundle", "--data", data, "--test", test)
    assert done.returncode == 2
    assert "has 10 classes, the artifact bundle was made for 3" in done.stderr
    assert "--num-classes 10" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_changed_bundle(gkt: Gkt, digits_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(digits_bundle.path, tmp_path / "bundle")
    checkpoint = tmp_path / "bundle" / "checkpoint"
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(bytes(data))
    done = gkt("serve", "--artifacts", "bundle", "--data-dir", "run", "--port", "0")
    assert done.returncode == 2
    assert "is not the file of the manifest" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_unexpected_error_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["broken"])
    with pytest.raises(ZeroDivisionError):
        cli.run_command(broken)


def test_every_hyper_parameter_has_an_option_with_help() -> None:
    @click.command()
    @run_config_options()
    def command(**values: object) -> None:
        """Test."""

    text = CliRunner().invoke(command, ["--help"], terminal_width=200).output
    for name in RunConfig().to_dict():
        option = {"num_clients": "--clients"}.get(name, "--" + name.replace("_", "-"))
        assert re.search(rf"^  {option}[ /].*\w", text, re.MULTILINE), option


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("rounds = 7\nseed = 3\n")
    config = build_run_config({"seed": 9, "codec": None}, file=file, defaults={"rounds": 2, "codec": "uint8"})
    assert (config.rounds, config.seed, config.codec) == (7, 9, "uint8")
    file.write_text("round = 7\n")
    with pytest.raises(ConfigError, match="unknown keys round"):
        build_run_config({}, file=file)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_show_only_their_public_names(package: str) -> None:
    module = importlib.import_module(package)
    public = set(module.__all__)
    for name in public:
        assert hasattr(module, name)
    submodules = {info.name for info in pkgutil.iter_modules(module.__path__)}
    leaked = {
        name
        for name in vars(module)
        if not name.startswith("_")
        and name not in public | submodules | {"annotations", "TYPE_CHECKING", "Any"}
    }
    assert not leaked


def test_no_pickle_but_torchvisions() -> None:
    """np.load says allow_pickle=False everywhere, and nothing imports what executes its input."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                    assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}, path
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    call = ast.unparse(node.func)
                    if call == "np.load":
                        assert "allow_pickle=False" in ast.unparse(node), path
                    assert call not in {"torch.load", "torch.save"}, path


def test_modules_are_small() -> None:
    """A module has one reason to exist; the few longer ones are a table or a format in one piece."""
    longer = {
        str(path.relative_to(ROOT)): count
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert not longer


def test_another_project_s_command_of_our_name_is_named(tmp_path: Path) -> None:
    """Real metadata on the path, as pip leaves it for PyPI's gkt."""
    folder = tmp_path / "gkt-1.4.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: gkt\nVersion: 1.4.0\n")
    (folder / "entry_points.txt").write_text("[console_scripts]\ngkt = gkt.cli:main\n")
    command = [sys.executable, "-m", "gkt_core.cli", "--version"]
    for path, expected in ((tmp_path, True), (tmp_path / "nothing", False)):
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(path)}
        )
        assert (
            "gkt 1.4.0 is another project with a command gkt: pip uninstall gkt" in done.stderr
        ) is expected
