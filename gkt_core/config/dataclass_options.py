"""Turn any frozen dataclass into options of a command: name, type, default, range and help from one place.

::

    @dataclass(frozen=True, slots=True)
    class EdgeOptions(CheckedOptions):
        # The docstring's "Attributes:" say "steps: Warm calls of each workload."
        steps: int = option(30, low=1)
        warmup: float = option(0.5, low=0, unit="seconds", group="Timing")


    @click.command(cls=Command)
    @dataclass_options(EdgeOptions)
    def edge(options: EdgeOptions) -> None: ...

Help is what the docstring of the class, or of a base class, says of the attribute. A field that is itself a
dataclass gives its own options. Ranges are checked where the value is made, also for callers from Python.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass
from pathlib import Path
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
        aliases: Other names of it.
        low: Least value.
        high: Greatest value.
        above: What every value is greater than.
        below: What every value is less than.
        multiple_of: What divides every value.
        choices: The only values.
        unit: Shown beside the default, ``seconds``.
        group: Heading in the help text; none for the common options, which come first.
        shown_default: What the help text says of a default that depends on other things.
        click_type: A click type of its own, instead of the one that follows from the annotation.
        settings: Further arguments of :func:`click.option`.
    """

    flag: str = ""
    aliases: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    multiple_of: int | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    group: str = ""
    shown_default: str = ""
    click_type: Any = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def range_words(self) -> str:
        """The range as a person reads it, ``0 to 64`` or ``above 0 and below 1``; empty without one."""
        limits = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
        words = " and ".join(f"{name} {limit}" for name, limit in limits.items() if limit is not None)
        if self.low is not None and self.high is not None:
            words = f"{self.low} to {self.high}"
        return f"{words}, a multiple of {self.multiple_of}" if self.multiple_of else words

    def refusal_of(self, value: Any) -> str:
        """What is expected instead of a value; empty if the option takes it."""
        if self.choices and value not in self.choices:
            return f"one of {', '.join(self.choices)}"
        if not self.range_words or isinstance(value, bool) or not isinstance(value, int | float):
            return ""
        if isinstance(value, float) and not math.isfinite(value):
            return f"a finite number, {self.range_words}"
        holds = (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.multiple_of is None or value % self.multiple_of == 0)
        )
        return "" if holds else self.range_words


class FieldOption(click.Option):
    """An option made from a field, with what its help text is composed of.

    Attributes:
        group: Heading in the help text; empty for the common options.
        described: What the docstring says.
        default_words: Its default as shown, with the unit; empty without one.
        range_words: Its range as shown; empty without one.
    """

    def __init__(
        self, names: Sequence[str], *, told: OptionSettings, described: str, default_words: str, **rest: Any
    ) -> None:
        self.group, self.described = told.group, described
        self.default_words, self.range_words = default_words, told.range_words
        extras = [f"default: {default_words}"] if default_words else []
        if told.unit and (told.shown_default or not default_words):
            extras.append(f"in {told.unit}")
        extras += [told.range_words] if told.range_words else []
        extras += [f"env: {rest['envvar']}"] if "envvar" in rest else []
        text = f"{described}  [{'; '.join(extras)}]" if extras else described
        super().__init__(names, help=text.lstrip(), **rest)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the environment variable, too, that would give the value."""
        hint = super().get_error_hint(ctx)
        return f"{hint}, or the environment variable {self.envvar}" if self.envvar else hint


def option(default: Any = MISSING, /, **settings: Any) -> Any:
    """Make a field with what its option needs to know; required without a default.

    A callable makes a default for each instance. Settings are the attributes of :class:`OptionSettings`;
    others go to :func:`click.option`.
    """
    own = {field.name for field in dataclasses.fields(OptionSettings)}
    chosen = {name: settings.pop(name) for name in own & set(settings)}
    metadata = {_KEY: OptionSettings(**chosen, settings=settings)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def settings_of(field: Field[Any]) -> OptionSettings:
    """What :func:`option` said of a field; nothing if it was not made with it."""
    settings: OptionSettings = field.metadata.get(_KEY, OptionSettings())
    return settings


def flag_of(field: Field[Any]) -> str:
    """Name a field's option as a person types it: ``--batch-size``."""
    return settings_of(field).flag.split("/")[0] or "--" + field.name.replace("_", "-")


def check_options(values: Any, *, named: Callable[[Field[Any]], str] = flag_of) -> None:
    """Refuse values outside of their options' ranges; None is no value and passes.

    Raises:
        ConfigError: Names the option as ``named`` does, its value and what is expected.
    """
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        for each in value if isinstance(value, tuple) else (value,):
            expected = "" if each is None else settings_of(field).refusal_of(each)
            if expected:
                raise ConfigError(f"{named(field)} is {each!r}, expected {expected}")


