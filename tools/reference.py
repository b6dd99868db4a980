"""Write docs/reference/commands.md from the parsers of the command line: `make reference`.

Not from what `--help` prints, which differs from one Python to the next.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from stackproof import cli
from stackproof.repo.checkout import Checkout

_HEAD = """\
# Commands

Made by `make reference` from the parsers; a test says when it is stale. Inside a clone the program is
`.venv/bin/stackproof`.

"""


def page() -> str:
    """Return the page: a section for each command that does something."""
    sections = list(_sections(cli.parser()))
    index = "\n".join(
        f"| [`{parser.prog}`](#{_anchor(parser.prog)}) | {about} |" for parser, about in sections
    )
    text = "\n".join(_section(parser) for parser, _ in sections)
    return f"{_HEAD}| command | does |\n|---|---|\n{index}\n\n{text}"


def _sections(
    parser: argparse.ArgumentParser, about: str = ""
) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    inner = [action for action in parser._actions if isinstance(action.choices, dict)]
    if not inner:
        yield parser, about
    for action in inner:
        abouts = {each.dest: each.help or "" for each in action._get_subactions()}
        for name, one in action.choices.items():
            yield from _sections(one, abouts.get(name, "") or about)


def _anchor(prog: str) -> str:
    return prog.replace(" ", "-")


def _section(parser: argparse.ArgumentParser) -> str:
    actions = [a for a in parser._actions if a.help != argparse.SUPPRESS and a.dest != "help"]
    words = " ".join(_word(a) for a in actions if not a.option_strings)
    options = " [OPTION…]" if any(a.option_strings for a in actions) else ""
    parts = [
        f"## {parser.prog}\n",
        f"```console\n$ {parser.prog}{options}{words and ' ' + words}\n```\n",
        f"{(parser.description or '').strip()}\n",
    ]
    if actions:
        parts.append("| option | meaning |\n|---|---|")
        parts += [f"| {_names(action)} | {_meaning(action)} |" for action in actions]
        parts.append("")
    return "\n".join(parts)


def _word(action: argparse.Action) -> str:
    name = _value(action)
    return {"*": f"[{name}…]", "?": f"[{name}]", "+": f"{name}…"}.get(str(action.nargs), name)


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(action.choices) if action.choices else action.dest.upper()


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_word(action)}`"
    value = "" if action.nargs == 0 else f" {_value(action)}"
    return ", ".join(f"`{name}{value}`" for name in action.option_strings)


def _meaning(action: argparse.Action) -> str:
    return ((action.help or "") % vars(action)).replace("|", r"\|")


def write(root: Path) -> None:
    """Write the page into a checkout."""
    (root / "docs" / "reference" / "commands.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(Checkout.find().root)
