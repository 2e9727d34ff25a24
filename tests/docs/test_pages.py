"""What every Markdown page says of files, commands, options and make targets is so."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import click
import pytest

from gkt_core.cli import gkt
from tests.conftest import ROOT
from tests.docs.pages import (
    LIVING,
    PAGES,
    all_commands,
    blocks_of,
    inline_code,
    name_of,
    options_of,
    prose_of,
    shell_lines,
    text_of,
)
from tests.house.test_imports import PRODUCT

COMMANDS = all_commands()
OF_OTHERS = {"--no-deps"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    made = set()
    for heading in re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        made.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return made


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), link


def test_anchors_of_headings(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n## `gkt serve`, a Server's\n```bash\n# no heading\n```\n## One\n")
    assert anchors(page) == {"one", "gkt-serve-a-servers", "one-1"}


@pytest.mark.parametrize("page", [page for page in LIVING if blocks_of(page, "bash")], ids=name_of)
def test_every_command_line_in_a_block_parses(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Networks are registered when --networks is parsed.
    (tmp_path / "my_networks.py").write_text(blocks_of("docs/own-networks.md", "python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GKT_TOKEN", "as the pages export it")
    for line in (line for block in blocks_of(page, "bash") for line in shell_lines(block)):
        if not line.startswith("gkt "):
            continue
        words = line.split()[1:]
        context = gkt.make_context("gkt", list(words))
        name, command, rest = gkt.resolve_command(context, list(words))
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(context, rest)
        assert command is not None, line
        with command.make_context(name or "", rest, resilient_parsing=False):
            pass


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_every_command_that_is_named_exists_and_has_its_options(page: Path) -> None:
    named = [code for code in inline_code(page) if code.startswith("gkt ")]
    named += [line for block in blocks_of(page, "") for line in shell_lines(block) if line.startswith("gkt ")]
    for line in map(str.strip, named):
        known = [path for path in COMMANDS if f"{line} ".startswith(f"{path} ")]
        if not known:
            # A group, or a group with a word that stands for each of its commands.
            group = re.sub(r" (NAME|\.\.\.|\[OPTIONS\].*|--?[\w-]+)$", "", line)
            assert group == "gkt" or any(path.startswith(f"{group} ") for path in COMMANDS), line
            continue
        options = re.findall(r"(?<=\s)--?[a-z][\w-]*", line)
        assert set(options) <= options_of(COMMANDS[known[0]]), line


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_every_option_that_is_named_exists(page: Path) -> None:
    every = set().union(*map(options_of, COMMANDS.values()))
    named = {match for code in inline_code(page) for match in re.findall(r"(?:^|[\s/])(--[a-z][\w-]+)", code)}
    assert named - OF_OTHERS - every == set()


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    lines = [line for block in blocks_of(page, "bash") for line in shell_lines(block)]
    named = {match for code in (*inline_code(page), *lines) for match in re.findall(r"^make ([a-z-]+)", code)}
    assert named <= TARGETS


@pytest.mark.parametrize("page", LIVING, ids=name_of)
def test_every_path_that_is_named_exists(page: Path) -> None:
    paths = [
        path
        for code in inline_code(page)
        for path in re.findall(rf"(?<![\w/.])(?:{'|'.join((*PRODUCT, 'tests', 'docs'))})/[\w./-]*\w", code)
    ]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_architecture_names_the_way_of_a_feature_and_is_short() -> None:
    text = text_of("docs/architecture.md")
    assert len(text.splitlines()) <= 120
    assert len(set(re.findall(rf"`((?:{'|'.join(PRODUCT)})/[\w/]+\.py)`", text))) >= 25


def test_modules_that_the_changelog_calls_new_are_there() -> None:
    rows = re.findall(r"^\| (`.*`) \| (`.*`) \|$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert len(rows) >= 9
    for old, new in rows:
        assert old.count(",") == new.count(",")
        for module in new.replace("`", "").split(", "):
            assert importlib.util.find_spec(module) is not None, module


def test_docs_lists_every_page() -> None:
    docs = ROOT / "docs"
    listed = re.findall(r"^- \[[^]]+\]\(([^)]+)\): \S.*\.$", text_of("docs/README.md"), re.MULTILINE)
    there = {path.name for path in docs.iterdir() if path.name != "README.md"}
    assert sorted(link.split("/")[0] for link in listed) == sorted(there)


def test_every_command_is_in_the_readme_or_among_the_measurements() -> None:
    measurements = set(re.findall(r"^\| `(\w+)` \|", text_of("docs/research.md"), re.MULTILINE))
    named = set(inline_code(ROOT / "README.md")) | {f"gkt profile {name}" for name in measurements}
    assert set(COMMANDS) <= named
    assert {f"gkt profile {name}" for name in measurements} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_what_the_readme_says_of_all(command: str) -> None:
    assert {"--help", "--json", "-v", "-q"} <= options_of(COMMANDS[command])


@pytest.mark.parametrize("page", [page for page in LIVING if page.name != "CHANGELOG.md"], ids=name_of)
def test_nothing_is_installed_from_an_index_that_does_not_hold_it(page: Path) -> None:
    """Neither PyPI nor npm has the package: what they give under its name is somebody else's."""
    lines = [line for block in blocks_of(page, "bash") for line in shell_lines(block)]
    lines += inline_code(page)
    for line in lines:
        assert not re.search(r"(pip|npm) install .*\bgkt(-edge)?\b", line), line
        # In the package's own folder npx runs what was built there.
        assert "npx gkt-edge" not in line or page.parent.name == "javascript", line


@pytest.mark.parametrize("page", [page for page in LIVING if blocks_of(page, "bash")], ids=name_of)
def test_who_takes_the_link_of_a_server_in_the_background_waits_for_it(page: Path) -> None:
    for block in blocks_of(page, "bash"):
        text = block.replace("\\\n", " ")
        for folder, after in re.findall(
            r"^gkt serve .*--data-dir (\S+).* &(?: .*)?\n((?:.*\n)*)", text, re.MULTILINE
        ):
            used = [line for line in after.splitlines() if f" {folder}/join" in line.split("#")[0]]
            assert not used or used[0].startswith(f"until [ -s {folder}/join ]"), used[0]
