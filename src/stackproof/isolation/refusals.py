"""Whoever may not read is refused: no credential, a wrong one, another tenant's header."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from stackproof.backends.base import Answer, ReadApi
from stackproof.model import Access, Tls

from .observer import CHECKED_TENANTS, Observer
from .scheduler import Task
from .tokens import excerpt
from .verdict import Finding, Violation, ViolationKind

#: The intruder that is tried by every reader on every API.
_EVERYWHERE = "another tenant's header"
_LIST = "a list of tenants"
#: Statuses by which somebody is asked to come again: too slow, too early, too often.
_LATER = {408, 425, 429}


def intruders(reader: Access, other: str) -> dict[str, Access]:
    """Return the ways in which somebody who may not read might try, each with its name."""
    header = reader.tenant_header
    own = {key: value for key, value in reader.headers.items() if key.lower() != header.lower()}
    nobody = replace(reader, auth=None, secrets={}, tls=Tls(reader.tls.ca), headers=own)
    found = {
        "no credential": nobody,
        "no credential but a tenant header": replace(nobody, headers={**own, header: other}),
        _EVERYWHERE: replace(reader, headers={**own, header: other}),
        _LIST: replace(reader, headers={**own, header: f"{reader.name}|{other}"}),
    }
    if reader.auth or reader.secrets:
        wrong = f"wrong-{secrets.token_hex(8)}"
        found["a wrong password"] = replace(
            reader,
            auth=(reader.auth[0], wrong) if reader.auth else None,
            secrets={
                name: f"Bearer {wrong}" if value.startswith("Bearer ") else wrong
                for name, value in reader.secrets.items()
            },
            headers=own,
        )
    return found


def tasks(observer: Observer, apis: Sequence[ReadApi], api: ReadApi) -> Iterator[Task]:
    """Yield the attempts on one API.

    The header is what tells tenants apart: every reader tries it on every API. The other intruders
    take turns, so that each reader tries each of them on some API.
    """
    tenants = observer.tenants
    if observer.stack.unguarded:
        observer.note(f"refusals: not checked, {observer.stack.unguarded}")
        return
    if len(tenants) > CHECKED_TENANTS:
        observer.note(f"refusals: checked for the first {CHECKED_TENANTS} tenants only")
    checked = tenants[:CHECKED_TENANTS]
    turn = apis.index(api)
    for index, tenant in enumerate(checked):
        other = tenants[(index + 1) % len(tenants)]
        for number, (name, access) in enumerate(intruders(observer.readers[tenant], other).items()):
            if name == _EVERYWHERE or (turn + number) % len(checked) == index:
                yield partial(_try, observer, api, Intruder(tenant, other, name, access))


def _try(observer: Observer, api: ReadApi, who: Intruder) -> None:
    answer = observer.ask_once(api, who.access, who.other)
    observer.found(*judged(observer, api, who, answer))


@dataclass(frozen=True, slots=True)
class Intruder:
    """Somebody who may not read: who it is, whose data it asks for, and by what means."""

    tenant: str
    other: str
    means: str
    access: Access


def judged(
    observer: Observer, api: ReadApi, who: Intruder, answer: Answer
) -> tuple[Finding, Violation | None]:
    """Say whether an intruder was refused, and what it was shown where it was not."""
    tenant, name = who.tenant, f"refused: {who.means}"
    shown = observer.marks.find(answer.body, api.mark)
    about = f"{api.id} as {tenant}"
    owners = tuple(sorted({owner for owner, _ in shown.values()}))
    reader = observer.readers[tenant]
    if _refused(answer, who.access, reader) and not shown:
        return Finding(name, about, answer.line), None
    ignorable = observer.stack.may_ignore_headers and who.means in {_EVERYWHERE, _LIST}
    if ignorable and _ignored(answer, api, tenant, owners):
        return Finding(name, about, "the header has no effect"), None
    detail = f"shows {', '.join(owners)}" if owners else answer.describe()
    why = f": anybody may name any tenant in {reader.tenant_header}" if reader.anonymous else ""
    if not shown and api.id not in observer.shown:
        why = f": nothing is proven by that, as no owner has seen its own through {api.id}"
    kind = _kind(answer, shows=bool(shown) or api.id in observer.shown)
    return Finding(name, about, detail, kind), Violation.through(
        api,
        kind,
        tenant,
        owners or [who.other],
        f"{api.id} with {who.means} was answered with {answer.line} instead of 401 or 403{why}",
        answer.request,
        excerpt(answer.body, min(shown)) if shown else answer.describe(),
    )


def _refused(answer: Answer, access: Access, reader: Access) -> bool:
    """Whoever has no certificate does not get through the handshake, or is told so with 400."""
    if reader.tls.cert and not access.tls.cert:
        return "SSL" in answer.error or "certificate" in answer.error or answer.status == 400
    return not answer.error and answer.status in {401, 403}


def _ignored(answer: Answer, api: ReadApi, tenant: str, owners: Sequence[str]) -> bool:
    """Tell whether the reader was shown its own, whatever its header said."""
    if api.pairwise:  # another's trace was asked for
        return not owners and not answer.error and answer.status in {200, 404}
    return tuple(owners) == (tenant,)


def _kind(answer: Answer, *, shows: bool) -> ViolationKind:
    """Say whether somebody was let in. What says nothing, or shows nobody anything, proves nothing.

    Args:
        answer: What an intruder got.
        shows: Whether the API is known to show somebody something.
    """
    status = answer.status or 0
    silent = answer.error or status >= 500 or 300 <= status < 400 or status in _LATER
    return ViolationKind.MISSING if silent or not shows else ViolationKind.NOT_REFUSED
