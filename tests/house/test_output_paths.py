"""Whatever a command writes is refused before the work where it cannot be written, with the option's name."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gkt_core.cli import run_command
from gkt_core.config.output_path import OutputPath
from gkt_core.errors import EXIT_INTERRUPTED, InputError, ResourceError
from gkt_core.files import check_writable
from tests.docs.pages import all_commands

COMMANDS = all_commands()
# Names of options that a command writes to, in any command but one that only looks.
WRITTEN = ("--out", "--out-dir", "--work-dir", "--state-dir", "--contact-sheet")
OUTPUTS = [
    (name, param)
    for name, command in COMMANDS.items()
    for param in command.params
    if name != "gkt doctor"
    if set(param.opts) & set(WRITTEN) or (name == "gkt serve" and "--data-dir" in param.opts)
]


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Paths that cannot be written, one of each kind; root may write almost everywhere."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "not-there" / "x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    yield {
        "below a file": tmp_path / "file" / "x",
        "a name too long": tmp_path / ("x" * 300),
        "a link to nothing": tmp_path / "dangling",
        "a link to itself": tmp_path / "loop",
        **({"/proc": Path("/proc/x")} if Path("/proc/self").exists() else {}),
    }
    assert (tmp_path / "file").read_text() == "kept"


def test_all_outputs_are_known() -> None:
    assert len(OUTPUTS) >= 20
    assert [name for name, param in OUTPUTS if not isinstance(param.type, OutputPath)] == []


@pytest.mark.parametrize(("name", "param"), OUTPUTS, ids=lambda value: str(getattr(value, "opts", value)))
def test_every_output_is_refused_before_the_work(
    name: str, param: click.Parameter, nowhere: dict[str, Path]
) -> None:
    command, flag = COMMANDS[name], param.opts[0]
    for what, path in nowhere.items():
        shown = path.with_name(f"{path.name}.json") if what in ("/proc", "below a file") else path
        # Eager: what else is missing or wrong would be said first, were the path not looked at.
        with pytest.raises(InputError) as refused:
            param.type_cast_value(click.Context(command), (str(shown),) if param.multiple else str(shown))
        assert f"choose another {flag}" in str(refused.value), what
        assert shown.name[:40] in str(refused.value) or "is a file" in str(refused.value), what


def test_a_file_where_a_folder_is_wanted_and_the_other_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, expected a folder: choose another --state-dir"):
        check_writable(tmp_path / "file", "--state-dir", is_folder=True)
    with pytest.raises(InputError, match="is a folder, expected a file: choose another --out"):
        check_writable(tmp_path, "--out", is_folder=False)


def test_nothing_is_left_by_looking(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("as it was")
    check_writable(tmp_path / "a" / "b" / "c", "--out", is_folder=True)
    check_writable(tmp_path / "a.json", "--out", is_folder=False)
    check_writable(tmp_path / "there", "--out", is_folder=False)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "as it was"


@pytest.mark.parametrize(
    ("error", "exit_code", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "there/x"), InputError.exit_code, "there/x"),
        (OSError(errno.EROFS, "Read-only file system", "there/x"), InputError.exit_code, "there/x"),
        (OSError(errno.EXDEV, "no such thing", "a", None, "b"), None, ""),
        (OSError(errno.EIO, "Input/output error"), ResourceError.exit_code, "Input/output error"),
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError.exit_code, "free some space"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted"),
    ],
)
def test_trouble_with_files_ends_a_command_by_name(
    error: BaseException,
    exit_code: int | None,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["gkt"])
    if exit_code is None:
        # What no rule is for stays a fault of ours, with its traceback.
        with pytest.raises(OSError, match="no such thing"):
            run_command(fails)
        return
    with pytest.raises(SystemExit) as end:
        run_command(fails)
    assert end.value.code == exit_code
    assert says in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="no /proc here")
def test_the_serving_command_speaks_of_its_own_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gkt_core.cli import gkt  # noqa: PLC0415 - the command itself

    monkeypatch.setattr(sys, "argv", ["gkt", "serve", "--data-dir", "/proc/x", "--artifacts", "none"])
    with pytest.raises(SystemExit) as end:
        run_command(gkt)
    said = capsys.readouterr().err
    assert end.value.code == InputError.exit_code
    assert said.startswith("error: cannot write /proc/x: ") and said.endswith("choose another --data-dir\n")
