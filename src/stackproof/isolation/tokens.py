"""Whose tokens are in an answer."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from stackproof.backends.base import Answer, Mark, Question, ReadApi
from stackproof.model import Signal
from stackproof.otlp import synthetic
from stackproof.otlp.synthetic import Emission

from .verdict import Observation

_WINDOW_NS = 300 * 10**9
_AHEAD_NS = 60 * 10**9


Window = tuple[int, int]
"""Start and end of what is asked for, in nanoseconds of the wall clock."""


def window(*emissions: Emission) -> Window:
    """Return a window that now holds all that was sent."""
    # The end lies ahead, for clocks that differ and for what was rounded to full seconds.
    return min(each.sent_ns for each in emissions) - _WINDOW_NS, time.time_ns() + _AHEAD_NS


def question(emission: Emission, within: Window | None = None) -> Question:
    """Return the question for all that the emission's run has sent, and for its own trace."""
    return Question(emission.run, *(within or window(emission)), emission.trace_id)


class Marks:
    """Finds in a body whose tokens (or trace ids) it holds, in time linear in the body."""

    def __init__(self, emissions: Mapping[str, Emission]) -> None:
        self._owners = {
            token.encode("ascii"): (tenant, signal)
            for tenant, emission in emissions.items()
            for signal, token in emission.tokens.items()
        }
        self._traces = {
            emission.trace_id.encode("ascii"): (tenant, Signal.TRACES)
            for tenant, emission in emissions.items()
        }
        self._token = re.compile(synthetic.TOKEN_PATTERN)
        # The lookahead finds an id wherever it starts within a longer run of digits.
        self._trace = re.compile(rb"(?=([0-9a-f]{32}))")

    def find(self, body: bytes, mark: Mark = Mark.TOKEN) -> dict[bytes, tuple[str, Signal]]:
        """Return the marks in `body` that are of this run, each with its owner and signal."""
        found = {
            token: self._owners[token]
            for token in set(self._token.findall(body))
            if token in self._owners
        }
        if mark is Mark.TRACE_ID:
            found |= {
                trace: self._traces[trace]
                for trace in set(self._trace.findall(body))
                if trace in self._traces
            }
        return found


def observe(
    api: ReadApi, reader: str, asked: str, answer: Answer, marks: Marks, *, latency_ms: float = 0.0
) -> Observation:
    """Say what one answer shows: the reader's own token, other tenants' tokens, or nothing."""
    found = marks.find(answer.body, api.mark)
    others = {mark: owner for mark, (owner, _) in found.items() if owner != reader}
    return Observation(
        api=api.id,
        reader=reader,
        asked=asked,
        own=(reader, api.signal) in found.values(),
        others=frozenset(others.values()),
        # An empty answer or a 404 says "nothing here"; a server's error says nothing.
        answered=not answer.error and answer.status in {200, 404},
        request=answer.request,
        answer=excerpt(answer.body, min(others)) if others else answer.describe(),
        elapsed_ms=answer.elapsed_ms,
        latency_ms=latency_ms,
    )


def excerpt(body: bytes, mark: bytes) -> str:
    """Return what stands around a mark in a body."""
    at = body.index(mark)
    begin, end = max(0, at - 120), at + len(mark) + 120
    text = body[begin:end].decode("utf-8", "replace")
    return f"{'… ' if begin else ''}{text}{' …' if end < len(body) else ''}"