class CheckedOptions:
    """A base class of dataclasses: ranges are checked whenever one is made, by :func:`check_options`."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Refuse values outside of their ranges."""
        check_options(self)


def arguments_of(values: Any) -> list[str]:
    """The arguments that give a command in another process an equal instance."""
    arguments: list[str] = []
    for field in dataclasses.fields(values):
        value, flag = getattr(values, field.name), flag_of(field)
        if dataclasses.is_dataclass(value):
            arguments += arguments_of(value)
        elif isinstance(value, bool):
            _, _, off = settings_of(field).flag.partition("/")
            if value or field.default is not False or off:
                arguments.append(flag if value else off or f"--no-{flag[2:]}")
        elif value is not None:
            for each in value if isinstance(value, tuple) else (value,):
                arguments += [flag, str(each)]
    return arguments


def descriptions(cls: type) -> dict[str, str]:
    """Read what a class's docstring, and its bases', say of each attribute."""
    texts: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        # Python 3.13 takes the indentation out of docstrings itself.
        _, _, text = inspect.cleandoc(each.__doc__ or "").partition("Attributes:")
        entries = re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w+: |^\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
        texts |= {name: " ".join(body.split()).replace("``", "") for name, body in entries}
    return texts


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
        defaults: Defaults of this command that differ from the class's; of ``given_only`` options they are
            only shown, and may be words.
        leave_out: Fields without an option, which keep their defaults.
        given_only: Whether the command gets a dict of those values that were given, instead of an instance:
            for values that are merged with those of a file.
    """

    def decorate(function: FunctionT) -> FunctionT:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            kwargs[argument] = _pop(cls, kwargs, leave_out, given_only)
            return function(*args, **kwargs)

        for made in reversed(list(_options(cls, defaults or {}, leave_out, given_only))):
            made(called)
        return called  # type: ignore[return-value] # the wrapper takes what click gives

    return decorate


def _pop(cls: Any, values: dict[str, Any], leave_out: tuple[str, ...], given_only: bool) -> Any:
    chosen = {
        field.name: _pop(kind, values, leave_out, given_only)
        if dataclasses.is_dataclass(kind)
        else values.pop(field.name)
        for field, kind in _fields(cls, leave_out)
    }
    if given_only:
        return {name: value for name, value in chosen.items() if value is not None}
    return cls(**chosen)


def _fields(cls: Any, leave_out: tuple[str, ...]) -> Iterator[tuple[Field[Any], Any]]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.init and field.name not in leave_out:
            yield field, hints[field.name]


def _options(
    cls: Any, defaults: Mapping[str, Any], leave_out: tuple[str, ...], given_only: bool
) -> Iterator[Callable[[FunctionT], FunctionT]]:
    texts = descriptions(cls)
    for field, kind in _fields(cls, leave_out):
        if dataclasses.is_dataclass(kind):
            yield from _options(kind, defaults, leave_out, given_only)
        else:
            made = field.default if field.default_factory is MISSING else field.default_factory
            default = defaults.get(field.name, made)
            yield _option(field, kind, texts.get(field.name, ""), default, given_only)


def _option(
    field: Field[Any], kind: Any, text: str, default: Any, given_only: bool
) -> Callable[[FunctionT], FunctionT]:
    settings = settings_of(field)
    flag = settings.flag or flag_of(field)
    arguments: dict[str, Any] = dict(settings.settings)
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
        arguments.setdefault("multiple", True)
    if kind is bool:
        if not settings.flag and (given_only or default is not False):
            flag = f"{flag}/--no-{flag[2:]}"
        if "/" not in flag:
            arguments["is_flag"] = True
    else:
        kind = click.Choice(settings.choices) if settings.choices else kind
        arguments["type"] = settings.click_type or (click.Path(path_type=Path) if kind is Path else kind)
    if default is MISSING and not given_only:
        arguments["required"] = True
    else:
        arguments["default"] = None if given_only else default
    value = default() if callable(default) else default
    words = settings.shown_default or _shown(value, flag, settings.unit)
    names = (flag, *settings.aliases, field.name)
    return click.option(
        *names, cls=FieldOption, told=settings, described=text, default_words=words, **arguments
    )


def _shown(default: Any, flag: str, unit: str) -> str:
    if default in (MISSING, None, ()):
        return ""
    if isinstance(default, bool):
        # Of a pair, the half that holds; a single flag is off unless it is given.
        on, _, off = flag.partition("/")
        return (on if default else off)[2:] if off else ""
    words = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{words} {unit}".rstrip()
