"""Turn any frozen dataclass into options of a command: name, type, default, range and help from one place.

::

    @dataclass(frozen=True, slots=True)
    class EdgeOptions:
        # The docstring's "Attributes:" say "steps: Warm calls of each workload."
        steps: int = option(30, low=1)

        def __post_init__(self) -> None:
            check_options(self)


    @click.command()
    @dataclass_options(EdgeOptions)
    def edge(options: EdgeOptions) -> None: ...

Help is what the class's docstring says of the attribute. A field that is itself a dataclass gives its own
options. Ranges are checked where the value is made, for commands and for callers from Python alike.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from gkt_core.errors import ConfigError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_KEY = "option"


@dataclass(frozen=True, slots=True)
class OptionSettings:
    """What a field's type and docstring do not say of its option.

    Attributes:
        flag: The option as typed, ``--steps`` or ``--pin/--no-pin``; from the field's name by default.
        low: Least value.
        high: Greatest value.
        choices: The only values.
        unit: Shown beside the default.
        group: Heading in the help text; none for the common options, which come first.
        shown_default: What the help text says of a default that depends on other things.
        click_type: A click type of its own, instead of the one that follows from the annotation.
        settings: Further arguments of :func:`click.option`.
    """

    flag: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    group: str = ""
    shown_default: str = ""
    click_type: Any = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def option(default: Any = MISSING, /, **settings: Any) -> Any:
    """Make a field with what its option needs to know; required without a default.

    Args:
        default: Of the field; a callable makes one for each instance.
        **settings: Attributes of :class:`OptionSettings`; others go to :func:`click.option`.
    """
    own = {field.name for field in dataclasses.fields(OptionSettings)}
    chosen = {name: value for name, value in settings.items() if name in own}
    rest = {name: value for name, value in settings.items() if name not in own}
    metadata = {_KEY: OptionSettings(**chosen, settings=rest)}
    if callable(default) and not isinstance(default, type(MISSING)):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_options(values: Any) -> None:
    """Refuse values outside of their options' ranges.

    Args:
        values: An instance of a dataclass with :func:`option` fields.

    Raises:
        ConfigError: Names the option, its value and what is expected.
    """
    for field in dataclasses.fields(values):
        settings: OptionSettings = field.metadata.get(_KEY, OptionSettings())
        value = getattr(values, field.name)
        for each in value if isinstance(value, tuple) else (value,):
            if settings.choices and each is not None and each not in settings.choices:
                raise ConfigError(
                    f"{flag_of(field)} is {each!r}, expected one of {', '.join(settings.choices)}"
                )
            if isinstance(each, int | float) and not isinstance(each, bool):
                low = -math.inf if settings.low is None else settings.low
                high = math.inf if settings.high is None else settings.high
                # Not a number is outside of every range.
                if not low <= each <= high and (settings.low, settings.high) != (None, None):
                    raise ConfigError(f"{flag_of(field)} is {each}, expected {_range_words(settings)}")


def _range_words(settings: OptionSettings) -> str:
    if settings.high is None:
        return f"at least {settings.low:g}"
    return f"at most {settings.high:g}" if settings.low is None else f"{settings.low:g} to {settings.high:g}"


def flag_of(field: dataclasses.Field[Any]) -> str:
    """Name a field's option as a person types it: ``--batch-size``."""
    settings: OptionSettings = field.metadata.get(_KEY, OptionSettings())
    return settings.flag.split("/")[0] or "--" + field.name.replace("_", "-")


