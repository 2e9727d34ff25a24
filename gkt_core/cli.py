"""The command ``gkt``: a group whose commands the packages register, each imported only when called."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from gkt_core.config.outside import outside_values, variable_of
from gkt_core.config.waiting import wait_patiently
from gkt_core.errors import EXIT_INTERRUPTED, GKTError, MissingExtraError
from gkt_core.files import file_trouble_named
from gkt_core.printable import printable
from gkt_core.version import __version__

COMMAND_GROUP = "gkt.commands"
COMMON = "Options"
EVERYWHERE = "In every command"
# What `gkt --help` says of each command: importing twelve commands to ask them takes seconds.
SUMMARIES = {
    "Begin here": {
        "demo": "Train a ResNet-55 from ResNet-8 devices, end to end, on this machine.",
    },
    "Run on devices": {
        "data": "Make private files: of one device's photos, of a dataset for many; look into them.",
        "export": "Write what a device trains with, and the template of the combined model.",
        "verify": "Check a bundle: its files by hash, then 20 training steps of each engine against PyTorch.",
        "serve": "Serve one run: collect features, train the large network, answer with soft labels.",
        "edge": "Run on a device: train, upload features, take the combined model.",
        "doctor": "Look for what is wrong with this installation and machine, and say what to do about it.",
        "status": "See a run at a glance: what it waits for, what is wrong, what to do next.",
        "enroll": "Make links with which devices join a run.",
        "clients": "List a run's devices; show, revoke, release, forget, rotate or enrol one again.",
        "runs": "Pause, stop or resume a run.",
        "backup": "Take a backup of a run, also while its server is at work and in the middle of a round.",
        "restore": "Make a run of what gkt backup took: all of it, or nothing where anything is damaged.",
        "models": "Tell what a model file is and where it comes from.",
        "deploy": "Write a combined model as fp32 and int8, and measure accuracy, size and latency of both.",
    },
    "Measure": {
        "simulate": "Run an algorithm over simulated devices and measure it.",
        "profile": "Measure what training costs a device.",
        "plan": "Plan a deployment larger than this machine: time, bytes, servers, GPU hours, cost.",
        "reproduce": "Rerun a table or figure of the paper and print its numbers beside ours.",
    },
}
# Of these, those that are groups of commands.
GROUPS = frozenset({"clients", "data", "edge", "models", "profile", "runs"})
_KNOWN = [name for summaries in SUMMARIES.values() for name in summaries]
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
# In a context's meta: the level of -v, -vv or -q, for a command that writes a log of its own.
LOG_LEVEL = "gkt.log_level"


def _log_to_stderr(ctx: click.Context, param: click.Parameter, value: int) -> None:
    if value and not ctx.resilient_parsing:
        level = logging.ERROR if param.name == "quiet" else (logging.INFO, logging.DEBUG)[min(value, 2) - 1]
        ctx.meta[LOG_LEVEL] = level
        logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", force=True)


_LOGGING = tuple(
    click.Option(flags, count=True, expose_value=False, is_eager=True, callback=_log_to_stderr, help=text)
    for flags, text in (
        (("-v", "--verbose"), "Log to stderr what libraries do; -vv for every detail."),
        (("-q", "--quiet"), "Log errors only."),
    )
)


_CONFIG = click.Option(
    ["--config"],
    type=click.Path(),
    expose_value=False,
    metavar="FILE",
    help="TOML file with a table of options for each command, such as [serve] or [clients.list].",
)


def grouped_params(command: click.Command, ctx: click.Context) -> dict[str, list[click.Parameter]]:
    """Parameters by heading: the common ones, the groups as they come, what every command has."""
    groups: dict[str, list[click.Parameter]] = {COMMON: []}
    everywhere = []
    for param in command.get_params(ctx):
        if param in (*_LOGGING, _CONFIG) or "--help" in param.opts:
            everywhere.append(param)
        else:
            groups.setdefault(getattr(param, "group", "") or COMMON, []).append(param)
    return {**groups, EVERYWHERE: everywhere}


class Command(click.Command):
    """A command that lists its options under headings, takes ``-v`` and ``-q``, and ends with an example.

    Attributes:
        example: A command line that works as it stands, once the files it names are there.
    """

    def __init__(self, *args: Any, example: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.example = example

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, ``--help``, and those that every command has."""
        params = [*super().get_params(ctx), *_LOGGING]
        has_own = any("--config" in param.opts for param in params)
        return params if has_own or isinstance(self, click.Group) else [*params, _CONFIG]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what is not given from the environment, or from the file of ``--config``."""
        if not isinstance(self, click.Group):
            options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
            (file,) = (option for option in options if "--config" in option.opts)
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            path = _path(ctx)
            chosen = given.get(file.name or "") or os.environ.get(variable_of(path, file))
            chosen = chosen if isinstance(chosen, str) else None
            ctx.default_map = outside_values(options, path, chosen, os.environ, _commands(ctx), GROUPS)
            if chosen is not None:
                ctx.default_map[file.name or ""] = chosen
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each heading with its options."""
        for heading, params in grouped_params(self, ctx).items():
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        super().format_epilog(ctx, formatter)
        if self.example:
            with formatter.section("Example"):
                formatter.write("".join(f"  {line}\n" for line in self.example.splitlines()))


