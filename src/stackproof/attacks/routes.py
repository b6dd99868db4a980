"""Attacks on the gateway's list of routes: paths, methods, bodies and framing."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from stackproof.backends import PROVABLE
from stackproof.model import TENANT_HEADER, Backend, Signal
from stackproof.otlp.protobuf import field
from stackproof.waiting import until

from .base import ALL, BACKENDS_LIMIT, LOOKED_FOR, Attack, AttackRun, Expect
from .wire import WireAnswer, WireRequest, http1, send

_QUERIES = tuple(api for api in PROVABLE if api.id in LOOKED_FOR.values())


# --- what must not be reachable at all ------------------------------------------------------------


def _closed(
    name: str,
    does: str,
    source: str,
    requests: str,
    body: bytes = b"",
    fails_because: str = "",
    *,
    destroys: bool = False,
) -> Attack:
    """Ask for endpoints of the backends that no tenant has any business with.

    `requests` are `METHOD PATH PATH … METHOD PATH …`; a trusting gateway passes /tempo/… to Tempo,
    /loki/… to Loki, the rest to Mimir.
    """

    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        for lines in ([], [f"{TENANT_HEADER}: {attack_run.attacker}"]):
            method = ""
            for word in requests.split():
                if not word.startswith("/"):
                    method = word
                    continue
                sent = body if method in {"POST", "PUT"} else None
                yield http1(attack_run.gateway, method, word, [attack_run.own, *lines], sent)

    return Attack(
        name=f"reaches-{name}",
        does=f"{does}, with its own password and with the victim's name in the header",
        source=source,
        destroys=destroys,
        ineffective_because=fails_because,
        sends=sends,
    )


_RULES = b"name: g\nrules: [{record: a, expr: vector(1)}]\nsource_tenants: [soev]\n"
_CLOSED = (
    _closed(
        "configuration",
        "reads configurations",
        "CVE-2026-28377: Tempo prints a storage key in /status/config",
        "GET /config /loki/config /tempo/status/config /tempo/status /runtime_config "
        "/config/tenant/v1/limits /api/v1/user_limits",
    ),
    _closed(
        "metrics-of-the-backends",
        "reads the backends' own metrics, which name every tenant",
        "/metrics asks nobody who it is (observed, all three)",
        "GET /metrics /loki/metrics /tempo/metrics",
    ),
    _closed(
        "other-tenants-limits",
        "reads another tenant's overrides",
        "Tempo's /status/overrides/TENANT asks nobody who it is (observed)",
        "GET /tempo/status/overrides /tempo/status/overrides/soev",
    ),
    _closed(
        "lists-of-tenants",
        "lists tenants and their figures",
        "Mimir's admin pages ask nobody who it is (observed)",
        "GET /ingester/tenants /ingester/tsdb/soev /distributor/all_user_stats "
        "/compactor/tenants /store-gateway/tenants /store-gateway/tenant/soev/blocks "
        "/ruler/tenants /api/v1/user_stats",
    ),
    _closed(
        "rings",
        "reads the rings, and forgets a member",
        "ring pages have a form that removes an instance",
        "GET /ingester/ring POST /ingester/ring GET /distributor/ring /compactor/ring /ring "
        "/loki/ring /tempo/ingester/ring /memberlist /services",
    ),
    _closed(
        "flush",
        "flushes what is held in memory",
        "POST /flush answers 204 without a header (observed, Loki)",
        "POST /flush GET /ingester/flush POST /ingester/flush /loki/flush /tempo/flush",
        destroys=True,
    ),
    _closed(
        "shutdown",
        "shuts ingesters down",
        "POST /ingester/shutdown asks nobody who it is",
        "POST /ingester/shutdown GET /ingester/prepare-shutdown "
        "POST /ingester/prepare-shutdown /loki/ingester/shutdown /tempo/shutdown "
        "GET /tempo/shutdown",
        destroys=True,
    ),
    _closed(
        "deletion-of-a-tenant",
        "deletes a tenant's metrics",
        "Mimir's POST /compactor/delete_tenant takes the tenant from the header",
        "POST /compactor/delete_tenant GET /compactor/delete_tenant_status",
        destroys=True,
    ),
    _closed(
        "deletion-of-logs",
        "deletes log lines",
        "Loki's delete API takes the tenant from the header",
        "POST /loki/api/v1/delete?query=%7Bservice_name%3D%22open-webui%22%7D&start=1700000000 "
        "PUT /loki/api/v1/delete?query=%7Bservice_name%3D%22open-webui%22%7D&start=1700000000 "
        "GET /loki/api/v1/delete /loki/api/v1/cache/generation_numbers "
        "POST /prometheus/api/v1/admin/tsdb/delete_series?match[]=up",
        destroys=True,
    ),
    _closed(
        "rules-of-mimir",
        "reads every tenant's rules, and sets one that reads the victim",
        "GET /ruler/rule_groups dumps all rules without a header (observed)",
        "GET /ruler/rule_groups /ruler/ring /prometheus/config/v1/rules "
        "POST /prometheus/config/v1/rules/attack DELETE /prometheus/config/v1/rules/attack "
        "GET /prometheus/api/v1/rules /prometheus/api/v1/alerts /api/v1/alerts "
        "POST /api/v1/alerts",
        _RULES,
    ),
    _closed(
        "rules-of-loki",
        "reads and sets rules of logs, with a traversal",
        "CVE-2026-21726: double-encoded traversal in the rules' namespace",
        "GET /loki/api/v1/rules POST /loki/api/v1/rules/attack "
        "GET /loki/api/v1/rules/%252e%252e%252fsoev /loki/api/v1/rules/%2e%2e%2fsoev/g "
        "/prometheus/api/v1/rules?type=alert /api/prom/rules",
        _RULES,
    ),
    _closed(
        "cardinality",
        "reads label and series counts",
        "the cardinality API is expensive, and off",
        "GET /prometheus/api/v1/cardinality/label_names "
        "/prometheus/api/v1/cardinality/label_values?label_names[]=job "
        "/prometheus/api/v1/cardinality/active_series?selector=%7Bjob!%3D%22%22%7D "
        "/loki/api/v1/patterns?query=%7Bservice_name%3D%22open-webui%22%7D "
        "/tempo/api/metrics/summary?q=%7B%7D&groupBy=name",
    ),
    _closed(
        "formatting",
        "has expressions formatted",
        "1+1+… of 8 KB keeps a core of Mimir 3.0.5 busy for hours, asker or not (observed)",
        "GET /prometheus/api/v1/format_query?query=1%2B1 "
        "POST /prometheus/api/v1/format_query?query=1%2B1 "
        "GET /loki/api/v1/format_query?query=%7Ba%3D%22b%22%7D",
    ),
    _closed(
        "old-push-paths",
        "writes and tails by the paths of older versions",
        "Loki's /api/prom/push, Cortex' /api/prom/push, Influx, Zipkin, Jaeger",
        "POST /api/prom/push GET /api/prom/tail?query=%7Bservice_name%3D%22open-webui%22%7D "
        "/api/prom/query?query=%7Bservice_name%3D%22open-webui%22%7D "
        "POST /api/v1/push/influx/write /v1/traces /v1/logs /api/v2/spans /api/traces "
        "/loki/v1/logs",
        fails_because="no backend serves these paths any more",
    ),
    _closed(
        "profiles",
        "reads the backends' profiles",
        "pprof shows memory, with everybody's data in it",
        "GET /debug/pprof/ /debug/pprof/cmdline /debug/fgprof /loki/debug/pprof/cmdline "
        "/tempo/debug/pprof/cmdline",
    ),
    _closed(
        "log-levels-and-overrides",
        "sets log levels and limits",
        "Tempo's user-configurable overrides, and Loki's log_level",
        "POST /loki/log_level?log_level=debug GET /tempo/api/overrides "
        "POST /tempo/api/overrides DELETE /tempo/api/overrides POST /partition-ring",
    ),
    _closed(
        "gateways-own-api",
        "looks for the gateway's own administration",
        "Caddy's admin API reloads the configuration",
        "GET /config/ POST /load GET /reverse_proxy/upstreams /id/ POST /stop GET /Caddyfile "
        "/etc/gateway-users/soev",
        fails_because="it listens nowhere in any variant (admin off)",
    ),
)


# --- detours --------------------------------------------------------------------------------------


def _every_path(change: Callable[[bytes], bytes]) -> Callable[[AttackRun], Iterator[WireRequest]]:
    """Send the whole list of reads and writes with changed paths, as the attacker."""

    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        for wire_request in (*attack_run.reads(attack_run.own), *attack_run.writes(attack_run.own)):
            path = wire_request.data.split(b" ")[1].partition(b"?")[0]
            yield replace(wire_request, data=wire_request.data.replace(path, change(path), 1))

    return sends


def _last_slash(path: bytes, new: bytes) -> bytes:
    head, _, tail = path.rpartition(b"/")
    return head + new + tail


_NO_PATH = "no backend serves the changed path, or it is but another spelling of an allowed one"
#: What a gateway that matches prefixes and cleans paths lets through to the same API.
_CLEANED = {
    *("double-slash", "inner-double-slash", "dot", "dots"),
    *("encoded-slash", "encoded-letter", "trailing-dots"),
}


def _detour(
    name: str, does: str, change: Callable[[bytes], bytes], expect: Expect = Expect.REFUSED
) -> Attack:
    return Attack(
        name=f"detour-{name}",
        does=f"asks and exports everything by a detour: {does}",
        source="path confusion between a proxy and what is behind it",
        expect=expect,
        sends=_every_path(change),
        writes=ALL,
        ineffective_because="" if name in _CLEANED else _NO_PATH,
    )


_DETOURS = (
    _detour("double-slash", "//prometheus/…", lambda path: b"/" + path),
    _detour("inner-double-slash", "…/api//v1/…", lambda path: _last_slash(path, b"//")),
    _detour("dot", "/./prometheus/…", lambda path: b"/." + path),
    _detour("dots", "/x/../prometheus/…", lambda path: b"/x/.." + path),
    _detour("encoded-dots", "/x/%2e%2e/prometheus/…", lambda path: b"/x/%2e%2e" + path),
    _detour("twice-encoded", "/x/%252e%252e/…", lambda path: b"/x/%252e%252e" + path),
    _detour("encoded-slash", "…/v1%2fquery", lambda path: _last_slash(path, b"%2f")),
    _detour("encoded-letter", "/%70rometheus/…", lambda path: b"/%%%02x" % path[1] + path[2:]),
    _detour("backslash", "/prometheus\\api\\…", lambda path: b"/" + path[1:].replace(b"/", b"\\")),
    _detour("semicolon", "/prometheus/…/query;x", lambda path: path + b";x"),
    _detour("encoded-semicolon", "…/query%3bx", lambda path: path + b"%3bx"),
    _detour("trailing-slash", "…/query/", lambda path: path + b"/"),
    _detour("trailing-dots", "…/query/x/..", lambda path: path + b"/x/.."),
    _detour("capitals", "/PROMETHEUS/…", lambda path: path.upper()),
    _detour("null", "…/query%00", lambda path: path + b"%00"),
    _detour("line-break", "…/query%0d%0aX-Scope-OrgID:%20soev", lambda path: path + b"%0d%0aX:y"),
    _detour("encoded-question-mark", "…/query%3f", lambda path: path + b"%3f"),
    _detour("fragment", "…/query#x", lambda path: path + b"#x", Expect.HARMLESS),
    _detour("prefix", "/x/prometheus/…", lambda path: b"/x" + path),
    _detour("suffix", "…/queryx", lambda path: path + b"x"),
    _detour(
        "absolute-uri",
        "http://gateway/prometheus/…",
        lambda path: b"http://gateway" + path,
        Expect.HARMLESS,
    ),
    _detour(
        "absolute-uri-of-a-backend",
        "http://mimir:9009/prometheus/… as to a proxy",
        lambda path: b"http://mimir:9009" + path,
        Expect.HARMLESS,
    ),
    _detour("no-leading-slash", "prometheus/…", lambda path: path[1:]),
)


#: From a path that is allowed to one that is not.
_CLIMBS = (
    "/loki/api/v1/query/../delete",
    "/loki/api/v1/label/../../../../flush",
    "/loki/api/v1/label/x/values/../../../delete",
    "/loki/api/v1/label/%2e%2e/values",
    "/loki/api/v1/detected_field/..%2f..%2fdelete/values",
    "/prometheus/api/v1/label/x%2f..%2f..%2f/values",
    "/prometheus/api/v1/label/../../../../config/values",
    "/prometheus/../config",
    "/prometheus/..%2fconfig",
    "/prometheus%2f..%2fconfig",
    "/tempo/api/traces/../../status/config",
    "/tempo/api/traces/%2e%2e/%2e%2e/status/config",
    "/tempo/api/search/tag/..%2f..%2f..%2fstatus%2fconfig/values",
    "/tempo/../loki/api/v1/delete",
    "/tempo/..;/status/config",
    "/tempo//status/config",
    "/tempo/status/config#/api/echo",
    "/tempo/status/config?/tempo/api/echo",
    "/otlp/../flush",
    "/-/ready/../config",
)


def _climbs(attack_run: AttackRun) -> Iterator[WireRequest]:
    return (
        http1(attack_run.gateway, method, path, [attack_run.own], b"" if method == "POST" else None)
        for path in _CLIMBS
        for method in ("GET", "POST")
    )


# --- methods --------------------------------------------------------------------------------------

_METHODS = ("PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get")


def _wrong_methods(attack_run: AttackRun) -> Iterator[WireRequest]:
    for method in (*_METHODS, "POST"):
        for api in _QUERIES:
            if method == "POST" and api.backend is not Backend.TEMPO:
                continue  # the other two take questions by POST as well
            wire_request = attack_run.read(api, attack_run.own)
            yield replace(wire_request, data=wire_request.data.replace(b"GET", method.encode(), 1))


def _wrong_write_methods(attack_run: AttackRun) -> Iterator[WireRequest]:
    for method in (*_METHODS, "GET"):
        for wire_request in attack_run.writes(attack_run.own):
            yield replace(wire_request, data=wire_request.data.replace(b"POST", method.encode(), 1))


_OVERRIDES = (
    "X-HTTP-Method-Override: DELETE",
    "X-HTTP-Method: DELETE",
    "X-Method-Override: DELETE",
    "X-Original-Method: DELETE",
)
_REWRITES = (
    "X-Original-URL: {path}",
    "X-Rewrite-URL: {path}",
    "X-Original-URI: {path}",
    "X-Forwarded-Uri: {path}",
    "X-Forwarded-Path: {path}",
    "X-Forwarded-Prefix: /../..",
    "X-Forwarded-Host: mimir:9009",
    "X-Forwarded-For: 127.0.0.1",
    "X-Real-IP: 127.0.0.1",
    "X-Custom-IP-Authorization: 127.0.0.1",
)


def _rewritten(attack_run: AttackRun) -> Iterator[WireRequest]:
    for path in ("/flush", "/config", "/loki/api/v1/delete"):
        yield from attack_run.few(attack_run.own, *(line.format(path=path) for line in _REWRITES))


# --- bodies and framing ---------------------------------------------------------------------------

_END = b"0\r\n\r\n"


def _padded(attack_run: AttackRun, signal: Signal, size: int) -> bytes:
    """The forged telemetry, then a field that no OTLP message has, to the wanted size."""
    payload = attack_run.payload(signal)
    # Protobuf keeps what it does not know; 6 bytes are the field's number and length.
    return payload + field(2047, bytes(size - len(payload) - 6))


def _oversize(
    mebibytes: int, *lines: str, encode: Callable[[bytes], bytes] = bytes
) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        for signal in Signal:
            body = encode(_padded(attack_run, signal, mebibytes << 20))
            yield attack_run.write(signal, attack_run.own, *lines, body=body)

    return sends


def _in_chunks(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n%s" % (len(body), body, _END)


def _smuggled(
    name: str,
    does: str,
    *lines: str,
    body: Callable[[bytes], bytes] = bytes,
    fails_because: str = "Go's parser takes it for one request, or refuses it",
) -> Attack:
    """Export with contradicting framing, so that a part of the body is another request to some.

    That is a question as a backend would answer it, naming the victim. `{length}` in a line is that
    of the body, `{part}` a shorter one. `fails_because` says why a gateway that believes headers
    answers only one.
    """

    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        named = f"{TENANT_HEADER}: {attack_run.victim}"
        data = body(b"".join(attack_run.read(api, named).data for api in _QUERIES))
        filled = [line.format(length=len(data), part=4) for line in lines]
        for path in ("/otlp/v1/metrics", "/otlp/v1/logs", "/otlp/v1/traces"):
            yield http1(
                attack_run.gateway,
                "POST",
                path,
                [attack_run.own, "Content-Type: application/x-protobuf", *filled],
                data,
                linger_s=0.3,
            )

    return Attack(
        name=f"smuggle-{name}",
        does=f"hides a question about the victim behind {does}",
        source="RFC 9112 §11.2: request smuggling",
        expect=Expect.HARMLESS,
        sends=sends,
        ineffective_because=fails_because,
    )


_CHUNKED = "Transfer-Encoding: chunked"
_SMUGGLING = (
    _smuggled(
        "length-and-chunks",
        "Content-Length and Transfer-Encoding: chunked (CL.TE)",
        "Content-Length: {length}",
        _CHUNKED,
        body=lambda smuggled: _END + smuggled,
        fails_because="",
    ),
    _smuggled(
        "chunks-and-short-length",
        "Transfer-Encoding: chunked and a short Content-Length (TE.CL)",
        _CHUNKED,
        "Content-Length: {part}",
        body=_in_chunks,
    ),
    _smuggled(
        "strange-encoding",
        "a Transfer-Encoding that is not quite chunked (TE.TE)",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:\tchunked",
        "Content-Length: {part}",
        body=lambda smuggled: _END + smuggled,
    ),
    _smuggled(
        "two-lengths",
        "two different Content-Lengths (CL.CL)",
        "Content-Length: 0",
        "Content-Length: {length}",
    ),
    _smuggled("signed-length", "a Content-Length with a sign", "Content-Length: +{length}"),
    _smuggled(
        "zero-length",
        "a Content-Length of 0 and a second request behind it (no trick: it is on its own)",
        "Content-Length: 0",
        fails_because="",
    ),
    _smuggled(
        "chunk-extension",
        "a chunk whose size is followed by an extension with a line feed alone",
        _CHUNKED,
        body=lambda smuggled: b"1;x=\n" + b"a\r\n" + _END + smuggled,
    ),
    _smuggled(
        "long-chunk-size",
        "a chunk size of more than 64 bits",
        _CHUNKED,
        body=lambda smuggled: b"1" + b"0" * 16 + b"\r\n" + _END + smuggled,
    ),
    _smuggled(
        "expectation",
        "Expect: 100-continue, and the body at once",
        "Expect: 100-continue",
        "Content-Length: {length}",
    ),
)


def _slow(attack_run: AttackRun) -> Iterable[str]:
    """With 200 half requests open, somebody else is still answered."""
    half = b"POST /otlp/v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"
    with ExitStack() as held:
        for _ in range(200):
            held.enter_context(socket.create_connection(attack_run.gateway)).sendall(half)
        for wire_request in attack_run.few(attack_run.own):
            answer = until(partial(send, wire_request), _is_answer, within_s=_ANSWERED_S)
            if not _is_answer(answer):
                yield f"others are not answered within {_ANSWERED_S:.0f} s: {answer.describe()}"


#: A busy machine is slow as well; a server whose connections are all taken never answers. [s]
_ANSWERED_S = 30.0


def _is_answer(answer: WireAnswer) -> bool:
    return bool(answer.statuses) and answer.statuses[0] < 500


ROUTES: tuple[Attack, ...] = (
    *_CLOSED,
    *_DETOURS,
    Attack(
        name="climbs-from-allowed-paths",
        does="goes from an allowed path to another by dots, encoded or not",
        source="CVE-2026-27880, CVE-2026-22641: slashes past a proxy's rules",
        sends=_climbs,
    ),
    Attack(
        name="wrong-methods",
        does="asks with methods that no question needs",
        source="RFC 9110 §9",
        sends=_wrong_methods,
        ineffective_because="the backends refuse these methods themselves",
    ),
    Attack(
        name="wrong-methods-writing",
        does="exports with methods that no export needs",
        source="RFC 9110 §9",
        sends=_wrong_write_methods,
        writes=ALL,
        ineffective_because="the backends refuse these methods themselves",
    ),
    Attack(
        name="method-override",
        does="exports with headers that make DELETE of POST",
        source="X-HTTP-Method-Override and its kin",
        expect=Expect.NEUTRALISED,
        sends=lambda attack_run: attack_run.writes(attack_run.own, *_OVERRIDES),
        writes=ALL,
        ineffective_because="no backend knows these headers",
    ),
    Attack(
        name="rewritten-url",
        does="asks with headers that name another URL, host or client",
        source="CVE-2018-14773: X-Original-URL",
        expect=Expect.NEUTRALISED,
        sends=_rewritten,
        ineffective_because="no backend knows these headers",
    ),
    Attack(
        name="oversize-body",
        does="exports 17 MiB with each signal",
        source="what a gateway does not bound, a backend buffers",
        sends=_oversize(17),
        writes=ALL,
        ineffective_because=BACKENDS_LIMIT,
    ),
    Attack(
        name="oversize-body-in-chunks",
        does="exports 17 MiB with each signal, without saying so beforehand",
        source="a limit that looks at Content-Length only",
        sends=_oversize(17, "Transfer-Encoding: chunked", encode=_in_chunks),
        writes=ALL,
        ineffective_because=BACKENDS_LIMIT,
    ),
    Attack(
        name="compressed-bomb",
        does="exports 64 MiB, compressed to a few hundred KiB",
        source="a limit on the compressed size only",
        expect=Expect.HARMLESS,
        sends=_oversize(
            64, "Content-Encoding: gzip", encode=partial(gzip.compress, compresslevel=1)
        ),
        writes=ALL,
        ineffective_because="the backends bound what they decompress",
    ),
    *_SMUGGLING,
    Attack(
        name="half-requests",
        does="holds 200 connections with half a request each",
        source="slowloris",
        expect=Expect.HARMLESS,
        after=_slow,
        ineffective_because="a connection costs Go a goroutine, whatever it believes",
    ),
)
