"""Attacks on the gateway's decision who the tenant is: the tenant header and the credential."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from stackproof.backends.facts import TEMPO_CHECKS_TENANTS
from stackproof.model import TENANT_HEADER, Signal

from .base import ALL, UPGRADE, Attack, AttackRun, Expect, basic
from .wire import Http2, WireRequest

_PASSWORD_FIRST = (
    "a gateway that asks for a password does not believe a wrong one; the tenant header "
    "plays no part"
)
_SPELLING = "no backend takes this spelling for its header: it is another header to them"
_PARSER = "Go's HTTP parser refuses it in every gateway made of Go, before any rule is asked"


def _both(
    name: str,
    does: str,
    source: str,
    lines: Callable[[AttackRun], Iterable[str | bytes]],
    *,
    expect: Expect = Expect.REFUSED,
    fails_because: str = "",
    few: bool = False,
    **of_writing: Any,
) -> Iterator[Attack]:
    """Read and write with these header lines.

    Args:
        name: Follows `read-` and `write-`.
        does: Follows "asks every read API" and "exports".
        source: Where it was seen.
        lines: The header lines.
        expect: What must become of it.
        fails_because: Why a gateway that trusts too much does not fall for it.
        few: Ask one API of each backend, and the tail, instead of all.
        of_writing: Fields of the attack that writes, where it differs.
    """

    def reads(attack_run: AttackRun) -> Iterator[WireRequest]:
        return (attack_run.few if few else attack_run.reads)(*lines(attack_run))

    asks = "asks one API of each backend, and the tail," if few else "asks every read API"
    read = Attack(
        name=f"read-{name}",
        does=f"{asks} {does}",
        source=source,
        expect=expect,
        sends=reads,
        ineffective_because=fails_because,
    )
    yield read
    yield replace(
        read,
        name=f"write-{name}",
        does=f"exports {does}",
        sends=lambda attack_run: attack_run.writes(*lines(attack_run)),
        writes=ALL,
        **of_writing,
    )


def _with_own(*lines: str) -> Callable[[AttackRun], list[str]]:
    """Return the own credential and these header lines, with names put in."""
    return lambda attack_run: [attack_run.own, *map(attack_run.fill, lines)]


def _claim(name: str, value: str, source: str, *, destroys: bool = False) -> Iterator[Attack]:
    """A value of the tenant header: `{victim}` and `{attacker}` stand for their names."""
    return _both(
        f"naming-{name}",
        f"with its own password and {TENANT_HEADER}: {value[:60]}",
        source,
        _with_own(f"{TENANT_HEADER}:{value}"),
        fails_because=_CLAIM_READS.get(name, ""),
        ineffective_because=_CLAIM_WRITES.get(name, ""),
        destroys=destroys,
        refused_by=TEMPO_CHECKS_TENANTS if name in _REFUSED_BY_TEMPO else None,
    )


_NO_NAME = "every backend refuses the name"
_NO_GO = "no server made of Go takes so long a header"
#: Why a gateway that believes the header does not fall for a claim, reading and writing.
_CLAIM_READS = {
    **dict.fromkeys(("dots", "dots-and-another", "path", "percent-encoded"), _NO_NAME),
    **dict.fromkeys(("comma", "comma-and-space", "tab-between", "no-ascii", "over-long"), _NO_NAME),
    "very-long": _NO_GO,
}
_CLAIM_WRITES = {"no-ascii": _NO_NAME, "very-long": _NO_GO}
#: What Mimir and Loki refuse to store, and Tempo in some versions only.
_REFUSED_BY_TEMPO = {
    *("own-and-another", "another-and-own", "empty-member", "pattern-of-names"),
    *("dots", "dots-and-another", "path", "percent-encoded", "over-long"),
    *("comma", "comma-and-space", "tab-between"),
}

_CLAIMS = (
    *_claim(
        "another-tenant", "{victim}", "grafana/loki#16938: the chart's gateway let tenants pass"
    ),
    *_claim("own-and-another", "{attacker}|{victim}", "Mimir, Loki and Tempo federate `a|b`"),
    *_claim("another-and-own", "{victim}|{attacker}", "Mimir, Loki and Tempo federate `a|b`"),
    *_claim("another-suffixed", "{victim}:x", "Loki 3.7.8 drops what follows the colon"),
    *_claim("another-with-metadata", "{victim}:k=v", "Mimir 3.0.5 drops what follows the colon"),
    *_claim("own-suffixed", "{attacker}:x", "Loki 3.7.8 drops what follows the colon"),
    *_claim("empty-member", "{attacker}|", "Mimir 3.0.5 and Loki 3.7.8 read the tenant ''"),
    *_claim("only-a-bar", "|", "Mimir 3.0.5 and Loki 3.7.8 store it under the tenant ''"),
    *_claim("dots", "..", "CVE-2021-36157; grafana/tempo#5786: deletes data", destroys=True),
    *_claim("dots-and-another", "../{victim}", "CVE-2021-36157", destroys=True),
    *_claim("path", "{victim}/..", "CVE-2021-36157", destroys=True),
    *_claim("mimir-internal", "__mimir_cluster", "Mimir 3.0.5 takes it, though it is reserved"),
    *_claim("pattern", ".*", "it is a name and no pattern, to all three", destroys=True),
    *_claim("pattern-of-names", "{victim}|enterprise-.*", "it is a name and no pattern"),
    *_claim("anonymous", "anonymous", "Mimir's tenant where nobody is asked for one"),
    *_claim("fake", "fake", "Loki's tenant where nobody is asked for one"),
    *_claim("single-tenant", "single-tenant", "Tempo's tenant where nobody is asked for one"),
    *_claim("nobody", "nobody-has-this-name", "backends make a tenant of any name"),
    *_claim("upper-case", "{VICTIM}", "tenants are compared byte by byte"),
    *_claim("comma", "{attacker},{victim}", "RFC 9110 §5.3: a list is the same as two headers"),
    *_claim("comma-and-space", "{attacker}, {victim}", "RFC 9110 §5.3"),
    *_claim("tab-between", "{attacker}\t{victim}", "RFC 9110 §5.5: a tab is part of a value"),
    *_claim("padded", " \t{victim}\t ", "RFC 9110 §5.5: the blanks are no part of the value"),
    *_claim("percent-encoded", "%73oev", "a gateway that decodes values would see a tenant"),
    *_claim("no-ascii", "s\xf8ev", "RFC 9110 §5.5: obs-text"),
    *_claim("over-long", "x" * 151, "tenants have at most 150 bytes"),
    *_claim("very-long", "x" * 60_000, "Go takes up to 1 MB of headers"),
)


# --- how the header is spelt ----------------------------------------------------------------------


def _spelt(
    name: str,
    does: str,
    source: str,
    *lines: str,
    expect: Expect = Expect.REFUSED,
    fails_because: str = "",
    any_name: bool = False,
) -> Iterator[Attack]:
    """Read and write with the attacker's own credential and these lines.

    `fails_because` holds for writing as well, unless `any_name`: where Tempo does not look at
    names, a tenant of any name can be written.
    """
    of_writing: dict[str, Any] = {"ineffective_because": "", "refused_by": TEMPO_CHECKS_TENANTS}
    return _both(
        f"with-{name}",
        f"with {does}",
        source,
        _with_own(*lines),
        expect=expect,
        fails_because=fails_because,
        **(of_writing if any_name else {}),
    )


_FIRST_WINS = "Mimir and Loki take the first of two headers (observed)"
_HOP = "RFC 9110 §7.6.1: what Connection names is taken off on the way"
_H = TENANT_HEADER
_SPELLINGS = (
    *_spelt(
        "header-twice",
        "the header twice, the victim's name first",
        _FIRST_WINS,
        f"{_H}: {{victim}}",
        f"{_H}: {{attacker}}",
    ),
    *_spelt(
        "header-twice-own-first",
        "the header twice, the own name first",
        _FIRST_WINS,
        f"{_H}: {{attacker}}",
        f"{_H}: {{victim}}",
        expect=Expect.HARMLESS,
        fails_because="the first of the two is its own, and that is the one that counts",
    ),
    *_spelt(
        "mixed-case-header",
        "the header's name in mixed case",
        "RFC 9110 §5.1: names have no case",
        "x-sCoPe-oRgId: {victim}",
    ),
    *_spelt(
        "underscores",
        "underscores instead of dashes in the header's name",
        "CGI-like gateways take X_Scope_OrgID for X-Scope-OrgID",
        "X_Scope_OrgID: {victim}",
        "X-Scope_OrgID: {victim}",
        "X_Scope-OrgID: {victim}",
        expect=Expect.NEUTRALISED,
        fails_because=_SPELLING,
    ),
    *_spelt(
        "space-before-colon",
        "a space between the header's name and the colon",
        "RFC 9112 §5.1: a way to smuggle a header past a filter",
        f"{_H} : {{victim}}",
        fails_because=_PARSER,
    ),
    *_spelt(
        "folded-line",
        "the victim's name on a folded second line of the header",
        "RFC 9112 §5.2: obs-fold",
        f"{_H}: {{attacker}}\r\n {{victim}}",
        fails_because="unfolded it is one name with a space, which every backend refuses to read",
        any_name=True,
    ),
    *_spelt(
        "null-byte",
        "a NUL byte after the victim's name",
        "RFC 9110 §5.5",
        f"{_H}: {{victim}}\0",
        fails_because=_PARSER,
    ),
    *_spelt(
        "bare-carriage-return",
        "a second header after a carriage return alone",
        "RFC 9112 §2.2: a bare CR ends no line",
        f"X-Other: 1\r{_H}: {{victim}}",
        fails_because=_PARSER,
    ),
    *_spelt(
        "bare-line-feed",
        "the header after a line feed alone",
        "RFC 9112 §2.2: a bare LF may end a line",
        f"X-Other: 1\n{_H}: {{victim}}",
        expect=Expect.HARMLESS,
    ),
    *_spelt(
        "connection-names-the-header",
        "Connection: X-Scope-OrgID, so that a proxy takes off what the gateway sets",
        _HOP,
        f"Connection: close, {_H}",
        expect=Expect.NEUTRALISED,
        fails_because="it names nobody: the gateway's own header stays or the backend refuses",
    ),
    *_spelt(
        "connection-and-another-tenant",
        "Connection: X-Scope-OrgID and the victim's name in it",
        _HOP,
        f"{_H}: {{victim}}",
        f"Connection: close, {_H}",
        fails_because="the header is taken off on the way, and without one every backend refuses",
    ),
    *_spelt(
        "connection-names-the-credential",
        "Connection: Authorization",
        _HOP,
        "Connection: close, Authorization",
        expect=Expect.HARMLESS,
        fails_because="the credential is read before hop-by-hop headers are taken off",
    ),
    *_spelt(
        "other-products-headers",
        "the tenant headers of other products, naming the victim",
        "Cortex, Thanos, VictoriaMetrics and reverse proxies have their own names for it",
        "X-Tenant-ID: {victim}",
        "THANOS-TENANT: {victim}",
        "X-Grafana-Org-Id: {victim}",
        "X-Remote-User: {victim}",
        "X-Forwarded-User: {victim}",
        "X-WEBAUTH-USER: {victim}",
        "Grpc-Metadata-X-Scope-OrgID: {victim}",
        "L5d-Tenant: {victim}",
        "Forwarded: for=127.0.0.1;by={victim}",
        expect=Expect.NEUTRALISED,
        fails_because="no backend knows these headers",
    ),
)


# --- credentials ----------------------------------------------------------------------------------


def _credential(
    name: str,
    does: str,
    lines: Callable[[AttackRun], Iterable[str | bytes]],
    *,
    source: str = "RFC 7617",
    expect: Expect = Expect.REFUSED,
    fails_because: str = _PASSWORD_FIRST,
) -> Iterator[Attack]:
    return _both(name, does, source, lines, expect=expect, fails_because=fails_because, few=True)


def _as_user(user: str) -> Callable[[AttackRun], list[str]]:
    """The attacker's own password under another name."""
    return lambda attack_run: [
        basic(attack_run.fill(user), attack_run.target.password(attack_run.attacker))
    ]


