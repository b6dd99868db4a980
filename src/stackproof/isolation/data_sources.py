"""Each of Grafana's data sources shows the tenants that its header names, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stackproof.backends.base import Answer, ReadApi
from stackproof.backends.grafana import DataSource
from stackproof.model import Backend

from .observer import CHECKED_TENANTS, Observer
from .scheduler import Task
from .verdict import Finding, Violation, ViolationKind

#: How often the all-tenants view of range queries is repeated: loki#24310 loses data now and then.
REPEATS = 5


def checkable(observer: Observer) -> bool:
    """Tell whether the sources can be compared: only when all tenants, and not too many, sent."""
    tenants = observer.tenants
    return len(tenants) <= CHECKED_TENANTS and set(tenants) == set(observer.stack.tenants)


def note_left_out(observer: Observer, apis: Sequence[ReadApi]) -> None:
    """Say whose sources are not compared: no API is asked that answers for several tenants."""
    asked = {api.backend for api in apis if api.federated and not api.pairwise}
    left = [backend for backend in Backend if backend not in asked]
    if left:
        observer.note(
            f"Grafana's data sources of {', '.join(left)}: not compared, no read API that answers "
            "for several tenants was asked"
        )


def tasks(observer: Observer, api: ReadApi, sources: Sequence[DataSource]) -> Iterator[Task]:
    """Yield the questions through one API."""
    if api.pairwise or not api.federated:
        return
    if not checkable(observer):
        observer.note(
            "Grafana's data sources: not checked, only with all tenants and at most "
            f"{CHECKED_TENANTS} of them"
        )
        return
    for source in sources:
        if source.backend is api.backend:
            yield _view(observer, api, source)


def _view(observer: Observer, api: ReadApi, source: DataSource) -> Task:
    expected = source.expected(observer.tenants)
    repeats = REPEATS if len(expected) > 1 and "range" in api.id else 1

    def task() -> None:
        answer: Answer | None = None
        shown: frozenset[str] = frozenset()
        for _ in range(repeats):
            answer = observer.ask_once(api, source.access, observer.tenants[0])
            found = observer.marks.find(answer.body, api.mark).values()
            shown = frozenset(owner for owner, _ in found)
            if shown != expected:
                break
        name, about = f"data source {source.uid}", api.id
        if answer is None or shown == expected:
            observer.found(Finding(name, about, f"shows {', '.join(sorted(shown))}"))
            return
        lacks, extra = sorted(expected - shown), sorted(shown - expected)
        detail = "; ".join(
            f"{word} {', '.join(names)}"
            for word, names in (("lacks", lacks), ("shows also", extra))
            if names
        )
        kind = ViolationKind.LEAK if extra else ViolationKind.VIEW
        observer.found(
            Finding(name, about, detail, kind),
            Violation.through(
                api,
                kind,
                f"Grafana {source.uid}",
                extra or lacks,
                f"data source {source.uid} ({source.header!r}) through {api.id} {detail}",
                answer.request,
                answer.describe(),
            ),
        )

    return task
