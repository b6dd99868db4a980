"""Attacks on the backends themselves: what the gateway and the network policies protect from.

Only where a stack is disposable. Most are expected to succeed: Mimir, Loki and Tempo believe the
header. Each row says which of them fall for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stackproof.backends import PROVABLE
from stackproof.backends.facts import TEMPO_CHECKS_TENANTS
from stackproof.errors import StackproofError
from stackproof.model import TENANT_HEADER, Access, Backend, EntryPoint, Signal
from stackproof.stack.local import LocalStack

from .base import ALL, FEW, Attack, AttackRun, Expect, address
from .wire import Address, WireRequest, http1

_NOT_TO_TEMPO = (Signal.METRICS, Signal.LOGS)
_H = TENANT_HEADER
_READS = tuple(api for api in PROVABLE if api.id in FEW)
_STORES: dict[Signal, tuple[Backend, str]] = {
    Signal.METRICS: (Backend.MIMIR, "/otlp/v1/metrics"),
    Signal.LOGS: (Backend.LOKI, "/otlp/v1/logs"),
    Signal.TRACES: (Backend.TEMPO, "/v1/traces"),
}
_BESIDE = "it is past every gateway"


def _otlp(attack_run: AttackRun, backend: Backend) -> Address:
    if backend is not Backend.TEMPO:
        return attack_run.backend(backend)
    stack = attack_run.target.stack
    if not isinstance(stack, LocalStack):
        raise StackproofError("Tempo's OTLP port is known on the local stack only", stack.name)
    return address(stack.process("gateway").env["TEMPO_OTLP_URL"])


def _reads(*lines: str) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        stack = attack_run.target.stack
        straight = Access("backend", {each: stack.backend_url(each) for each in Backend})
        filled = [attack_run.fill(line) for line in lines]
        return (attack_run.request(api, straight, filled) for api in _READS)

    return sends


def _writes(
    *lines: str, signals: Iterable[Signal] = ALL
) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        for signal in signals:
            backend, path = _STORES[signal]
            filled, to = map(attack_run.fill, lines), _otlp(attack_run, backend)
            yield attack_run.write(signal, *filled, path=path, to=to)

    return sends


def _asks(
    *requests: tuple[Backend, str, str], lines: Iterable[str] = (), body: bytes = b""
) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        for backend, method, path in requests:
            sent, filled = body if method != "GET" else None, map(attack_run.fill, lines)
            yield http1(attack_run.backend(backend), method, path, filled, sent)

    return sends


def _row(
    name: str,
    does: str,
    source: str,
    sends: Callable[[AttackRun], Iterable[WireRequest]],
    *,
    expect: Expect = Expect.DOCUMENTED,
    **more: Any,
) -> Attack:
    return Attack(
        name=f"backend-{name}",
        entry_point=EntryPoint.BACKEND,
        does=does,
        source=source,
        expect=expect,
        sends=sends,
        ineffective_because=_BESIDE,
        **more,
    )


_DELETE = "/loki/api/v1/delete?start=1700000000&query=" + "%7Bservice_name%3D%22open-webui%22%7D"
_RULE = b"name: g\nrules: [{record: a, expr: vector(1)}]\n"
_STEALING_RULE = b"name: g\nsource_tenants: [soev]\nrules: [{record: a, expr: up}]\n"

DIRECT: tuple[Attack, ...] = (
    _row(
        "read-without-header",
        "asks the backends without a tenant",
        "multitenancy_enabled and auth_enabled are on",
        _reads(),
        expect=Expect.REFUSED,
    ),
    _row(
        "write-without-header",
        "exports to the backends without a tenant",
        "Tempo answers 503, which exporters send again (observed)",
        _writes(),
        expect=Expect.REFUSED,
        writes=ALL,
    ),
    _row(
        "write-empty-header",
        "exports to Mimir and Loki with an empty header",
        "auth_enabled: the header must name somebody",
        _writes(f"{_H}:", signals=_NOT_TO_TEMPO),
        expect=Expect.REFUSED,
        writes=_NOT_TO_TEMPO,
    ),
    _row(
        "write-empty-header-to-tempo",
        "exports to Tempo with an empty header",
        "it is stored under the tenant '' (observed)",
        _writes(f"{_H}:", signals=(Signal.TRACES,)),
        destroys=True,
        refused_by=TEMPO_CHECKS_TENANTS,
    ),
    _row(
        "read-as-another-tenant",
        "asks the backends with the victim's name in the header",
        "grafana.com/docs: the backends trust whoever reaches them",
        _reads(f"{_H}: {{victim}}"),
    ),
    _row(
        "write-as-another-tenant",
        "exports to the backends with the victim's name in the header",
        "grafana.com/docs: the backends trust whoever reaches them",
        _writes(f"{_H}: {{victim}}"),
        writes=ALL,
    ),
    _row(
        "read-a-list",
        "asks the backends for two tenants at once",
        "tenant federation is on, for the admin",
        _reads(f"{_H}: {{attacker}}|{{victim}}"),
    ),
    _row(
        "read-with-suffix",
        "asks the backends for `victim:x`",
        "Loki 3.7.8 and Mimir 3.0.5 drop what follows the colon",
        _reads(f"{_H}: {{victim}}:x"),
    ),
    _row(
        "write-a-list",
        "exports to Mimir and Loki for two tenants at once",
        "Mimir 503, Loki 400: neither stores it",
        _writes(f"{_H}: {{attacker}}|{{victim}}", signals=_NOT_TO_TEMPO),
        expect=Expect.REFUSED,
        writes=_NOT_TO_TEMPO,
    ),
    _row(
        "write-a-list-to-tempo",
        "exports to Tempo for two tenants at once",
        "it makes a tenant of that name, which nobody can read (observed)",
        _writes(f"{_H}: {{attacker}}|{{victim}}", signals=(Signal.TRACES,)),
        destroys=True,
        refused_by=TEMPO_CHECKS_TENANTS,
    ),
    _row(
        "write-a-bar",
        "exports to Mimir and Loki as `|`",
        "Mimir 3.0.5 and Loki 3.7.8 store it under the tenant ''",
        _writes(f"{_H}: |", signals=_NOT_TO_TEMPO),
    ),
    _row(
        "write-as-fallback-tenant",
        "exports to the backends as `anonymous`",
        "the backends make a tenant of any name",
        _writes(f"{_H}: anonymous"),
    ),
    _row(
        "write-as-internal",
        "exports to Mimir as `__mimir_cluster`",
        "Mimir 3.0.5 takes it, though its documentation reserves it",
        _writes(f"{_H}: __mimir_cluster", signals=(Signal.METRICS,)),
    ),
    _row(
        "write-dots",
        "exports to Mimir and Loki as `..`",
        "CVE-2021-36157",
        _writes(f"{_H}: ..", signals=_NOT_TO_TEMPO),
        expect=Expect.REFUSED,
        writes=_NOT_TO_TEMPO,
    ),
    _row(
        "write-dots-to-tempo",
        "exports to Tempo as `..`, which removes what all tenants have in memory",
        "grafana/tempo#5786: the generator runs RemoveAll on the path",
        _writes(f"{_H}: ..", signals=(Signal.TRACES,)),
        destroys=True,
        refused_by=TEMPO_CHECKS_TENANTS,
    ),
    _row(
        "configurations",
        "reads configurations, metrics and lists of tenants",
        "CVE-2026-28377 and observed: nobody is asked for a tenant",
        _asks(
            (Backend.MIMIR, "GET", "/config"),
            (Backend.MIMIR, "GET", "/ingester/tenants"),
            (Backend.MIMIR, "GET", "/ruler/rule_groups"),
            (Backend.LOKI, "GET", "/config"),
            (Backend.LOKI, "GET", "/metrics"),
            (Backend.TEMPO, "GET", "/status/config"),
            (Backend.TEMPO, "GET", "/status/overrides/soev"),
        ),
    ),
    _row(
        "rules-of-another",
        "sets a rule as the victim, and reads the victim's",
        "the ruler's API takes the tenant from the header",
        _asks(
            (Backend.MIMIR, "POST", "/prometheus/config/v1/rules/n"),
            (Backend.MIMIR, "GET", "/prometheus/config/v1/rules"),
            lines=[f"{_H}: {{victim}}", "Content-Type: application/yaml"],
            body=_RULE,
        ),
    ),
    _row(
        "rule-that-reads-another",
        "sets a rule whose source_tenants name the victim",
        "400 unless ruler.tenant_federation is on",
        _asks(
            (Backend.MIMIR, "POST", "/prometheus/config/v1/rules/n"),
            lines=[f"{_H}: {{attacker}}", "Content-Type: application/yaml"],
            body=_STEALING_RULE,
        ),
        expect=Expect.REFUSED,
    ),
    _row(
        "delete-lists",
        "deletes log lines of two tenants at once",
        "the delete API is for one tenant (observed, Loki)",
        _asks((Backend.LOKI, "POST", _DELETE), lines=[f"{_H}: {{attacker}}|{{victim}}"]),
        expect=Expect.REFUSED,
    ),
    _row(
        "delete-own-by-anothers-selector",
        "deletes its own lines by a selector that the victim's match too",
        "deletion is per tenant (observed, Loki)",
        _asks((Backend.LOKI, "POST", _DELETE), lines=[f"{_H}: {{attacker}}"]),
        expect=Expect.HARMLESS,
    ),
    _row(
        "delete-anothers",
        "deletes the victim's lines and metrics",
        "the delete APIs take the tenant from the header",
        _asks(
            (Backend.LOKI, "POST", _DELETE),
            (Backend.MIMIR, "POST", "/compactor/delete_tenant"),
            lines=[f"{_H}: {{victim}}"],
        ),
        destroys=True,
    ),
    _row(
        "tail-a-list",
        "tails two tenants at once",
        "grafana/loki#9493: the tail is for one tenant",
        lambda attack_run: [
            wire_request
            for api, wire_request in zip(
                _READS, _reads(f"{_H}: {{attacker}}|{{victim}}")(attack_run), strict=True
            )
            if api.stream
        ],
        expect=Expect.REFUSED,
    ),
    _row(
        "flush-and-shutdown",
        "flushes and shuts ingesters down",
        "nobody is asked for a tenant (observed)",
        _asks(
            (Backend.LOKI, "POST", "/flush"),
            (Backend.TEMPO, "POST", "/flush"),
            (Backend.MIMIR, "POST", "/ingester/flush"),
            (Backend.MIMIR, "POST", "/ingester/shutdown"),
        ),
        destroys=True,
    ),
)