_CREDENTIALS = (
    *_credential("without-credential", "without a credential", lambda _: []),
    *_credential(
        "without-credential-but-header",
        "without a credential, with a tenant header",
        lambda attack_run: [f"{_H}: {attack_run.victim}"],
        source="a tenant by its header alone, as in the backends' own documentation",
        fails_because="",
    ),
    *_credential(
        "with-wrong-password",
        "as the victim with a wrong password",
        lambda attack_run: [basic(attack_run.victim, "wrong"), f"{_H}: {attack_run.victim}"],
        fails_because="",
    ),
    *_credential(
        "with-empty-password",
        "as the victim with an empty password",
        lambda attack_run: [basic(attack_run.victim, "")],
    ),
    *_credential(
        "without-password",
        "as the victim without even a colon",
        lambda attack_run: [basic(attack_run.victim, "").replace("Ojo=", "")],
    ),
    *_credential(
        "as-victim-with-own-password",
        "as the victim with the attacker's password",
        _as_user("{victim}"),
    ),
    *_credential("as-upper-case-user", "under its own name in capitals", _as_user("ENTERPRISE-A")),
    *_credential("as-user-with-space", "under its own name and a space", _as_user("{attacker} ")),
    *_credential("as-user-after-space", "under a space and its own name", _as_user(" {attacker}")),
    *_credential("as-list-of-users", "as `victim|attacker`", _as_user("{victim}|{attacker}")),
    *_credential("as-user-with-suffix", "as `attacker:x`", _as_user("{attacker}:x")),
    *_credential("as-nobody", "as a user without a name", _as_user("")),
    *_credential("as-star", "as the user *", _as_user("*")),
    *_credential("as-dots", "as the user `..`", _as_user("..")),
    *_credential("as-admin", "as admin, with its own password", _as_user("admin")),
    *_credential("as-null", "under its own name and a NUL", _as_user("{attacker}\0")),
    *_credential("as-long-user", "as a user of 60,000 bytes", _as_user("x" * 60_000)),
    *_credential(
        "with-bearer",
        "with its own credential as a bearer's",
        lambda attack_run: [attack_run.own.replace("Basic", "Bearer")],
        source="RFC 6750",
    ),
    *_credential(
        "with-two-credentials",
        "with the victim's wrong credential before its own",
        lambda attack_run: [basic(attack_run.victim, "wrong"), attack_run.own],
        source="RFC 9110 §11.6.2: one Authorization only",
        expect=Expect.HARMLESS,
    ),
    *_credential(
        "with-two-credentials-own-first",
        "with its own credential before the victim's wrong one",
        lambda attack_run: [attack_run.own, basic(attack_run.victim, "wrong")],
        source="RFC 9110 §11.6.2: one Authorization only",
        expect=Expect.NEUTRALISED,
    ),
    *_credential(
        "with-proxy-credential",
        "with the credential where a proxy's belongs",
        lambda attack_run: [attack_run.own.replace("Authorization", "Proxy-Authorization")],
        source="RFC 9110 §11.7.2",
    ),
)


