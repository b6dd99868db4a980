"""Values that a chart may be given: its switches, all pairs of them and more.

The switches are read off the chart itself: booleans, enums, and whatever may be empty or not, with
the examples that its scenarios (ci/*.yaml) give. What goes together, the schema says: a candidate
that it refuses is set aside and counted. Everything is laid over CHART/ci/stackproof/base.yaml
(else the first scenario), with which each switch can be tried by itself.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from typing import Any

import jsonschema_rs

from stackproof.errors import StackproofError
from stackproof.helm.externals import merged, read_values

Keys = tuple[str, ...]
"""Where a value is: keys from the top."""
Values = Mapping[str, Any]

BASE = Path("ci", "stackproof", "base.yaml")

#: What a string may look like for which nothing else is known; the first that the schema takes.
_EXAMPLES = (
    "example",
    "someone@example.org",
    "http://service.elsewhere.svc:8080",
    "redis://service.elsewhere.svc:6379/0",
    "name.example.org",
    "key=value",
    "36h30m",
    "3Gi",
)
_EMPTY: tuple[Any, ...] = ("", [], {})
_MOST_SETTINGS = 6
_MOST_REPAIRS = 8


@dataclass(frozen=True)
class Switch:
    """A value that changes what is rendered: where it is, and what it may be."""

    path: Keys
    settings: tuple[Any, ...]
    """The first is the base's own."""

    def __str__(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True)
class Leaf:
    """A value and what the schema says of it."""

    path: Keys
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """Some switches, each with a setting: a values file in short."""

    settings: tuple[tuple[Keys, Any], ...]

    @cached_property
    def values(self) -> dict[str, Any]:
        """The settings as values, to be laid over others."""
        top: dict[str, Any] = {}
        for path, setting in self.settings:
            part = top
            for key in path[:-1]:
                part = part.setdefault(key, {})
            part[path[-1]] = setting
        return top

    def __str__(self) -> str:
        return ", ".join(f"{'.'.join(p)}={json.dumps(v)}" for p, v in self.settings) or "the base"


@dataclass(frozen=True)
class Permutations:
    """Choices that the chart's schema accepts, all different."""

    chosen: tuple[Choice, ...]
    pairs: int
    """Pairs of settings of two switches that occur in them."""
    refused: tuple[Choice, ...]
    """Pairs that occur in none, because the schema refuses them even alone."""


def nested(path: Keys, value: Any) -> dict[str, Any]:
    """Return values that hold just this one."""
    return {path[0]: nested(path[1:], value) if path[1:] else value} if path else {}


def scenarios(chart: Path) -> list[Path]:
    """Return a chart's values files for tests: ci/*.yaml, as chart-testing has them."""
    return sorted((chart / "ci").glob("*.yaml"))


def value_at(values: Values, path: Keys) -> Any:
    """Return what stands at a place in values, None where nothing does."""
    part: Any = values
    for key in path:
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


