"""Attacks on the tenant's own Alloy: whoever sends there is that tenant, whatever it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from google.protobuf.message import Message

from stackproof.isolation import question
from stackproof.model import TENANT_HEADER, EntryPoint, Signal
from stackproof.otlp import senders, synthetic
from stackproof.otlp.synthetic import Emission

from .base import ALL, APIS, LOOKED_FOR, Attack, AttackedStack, AttackRun, Expect, basic
from .wire import Grpc, WireRequest, http1

_ITSELF = "Alloy passes no metadata on: what it sends is the same whatever the gateway believes"


def _grpc(
    *metadata: tuple[str, str], claiming: bool = False
) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        filled = tuple((name, attack_run.fill(value)) for name, value in metadata)
        for signal in Signal:
            yield Grpc(attack_run.alloy_grpc, signal, _made(attack_run, signal, claiming), filled)

    return sends


def _http(*lines: str, claiming: bool = False) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        for signal in Signal:
            body = _made(attack_run, signal, claiming).SerializeToString()
            path, filled = f"/v1/{signal}", map(attack_run.fill, lines)
            yield attack_run.write(signal, *filled, path=path, to=attack_run.alloy, body=body)

    return sends


def _made(attack_run: AttackRun, signal: Signal, claiming: bool) -> Message:
    """Return the forged telemetry; `claiming`: the resource attribute tenant.id is the victim's."""
    forged = attack_run.forged
    return synthetic.make(replace(forged, tenant=attack_run.victim) if claiming else forged, signal)


def _label_is_own(attack_run: AttackRun) -> Iterable[str]:
    """The series carry the attacker's name, not the one that it claimed."""
    target = attack_run.target
    api, reader = APIS[LOOKED_FOR[Signal.METRICS]], target.reader(attack_run.attacker)
    body = target.client.ask(api, reader, question(attack_run.forged)).body.decode()
    if f'"tenant_id":"{attack_run.victim}"' in body:
        yield f"series say tenant_id={attack_run.victim}"
    if f'"tenant_id":"{attack_run.attacker}"' not in body:
        yield f"no series says tenant_id={attack_run.attacker}, so the absence proves nothing"


def _within_one_batch(attack_run: AttackRun) -> Iterable[str]:
    """Attacker and victim export within the same 200 ms, each to its own Alloy."""
    target = attack_run.target
    run = synthetic.new_run()
    sent = {
        tenant: synthetic.new_emission(tenant, run)
        for tenant in (attack_run.attacker, attack_run.victim)
    }
    for signal in Signal:
        for tenant, emission in sent.items():
            with senders.GrpcSender(target.stack.otlp_grpc(tenant)) as exporter:
                exporter.send(signal, synthetic.make(emission, signal))
    for emission in sent.values():
        target.wait_for(emission, ALL)
    yield from _crossed(target, sent[attack_run.attacker], attack_run.victim)
    yield from _crossed(target, sent[attack_run.victim], attack_run.attacker)


def _crossed(target: AttackedStack, emission: Emission, reader: str) -> Iterator[str]:
    for signal in Signal:
        if target.shows(reader, emission, signal)[0]:
            yield f"{emission.tenant}'s {signal} went to {reader}"


def _pushes_logs(attack_run: AttackRun) -> Iterator[WireRequest]:
    """Loki's push API, where a collector for pods' logs may listen, naming the victim."""
    lines = [f"{TENANT_HEADER}: {attack_run.victim}", "Content-Type: application/json"]
    for path in ("/loki/api/v1/push", "/api/v1/push", "/api/v1/metrics/write", "/v1/push"):
        yield http1(attack_run.alloy, "POST", path, lines, b'{"streams": []}')
    for path in ("/-/reload", "/debug/pprof/cmdline", "/api/v0/web/components", "/metrics"):
        yield http1(attack_run.alloy, "GET", path)