def _credential_in_url(attack_run: AttackRun) -> Iterator[WireRequest]:
    password = attack_run.target.password(attack_run.attacker)
    for wire_request in attack_run.few():
        old = wire_request.data.split(b" ")[1]
        new = f"http://{attack_run.victim}:{password}@gateway".encode() + old
        yield replace(wire_request, data=wire_request.data.replace(old, new, 1))


def _tenant_in_query(attack_run: AttackRun) -> Iterator[WireRequest]:
    victim = attack_run.victim
    extra = f"X-Scope-OrgID={victim}&orgID={victim}&tenant={victim}&".encode()
    for wire_request in attack_run.few(attack_run.own):
        yield replace(wire_request, data=wire_request.data.replace(b"?", b"?" + extra, 1))


# --- the administrator ----------------------------------------------------------------------------

_ADMIN_NAMES = (
    ("nothing", None, "without naming a tenant"),
    ("empty", "", "naming the empty tenant"),
    ("unknown", "nobody-has-this-name", "naming a tenant that is not registered"),
    ("one-unknown", "{victim}|nobody-has-this-name", "naming one that is not registered"),
    ("pattern", "{victim}|enterprise-.*", "naming a pattern"),
    ("star", "*", "naming a star"),
    ("suffix", "{victim}:x", "naming a tenant with a suffix"),
    ("empty-member", "{victim}|", "naming an empty member"),
    ("leading-bar", "|{victim}", "naming an empty first member"),
    ("two-bars", "{victim}||{attacker}", "naming an empty member in the middle"),
    ("dots", "..", "naming `..`"),
    ("fallback-tenant", "anonymous", "naming a fallback tenant"),
    ("newline", "{victim}\n nobody", "with a second, folded line"),
    ("comma", "{victim},{attacker}", "with commas for bars"),
)
_ADMIN_PASSES = {
    "empty": "a backend without a tenant refuses",
    "dots": _NO_NAME,
    "comma": _NO_NAME,
    "newline": _NO_NAME,
}


