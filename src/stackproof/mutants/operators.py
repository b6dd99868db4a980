"""Small changes of one line each: what a slip of the hand makes of templates, values and configs.

Every operator gives at most one mutant of a line. Comments are left alone, and so is what is only
for people (NOTES.txt, README.md) or made from something else (values.schema.json).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One file with one change."""

    file: str
    """Relative to the root that it was made from."""
    line: int
    """Where it starts, from 1."""
    operator: str
    old: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def id(self) -> str:
        """A name that stays as long as the line does: file, operator and the line's own words."""
        return f"{self.file}: {self.operator}: {self.old[0].strip()}"

    def apply(self, text: str) -> str:
        """Return the file's text with the change in it."""
        lines = text.split("\n")
        at = self.line - 1
        assert tuple(lines[at : at + len(self.old)]) == self.old
        return "\n".join([*lines[:at], *self.new, *lines[at + len(self.old) :]])

    def diff(self, context: Sequence[str] = ()) -> str:
        """Return the change as the lines of a diff, with its heading."""
        changed = (*(f"-{line}" for line in self.old), *(f"+{line}" for line in self.new))
        head = f"{self.file}:{self.line} ({self.operator})"
        return "\n".join((head, *context, *changed))


_COMMENT = re.compile(r"\s*(#|//|\{\{-?\s*/\*)")
_TEMPLATE_COMMENT = re.compile(r"\{\{-?\s*/\*.*?\*/\s*-?\}\}", re.DOTALL)
_CONTROL = re.compile(r"\{\{-?\s*(if|else|end|with|range|define|block)\b")
_CONDITION = re.compile(r"\{\{(-?)\s*(else if|if)\s+(.*?)\s*(-?)\}\}")
_NUMBER = re.compile(r"(?<![\w.$-])(\d+)(?=([a-zA-Z]{0,3})\b)(?![\w.]*:)")
_KEY = re.compile(r"^(\s*(?:- )?)([\w./-]+|\"[\w./-]+\")(:(?:\s|$).*)")
_VALUE = re.compile(r"^(\s*(?:- )?[\w./$-]+(?::| =)\s+)(\"?)([A-Za-z/$@][^\"#{}\[\]]*?)(\"?)(\s*)$")
_ITEM = re.compile(r"^(\s*- )(\"?)([A-Za-z/$@-][^\"#{}:]*?)(\"?)(\s*)$")
_QUOTED = re.compile(r"\"([A-Za-z][\w./-]*)\"")
#: Names that take each other's place where a reference is swapped.
_RINGS = (
    ("mimir", "loki", "tempo"),
    ("gateway", "grafana"),
    ("postgres", "weaviate", "searxng"),
    ("MIMIR", "LOKI", "TEMPO"),
    ("ingress", "egress"),
    ("Ingress", "Egress"),
    ("from", "to"),
    ("metrics", "logs", "traces"),
    ("requests", "limits"),
    ("GET", "POST"),
)
_NEXT = {name: ring[(i + 1) % len(ring)] for ring in _RINGS for i, name in enumerate(ring)}
_NAMES = "|".join(sorted(_NEXT, key=len, reverse=True))
_SWAPPED = re.compile(rf"(?<![\w.$-])({_NAMES})(?![\w-]*[=(])\b")

Change = Callable[[str], str | None]
"""Returns a line with a change in it; None, or the same line, where it can make none."""


def flip(line: str) -> str | None:
    """A switch is the other way round."""
    found = re.search(r"\b(true|false)\b", line)
    if not found or ("{{" in line[: found.start()] and "}}" in line[found.start() :]):
        return None
    other = "false" if found[1] == "true" else "true"
    return line[: found.start()] + other + line[found.end() :]


def negate(line: str) -> str | None:
    """A condition of a template is the other way round."""
    return _CONDITION.sub(lambda m: f"{{{{{m[1]} {m[2]} not ({m[3]}) {m[4]}}}}}", line, count=1)


