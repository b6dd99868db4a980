"""Whoever may not read is refused: no credential, a wrong one, another tenant's header."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stackproof.backends.base import Answer, ReadApi
from stackproof.model import TENANT_HEADER, Access

from .observer import CHECKED_TENANTS, Observer
from .scheduler import Task
from .tokens import excerpt
from .verdict import Finding, Violation, ViolationKind

#: The intruder that is tried by every reader on every API.
_EVERYWHERE = "another tenant's header"


def intruders(reader: Access, other: str) -> dict[str, Access]:
    """Return the ways in which somebody who may not read might try, each with its name."""
    name = reader.auth[0] if reader.auth else reader.name
    own = {key: value for key, value in reader.headers.items() if key != TENANT_HEADER}
    return {
        "no credential": replace(reader, auth=None, headers=own),
        "no credential but a tenant header": replace(
            reader, auth=None, headers={**own, TENANT_HEADER: other}
        ),
        "a wrong password": replace(
            reader, auth=(name, f"wrong-{secrets.token_hex(8)}"), headers=own
        ),
        _EVERYWHERE: replace(reader, headers={**own, TENANT_HEADER: other}),
        "a list of tenants": replace(reader, headers={**own, TENANT_HEADER: f"{name}|{other}"}),
    }


def tasks(observer: Observer, apis: Sequence[ReadApi], api: ReadApi) -> Iterator[Task]:
    """Yield the attempts on one API.

    The header is what tells tenants apart: every reader tries it on every API. The other intruders
    take turns, so that each reader tries each of them on some API.
    """
    tenants = observer.tenants
    if observer.stack.gateway_url is None:
        observer.note("refusals: not checked, the deployment has no gateway")
        return
    if len(tenants) > CHECKED_TENANTS:
        observer.note(f"refusals: checked for the first {CHECKED_TENANTS} tenants only")
    checked = tenants[:CHECKED_TENANTS]
    turn = apis.index(api)
    for index, tenant in enumerate(checked):
        other = tenants[(index + 1) % len(tenants)]
        for number, (name, access) in enumerate(intruders(observer.readers[tenant], other).items()):
            if name == _EVERYWHERE or (turn + number) % len(checked) == index:
                yield _attempt(observer, api, tenant, other, name, access)


def _attempt(
    observer: Observer, api: ReadApi, tenant: str, other: str, name: str, access: Access
) -> Task:
    def task() -> None:
        answer = observer.ask_once(api, access, other)
        shown = observer.marks.find(answer.body, api.mark)
        about = f"{api.id} as {tenant}"
        if not answer.error and answer.status in {401, 403} and not shown:
            observer.found(Finding(f"refused: {name}", about, True, f"HTTP {answer.status}"))
            return
        owners = tuple(sorted({owner for owner, _ in shown.values()}))
        detail = f"shows {', '.join(owners)}" if owners else answer.describe()
        got = answer.error or f"HTTP {answer.status}"
        observer.found(
            Finding(f"refused: {name}", about, False, detail),
            Violation(
                kind=_kind(answer),
                api=api.id,
                reader=tenant,
                owners=owners or (other,),
                message=f"{api.id} with {name} was answered with {got} instead of 401 or 403",
                signal=api.signal,
                request=answer.request.line(),
                curl=answer.request.curl(access.auth[0] if access.auth else None),
                answer=excerpt(answer.body, min(shown)) if shown else answer.describe(),
            ),
        )

    return task


def _kind(answer: Answer) -> ViolationKind:
    """Without an answer nothing was let in, but nothing was proven either."""
    silent = answer.error or (answer.status or 0) >= 500
    return ViolationKind.MISSING if silent else ViolationKind.NOT_REFUSED