def _admin_reads(value: str | None) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        named = [] if value is None else [f"{_H}: {attack_run.fill(value)}"]
        return attack_run.few(attack_run.admin, *named)

    return sends


def _admin() -> Iterator[Attack]:
    for name, value, does in _ADMIN_NAMES:
        yield Attack(
            name=f"admin-reads-{name}",
            does=f"asks as admin {does}",
            source="an admin's view must be an explicit list: there is no pattern in any backend",
            sends=_admin_reads(value),
            ineffective_because=_ADMIN_PASSES.get(name, ""),
        )
    yield Attack(
        name="admin-writes",
        does="exports as admin, naming the victim",
        source="the credential of a dashboard must not write",
        sends=lambda attack_run: attack_run.writes(attack_run.admin, f"{_H}: {attack_run.victim}"),
        writes=ALL,
    )
    yield Attack(
        name="admin-writes-to-several",
        does="exports as admin, naming two tenants",
        source="Mimir answers 503 to a federated write, which exporters send again for ever",
        sends=lambda attack_run: attack_run.writes(
            attack_run.admin, f"{_H}: {attack_run.victim}|{attack_run.attacker}"
        ),
        writes=ALL,
        refused_by=TEMPO_CHECKS_TENANTS,
    )


# --- other protocols ------------------------------------------------------------------------------