@dataclass(frozen=True)
class Space:
    """The values of a chart.

    Args:
        chart: The chart's folder.
        base: A values file with which the chart renders, None for the defaults alone.
    """

    chart: Path
    base: Path | None = None

    @classmethod
    def of(cls, chart: Path) -> Space:
        """Return a chart's space over its own base, its first scenario, or its defaults."""
        own = chart / BASE
        return cls(chart, own if own.exists() else next(iter(scenarios(chart)), None))

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The chart's values.schema.json; without one, what the defaults are."""
        file = self.chart / "values.schema.json"
        if not file.exists():
            return _implied(read_values(self.chart / "values.yaml"))
        try:
            found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StackproofError(f"is not valid JSON: {error}", where=str(file)) from None
        return found

    @cached_property
    def _validator(self) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator({**self.schema, "$schema": _DRAFT})

    @cached_property
    def base_values(self) -> Values:
        """What every permutation is laid over, as a user would give it."""
        return read_values(self.base) if self.base else {}

    @cached_property
    def defaults(self) -> Values:
        """The chart's own values, with the base over them."""
        return merged(read_values(self.chart / "values.yaml"), self.base_values)

    def given(self, choice: Choice) -> Values:
        """Return what to give the chart: the base with a choice over it."""
        return merged(self.base_values, choice.values)

    def accepts(self, choice: Choice) -> bool:
        """Tell whether the schema takes a choice, laid over the base."""
        return self.is_valid(choice.values)

    def is_valid(self, values: Values) -> bool:
        """Tell whether the schema takes values, laid over the chart's own."""
        return self._validator.is_valid(merged(self.defaults, values))

    def examples(self, leaf: Leaf) -> tuple[Any, ...]:
        """Return some settings of a value other than the one that it has."""
        now = value_at(self.defaults, leaf.path)
        own = [setting for setting in self._settings(leaf) if setting != now]
        if isinstance(now, int) and not isinstance(now, bool):
            own += [one for one in (now + 1, now - 1) if self._takes(leaf.path, one)]
        return tuple(own or [text for text in _EXAMPLES if self._takes(leaf.path, text)][:1])

    # --- Switches -------------------------------------------------------------------------------

    @cached_property
    def switches(self) -> tuple[Switch, ...]:
        """Every switch with at least two settings, in the order of the schema."""
        found = (Switch(leaf.path, self._settings(leaf)) for leaf in self.leaves)
        return tuple(switch for switch in found if len(switch.settings) > 1)

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """Every value that is no map of known keys, with its schema."""
        return tuple(self._below(self.schema, ()))

    def _below(self, node: Mapping[str, Any], path: Keys) -> Iterator[Leaf]:
        node = self.resolved(node)
        properties = node.get("properties")
        if properties:
            for key, below in properties.items():
                yield from self._below(below, (*path, key))
        elif path:
            yield Leaf(path, node)

    def resolved(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a schema node, with what it refers to and what always holds laid in."""
        parts = [node]
        reference = node.get("$ref", "")
        if reference.startswith("#/"):
            target: Any = self.schema
            for key in reference[2:].split("/"):
                target = target[key]
            parts.insert(0, self.resolved(target))
        parts += [self.resolved(one) for one in node.get("allOf") or () if "if" not in one]
        return merged(*parts)

    def _settings(self, leaf: Leaf) -> tuple[Any, ...]:
        """Return what a switch may be: the base's value, the schema's and the scenarios'."""
        now = value_at(self.defaults, leaf.path)
        candidates = [now, *([True, False] if leaf.schema.get("type") == "boolean" else [])]
        candidates += [*(leaf.schema.get("enum") or ()), *self._in_scenarios(leaf.path)]
        if candidates == [""] or candidates == [None]:
            candidates += [text for text in _EXAMPLES if self._takes(leaf.path, text)][:1]
        default = value_at(read_values(self.chart / "values.yaml"), leaf.path)
        needed = self.base == self.chart / BASE and default in _EMPTY and now != default
        if not needed:  # what the chart's own base fills is filled because a switch needs it
            candidates += [empty for empty in _EMPTY if isinstance(now, type(empty))]
        settings: list[Any] = []
        for one in candidates:
            if one is not None and one not in settings and self._takes(leaf.path, one):
                settings.append(one)
        return tuple(settings[:_MOST_SETTINGS])

    def _takes(self, path: Keys, value: Any) -> bool:
        """Tell whether a value is no fault in itself; what goes with what is judged later."""
        return not any(
            tuple(error.instance_path)[: len(path)] == path
            and not {"then", "else"} & set(error.schema_path)
            for error in self._validator.iter_errors(merged(self.defaults, nested(path, value)))
        )

    def _in_scenarios(self, path: Keys) -> Iterator[Any]:
        for scenario in scenarios(self.chart):
            found = value_at(read_values(scenario), path)
            if found is not None:
                yield found

    # --- Choices --------------------------------------------------------------------------------

    def permutations(self, mixed: int, seed: int = 0) -> Permutations:
        """Return the base, each switch by itself, mixtures of all switches, and every pair left.

        Args:
            mixed: How many mixtures: each gives every switch a random setting, as far as the schema
                lets it. A few dozen hold nearly all pairs; more try more of what needs three.
            seed: Of the chance by which they are mixed.
        """
        rows = self.sample(mixed, seed)
        held = self._where(rows)
        missing: list[Choice] = []
        refused: list[Choice] = []
        pairs = 0
        for one, other in self._all_pairs():
            if held[one] & held[other]:
                pairs += 1
                continue
            choice = self._choice(dict((one, other)))
            (missing if self.accepts(choice) else refused).append(choice)
        different = tuple(self._different([*rows, *missing]))
        return Permutations(different, pairs + len(missing), tuple(refused))

    def sample(self, mixed: int, seed: int = 0) -> list[Choice]:
        """Return the base, each switch by itself, and mixtures: most of what permutations do."""
        chance = random.Random(seed)  # noqa: S311 (no secret)
        mixtures = (self._mixture(chance) for _ in range(mixed))
        return [Choice(()), *self._alone(), *mixtures]

    def _alone(self) -> Iterator[Choice]:
        for switch in self.switches:
            for setting in switch.settings[1:]:
                choice = Choice(((switch.path, setting),))
                if self.accepts(choice):
                    yield choice

    def _all_pairs(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        for (i, one), (j, other) in combinations(enumerate(self.switches), 2):
            for a, b in product(range(len(one.settings)), range(len(other.settings))):
                yield (i, a), (j, b)

    def _where(self, rows: Iterable[Choice]) -> Mapping[tuple[int, int], int]:
        """Return in which rows each setting of each switch occurs, as the bits of a number."""
        held = {(i, a): 0 for i, s in enumerate(self.switches) for a in range(len(s.settings))}
        for number, row in enumerate(rows):
            chosen = dict(row.settings)
            for i, switch in enumerate(self.switches):
                a = switch.settings.index(chosen[switch.path]) if switch.path in chosen else 0
                held[i, a] |= 1 << number
        return held

    def _choice(self, row: Mapping[int, int]) -> Choice:
        return Choice(
            tuple((self.switches[i].path, self.switches[i].settings[a]) for i, a in row.items())
        )

    def _mixture(self, chance: random.Random) -> Choice:
        """Return a random setting for each switch; what the schema refuses is left as it was."""
        row = {i: chance.randrange(len(s.settings)) for i, s in enumerate(self.switches)}
        for repair in range(_MOST_REPAIRS):
            choice = self._choice({i: a for i, a in row.items() if a})
            whole = merged(self.defaults, choice.values)
            errors = [tuple(e.instance_path) for e in self._validator.iter_errors(whole)]
            if not errors:
                return choice
            # First what is wrong itself, then what is beside it, and so on upwards.
            wrong = [path[: max(len(path) - repair, 0)] for path in errors]
            for i, switch in enumerate(self.switches):
                if any(_meet(switch.path, path) for path in wrong):
                    row[i] = 0
        return Choice(())

    def _different(self, choices: Iterable[Choice]) -> Iterator[Choice]:
        seen: set[str] = set()
        for choice in choices:
            text = json.dumps(merged(self.defaults, choice.values), sort_keys=True)
            if text not in seen:
                seen.add(text)
                yield choice


def _meet(path: Keys, wrong: tuple[str | int, ...]) -> bool:
    """Tell whether one of two places lies in the other."""
    shared = min(len(path), len(wrong))
    return path[:shared] == wrong[:shared]


_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _implied(values: Any) -> dict[str, Any]:
    """Return the schema that a chart's defaults imply: the types of what they hold."""
    if isinstance(values, bool):
        return {"type": "boolean"}
    if isinstance(values, Mapping) and values:
        return {"properties": {key: _implied(below) for key, below in values.items()}}
    return {}


def smallest(choice: Choice, fails: Callable[[Choice], bool]) -> Choice:
    """Return the fewest settings of a failing choice that still fail: those that are to blame."""
    kept = list(choice.settings)
    size = max(len(kept) // 2, 1)
    while size:
        at = 0
        while at < len(kept):
            less = kept[:at] + kept[at + size :]
            if len(less) < len(kept) and fails(Choice(tuple(less))):
                kept = less
            else:
                at += size
        size //= 2
    return Choice(tuple(kept))
