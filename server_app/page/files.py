"""The files of the page, named by their hash, so that a browser may keep each for ever."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

import jinja2

# Each may import those before it. Types are what Flask calls mimetypes.
_SCRIPTS = ("amounts.js", "elements.js", "curves.js", "devices.js", "asking.js", "panels.js", "page.js")
SCRIPT_TYPE, STYLE_TYPE, ICON_TYPE = "text/javascript", "text/css", "image/svg+xml"


@dataclass(frozen=True, slots=True)
class PageFiles:
    """The page and what it loads.

    Attributes:
        html: The page.
        scripts: By their hashed names; likewise the others.
        styles: Style sheets.
        icons: Icons.
    """

    html: str
    scripts: dict[str, bytes]
    styles: dict[str, bytes]
    icons: dict[str, bytes]


@functools.cache
def page_files() -> PageFiles:
    """Read the files once for the process."""
    names: dict[str, str] = {}
    scripts: dict[str, bytes] = {}
    for name in _SCRIPTS:
        text = _text(name)
        for imported, hashed in names.items():
            # Before the hash is taken: a script whose import has changed has changed.
            text = text.replace(f'"./{imported}"', f'"./{hashed}"')
        names[name] = _hashed(name, text)
        scripts[names[name]] = text.encode()
    others = {name: _text(name) for name in ("page.css", "icon.svg")}
    hashed_others = {name: _hashed(name, text) for name, text in others.items()}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("server_app.page"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("page.html.j2").render(
        script=names["page.js"],
        imported=[names[name] for name in _SCRIPTS[:-1]],
        style=hashed_others["page.css"],
        icon=hashed_others["icon.svg"],
    )
    return PageFiles(
        html,
        scripts,
        {hashed_others["page.css"]: others["page.css"].encode()},
        {hashed_others["icon.svg"]: others["icon.svg"].encode()},
    )


def _text(name: str) -> str:
    return resources.files("server_app.page").joinpath("static", name).read_text(encoding="utf-8")


def _hashed(name: str, text: str) -> str:
    stem, _, kind = name.partition(".")
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.{kind}"
