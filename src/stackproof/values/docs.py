"""Make a chart's values.schema.json and the tables of its README from the one source, values.yaml.

The comment directly above a key describes it. What follows ``@schema`` in the comment, on the same
line or indented below it, is JSON schema (in YAML) merged into what the default value implies::

    # Pods. More than one needs a shared volume.
    # @schema {minimum: 1}
    replicaCount: 1

A mapping with keys allows these keys and no other, and needs them all: a values file that sets one
to null is refused instead of rendering something odd. One whose annotation has a ``$ref`` or
``properties`` is taken as a whole. An empty mapping or list must say what may be in it. The file's
first comment, ended by a blank line, belongs to the root: ``$defs`` has its place there; the
description of a definition stands in for a missing one.

``python -m stackproof.values.docs CHART…`` writes both files; with ``--check`` it only lists those
that would change.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stackproof.errors import StackproofError

BEGIN = "<!-- values: begin (made by `make charts` from values.yaml) -->"
"""The line of README.md after which the tables stand."""
END = "<!-- values: end -->"

Schema = dict[str, Any]

_MARK = "@schema"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


@dataclass(frozen=True)
class Comment:
    """What the comment above a key says."""

    text: str
    annotation: Mapping[str, Any]
    line: int
    """Its first line in the file, from 1."""


@dataclass(frozen=True)
class Row:
    """A line of a table: one key."""

    key: str
    """Dotted path from the top of the file."""
    type: str
    default: str
    description: str


@dataclass(frozen=True)
class ValuesFile:
    """A values.yaml whose comments describe it."""

    path: Path
    schema: Schema
    """JSON schema (draft 2020-12) of the merged values."""

    def sections(self) -> Iterator[tuple[str, str, list[Row]]]:
        """Yield name, description and rows of each top-level key that has keys of its own.

        The other top-level keys come first, together, under the empty name.
        """
        properties: Schema = self.schema["properties"]
        nested = {name: part for name, part in properties.items() if part.get("properties")}
        plain = [
            self._row((name,), part) for name, part in properties.items() if name not in nested
        ]
        if plain:
            yield "", "", plain
        for name, part in nested.items():
            yield name, part.get("description", ""), list(self._rows((name,), part))

    def _rows(self, path: tuple[str, ...], part: Schema) -> Iterator[Row]:
        for name, child in part["properties"].items():
            below = (*path, name)
            if child.get("properties"):
                if "description" in child:
                    yield Row(".".join(below), "object", "", child["description"])
                yield from self._rows(below, child)
            else:
                yield self._row(below, child)

    def _row(self, path: tuple[str, ...], part: Schema) -> Row:
        resolved = self._definition(part) | part
        allowed = resolved.get("enum")
        kind = " ".join(_code(value) for value in allowed) if allowed else resolved["type"]
        if isinstance(kind, list):
            kind = " or ".join(kind)
        description = resolved.get("description", "")
        return Row(".".join(path), kind, _code(part["default"]), description)

    def _definition(self, part: Schema) -> Schema:
        name = str(part.get("$ref", "")).removeprefix("#/$defs/")
        found: Schema = self.schema.get("$defs", {}).get(name, {})
        return found

    def tables(self) -> str:
        """Return the tables in Markdown."""
        blocks: list[str] = []
        for name, description, rows in self.sections():
            blocks += [f"### `{name}`"] if name else []
            blocks += [description] if description else []
            lines = ["| Key | Type | Default | Description |", "|---|---|---|---|"]
            for row in rows:
                cells = (f"`{row.key}`", row.type, row.default, row.description)
                told = " | ".join(cell.replace("|", "\\|") for cell in cells)
                lines.append(f"| {told} |")
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)


def load(path: Path) -> ValuesFile:
    """Read a values.yaml with its comments.

    Raises:
        StackproofError: The file or an annotation is not valid YAML, or a default says too little.
    """
    text = path.read_text()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise StackproofError(f"is not valid YAML: {error}", where=str(path)) from None
    if not isinstance(root, yaml.MappingNode):
        raise StackproofError("holds no mapping", where=str(path))
    reader = _Reader(path, text.splitlines())
    head = reader.head()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= reader.schema(root, head)
    schema.pop("description", None)
    return ValuesFile(path, schema)


def generate(chart: Path) -> dict[Path, str]:
    """Return what values.schema.json and README.md of a chart must contain."""
    values = load(chart / "values.yaml")
    readme = chart / "README.md"
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise StackproofError(
            "has no place for the tables of values",
            where=str(readme),
            todo=f"Add the lines {BEGIN} and {END}.",
        )
    return {
        chart / "values.schema.json": json.dumps(values.schema, indent=2) + "\n",
        readme: f"{before}{begin}\n\n{values.tables()}\n\n{end}{after}",
    }


def stale(chart: Path) -> list[Path]:
    """Return the files of a chart that do not agree with its values.yaml."""
    return [
        path
        for path, text in generate(chart).items()
        if not path.exists() or path.read_text() != text
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the files of the charts named, or with --check list those that are stale."""
    check = "--check" in arguments
    changed = []
    for chart in (Path(argument) for argument in arguments if argument != "--check"):
        expected = generate(chart)
        for path in stale(chart):
            changed.append(path)
            if not check:
                path.write_text(expected[path])
    for path in changed:
        print(f"{path}: {'stale' if check else 'written'}")
    return int(check and bool(changed))


