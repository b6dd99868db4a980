"""Attacks on the tenant's own Alloy: whoever sends there is that tenant, whatever it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from stackproof import telemetry
from stackproof.attacks.base import LOOKED_FOR, Attack, Door, Expect, Raid, Scene, basic
from stackproof.attacks.wire import Grpc, Shot, http1
from stackproof.backends import PROVABLE
from stackproof.isolation import question
from stackproof.stack.base import TENANT_HEADER, Signal
from stackproof.telemetry import Emission

_ALL = tuple(Signal)
_ITSELF = "Alloy passes no metadata on: what it sends is the same whatever the gateway believes"
_QUERY = next(api for api in PROVABLE if api.id == LOOKED_FOR[Signal.METRICS])


def _grpc(*metadata: tuple[str, str]) -> Callable[[Raid], Iterator[Shot]]:
    def sends(raid: Raid) -> Iterator[Shot]:
        filled = tuple(
            (name, value.format(victim=raid.victim, attacker=raid.attacker))
            for name, value in metadata
        )
        for signal in Signal:
            request = telemetry.make(raid.forged, signal)
            yield Grpc(raid.alloy_grpc, signal, request, filled)

    return sends


def _http(*lines: str) -> Callable[[Raid], Iterator[Shot]]:
    def sends(raid: Raid) -> Iterator[Shot]:
        filled = [line.format(victim=raid.victim, attacker=raid.attacker) for line in lines]
        for signal in Signal:
            yield raid.write(signal, *filled, path=f"/v1/{signal}", to=raid.alloy)

    return sends


def _claiming(raid: Raid) -> Emission:
    """The forged telemetry, with the victim's name in the resource attribute tenant.id."""
    return replace(raid.forged, tenant=raid.victim)


def _forged_attribute_grpc(raid: Raid) -> Iterator[Shot]:
    for signal in Signal:
        yield Grpc(raid.alloy_grpc, signal, telemetry.make(_claiming(raid), signal))


def _forged_attribute_http(raid: Raid) -> Iterator[Shot]:
    for signal in Signal:
        yield http1(
            raid.alloy,
            "POST",
            f"/v1/{signal}",
            ["Content-Type: application/x-protobuf"],
            telemetry.make(_claiming(raid), signal).SerializeToString(),
        )


def _label_is_own(raid: Raid) -> Iterable[str]:
    """The series carry the attacker's name, not the one that it claimed."""
    scene = raid.scene
    body = scene.client.ask(
        _QUERY, scene.reader(raid.attacker), question(raid.forged)
    ).body.decode()
    if f'"tenant_id":"{raid.victim}"' in body:
        yield f"series say tenant_id={raid.victim}"
    if f'"tenant_id":"{raid.attacker}"' not in body:
        yield f"no series says tenant_id={raid.attacker}, so the absence proves nothing"


def _within_one_batch(raid: Raid) -> Iterable[str]:
    """Attacker and victim export within the same 200 ms, each to its own Alloy."""
    scene = raid.scene
    run = telemetry.new_run()
    sent = {tenant: telemetry.new_emission(tenant, run) for tenant in (raid.attacker, raid.victim)}
    for signal in Signal:
        for tenant, emission in sent.items():
            with telemetry.GrpcSender(scene.stack.otlp_grpc(tenant)) as door:
                door.send(signal, telemetry.make(emission, signal))
    for emission in sent.values():
        scene.wait_for(emission, _ALL)
    yield from _crossed(scene, sent[raid.attacker], raid.victim)
    yield from _crossed(scene, sent[raid.victim], raid.attacker)


def _crossed(scene: Scene, emission: Emission, reader: str) -> Iterator[str]:
    for signal in Signal:
        if scene.shows(reader, emission, signal)[0]:
            yield f"{emission.tenant}'s {signal} went to {reader}"


def _pushes_logs(raid: Raid) -> Iterator[Shot]:
    """Loki's push API, where a collector for pods' logs may listen, naming the victim."""
    lines = [f"{TENANT_HEADER}: {raid.victim}", "Content-Type: application/json"]
    for path in ("/loki/api/v1/push", "/api/v1/push", "/api/v1/metrics/write", "/v1/push"):
        yield http1(raid.alloy, "POST", path, lines, b'{"streams": []}')
    for path in ("/-/reload", "/debug/pprof/cmdline", "/api/v0/web/components", "/metrics"):
        yield http1(raid.alloy, "GET", path)


