"""Command lines of ``gkt``, written from Python."""

from __future__ import annotations


def arguments(command: str, **options: object) -> list[str]:
    """Write a command as its words: ``arguments("edge run", data_dir=path)`` is ``edge run --data-dir PATH``.

    Args:
        command: After ``gkt``.
        **options: By name; None leaves one out, True and False are ``--name`` and ``--no-name``.
    """
    words = command.split()
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words