def _path(ctx: click.Context) -> list[str]:
    """Names of a command below the root."""
    names: list[str] = []
    while ctx.parent is not None:
        names.insert(0, ctx.info_name or "")
        ctx = ctx.parent
    return names


def _commands(ctx: click.Context) -> list[str]:
    """Names of the commands right below the root."""
    root = ctx.find_root()
    return root.command.list_commands(root) if isinstance(root.command, click.Group) else []


class Group(click.Group, Command):
    """A group of such commands."""

    command_class = Command


class EntryPointGroup(Group):
    """A group with commands of its own and those that packages above register, each imported when called.

    Attributes:
        entry_group: The group of entry points.
    """

    def __init__(self, *args: Any, entry_group: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.entry_group = entry_group

    def _entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.entry_group)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *self._entries()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give an own command, or import a registered one."""
        entry = self._entries().get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        try:
            command = entry.load()
        except ImportError as error:
            return _unavailable(cmd_name, error)
        if not isinstance(command, click.Command):
            raise TypeError(f"entry point {entry.value} is a {type(command).__name__}, not a click command")
        return command


class _Gkt(EntryPointGroup):
    """The command ``gkt`` itself."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all registered commands, those of other distributions last."""
        registered = set(super().list_commands(ctx))
        return [name for name in _KNOWN if name in registered] + sorted(registered - set(_KNOWN))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        registered = self.list_commands(ctx)
        sections = {**SUMMARIES, "Of other packages": {name: "" for name in registered if name not in _KNOWN}}
        for heading, summaries in sections.items():
            if rows := [(name, text) for name, text in summaries.items() if name in registered]:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def _unavailable(name: str, error: ImportError) -> click.Command:
    """What stands for a command whose package is not installed: listed, and explained when called."""

    def explain(arguments: tuple[str, ...]) -> NoReturn:
        raise MissingExtraError(
            f"gkt {name} needs {error.name or error}, which is not installed: pip install 'gkt-edge[all]', "
            "or the extra of the README's table that has it"
        )

    return click.Command(
        name,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        callback=explain,
        context_settings={"ignore_unknown_options": True},
    )


@click.group(cls=_Gkt, entry_group=COMMAND_GROUP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gkt")
def gkt() -> None:
    """Train a large network from devices that cannot train one (FedGKT).

    \b
    Start here:      gkt demo
    On two machines: gkt export, gkt serve, then gkt edge run on each device
    Exit codes:      0 done, 2 bad input, 3 protocol, 4 server unreachable,
                     5 not let in, 6 verification failed, 7 a process failed,
                     8 disk or memory does not suffice, 9 somebody should
                     look (gkt status), 130 Ctrl-C
    """  # noqa: D301 - click looks for the character itself


def json_option(prints: str = "the result as JSON") -> Callable[[FunctionT], FunctionT]:
    """Add ``--json``, which arrives as ``as_json``; see :func:`emit_json`."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {prints} to stdout.")


def emit_json(value: Any) -> None:
    """Print one JSON document to stdout, for ``--json``."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run_command(command: click.Command) -> NoReturn:
    """Run a command; errors raised on purpose end as one line on stderr and a stable exit code."""
    # A terminated command must stop what it started, exactly as an interrupted one does.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with file_trouble_named():
            exit_code = command.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        exit_code = EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        exit_code = error.exit_code
    except GKTError as error:
        logging.getLogger("gkt").debug("raised here", exc_info=True)
        # It may hold what a server or a file says.
        click.echo(f"error: {printable(str(error), lines=True)}", err=True)
        exit_code = error.exit_code
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; that is no error of ours.
        sys.stderr.close()
        exit_code = 0
    sys.exit(exit_code if isinstance(exit_code, int) else 0)


def name_clashes() -> list[str]:
    """Say of each other project's command of our name, as PyPI's ``gkt`` has one, how to get rid of it.

    The last installed is the one that is run.
    """
    return [
        f"{entry.dist.name} {entry.dist.version} is another project with a command gkt: pip uninstall "
        f"{entry.dist.name}, then pip install --force-reinstall --no-deps gkt-edge"
        for entry in entry_points(group="console_scripts", name="gkt")
        if entry.dist is not None and not entry.value.startswith("gkt_core.")
    ]


def main() -> NoReturn:
    """Run ``gkt``."""
    wait_patiently()
    for clash in name_clashes():
        click.echo(f"warning: {clash}", err=True)
    run_command(gkt)


if __name__ == "__main__":
    main()
