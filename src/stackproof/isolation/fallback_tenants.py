"""Nothing is kept under the names that backends give to a tenant that nobody named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stackproof.backends.base import ReadApi
from stackproof.model import FALLBACK_TENANTS, TENANT_HEADER, Access, Backend

from .observer import Observer
from .scheduler import Task
from .tokens import excerpt
from .verdict import Finding, Violation, ViolationKind

#: The API by which such data is sought in each backend.
_APIS: Mapping[Backend, str] = {
    Backend.TEMPO: "tempo.search-traceql",
    Backend.MIMIR: "mimir.query",
    Backend.LOKI: "loki.query-range",
}


def note_left_out(observer: Observer, apis: Sequence[ReadApi]) -> None:
    """Say which backends are not searched, since the API is not asked by which they are."""
    asked = {api.id for api in apis}
    left = {backend: api for backend, api in _APIS.items() if api not in asked}
    if left:
        observer.note(
            f"fallback tenants: not sought in {', '.join(left)}, without {', '.join(left.values())}"
        )


def tasks(observer: Observer, api: ReadApi) -> Iterator[Task]:
    """Yield the searches through one API."""
    if api.id not in _APIS.values():
        return
    if not observer.stack.disposable:
        observer.note("fallback tenants: not checked, the backends are asked as tenants ask them")
        return
    for fallback in FALLBACK_TENANTS:
        if not fallback and api.backend is Backend.TEMPO:
            observer.note("fallback tenants: Tempo answers no read for the empty tenant")
            continue
        yield _search(observer, api, fallback)


def _direct(observer: Observer, api: ReadApi, tenant: str) -> Access:
    url = observer.stack.backend_url(api.backend)
    # No header names the empty tenant; a list with one empty member does.
    value = tenant or f"stackproof-{observer.run_id}|"
    return Access(f"backend as {tenant!r}", {api.backend: url}, None, {TENANT_HEADER: value})


def _search(observer: Observer, api: ReadApi, fallback: str) -> Task:
    owner = observer.tenants[0]

    def task() -> None:
        # The same way shows the owner's data under the owner's name: it would show it here.
        seen = observer.ask_once(api, _direct(observer, api, owner), owner)
        control = observer.marks.find(seen.body)
        answer = observer.ask_once(api, _direct(observer, api, fallback), owner)
        shown = observer.marks.find(answer.body, api.mark)
        owners = tuple(sorted({each for each, _ in shown.values()}))
        name, about = "fallback tenant", f"{api.backend} as {fallback!r}"
        if shown:
            kind, detail = ViolationKind.FALLBACK, f"holds data of {', '.join(owners)}"
            message = (
                f"{api.backend} keeps {', '.join(owners)}'s {api.signal} under the "
                f"tenant {fallback!r}"
            )
            told = excerpt(answer.body, min(shown))
        elif not control or answer.error or answer.status != 200:
            kind, detail = ViolationKind.MISSING, answer.describe()
            message = f"{api.backend} could not be searched under the tenant {fallback!r}"
            told = answer.describe() if control else f"{owner} itself is not seen either"
        else:
            observer.found(Finding(name, about, "holds nothing of the run"))
            return
        observer.found(
            Finding(name, about, detail, kind),
            Violation.through(
                api, kind, fallback, owners or [owner], message, answer.request, told
            ),
        )

    return task
