"""Hypothesis strategies for a chart's values: valid ones, and valid ones with one fault.

Strings follow their pattern in the schema; where there is none they are
plain words and what YAML could take for something else. Objects of which the schema says nothing
but that they are objects keep the settings that the chart's scenarios give them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from stackproof.helm.externals import merged
from stackproof.values.combinations import Choice, Leaf, Space, nested, value_at

#: Strings that YAML reads as something else where a template forgets the quotes.
TREACHEROUS = ("yes", "on", "null", "~", "1", "1e3", "0x1f", "12:30:45", "2026-01-01")
_WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
_PLAIN = st.one_of(st.sampled_from(TREACHEROUS), _WORDS)
_ASCII = st.characters(codec="ascii", exclude_categories=["Cc"])
_NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@dataclass(frozen=True)
class Fault:
    """Values that a chart must refuse, and the key that its message must name."""

    values: Mapping[str, Any]
    key: str
    about: str

    def __str__(self) -> str:
        return f"{self.about}: {json.dumps(self.values)}"


def choices(space: Space, most: int = 8) -> st.SearchStrategy[Choice]:
    """Return a strategy for choices that the schema accepts: up to `most` leaves are changed."""
    place = attrgetter("path")

    @st.composite
    def one(draw: st.DrawFn) -> Choice:
        leaves = draw(st.lists(st.sampled_from(space.leaves), max_size=most, unique_by=place))
        settings = tuple((leaf.path, draw(values(space, leaf))) for leaf in leaves)
        choice = Choice(settings)
        assume(space.accepts(choice))
        return choice

    return one()


def values(space: Space, leaf: Leaf) -> st.SearchStrategy[Any]:
    """Return a strategy for what a leaf may hold."""
    known = next((s.settings for s in space.switches if s.path == leaf.path), ())
    now = value_at(space.defaults, leaf.path)
    # What a pod asks for must not exceed its limit, which no schema can say.
    made = None if {"requests", "limits"} & set(leaf.path) else _of(space, leaf.schema)
    plain = [one for one in (now, *known) if one is not None]
    several = [*([st.sampled_from(plain)] if plain else []), *([made] if made is not None else [])]
    return st.one_of(*several)


def _of(space: Space, node: Mapping[str, Any]) -> st.SearchStrategy[Any] | None:
    """Return a strategy for a schema node, None where the schema says too little."""
    node = space.resolved(node)
    if "anyOf" in node:
        shared = {key: below for key, below in node.items() if key != "anyOf"}
        several = [_of(space, {**shared, **one}) for one in node["anyOf"]]
        return st.one_of(*(one for one in several if one is not None))
    if "const" in node or "enum" in node:
        return st.sampled_from([node["const"]] if "const" in node else list(node["enum"]))
    kind = node.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        least = node.get("minimum", 0)
        return st.integers(least, node.get("maximum", least + 20))
    if kind == "number":
        return st.floats(node.get("minimum", 0.25), node.get("maximum", 100), width=16)
    if kind == "string":
        return _strings(node)
    if kind == "array":
        items = _of(space, node.get("items") or {})
        least = node.get("minItems", 0)
        if items is not None:
            return st.lists(items, min_size=least, max_size=3, unique_by=repr)
    if kind == "object":
        return _maps(space, node)
    return None


def _strings(node: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" in node:
        return st.from_regex(node["pattern"], alphabet=_ASCII)
    return _PLAIN.filter(lambda text: len(text) >= node.get("minLength", 0))


def _maps(space: Space, node: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]] | None:
    if node.get("properties"):
        parts = {key: _of(space, below) for key, below in node["properties"].items()}
        known = {key: part for key, part in parts.items() if part is not None}
        required = {key: known[key] for key in node.get("required") or () if key in known}
        optional = {key: part for key, part in known.items() if key not in required}
        return st.fixed_dictionaries(required, optional=optional)
    for pattern, below in (node.get("patternProperties") or {}).items():
        keys = st.from_regex(pattern, alphabet=_ASCII)
        return st.dictionaries(keys, _some(_of(space, below)), max_size=2)
    more = node.get("additionalProperties")
    if isinstance(more, Mapping):
        return st.dictionaries(_NAMES, _some(_of(space, more)), max_size=2)
    return None


def _some(strategy: st.SearchStrategy[Any] | None) -> st.SearchStrategy[Any]:
    return _PLAIN if strategy is None else strategy


def faults(space: Space) -> st.SearchStrategy[Fault]:
    """Return a strategy for accepted values with one fault in them."""

    @st.composite
    def one(draw: st.DrawFn) -> Fault:
        whole = space.given(draw(choices(space, most=2)))
        leaf = draw(st.sampled_from(space.leaves))
        about = draw(st.sampled_from(("unknown key", "wrong type", "wrong value")))
        # `global` may hold whatever a chart above this one gives to all of its own.
        if about == "unknown key":
            assume(leaf.path[0] != "global")
            unknown = nested((*leaf.path[:-1], "unknownKey"), 1)
            return Fault(merged(whole, unknown), "unknownKey", about)
        wrong = _wrong_type(leaf) if about == "wrong type" else draw(_wrong_values(leaf))
        broken = merged(whole, nested(leaf.path, wrong))
        assume(not space.accepts(Choice(((leaf.path, wrong),))))
        return Fault(broken, leaf.path[-1], about)

    return one()


def _wrong_type(leaf: Leaf) -> Any:
    kinds = leaf.schema.get("type")
    others = {"boolean": "maybe", "integer": "many", "number": ["1"], "string": [1]}
    others |= {"array": "none", "object": "none"}
    first = kinds[0] if isinstance(kinds, list) else kinds
    return others.get(str(first), [[]])


def _wrong_values(leaf: Leaf) -> st.SearchStrategy[Any]:
    node = leaf.schema
    if "minimum" in node:
        return st.integers(node["minimum"] - 1000, node["minimum"] - 1)
    if "pattern" in node or "anyOf" in node:
        return st.sampled_from(["no such thing!", "ä", "a\nb"])
    if "enum" in node:
        return st.just("no-such-choice")
    return st.just({"no": {"such": "thing"}})