def number(line: str) -> str | None:
    """A port, size, duration or count is another."""
    if _CONTROL.search(line):
        return None
    for found in _NUMBER.finditer(line):
        if not re.match(r"\s*(nindent|indent)\s*$", line[: found.start()].rsplit("|", 1)[-1]):
            return line[: found.start(1)] + str(int(found[1]) + 1) + line[found.end(1) :]
    return None


def rename_key(line: str) -> str | None:
    """A key is misspelt."""
    found = _KEY.match(line)
    if not found:
        return None
    key = found[2]
    misspelt = f'{key[:-1]}s"' if key.endswith('"') else f"{key}s"
    return f"{found[1]}{misspelt}{found[3]}"


def reword(line: str) -> str | None:
    """A name, path, header or other word is misspelt."""
    found = _VALUE.match(line) or _ITEM.match(line)
    if found and found[3] not in {"true", "false"}:
        return f"{found[1]}{found[2]}{found[3]}x{found[4]}{found[5]}"
    inside = _QUOTED.search(line) if not _CONTROL.search(line) and "include" not in line else None
    return line[: inside.end(1)] + "x" + line[inside.end(1) :] if inside else None


def swap(line: str) -> str | None:
    """A reference leads to the neighbour."""
    return None if _CONTROL.search(line) else _SWAPPED.sub(lambda m: _NEXT[m[1]], line, count=1)


def indent(line: str) -> str | None:
    """A key is two columns too far to the right."""
    return f"  {line}" if _KEY.match(line) and "{{" not in line else None


OPERATORS: tuple[Change, ...] = (flip, negate, number, rename_key, reword, swap, indent)


def mutants(file: str, text: str) -> Iterator[Mutant]:
    """Yield all mutants of a file, in the order of its lines."""
    lines = text.split("\n")
    skipped = _in_comments(text)
    for number_, line in enumerate(lines, start=1):
        if number_ in skipped or not line.strip() or _COMMENT.match(line):
            continue
        for operator in OPERATORS:
            changed = operator(line)
            if changed is not None and changed != line:
                name = operator.__name__.replace("_", "-")
                yield Mutant(file, number_, name, (line,), (changed,))
        yield from _removed(file, lines, number_)


def _in_comments(text: str) -> set[int]:
    """Return the lines on which a comment of the template stands."""
    found: set[int] = set()
    for comment in _TEMPLATE_COMMENT.finditer(text):
        first = text.count("\n", 0, comment.start()) + 1
        found.update(range(first, first + comment[0].count("\n") + 1))
    return found


def _removed(file: str, lines: Sequence[str], number_: int) -> Iterator[Mutant]:
    """Yield the file without a line, and without a whole block of a template."""
    line = lines[number_ - 1]
    if _CONTROL.search(line):
        end = _end_of_block(lines, number_)
        if end and re.match(r"\s*\{\{-?\s*(if|with|range)\b", line):
            old = tuple(lines[number_ - 1 : end])
            yield Mutant(file, number_, "drop-block", old, ())
    elif line.strip() not in {"---", "{", "}"}:
        yield Mutant(file, number_, "drop-line", (line,), ())


def _end_of_block(lines: Sequence[str], start: int) -> int | None:
    depth = 0
    for number_, line in enumerate(lines[start - 1 :], start=start):
        depth += len(re.findall(r"\{\{-?\s*(?:if|with|range|define|block)\b", line))
        depth -= len(re.findall(r"\{\{-?\s*end\b", line))
        if depth <= 0:
            return number_ if number_ > start else None
    return None


_MUTATED = (
    "charts/*/templates/*",
    "charts/*/files/*",
    "charts/*/values.yaml",
    "charts/*/values-prod.yaml",
    "observability/*-values.yaml",
    "flux/**/*.yaml",
)
_LEFT_OUT = {"NOTES.txt"}


def files(root: Path, patterns: Sequence[str] = _MUTATED) -> list[str]:
    """Return the files of a checkout that are mutated, relative to its root."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(str(path.relative_to(root)) for path in found if path.name not in _LEFT_OUT)