def http2(
    attack_run: AttackRun, signal: Signal, *headers: tuple[str, str], path: str = ""
) -> Http2:
    """Return an export over HTTP/2 with the attacker's credential and these headers."""
    _, _, credential = attack_run.own.partition(": ")
    return Http2(
        attack_run.gateway,
        (
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "gateway"),
            (":path", path or f"/otlp/v1/{signal}"),
            ("authorization", credential),
            ("content-type", "application/x-protobuf"),
            *headers,
        ),
        attack_run.payload(signal),
    )


def _over_http2(*headers: tuple[str, str]) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        filled = [(attack_run.fill(name), attack_run.fill(value)) for name, value in headers]
        return (http2(attack_run, signal, *filled) for signal in Signal)

    return sends


def _trailers_over_http2(attack_run: AttackRun) -> Iterator[WireRequest]:
    for signal in Signal:
        plain = http2(attack_run, signal, ("trailer", "x-scope-orgid"))
        yield replace(plain, trailers=(("x-scope-orgid", attack_run.victim),))


def _trailers(attack_run: AttackRun) -> Iterator[WireRequest]:
    for signal in Signal:
        body = attack_run.payload(signal)
        trailer = f"{_H}: {attack_run.victim}".encode()
        chunks = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(body), body, trailer)
        lines = (attack_run.own, "Transfer-Encoding: chunked", f"Trailer: {_H}")
        yield attack_run.write(signal, *lines, body=chunks)


def _protocol(
    name: str,
    does: str,
    source: str,
    expect: Expect,
    sends: Callable[[AttackRun], Iterator[WireRequest]],
    fails_because: str = "",
) -> Attack:
    return Attack(
        name=name,
        does=does,
        source=source,
        expect=expect,
        sends=sends,
        writes=ALL,
        ineffective_because=fails_because,
    )


