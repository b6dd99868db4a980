"""Registries of checks, here called rules, which are filled by decorating functions.

A check is a function that yields problems, so that the unit tests, the twins and the mutants all
run the very same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Rule(Generic[Subject]):
    """A rule and the function that finds where it is broken."""

    name: str
    """In kebab case; also the test's id."""
    about: str
    """What holds, in one sentence."""
    find: Callable[[Subject], Iterator[str]]
    """Yields a message for each problem: where, what, and why it matters."""


class Rules(Generic[Subject]):
    """An ordered registry, filled by decorating the functions."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule[Subject]] = {}

    def __iter__(self) -> Iterator[Rule[Subject]]:
        return iter(self._rules.values())

    def __getitem__(self, name: str) -> Rule[Subject]:
        return self._rules[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all rules, in the order in which they were registered."""
        return tuple(self._rules)

    def register(
        self, find: Callable[[Subject], Iterator[str]]
    ) -> Callable[[Subject], Iterator[str]]:
        """Register a function under its own name; its docstring's first line says what holds."""
        name = find.__name__.replace("_", "-")
        about = (find.__doc__ or "").strip().splitlines()[0]
        self._rules[name] = Rule(name, about, find)
        return find