def _row(
    name: str,
    entry_point: EntryPoint,
    does: str,
    sends: Callable[[AttackRun], Iterable[WireRequest]],
    *,
    source: str = "an Alloy that passes X-Scope-OrgID on believes every client (observed)",
    expect: Expect = Expect.NEUTRALISED,
    after: Callable[[AttackRun], Iterable[str]] | None = None,
) -> Attack:
    return Attack(
        name=name,
        entry_point=entry_point,
        does=does,
        source=source,
        expect=expect,
        sends=sends,
        writes=ALL,
        after=after,
        ineffective_because=_ITSELF,
    )


_META = TENANT_HEADER.lower()

ALLOY: tuple[Attack, ...] = (
    _row(
        "alloy-grpc-another-tenant",
        EntryPoint.ALLOY_GRPC,
        "exports with the victim's name in gRPC metadata",
        _grpc((_META, "{victim}")),
    ),
    _row(
        "alloy-grpc-list-of-tenants",
        EntryPoint.ALLOY_GRPC,
        "exports with two tenants in gRPC metadata, and each once more",
        _grpc((_META, "{attacker}|{victim}"), (_META, "{victim}"), (_META, "|")),
        source="two values: Alloy takes the export, and never delivers it (observed)",
    ),
    _row(
        "alloy-grpc-empty-tenant",
        EntryPoint.ALLOY_GRPC,
        "exports with an empty tenant in gRPC metadata",
        _grpc((_META, "")),
        source="a batch without metadata_keys sends X-Scope-OrgID empty (observed)",
    ),
    _row(
        "alloy-grpc-credential",
        EntryPoint.ALLOY_GRPC,
        "exports with the victim's name and a guessed password in gRPC metadata",
        _grpc(("authorization", basic("{victim}", "guess").partition(": ")[2])),
    ),
    _row(
        "alloy-grpc-forged-attribute",
        EntryPoint.ALLOY_GRPC,
        "exports with the resource attribute tenant.id of the victim",
        _grpc(claiming=True),
        source="an attribute of the client's decides nothing",
        after=_label_is_own,
    ),
    _row(
        "alloy-http-another-tenant",
        EntryPoint.ALLOY_HTTP,
        "exports with the victim's name in the header",
        _http(f"{TENANT_HEADER}: {{victim}}"),
    ),
    _row(
        "alloy-http-header-twice",
        EntryPoint.ALLOY_HTTP,
        "exports with the header twice, in mixed case, and with a list",
        _http(
            f"{TENANT_HEADER}: {{victim}}",
            "x-SCOPE-orgid: {attacker}|{victim}",
            "X_Scope_OrgID: {victim}",
        ),
    ),
    _row(
        "alloy-http-connection",
        EntryPoint.ALLOY_HTTP,
        "exports with Connection: X-Scope-OrgID, Authorization",
        _http(f"Connection: close, {TENANT_HEADER}, Authorization"),
        source="RFC 9110 §7.6.1",
    ),
    _row(
        "alloy-http-forged-attribute",
        EntryPoint.ALLOY_HTTP,
        "exports with the resource attribute tenant.id of the victim",
        _http(claiming=True),
        source="an attribute of the client's decides nothing",
        after=_label_is_own,
    ),
    Attack(
        name="alloy-http-other-apis",
        entry_point=EntryPoint.ALLOY_HTTP,
        does="looks for other APIs where OTLP is taken: log push, reload, profiles",
        source="loki.source.api lets a header override tenant_id (observed, Alloy 1.19)",
        sends=_pushes_logs,
        ineffective_because=_ITSELF,
    ),
    Attack(
        name="alloy-same-batch",
        entry_point=EntryPoint.ALLOY_GRPC,
        does="exports at the same moment as the victim",
        source="open-telemetry/opentelemetry-collector-contrib#29271: one batch, one tenant",
        expect=Expect.HARMLESS,
        after=_within_one_batch,
        ineffective_because="each tenant has an Alloy of its own",
    ),
)
