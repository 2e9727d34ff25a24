"""The command ``gkt doctor``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from importlib.metadata import entry_points

import click
from rich.table import Table

from gkt_core.cli import Command, emit_json, json_option
from gkt_core.config.dataclass_options import dataclass_options
from gkt_core.doctor.findings import ADVICE, FINE, SKIPPED, WRONG, Checks, Finding, skipped, wrong
from gkt_core.doctor.options import DoctorOptions
from gkt_core.errors import AttentionError, GKTError, MissingExtraError
from gkt_core.files import file_trouble_named
from gkt_core.printable import printable
from gkt_core.terminal import console

# Each package registers the checks of its own: a mapping of names to functions.
CHECK_GROUP = "gkt.checks"
_STYLES = {FINE: "green", ADVICE: "yellow", WRONG: "bold red", SKIPPED: "dim"}
# What a link, a URL or a driver's message may hold: the token of a link, the password of a database.
_SECRETS = re.compile(r"(?<=enroll=)[^&\s'\"]+|(?<=://)[^/@\s]*:[^/@\s]*(?=@)|(?<=password=)\S+")


@click.command(cls=Command, example="gkt doctor --data-dir run")
@dataclass_options(DoctorOptions)
@json_option()
@click.pass_context
def doctor(ctx: click.Context, options: DoctorOptions, as_json: bool) -> None:
    """Look for what is wrong with this installation and machine, and say what to do about it.

    On a device and on a server alike; of what is not installed nothing is needed. Looks at packages that
    exclude each other, Python and its wheels, threads, clock and port, and with the options at a bundle, the
    folder of a run or of a device, certificates, a database, a server. Changes nothing and shows no secret.
    Ends with 0 where nothing is wrong, advice or not, and with 9 where something is.
    """
    findings = list(findings_of(options))
    num_wrong = sum(finding.state == WRONG for finding in findings)
    if as_json:
        emit_json({"wrong": num_wrong, "findings": [dataclasses.asdict(each) for each in findings]})
    else:
        console().print(_table(findings))
        click.echo("nothing is wrong" if not num_wrong else f"{num_wrong} of {len(findings)} are wrong")
    ctx.exit(AttentionError.exit_code if num_wrong else 0)


def findings_of(options: DoctorOptions) -> Iterator[Finding]:
    """Run every check that is registered; one that cannot be run is a finding of its own."""
    for entry in sorted(entry_points(group=CHECK_GROUP), key=lambda entry: (entry.name != "any", entry.name)):
        try:
            checks: Checks = entry.load()
        except ImportError as error:
            text = f"the checks of a {entry.name} need {error.name or error}, which is not installed"
            yield skipped(text, "nothing, unless this is to be one: pip install 'gkt-edge[all]'")
        else:
            yield from _run(checks, options)


def _run(checks: Checks, options: DoctorOptions) -> Iterator[Finding]:
    for name, check in checks.items():
        findings: list[Finding] = []
        try:
            with file_trouble_named():
                findings.extend(check(options))
        except MissingExtraError as error:
            findings.append(skipped(*_parted(error)))
        except GKTError as error:
            findings.append(wrong(*_parted(error)))
        except Exception as error:
            # One that fails hides none of the others, and not itself.
            text = f"could not be judged: {type(error).__name__}: {str(error)[:300]}"
            findings.append(wrong(text, "look into that by hand, and report it as a fault of gkt doctor"))
        for finding in findings:
            yield Finding(finding.state, _shown(finding.text), _shown(finding.remedy), name)


def _parted(error: GKTError) -> tuple[str, str]:
    """What an error says is wrong, and what it says to do: our messages part them with a colon."""
    text, _, remedy = str(error).rpartition(": ")
    return (text, remedy) if text else (remedy, "")


def _shown(text: str) -> str:
    return _SECRETS.sub("***", printable(text))


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    for heading, least in (("check", 0), ("", 0), ("what is there", 24), ("what to do", 0)):
        table.add_column(heading, overflow="fold", min_width=least or None)
    for finding in findings:
        state = f"[{_STYLES[finding.state]}]{finding.state}[/]"
        table.add_row(finding.check, state, *(_plain(text) for text in (finding.text, finding.remedy)))
    return table


def _plain(text: str) -> str:
    # What looks like markup in a path or an extra's name is none.
    return text.replace("[", r"\[")
