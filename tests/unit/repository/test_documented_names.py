"""The commands, variables, checks and messages that pages name are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tests import parsers
from tests.documented import PAGES, ROOT

from stackproof import cli
from stackproof.twins import CHECKS

#: What stands in backquotes, and lines of code: behind a prompt, or indented.
_CODE = re.compile(r"`([^`\n]+)`|^ *\$ (.+)$|^    (\S.*)$", re.MULTILINE)
#: A command of ours in such a line, up to where the shell takes over.
_COMMAND = re.compile(r"(?:^|/|[|&(;] ?)(stackproof|make) +([a-z][^|>#;&)]*)")
_OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
_TARGET = re.compile(r"(?<!\S)[a-z][a-z0-9-]*(?!\S)")
_VARIABLE = re.compile(r"\bSTACKPROOF_[A-Z_]+\b")
_CHECK = re.compile(rf"`((?:{'|'.join({each.split('.')[0] for each in CHECKS})})\.[a-z]\S+-\S+)`")
#: Messages of other programs.
_OF_OTHERS = {"module lookup disabled by GOPROXY=off"}


@cache
def options() -> dict[tuple[str, ...], set[str]]:
    """Return the options of each command, by the words that lead to it."""
    return {
        words: {option for action in parser._actions for option in action.option_strings}
        for words, parser in parsers.every(cli.parser())
    }


@cache
def targets() -> set[str]:
    makefiles = [(ROOT / name).read_text("utf-8") for name in ("Makefile", ".github/ci.mk")]
    return {name for text in makefiles for name in re.findall(r"(?m)^([a-z0-9-]+):", text)}


def unknown(command: str, rest: str) -> set[str]:
    """Return what a command line says that the command does not know."""
    if command == "make":
        return set(_TARGET.findall(rest)) - targets()
    words: tuple[str, ...] = ()
    for word in rest.split():
        if (*words, word) in options():
            words = (*words, word)
    if not words:
        return {rest.split()[0]}
    ways = (words[:length] for length in range(len(words) + 1))
    return set(_OPTION.findall(rest)) - set[str]().union(*(options()[way] for way in ways))


def unknown_in(text: str) -> set[str]:
    """Return what the commands of a page's code say that they do not know."""
    lines = ("".join(found) for found in _CODE.findall(re.sub(r"\\\n\s*", "", text)))
    return {
        word
        for line in lines
        for command, rest in _COMMAND.findall(re.sub(r"\s#.*", "", line))
        for word in unknown(command, rest)
    }


@cache
def sources() -> str:
    files = (path for folder in ("src", "tests", "tools") for path in (ROOT / folder).rglob("*.py"))
    return "\n".join(path.read_text("utf-8") for path in files if path != Path(__file__))


def unread(text: str) -> set[str]:
    """Return the variables that a page names and no code does, but for those of programs."""
    of_programs = {f"STACKPROOF_{path.name}".upper() for path in (ROOT / "tools").iterdir()}
    named = {name for name in _VARIABLE.findall(text) if "_PASSWORD_" not in name}
    return {name for name in named - of_programs if name not in sources()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert unknown_in(text) == set()
    assert unread(text) == set()
    assert set(_CHECK.findall(text)) - CHECKS == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Run `make tset`.", {"tset"}),
        ("    make test STACK=kind   # a comment\n", set()),
        ("$ .venv/bin/stackproof prove \\\n    --cluster x\n", {"--cluster"}),
        ("$ stackproof flux --cluster x check --json | jq\n", set()),
        ("- `x -f <(stackproof scale mimir)`", {"scale"}),
        ("stackproof is a suite; `no stackproof repository`", set()),
    ],
)
def test_a_command_that_is_not_there_is_noticed(text: str, found: set[str]) -> None:
    assert unknown_in(text) == found


def test_a_variable_that_nothing_reads_is_noticed() -> None:
    assert unread("`STACKPROOF_CASH`, STACKPROOF_MIMIR=/x STACKPROOF_CACHE") == {"STACKPROOF_CASH"}


def test_a_check_that_is_not_there_is_noticed() -> None:
    named = _CHECK.findall("`flux.builds`, `flux.is-gone`, `deployment.limits-form-a-chain`")
    assert set(named) - CHECKS == {"flux.is-gone"}


def told() -> Iterator[str]:
    """Yield all texts of the code, with `…` for each value in them."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(each.value) if isinstance(each, ast.Constant) else "…"
                    for each in node.values
                )


def untold(page: str) -> set[str]:
    """Return the messages in the first column of a page's tables that nothing tells."""
    rows = re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
    messages = {each for row in rows for each in re.findall(r"`([^`]+)`", row)} - _OF_OTHERS
    texts = "\n".join([*told(), (ROOT / "Makefile").read_text("utf-8")])
    parts = {part.strip(" ,:") for each in messages for part in each.split("…")}
    return {part for part in parts if len(part.split()) > 2 and part not in texts}


def test_messages_that_are_explained_are_told() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    assert untold(page) == set()
    assert untold(page.replace("are all in use", "have all gone")) == {"have all gone"}
