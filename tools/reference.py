"""Write what docs/ says of the command line from its code: `make reference`.

The commands come from the parsers, and not from what `--help` prints, which differs from one Python
to the next.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from stackproof import cli
from stackproof.errors import ExitCode
from stackproof.repo.checkout import Checkout
from stackproof.repo.results import SCHEMA, Provenance

_HEAD = """\
# Commands

Made by `make reference` from the parsers; a test says when it is stale. In a clone the program is
`.venv/bin/stackproof`.

"""


_MADE = "<!-- {name}: begin (made by `make reference`) -->\n\n{text}\n<!-- {name}: end -->\n"
_FILE = re.compile(r"\bbuild/report/([\w-]+\.\w+)")
_ARGUMENT = re.compile(r"^ +(\w+): (.+)$", re.MULTILINE)


def pages(root: Path) -> Mapping[Path, str]:
    """Return the pages as they must be: a file of a checkout to its text."""
    docs = root / "docs"
    results = (docs / "results.md").read_text(encoding="utf-8")
    for name, text in (("exit codes", exit_codes()), ("provenance", provenance())):
        made = _MADE.format(name=name, text=text)
        whole = re.compile(f"<!-- {name}: begin.*<!-- {name}: end -->\n", re.DOTALL)
        results = whole.sub(lambda _, made=made: made, results)  # type: ignore[misc]
    return {docs / "reference" / "commands.md": commands(), docs / "results.md": results}


def exit_codes() -> str:
    """Return the table of exit codes, from the texts below the members of the class."""
    body = ast.parse(inspect.getsource(ExitCode)).body[0]
    assert isinstance(body, ast.ClassDef)
    rows = ["| code | name | means |", "|---|---|---|"]
    for member, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name):
            assert isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            name = member.targets[0].id
            about = " ".join(str(text.value.value).split()).replace("|", r"\|")
            rows.append(f"| {ExitCode[name].value} | {name} | {about} |")
    return "\n".join(rows) + "\n"


def provenance() -> str:
    """Return the table of the keys that every result file has, from the class that writes them."""
    args = inspect.cleandoc(Provenance.__doc__ or "").partition("Args:\n")[2]
    rows = [
        "| key | is |",
        "|---|---|",
        f"| `schema` | {SCHEMA}; another number means that keys have changed their meaning |",
        "| `whole` | false for a run of a part |",
        *(f"| `provenance.{name}` | {about} |" for name, about in _ARGUMENT.findall(args)),
    ]
    return "\n".join(rows) + "\n"


def result_files() -> set[str]:
    """Return the files that commands say they write."""
    texts = (parser.description or "" for parser, _ in _sections(cli.parser()))
    return {file for text in texts for file in _FILE.findall(text)}


def commands() -> str:
    """Return the page of commands: a section for each that does something."""
    sections = list(_sections(cli.parser()))
    index = "\n".join(
        f"| [`{parser.prog}`](#{_anchor(parser.prog)}) | {about} |" for parser, about in sections
    )
    text = "\n".join(_section(parser) for parser, _ in sections)
    return f"{_HEAD}| command | does |\n|---|---|\n{index}\n\n{text}"


def _sections(
    parser: argparse.ArgumentParser, about: str = ""
) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not inner:
        yield parser, about
    for action in inner:
        abouts = {each.dest: each.help or "" for each in action._choices_actions}
        for name, one in action.choices.items():
            yield from _sections(one, abouts.get(name) or about)


def _before(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options that come before the name of a command of a command: those of its group."""
    outer = cli.parser()
    for name in parser.prog.split()[1:-1]:
        (several,) = (a for a in outer._actions if isinstance(a, argparse._SubParsersAction))
        outer = several.choices[name]
        yield from (a for a in outer._actions if a.option_strings and a.dest != "help")


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
    before = list(_before(parser))
    if actions or before:
        last = parser.prog.split()[-1]
        parts.append("| option | meaning |\n|---|---|")
        parts += [f"| {_names(a)}, before `{last}` | {_meaning(a)} |" for a in before]
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


def main() -> None:
    """Write the pages that differ."""
    for path, text in pages(Checkout.find().root).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
