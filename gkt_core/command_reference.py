"""Write ``docs/commands.md`` from the commands themselves: ``python -m gkt_core.command_reference``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from gkt_core.cli import COMMON, EVERYWHERE, gkt, grouped_params
from gkt_core.config.dataclass_options import FieldOption
from gkt_core.files import write_atomically

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
_HEAD = """# Commands

Every command with every option, written by `make docs` from what `--help` is made of.

A value outside of what the last column says is refused (exit code 2). Every command takes `-h` for help, `-v`
and `-vv` to log to stderr what libraries do, and `-q` to log errors only.

Every option also comes from the environment, as `GKT_`, the command and the option in capitals
(`GKT_SERVE_ROUND_DEADLINE=3600`, `GKT_EDGE_RUN_STATE_DIR=state`, `GKT_SERVE_INSECURE_HTTP=true`), and from a
TOML file, `--config FILE`, with a table for each command. What is typed wins over the environment, that over
the file; paths in it are as if they were typed.

```toml
rounds = 20          # a run's hyper-parameters stand above the tables

[serve]
artifacts = "artifacts"
data-dir = "run"
log-format = "json"

[clients.list]
data-dir = "run"
```
"""


def reference() -> str:
    """The page, in Markdown. Every extra must be installed."""
    commands = list(_commands(click.Context(gkt, info_name="gkt")))
    contents = [f"- [{path}](#{path.replace(' ', '-')}): {_summary(ctx)}" for path, ctx in commands]
    sections = [section(path, ctx) for path, ctx in commands]
    return "\n\n".join([_HEAD + "\n" + "\n".join(contents), *sections]) + "\n"


def _commands(ctx: click.Context) -> Iterator[tuple[str, click.Context]]:
    """Every command that does something, and what it is called: groups themselves do nothing."""
    if not isinstance(ctx.command, click.Group):
        yield ctx.command_path, ctx
        return
    for name in ctx.command.list_commands(ctx):
        command = ctx.command.get_command(ctx, name)
        if command is not None and not command.hidden:
            yield from _commands(click.Context(command, info_name=name, parent=ctx))


def _summary(ctx: click.Context) -> str:
    return inspect.cleandoc(ctx.command.help or "").partition("\n\n")[0].replace("\n", " ")


def section(path: str, ctx: click.Context) -> str:
    """One command: what it does, how it is called, and a table of options for each heading."""
    usage = " ".join([path, *ctx.command.collect_usage_pieces(ctx)])
    parts = [f"## {path}", _markdown(ctx.command.help or ""), f"Usage: `{usage}`"]
    if example := getattr(ctx.command, "example", ""):
        parts.append(f"```bash\n{example}\n```")
    for heading, params in grouped_params(ctx.command, ctx).items():
        rows = [_row(param, ctx) for param in params if isinstance(param, click.Option) and not param.hidden]
        if rows and heading != EVERYWHERE:
            table = ["| option | | default | values |", "|---|---|---|---|", *rows]
            parts += ([] if heading == COMMON else [f"{heading}:"]) + ["\n".join(table)]
    return "\n\n".join(parts)


def _markdown(text: str) -> str:
    """Put the paragraphs that click leaves as they are into fences."""
    blocks = []
    for block in inspect.cleandoc(text).split("\n\n"):
        first, _, rest = block.partition("\n")
        blocks.append(f"```\n{rest}\n```" if first == "\b" else block)
    return "\n\n".join(blocks)


def _row(param: click.Option, ctx: click.Context) -> str:
    choices = getattr(param.type, "choices", None)
    metavar = "" if param.is_flag or param.count else param.make_metavar(ctx)
    values = ", ".join(choices) if choices else metavar[1:-1].replace("|", ", ") if metavar[:1] == "[" else ""
    if isinstance(param, FieldOption):
        text, default, values = param.described, param.default_words, values or param.range_words
    else:
        text, default = param.help or "", str(param.default) if param.show_default else ""
    name = "/".join([*param.opts, *param.secondary_opts]) + (f" {metavar}" if metavar[:1].isalpha() else "")
    if param.envvar:
        text += f" Also from the environment: {param.envvar}."
    if param.required:
        default = "required"
    # A bar would end its cell, in code too.
    cells = [cell.replace("|", "\\|") for cell in (f"`{name}`", text, default, values)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the page."""
    write_atomically(PAGE, reference().encode())


if __name__ == "__main__":
    main()
