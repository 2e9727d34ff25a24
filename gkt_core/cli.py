"""The command ``gkt``: a group whose commands the packages register, each imported only when called."""

from __future__ import annotations

import json
import signal
import sys
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any, NoReturn

import click

from gkt_core import __version__
from gkt_core.errors import EXIT_INTERRUPTED, GKTError, MissingExtraError
from gkt_core.files import full_disk_named

COMMAND_GROUP = "gkt.commands"


class EntryPointGroup(click.Group):
    """A click group whose commands are the entry points of ``gkt.commands``."""

    def _entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=COMMAND_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all registered commands."""
        return sorted(self._entries())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        entry = self._entries().get(cmd_name)
        if entry is None:
            return None
        try:
            command = entry.load()
        except ImportError as error:
            return _unavailable(cmd_name, error)
        if not isinstance(command, click.Command):
            raise TypeError(f"entry point {entry.value} is a {type(command).__name__}, not a click command")
        return command


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
        short_help=f"(not installed: needs {error.name or error})",
    )


@click.group(cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gkt")
def gkt() -> None:
    """Train a large network from devices that cannot train one (FedGKT).

    \b
    Start here:      gkt demo
    On two machines: gkt export, gkt serve, then gkt edge run on each device
    Exit codes:      0 done, 2 bad input, 3 protocol, 4 server unreachable,
                     5 wrong token, 6 verification failed, 7 a process failed,
                     8 disk or memory does not suffice, 130 Ctrl-C
    """  # noqa: D301 - click looks for the character itself


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
        with full_disk_named():
            exit_code = command.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        exit_code = EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        exit_code = error.exit_code
    except GKTError as error:
        click.echo(f"error: {error}", err=True)
        exit_code = error.exit_code
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; that is no error of ours.
        sys.stderr.close()
        exit_code = 0
    sys.exit(exit_code if isinstance(exit_code, int) else 0)


def main() -> NoReturn:
    """Run ``gkt``."""
    run_command(gkt)


if __name__ == "__main__":
    main()