class _Reader:
    """Turns the nodes of a values file and the comments above them into a schema."""

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        self.path = path
        self.lines = lines

    def head(self) -> Comment:
        """Return the file's first comment, if a blank line ends it."""
        length = next((n for n, line in enumerate(self.lines) if not line.startswith("#")), 0)
        ended = length > 0 and not self.lines[length].strip()
        return self._comment(self.lines[:length] if ended else [], 0)

    def schema(self, node: yaml.Node, comment: Comment) -> Schema:
        """Return the schema of a value, with the description and annotation of its comment."""
        described: Schema = {"description": comment.text} if comment.text else {}
        annotation = dict(comment.annotation)
        whole = "$ref" in annotation or "properties" in annotation
        if isinstance(node, yaml.MappingNode) and node.value and not whole:
            return described | self._object(node) | annotation
        default = self._value(node)
        return (
            described | self._implied(default, annotation, node) | annotation | {"default": default}
        )

    def _object(self, node: yaml.MappingNode) -> Schema:
        properties = {
            str(key.value): self.schema(value, self._above(key)) for key, value in node.value
        }
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            "required": list(properties),
        }

    def _implied(self, default: object, annotation: Schema, node: yaml.Node) -> Schema:
        if isinstance(default, Mapping):
            if not {"additionalProperties", "properties", "$ref"} & set(annotation):
                self._refuse(node, "does not say what may be in it", "additionalProperties")
            return {"type": "object"}
        if isinstance(default, list):
            if "items" not in annotation:
                self._refuse(node, "does not say what its items are", "items")
            return {"type": "array"}
        if type(default) not in _TYPES:
            self._refuse(node, f"has the default {default!r}, which implies no type", "a type")
        return {"type": _TYPES[type(default)]}

    def _refuse(self, node: yaml.Node, what: str, missing: str) -> None:
        raise StackproofError(
            f"the value {what}",
            where=f"{self.path}:{node.start_mark.line + 1}",
            todo=f"Give {missing} after {_MARK} in the comment above it.",
        )

    def _value(self, node: yaml.Node) -> Any:
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()

    def _above(self, key: yaml.Node) -> Comment:
        """Return the comment whose lines end directly above a key, indented like it."""
        last = first = key.start_mark.line
        prefix = " " * key.start_mark.column + "#"
        while first > 0 and self.lines[first - 1].startswith(prefix):
            first -= 1
        # In {a: 1, b: 2} only the first line of the mapping has something above it.
        alone = not self.lines[last][: key.start_mark.column].strip()
        return self._comment(self.lines[first:last] if alone else [], first)

    def _comment(self, lines: Sequence[str], first: int) -> Comment:
        text: list[str] = []
        schema: list[str] = []
        for line in (line.strip().removeprefix("#").removeprefix(" ") for line in lines):
            if line.startswith(_MARK):
                schema.append(line.removeprefix(_MARK).strip())
            elif schema and line.startswith("  "):
                schema.append(line)
            else:
                text.append(line.strip())
        annotation = self._annotation("\n".join(schema), first) if schema else {}
        return Comment(" ".join(filter(None, text)), annotation, first + 1)

    def _annotation(self, text: str, first: int) -> Schema:
        where = f"{self.path}:{first + 1}"
        try:
            annotation = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise StackproofError(
                f"what follows {_MARK} is not valid YAML: {error}", where
            ) from None
        if not isinstance(annotation, dict):
            raise StackproofError(f"what follows {_MARK} is not a mapping", where)
        return annotation


def _code(value: object) -> str:
    """Return a value as inline code, as it would stand in a values file."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StackproofError as problem:
        sys.exit(str(problem))