def descriptions(cls: type) -> dict[str, str]:
    """Read what the class's docstring says of each attribute: one source for help and reference."""
    _, _, text = (cls.__doc__ or "").partition("Attributes:")
    entries = re.findall(r"^\s{8}(\w+): (.+?)(?=^\s{8}\w+: |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(body.split()).replace("``", "") for name, body in entries}


def dataclass_options(
    cls: type,
    argument: str = "options",
    *,
    defaults: Mapping[str, Any] | None = None,
    leave_out: tuple[str, ...] = (),
    given_only: bool = False,
) -> Callable[[FunctionT], FunctionT]:
    """Add an option for every field of a dataclass; the command gets one instance.

    Args:
        cls: The dataclass.
        argument: What the command calls the instance.
        defaults: Defaults that differ from the class's, for the help text of ``given_only`` options.
        leave_out: Fields without an option, which keep their defaults.
        given_only: Whether the command gets a dict of those values that were given, instead of an instance:
            for values that are merged with those of a file.
    """

    def decorate(function: FunctionT) -> FunctionT:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            value = _pop(cls, kwargs, leave_out, given_only)
            return function(*args, **{argument: value}, **kwargs)

        for made in reversed(list(_options(cls, defaults or {}, leave_out, given_only))):
            made(called)
        return called  # type: ignore[return-value]

    return decorate


def _pop(cls: type, values: dict[str, Any], leave_out: tuple[str, ...], given_only: bool) -> Any:
    chosen: dict[str, Any] = {}
    for field, kind in _fields(cls, leave_out):
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            chosen[field.name] = _pop(kind, values, leave_out, given_only)
        else:
            chosen[field.name] = values.pop(field.name)
    if given_only:
        return {name: value for name, value in chosen.items() if value is not None}
    return cls(**chosen)


def _fields(cls: Any, leave_out: tuple[str, ...]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(cls)
    return (
        (field, hints[field.name])
        for field in dataclasses.fields(cls)
        if field.init and field.name not in leave_out
    )


def _options(
    cls: Any, defaults: Mapping[str, Any], leave_out: tuple[str, ...], given_only: bool
) -> Iterator[Callable[[FunctionT], FunctionT]]:
    texts = descriptions(cls)
    for field, kind in _fields(cls, leave_out):
        if dataclasses.is_dataclass(kind):
            yield from _options(kind, defaults, leave_out, given_only)
        else:
            yield _option(field, kind, texts.get(field.name, ""), defaults, given_only)


def _option(
    field: dataclasses.Field[Any], kind: Any, text: str, defaults: Mapping[str, Any], given_only: bool
) -> Callable[[FunctionT], FunctionT]:
    settings: OptionSettings = field.metadata.get(_KEY, OptionSettings())
    default = field.default if field.default_factory is MISSING else field.default_factory()
    flag = settings.flag or "--" + field.name.replace("_", "-")
    arguments: dict[str, Any] = {}
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
        arguments["multiple"] = True
    if kind is bool:
        if settings.flag or default is False:
            arguments["is_flag"] = "/" not in flag or None
        else:
            flag = f"{flag}/--no-{flag[2:]}"
        if given_only and "/" not in flag:
            flag = f"{flag}/--no-{flag[2:]}"
        arguments = {name: value for name, value in arguments.items() if value is not None}
    else:
        arguments["type"] = settings.click_type or _click_type(kind, settings)
    shown = settings.shown_default or _shown(defaults.get(field.name, default), settings.unit)
    if shown:
        text = f"{text.rstrip()} [default: {shown}]"
    if default is MISSING and not given_only:
        arguments["required"] = True
    else:
        arguments["default"] = None if given_only else default
    made = click.option(flag, field.name, help=text, **arguments, **settings.settings)

    def apply(function: FunctionT) -> FunctionT:
        function = made(function)
        # For help texts with headings.
        function.__click_params__[-1].group = settings.group  # type: ignore[attr-defined]
        return function

    return apply


def _click_type(kind: Any, settings: OptionSettings) -> Any:
    from pathlib import Path  # noqa: PLC0415 - only compared

    if settings.choices:
        return click.Choice(settings.choices)
    return click.Path(path_type=Path) if kind is Path else kind


def _shown(default: Any, unit: str) -> str:
    if default is MISSING or default is None or default == () or isinstance(default, bool):
        return ""
    words = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{words} {unit}".rstrip()
