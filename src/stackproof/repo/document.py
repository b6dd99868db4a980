"""A YAML file that people write, checked by a schema: each problem with its line and column."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import yaml

from stackproof.errors import StackproofError
from stackproof.helmyaml import Loader

Step = str | int
Place = tuple[Step, ...]
"""The keys and indices that lead to a value in the file."""


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Something that is wrong in the file, and where (line and column from 1)."""

    line: int
    column: int
    reason: str


class FileError(StackproofError):
    """The file cannot be used as it is."""

    def __init__(self, where: str, problems: Sequence[FileProblem]) -> None:
        super().__init__("\n".join(f"{where}:{p.line}:{p.column}: {p.reason}" for p in problems))
        self.problems = tuple(problems)


class Document:
    """The file as data, with the place of each key and value in it."""

    def __init__(self, text: str) -> None:
        self.problems: list[FileProblem] = []
        self.data: Any = None
        self._marks: dict[Place, yaml.Mark] = {}
        self._keys: dict[Place, yaml.Mark] = {}
        self._loader = Loader("")
        try:
            node = self._compose(text)
        except yaml.MarkedYAMLError as error:
            self._add(error.problem_mark, f"is not valid YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.problems.append(FileProblem(line, 1, f"is not valid YAML: {error.reason}"))
        else:
            self.data = self._value(node, ()) if node else None

    def _compose(self, text: str) -> yaml.Node | None:
        """Return the tree of nodes; aliases are refused, as one may hold itself."""
        for event in yaml.parse(text, Loader=Loader):
            if isinstance(event, yaml.AliasEvent):
                raise _alias(event)
        return yaml.compose(text, Loader=Loader)

    def _value(self, node: yaml.Node, place: Place) -> Any:
        self._marks[place] = node.start_mark
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, n)) for n, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        try:
            value = self._loader.construct_object(node)
        except (yaml.MarkedYAMLError, ValueError, KeyError) as error:
            reason = getattr(error, "problem", None) or error
            self._add(node.start_mark, f"{node.value!r} cannot be read: {reason}")
            return None
        # A date is a string to Helm.
        return value if isinstance(value, str | int | float | None) else node.value

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._add(key_node.start_mark, "a key must be text")
                continue
            key = str(key_node.value)
            if key in found:
                first = self._keys[*place, key].line + 1
                self._add(
                    key_node.start_mark, f"key {key!r} is there twice (first in line {first})"
                )
                continue
            self._keys[*place, key] = key_node.start_mark
            found[key] = self._value(value_node, (*place, key))
        return found

    def add_problem(self, place: Place, reason: str, *, key: bool = False) -> None:
        """Note a problem with the value at `place`, or with its key."""
        # An empty file has no place.
        self._add((self._keys if key else self._marks).get(place), reason)

    def line(self, place: Place) -> int:
        """Return the line of the value at `place`."""
        return self._marks[place].line + 1

    def check(
        self, schema: dict[str, Any], within: Place = (), unquoted: Sequence[str] = ()
    ) -> None:
        """Note whatever a schema does not allow in the value at `within`.

        `unquoted` are keys whose text cannot be put in quotes.
        """
        value: Any = self.data
        for step in within:
            value = value[step]
        for found in jsonschema_rs.validator_for(schema).iter_errors(value):
            rule: Any = schema
            for part in found.schema_path[:-1]:
                rule = rule[part]
            _add_schema_problem(found, rule, self, (*within, *found.instance_path), unquoted)

    def refuse_problems(self, where: str) -> None:
        """Raise with all problems, in the file's order, if there are any."""
        if self.problems:
            raise FileError(where, sorted(self.problems, key=lambda p: (p.line, p.column)))

    def _add(self, mark: yaml.Mark | None, reason: str) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self.problems.append(FileProblem(line, column, reason))


def _alias(event: yaml.AliasEvent) -> yaml.MarkedYAMLError:
    error = yaml.MarkedYAMLError(problem=f"alias *{event.anchor}: write its value out")
    error.problem_mark = event.start_mark  # type: ignore[assignment]  # its stub: not the C one
    return error


def _add_schema_problem(
    error: jsonschema_rs.ValidationError,
    schema: Mapping[str, Any],
    document: Document,
    place: Place,
    unquoted: Sequence[str],
) -> None:
    """Say in words what a keyword of the schema found."""
    found = error.kind.as_dict()
    own = place[-1] if place else "the file"
    name = own if isinstance(own, str) else "an entry"
    why = f" ({schema['description'].rstrip('.')})" if "description" in schema else ""
    value = error.instance
    if schema.get("writeOnly"):  # a secret: no message repeats it
        document.add_problem(place, f"{name} must be {schema['description']}")
        return
    match error.kind.name:
        case "additionalProperties":
            known = list(schema["properties"])
            for key in found["unexpected"]:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                document.add_problem((*place, key), f"unknown key {key!r} ({hint})", key=True)
        case "required":
            document.add_problem(place, f"{name} has no {found['property']!r}")
        case "minProperties" | "maxProperties":
            document.add_problem(
                place, f"{name}: choose one of {', '.join(schema['properties'])}{why}"
            )
        case "not":
            document.add_problem(place, f"{name} {value!r} cannot be used{why}")
        case "maxLength":
            most = found["limit"]
            document.add_problem(place, f"{name} {value!r} is longer than {most} characters{why}")
        case "pattern":
            document.add_problem(place, f"{name} {value!r} does not match {found['pattern']}{why}")
        case "type":
            wanted = " or ".join(found["types"])
            hint = ""
            if wanted == "string" and not isinstance(value, list | dict | None):
                hint = "; choose one that is text" if name in unquoted else "; put it in quotes"
            document.add_problem(place, f"{name} must be of type {wanted}, is {value!r}{hint}")
        case "uniqueItems":
            pass  # told as two tenants with the same name
        case _:
            document.add_problem(place, f"{name}: {error.message}{why}")