_H2_FRAMES = "Go's HTTP/2 server refuses the frame in every gateway made of Go"
_PROTOCOLS = (
    _protocol(
        "http2-another-tenant",
        "exports over HTTP/2 with the victim's name in the header",
        "RFC 9113: the same header in another framing",
        Expect.REFUSED,
        _over_http2(("x-scope-orgid", "{victim}")),
    ),
    _protocol(
        "http2-header-twice",
        "exports over HTTP/2 with the header twice, its own name first",
        _FIRST_WINS,
        Expect.HARMLESS,
        _over_http2(("x-scope-orgid", "{attacker}"), ("x-scope-orgid", "{victim}")),
        "the first of the two is the attacker's own",
    ),
    _protocol(
        "http2-upper-case-header",
        "exports over HTTP/2 with capitals in the header's name",
        "RFC 9113 §8.2.1: malformed",
        Expect.REFUSED,
        _over_http2(("X-Scope-OrgID", "{victim}")),
        _H2_FRAMES,
    ),
    _protocol(
        "http2-header-in-a-value",
        "exports over HTTP/2 with a line break and the header inside another value",
        "RFC 9113 §8.2.1; HTTP/2 to HTTP/1.1 request splitting",
        Expect.REFUSED,
        _over_http2(("x-other", "1\r\nX-Scope-OrgID: {victim}")),
        _H2_FRAMES,
    ),
    _protocol(
        "http2-header-in-a-name",
        "exports over HTTP/2 with the header inside another name",
        "RFC 9113 §8.2.1; HTTP/2 to HTTP/1.1 request splitting",
        Expect.REFUSED,
        _over_http2(("x-scope-orgid: {victim}\r\nx-other", "1")),
        _H2_FRAMES,
    ),
    _protocol(
        "http2-connection-header",
        "exports over HTTP/2 with Connection: X-Scope-OrgID",
        "RFC 9113 §8.2.2: malformed",
        Expect.HARMLESS,
        _over_http2(("connection", "x-scope-orgid")),
        "it names nobody",
    ),
    _protocol(
        "http2-transfer-encoding",
        "exports over HTTP/2 with Transfer-Encoding: chunked",
        "RFC 9113 §8.2.2; request smuggling by downgrade",
        Expect.HARMLESS,
        _over_http2(("transfer-encoding", "chunked")),
        "it names nobody, and Go's client frames the request anew",
    ),
    _protocol(
        "http2-trailers",
        "exports over HTTP/2 with the victim's name in the trailers",
        "RFC 9110 §6.5: trailers must not be merged into headers",
        Expect.HARMLESS,
        _trailers_over_http2,
        "no backend reads trailers",
    ),
    _protocol(
        "trailers",
        "exports in chunks with the victim's name in the trailers",
        "RFC 9110 §6.5: trailers must not be merged into headers",
        Expect.HARMLESS,
        _trailers,
        "no backend reads trailers",
    ),
)


def _h2c_upgrade(attack_run: AttackRun) -> Iterator[WireRequest]:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    for wire_request in attack_run.few(
        attack_run.own,
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ):
        yield replace(wire_request, data=wire_request.data + preface, linger_s=0.3, frames_s=0.3)


def _websocket_everywhere(attack_run: AttackRun) -> Iterator[WireRequest]:
    # A question for the victim's data as a backend without a gateway would answer it.
    smuggled = next(attack_run.few(f"{_H}: {attack_run.victim}")).data
    for wire_request in attack_run.few(attack_run.own, *UPGRADE):
        yield replace(wire_request, data=wire_request.data + smuggled, linger_s=0.3, frames_s=0.3)


_TUNNELS = (
    Attack(
        name="read-upgrading-to-http2",
        does="asks with Upgrade: h2c, to get a tunnel to the backend past the gateway",
        source="h2c smuggling: a proxy that forwards the upgrade loses sight of what follows",
        expect=Expect.HARMLESS,
        sends=_h2c_upgrade,
        ineffective_because="no backend here agrees to h2c by upgrade",
    ),
    Attack(
        name="read-upgrading-everything",
        does="asks every kind of API as a websocket, with a second request behind it",
        source="websocket smuggling: a proxy that believes in the upgrade tunnels what follows",
        expect=Expect.HARMLESS,
        sends=_websocket_everywhere,
    ),
    Attack(
        name="read-with-credential-in-url",
        does="asks with victim:password@ in an absolute URI, and no header",
        source="RFC 9110 §4.2.4",
        sends=_credential_in_url,
        ineffective_because=_PASSWORD_FIRST,
    ),
    Attack(
        name="read-with-tenant-in-query",
        does="asks with the victim's name in parameters of the query",
        source="a gateway or backend that takes the tenant from there",
        expect=Expect.NEUTRALISED,
        sends=_tenant_in_query,
        ineffective_because="no backend takes the tenant from a parameter",
    ),
)

IDENTITY: tuple[Attack, ...] = (
    *_CLAIMS,
    *_SPELLINGS,
    *_CREDENTIALS,
    *_admin(),
    *_PROTOCOLS,
    *_TUNNELS,
)
