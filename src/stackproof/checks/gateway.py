"""The gateway's Caddyfile: who a request comes from, before what it asks for, and where it goes.

That Caddy does what is read off here is proven by asking it (tests/e2e: refusals, fuzz).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import Template

from stackproof.backends import READ_APIS
from stackproof.model import STACK_TENANT, Backend
from stackproof.otlp.senders import basic_auth

from .alloy import DIRECT, SIGNALS


@dataclass(frozen=True)
class Route:
    """A route of the Caddyfile."""

    methods: frozenset[str]
    path: re.Pattern[str]
    write: bool
    """Not for the administrator."""
    strip: str
    upstream: str


_ROUTE = re.compile(
    r"@(?P<name>[\w-]+) \{\s*method (?P<methods>[A-Z ]+?)\s*"
    r"vars_regexp \{http\.request\.uri\} \^\((?P<path>.*)\)\(\[\?\]\|\$\)\s*"
    r"(?P<write>not vars \{http\.auth\.user\.id\} admin\s*)?\}\s*"
    r"handle @(?P=name) \{\s*(?:uri strip_prefix (?P<strip>\S+)\s*)?"
    r"import backend \{\$(?P<upstream>\w+)\}\s*\}"
)


def routes(caddyfile: str) -> list[Route]:
    """Return the gateway's routes, in their order."""
    return [
        Route(
            frozenset(one["methods"].split()),
            re.compile(one["path"]),
            bool(one["write"]),
            one["strip"] or "",
            one["upstream"],
        )
        for one in _ROUTE.finditer(caddyfile)
    ]


@dataclass(frozen=True)
class Wanted:
    """A request that must pass: to which backend, under which path there, by an admin too."""

    method: str
    path: str
    upstream: str
    behind: str
    admin: bool


#: Path of a backend behind the gateway, and of its API behind that (docs/facts.md).
_PREFIX = {Backend.MIMIR: "/prometheus", Backend.LOKI: "", Backend.TEMPO: "/tempo"}
_OWN = {Backend.MIMIR: "/prometheus", Backend.LOKI: "", Backend.TEMPO: ""}
_PLACES = {"trace_id": "0af7651916cd43dd8448eb211c80319c"}


def wanted() -> Iterator[Wanted]:
    """Yield what Alloy sends, and every read API that this suite, or Grafana, asks."""
    for signal in SIGNALS:
        upstream, behind = DIRECT[signal]
        upstream = "TEMPO_OTLP_URL" if signal == "traces" else upstream
        yield Wanted("POST", f"/otlp/v1/{signal}", upstream, behind, admin=False)
    yield Wanted("POST", DIRECT["pod logs"][1], *DIRECT["pod logs"], admin=False)
    yield Wanted("POST", "/api/v1/push", "MIMIR_URL", "/api/v1/push", admin=False)
    for api in READ_APIS:
        if api.excluded.startswith("not passed"):
            continue
        path = Template(api.path).substitute(_PLACES)
        yield Wanted(
            api.method,
            f"{_PREFIX[api.backend]}{path}",
            f"{api.backend.name}_URL",
            f"{_OWN[api.backend]}{path}",
            admin=True,
        )


#: What nobody may send: reads of every tenant, changes, and writes by another method
#: (docs/facts.md, "Endpoints without authentication").
REFUSED = (
    ("GET", "/config"),
    ("GET", "/metrics"),
    ("GET", "/ingester/tenants"),
    ("GET", "/distributor/all_user_stats"),
    ("GET", "/ruler/rule_groups"),
    ("GET", "/status/config"),
    ("POST", "/ingester/shutdown"),
    ("POST", "/ingester/flush"),
    ("POST", "/flush"),
    ("POST", "/compactor/delete_tenant"),
    ("POST", "/loki/api/v1/delete"),
    ("POST", "/prometheus/config/v1/rules/x"),
    ("POST", "/otlp/v1/metrics/../../ruler/delete_tenant"),
    *(("GET", one.path) for one in wanted() if not one.admin),
    ("DELETE", "/loki/api/v1/query"),
    ("POST", "/tempo/api/search"),
)


def misrouted(caddyfile: str) -> Iterator[str]:
    """Yield the requests that do not get where they must, or get where they must not."""
    known = routes(caddyfile)
    for one in wanted():
        found = _first(known, one.method, one.path)
        asked = f"Caddyfile: {one.method} {one.path}"
        if found is None:
            yield f"{asked} is let through by no route"
        elif (found.upstream, one.path.removeprefix(found.strip)) != (one.upstream, one.behind):
            yield f"{asked} goes to {found.upstream}, not {one.upstream}{one.behind}"
        elif found.write is one.admin:
            yield f"{asked} {'is not' if one.admin else 'is'} for the administrator"
    for method, path in REFUSED:
        if _first(known, method, path):
            yield f"Caddyfile: {method} {path} is let through"
    if len(known) != caddyfile.count("handle @"):
        yield "Caddyfile: a route has another shape than the others"


def _first(known: Sequence[Route], method: str, path: str) -> Route | None:
    return next((r for r in known if method in r.methods and r.path.fullmatch(path)), None)


def unknown(caddyfile: str, tenants: Sequence[str]) -> Iterator[str]:
    """Yield where the administrator may name other tenants than those that exist."""
    names = "|".join(tenants)
    if f"^({names})([|]({names}))*$" not in caddyfile:
        yield "Caddyfile: the administrator's tenants are not exactly the registry's"


def dropped(caddyfile: str) -> Iterator[str]:
    """Yield writes that get no 503 while a password is rotated, and reads that would get one."""
    early = re.search(r"@early \{.*?\^\((.*?)\)\(\[\?\]", caddyfile, re.DOTALL)
    kept = re.compile(early[1] if early else "(?!)")
    for one in wanted():
        if not one.admin and not kept.fullmatch(one.path):
            yield f"Caddyfile: {one.method} {one.path} is dropped while a password is rotated"
        if one.admin and kept.fullmatch(one.path):
            yield f"Caddyfile: {one.method} {one.path} is asked again with a wrong password"


_KNOWN = re.compile(r'^\s*"~(\^\(\?i:basic\) \S+)" (\S+)$', re.MULTILINE)


def mistaken(caddyfile: str, tenants: Sequence[str]) -> Iterator[str]:
    """Yield accounts that their credential does not identify, and names that are taken for one."""
    known = {name: re.compile(begins) for begins, name in _KNOWN.findall(caddyfile)}
    accounts = {*tenants, "admin"} - {STACK_TENANT}
    for name in sorted(accounts ^ known.keys()):
        yield f"Caddyfile: {name} is no account, or its credential is not known"
    for name, begins in known.items():
        for password in ("", "x", "\x00secret", "zzzzzz"):
            if not begins.match(basic_auth((name, password))["Authorization"]):
                yield f"Caddyfile: {name} is not asked for the password"
        for other in (f"{name}x", name[:-1], f"x{name}", STACK_TENANT, *(accounts - {name})):
            if begins.match(basic_auth((other, "x"))["Authorization"]):
                yield f"Caddyfile: {other} is taken for {name}"