def _row(
    name: str,
    door: Door,
    does: str,
    sends: Callable[[Raid], Iterable[Shot]],
    *,
    source: str = "an Alloy that passes X-Scope-OrgID on believes every client (observed)",
    expect: Expect = Expect.NEUTRALISED,
    after: Callable[[Raid], Iterable[str]] | None = None,
) -> Attack:
    return Attack(
        name=name,
        door=door,
        does=does,
        source=source,
        expect=expect,
        sends=sends,
        writes=_ALL,
        after=after,
        passes_on_trusting_gateway=_ITSELF,
    )


_META = TENANT_HEADER.lower()

ALLOY: tuple[Attack, ...] = (
    _row(
        "alloy-grpc-another-tenant",
        Door.ALLOY_GRPC,
        "exports with the victim's name in gRPC metadata",
        _grpc((_META, "{victim}")),
    ),
    _row(
        "alloy-grpc-list-of-tenants",
        Door.ALLOY_GRPC,
        "exports with two tenants in gRPC metadata, and each once more",
        _grpc((_META, "{attacker}|{victim}"), (_META, "{victim}"), (_META, "|")),
        source="two values: Alloy takes the export, and never delivers it (observed)",
    ),
    _row(
        "alloy-grpc-empty-tenant",
        Door.ALLOY_GRPC,
        "exports with an empty tenant in gRPC metadata",
        _grpc((_META, "")),
        source="a batch without metadata_keys sends X-Scope-OrgID empty (observed)",
    ),
    _row(
        "alloy-grpc-credential",
        Door.ALLOY_GRPC,
        "exports with the victim's name and a guessed password in gRPC metadata",
        _grpc(("authorization", basic("{victim}", "guess").partition(": ")[2])),
    ),
    _row(
        "alloy-grpc-forged-attribute",
        Door.ALLOY_GRPC,
        "exports with the resource attribute tenant.id of the victim",
        _forged_attribute_grpc,
        source="an attribute of the client's decides nothing",
        after=_label_is_own,
    ),
    _row(
        "alloy-http-another-tenant",
        Door.ALLOY_HTTP,
        "exports with the victim's name in the header",
        _http(f"{TENANT_HEADER}: {{victim}}"),
    ),
    _row(
        "alloy-http-header-twice",
        Door.ALLOY_HTTP,
        "exports with the header twice, in mixed case, and with a list",
        _http(
            f"{TENANT_HEADER}: {{victim}}",
            "x-SCOPE-orgid: {attacker}|{victim}",
            "X_Scope_OrgID: {victim}",
        ),
    ),
    _row(
        "alloy-http-connection",
        Door.ALLOY_HTTP,
        "exports with Connection: X-Scope-OrgID, Authorization",
        _http(f"Connection: close, {TENANT_HEADER}, Authorization"),
        source="RFC 9110 §7.6.1",
    ),
    _row(
        "alloy-http-forged-attribute",
        Door.ALLOY_HTTP,
        "exports with the resource attribute tenant.id of the victim",
        _forged_attribute_http,
        source="an attribute of the client's decides nothing",
        after=_label_is_own,
    ),
    Attack(
        name="alloy-http-other-apis",
        door=Door.ALLOY_HTTP,
        does="looks for other APIs where OTLP is taken: log push, reload, profiles",
        source="loki.source.api lets a header override tenant_id (observed, Alloy 1.19)",
        sends=_pushes_logs,
        passes_on_trusting_gateway=_ITSELF,
    ),
    Attack(
        name="alloy-same-batch",
        door=Door.ALLOY_GRPC,
        does="exports at the same moment as the victim",
        source="open-telemetry/opentelemetry-collector-contrib#29271: one batch, one tenant",
        expect=Expect.HARMLESS,
        sends=lambda _: (),
        after=_within_one_batch,
        passes_on_trusting_gateway="each tenant has an Alloy of its own",
    ),
)
