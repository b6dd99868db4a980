"""What the gateway lets through, whatever it is sent: the authenticated tenant's, on listed paths.

The real Caddy runs from the rendered bytes; in place of the backends stands a recorder. A request
carries a number of its own, so that what was recorded is judged by the request that it came from,
and what carries no number was smuggled. The recorder has the last word: no answer is believed.
"""

from __future__ import annotations

import base64
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stackproof.attacks.wire import Http2, Wire, send
from stackproof.backends.base import poll
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import containers
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.pod import Pod, ServicePort
from stackproof.stack.ports import PortLeases
from stackproof.stack.process import Process
from stackproof.toolchain import programs

pytestmark = pytest.mark.xdist_group("fuzz")

#: Requests of one example, and examples: together at least `REQUESTS`.
BATCH, EXAMPLES, REQUESTS = 25, 220, 5000

TENANTS = tuple(load_registry(Checkout.find()).names)
USERS = (*TENANTS, "admin")
PASSWORDS = {user: f"{user}'s pass:word/%" for user in USERS}
UPSTREAMS = {
    "MIMIR_URL": ServicePort("observability", "mimir", 9009),
    "LOKI_URL": ServicePort("observability", "loki", 3100),
    "TEMPO_URL": ServicePort("observability", "tempo", 3200),
    "TEMPO_OTLP_URL": ServicePort("observability", "tempo", 4318),
}
ROUTES: list[dict[str, Any]] = yaml.safe_load(
    (Checkout.find().charts / "lgtm" / "files" / "gateway-routes.yaml").read_text()
)


# --- the recorder ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A request as a backend would see it."""

    upstream: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each.lower() == name.lower()]


@dataclass
class Recorder:
    """Four backends that take everything and answer 200."""

    seen: list[Seen] = field(default_factory=list)

    def server(self, upstream: str) -> socketserver.ThreadingTCPServer:
        recorder = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while (first := self.rfile.readline()) and (seen := self.read(first)):
                    recorder.seen.append(seen)
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

            def read(self, first: bytes) -> Seen | None:
                method, target, _ = first.decode("latin-1").rstrip("\r\n").split(" ", 2)
                headers = []
                while (line := self.rfile.readline()) not in {b"\r\n", b""}:
                    name, _, value = line.decode("latin-1").rstrip("\r\n").partition(":")
                    headers.append((name, value.strip()))
                seen = Seen(upstream, method, target, tuple(headers))
                return seen if self.skip_body(seen) else None

            def skip_body(self, seen: Seen) -> bool:
                """Read the body away; False where it does not come as it was announced."""
                if not seen.values("Transfer-Encoding"):
                    size = int((seen.values("Content-Length") or ["0"])[0])
                    return len(self.rfile.read(size)) == size
                while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                    self.rfile.read(size + 2)
                while self.rfile.readline() not in {b"\r\n", b""}:
                    pass
                return True

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """The gateway hangs up on what it refuses halfway."""

        return Server(("127.0.0.1", 0), Handler)


@dataclass
class Gateway:
    """The real gateway in front of the recorder."""

    port: int
    recorder: Recorder
    sent: int = 0
    passed: int = 0

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)


def _users() -> dict[str, dict[str, str]]:
    return {
        f"gateway-user-{user}": {
            "user": f"{user} {bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}"
        }
        for user, password in PASSWORDS.items()
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    release = Deployment.load(Checkout.find()).lgtm()
    folder: Path = tmp_path_factory.mktemp("gateway")
    recorder = Recorder()
    with ExitStack() as ending:
        services = {}
        for upstream, service in UPSTREAMS.items():
            server = ending.enter_context(recorder.server(upstream))
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            ending.callback(server.shutdown)
            services[service] = server.server_address[1]
        leases = PortLeases()
        ending.callback(leases.release)
        workload = release.get("Deployment", "gateway")
        pod = Pod("gateway", release, workload, containers(workload)[0], folder)
        pod.ports["HTTP_PORT"] = leases.lease()
        secrets = _users()
        pod.mount(secrets)
        env = pod.environment(services, secrets)
        argv = [str(programs.find("caddy")), *pod.arguments(env)]
        process = Process("gateway", argv, env, folder, folder / "gateway.log")
        ending.callback(process.kill)
        process.start()
        poll(lambda: (_ready(pod.ports["HTTP_PORT"]), process.tail()), 30, "the gateway")
        yield Gateway(pod.ports["HTTP_PORT"], recorder)


def _ready(port: int) -> bool | None:
    try:
        wire = Wire(("127.0.0.1", port))
    except OSError:
        return None
    wire.write(b"GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = wire.read()
    wire.close()
    return answer.statuses == (200,) or None


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One request, before it has its number."""

    method: str = "GET"
    target: str = "/prometheus/api/v1/query?query=up"
    credential: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    body: bytes = b""
    http2: bool = False

    def headers(self, number: int) -> list[str]:
        return [f"X-Number: {number}", *self.credential, *self.lines]

    def raw(self, number: int) -> bytes:
        lines = self.headers(number)
        if not self.odd or self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        head = "\r\n".join((f"{self.method} {self.target} HTTP/1.1", "Host: gateway", *lines))
        return head.encode("latin-1", "replace") + b"\r\n\r\n" + self.body

    def stream(self, address: tuple[str, int], number: int) -> Http2:
        pairs = [line.partition(":")[::2] for line in self.headers(number)]
        pseudo = (
            (":method", self.method),
            (":scheme", "http"),
            (":authority", "gateway"),
            (":path", self.target),
        )
        plain = tuple((name.strip().lower(), value.strip()) for name, value in pairs)
        return Http2(address, (*pseudo, *plain), self.body)

    @property
    def odd(self) -> bool:
        """Whether its framing is such that no second request should share the connection."""
        text = "\n".join(self.lines).lower()
        return any(word in text for word in ("content-length", "transfer-encoding", "upgrade"))


def _basic(user: str, password: str, scheme: str = "Basic") -> str:
    coded = base64.b64encode(f"{user}:{password}".encode("utf-8", "replace")).decode()
    return f"Authorization: {scheme} {coded}"


def _right(user: str) -> tuple[str, ...]:
    return (_basic(user, PASSWORDS[user]),)


_WRONG = (
    (),
    ("Authorization: Basic",),
    ("Authorization: Basic !!!",),
    ("Authorization: Bearer x",),
    (_basic("soev", "wrong"),),
    (_basic("admin", ""),),
    (_basic("nobody", "x"),),
    (_basic("SOEV", "x"),),
    (_basic("soev|enterprise-a", "x"),),
    (_basic("enterprise-a", PASSWORDS["soev"]),),
    (_basic("soev", "wrong"), *_right("soev")),
    (*_right("enterprise-a"), _basic("soev", "wrong")),
    (*_right("enterprise-a"), *_right("soev")),
    (_right("soev")[0].replace("Authorization", "Proxy-Authorization"),),
    (_basic("soev", PASSWORDS["soev"], "bAsIc"),),
    (_right("soev")[0].replace("Basic ", "Basic  "),),
    (_right("soev")[0].replace(": ", ":\t"),),
)
_CREDENTIALS = st.one_of(
    st.sampled_from([_right(user) for user in USERS]),
    st.sampled_from([_right(user) for user in USERS]),
    st.sampled_from(_WRONG),
)
_NAMES = (
    "X-Scope-OrgID",
    "X-Scope-OrgID",
    "x-scope-orgid",
    "X-SCOPE-ORGID",
    "X_Scope_OrgID",
    "X-Scope-OrgID ",
    " X-Scope-OrgID",
    "X-Scope-OrgID\t",
    "X-Scope-OrgId",
    "Connection",
    "Trailer",
)
_SOME_TENANT = st.one_of(
    st.sampled_from(TENANTS),
    st.sampled_from(
        (
            "",
            "|",
            "soev|",
            "|soev",
            "soev||enterprise-a",
            "soev:x",
            "soev:k=v",
            "..",
            "SOEV",
            "soev,enterprise-a",
            "soev, enterprise-a",
            "enterprise-.*",
            "*",
            "admin",
            "anonymous",
            "soev\t",
            " soev ",
            "soev\0",
            "soev\r\n enterprise-a",
            "soev\r\nX-Scope-OrgID: enterprise-a",
            "soev\nX-Scope-OrgID: enterprise-a",
            "X-Scope-OrgID",
            "X-Scope-OrgID, Authorization",
            "close, X-Scope-OrgID",
            "{http.auth.user.id}",
            "{env.HOME}",
            "{vars.tenant}",
            "$1",
        )
    ),
    st.lists(st.sampled_from(TENANTS), min_size=2, max_size=4).map("|".join),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=12),
)
_TENANT_LINES = st.tuples(st.sampled_from(_NAMES), _SOME_TENANT).map(": ".join)
_OTHER_LINES = st.sampled_from(
    (
        "Connection: close",
        "Connection: keep-alive, X-Scope-OrgID",
        "Connection: Authorization",
        "Connection: X-Number",
        "Keep-Alive: X-Scope-OrgID",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Content-Length: 0",
        "Content-Length: 5",
        "Upgrade: websocket",
        "Connection: Upgrade\r\nUpgrade: h2c",
        "Connection: Upgrade\r\nUpgrade: websocket",
        "Expect: 100-continue",
        "TE: trailers",
        "Trailer: X-Scope-OrgID",
        "X-HTTP-Method-Override: DELETE",
        "X-Original-URL: /flush",
        "X-Rewrite-URL: /flush",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: mimir",
        "Host: mimir:9009",
        "Accept: text/event-stream",
        "Content-Type: application/grpc",
    )
)
_LINES = st.one_of(
    st.just(()), st.lists(st.one_of(_TENANT_LINES, _OTHER_LINES), max_size=3).map(tuple)
)

_LISTED = (
    "/otlp/v1/metrics",
    "/api/v1/push",
    "/otlp/v1/logs",
    "/loki/api/v1/push",
    "/otlp/v1/traces",
    "/prometheus/api/v1/query?query=up",
    "/prometheus/api/v1/label/job/values",
    "/prometheus/api/v1/read",
    "/loki/api/v1/query_range?query=x&start=1",
    "/loki/api/v1/label/job/values",
    "/loki/api/v1/tail?query=x",
    "/loki/api/v1/detected_field/x/values",
    "/tempo/api/traces/abc123",
    "/tempo/api/v2/search/tag/span.x/values",
    "/tempo/api/search?q={}",
    "/tempo/api/echo",
)
_UNLISTED = (
    "/",
    "*",
    "/config",
    "/flush",
    "/metrics",
    "/ingester/shutdown",
    "/ruler/rule_groups",
    "/loki/api/v1/delete",
    "/loki/api/v1/rules",
    "/tempo/status/config",
    "/tempo/api/metrics/summary",
    "/prometheus/config/v1/rules",
    "/-/ready/x",
    "/prometheus/../config",
    "/tempo/..%2fstatus",
    "http://mimir:9009/config",
    "mimir:9009",
)
_PIECES = (
    "/",
    "//",
    "/.",
    "/..",
    "/x/..",
    "%2e%2e",
    "%2f",
    "%252f",
    "%00",
    "%",
    "%zz",
    ";",
    ";x=1",
    "?",
    "#",
    "\\",
    "%0a",
    "%20",
    "\x80",
    "|",
    "{}",
    "{path}",
    ":",
    "@",
    "\t",
)


def _spliced(target: str, piece: str, at: int) -> str:
    at %= len(target) + 1
    return target[:at] + piece + target[at:]


def _recoded(target: str, at: int) -> str:
    """One character percent-encoded."""
    at %= len(target)
    return f"{target[:at]}%{ord(target[at]):02x}{target[at + 1 :]}"


_TARGETS = st.one_of(
    st.sampled_from(_LISTED),
    st.sampled_from(_LISTED),
    st.sampled_from(_UNLISTED),
    st.builds(_spliced, st.sampled_from(_LISTED), st.sampled_from(_PIECES), st.integers(0, 60)),
    st.builds(_recoded, st.sampled_from(_LISTED), st.integers(0, 60)),
    st.builds(str.upper, st.sampled_from(_LISTED)),
    st.sampled_from(_LISTED).map(lambda target: f"http://soev:x@gateway{target}"),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20).map("/{}".format),
)
_METHODS = st.one_of(
    st.sampled_from(("GET", "POST")),
    st.sampled_from(("GET", "POST")),
    st.sampled_from(
        ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "GETX", "PRI")
    ),
)
_BODIES = st.sampled_from(
    (b"", b"", b"", b"12345", b"0\r\n\r\nGET /config HTTP/1.1\r\nHost: x\r\n\r\n")
)
_REQUESTS = st.builds(
    Request,
    method=_METHODS,
    target=_TARGETS,
    credential=_CREDENTIALS,
    lines=_LINES,
    body=_BODIES,
    http2=st.integers(0, 7).map(lambda number: number == 0),
)


# --- what may pass --------------------------------------------------------------------------------


def _user(request: Request) -> str | None:
    """Return who the first credential proves: RFC 7617, as net/http reads it."""
    for line in request.credential:
        name, _, value = line.partition(":")
        if name.strip().lower() != "authorization":
            continue
        scheme, _, coded = value.strip().partition(" ")
        try:
            text = base64.b64decode(coded, validate=True).decode()
        except ValueError:
            return None
        user, _, password = text.partition(":")
        known = scheme.lower() == "basic" and PASSWORDS.get(user) == password
        return user if known else None
    return None


def _claims(request: Request) -> list[str]:
    """Return what the request says of its tenant, in lines that a parser may read so or so."""
    text = "\r\n".join(request.lines)
    found = re.findall(r"(?im)^\s*x-scope-orgid\s*:[ \t]*([^\r\n]*?)[ \t]*\r?$", text)
    return [str(each) for each in found]


def _route(seen: Seen) -> dict[str, Any] | None:
    """Return the route by which a backend may have been reached at this path."""
    path = seen.target.partition("?")[0]
    for route in ROUTES:
        before = route.get("strip", "") + path
        if route["upstream"] == seen.upstream and re.fullmatch(route["path"], before):
            return route
    return None


_KNOWN_LIST = re.compile("({0})([|]({0}))*".format("|".join(map(re.escape, TENANTS))))


def _fault(seen: Seen, request: Request) -> str | None:
    """Say what is wrong with a request that has reached a backend."""
    if seen.values("Authorization"):
        return "it carries the credential"
    route = _route(seen)
    if route is None or seen.method not in route["methods"]:
        return "its path or method is not listed"
    tenants = seen.values("X-Scope-OrgID")
    if len(tenants) != 1:
        return f"it names {len(tenants)} tenants"
    user = _user(request)
    if user is None:
        return "nobody was authenticated"
    if user != "admin":
        return None if tenants == [user] else f"{user} passes as {tenants[0]}"
    if route.get("write"):
        return "the admin writes"
    if not _KNOWN_LIST.fullmatch(tenants[0]) or tenants[0] not in _claims(request):
        return f"the admin passes as {tenants[0]!r}"
    return None


def _run(gateway: Gateway, batch: list[Request]) -> list[Seen]:
    """Send a batch, on one connection where that can be, and return what reached a backend."""
    gateway.recorder.seen.clear()
    wire: Wire | None = None
    for number, request in enumerate(batch):
        if request.http2:
            send(request.stream(gateway.address, number))
            continue
        if wire is None or not wire.open or request.odd:
            if wire is not None:
                wire.close()
            wire = Wire(gateway.address, 3.0)
        wire.write(request.raw(number))
        if request.odd:
            wire.finish()
        wire.read(request.method)
        if request.odd:
            wire.rest(1.0)
            wire.open = False
    if wire is not None:
        wire.close()
    gateway.sent += len(batch)
    return list(gateway.recorder.seen)


def _judge(batch: list[Request], seen: list[Seen]) -> Iterator[str]:
    for each in seen:
        numbers = each.values("X-Number")
        if len(numbers) != 1 or int(numbers[0]) >= len(batch):
            # Connection: X-Number takes it off, as it should: any request of the batch may be it.
            named = [one for one in batch if any("X-Number" in line for line in one.lines)]
            if not any(_fault(each, one) is None for one in named):
                yield f"nobody sent {each}"
            continue
        request = batch[int(numbers[0])]
        if fault := _fault(each, request):
            yield f"{fault}: {request} reached {each}"


def _examples(*requests: Request) -> Callable[[Any], Any]:
    """Keep what an attack is known by, and every counter-example that was found."""

    def decorate(test: Any) -> Any:
        for request in requests:
            test = example([request])(test)
        return test

    return decorate


_X = "X-Scope-OrgID"


@_examples(
    Request(credential=_right("enterprise-a"), lines=(f"{_X}: soev",)),
    Request(credential=_right("enterprise-a"), lines=(f"{_X}: enterprise-a", f"{_X}: soev")),
    Request(credential=_right("enterprise-a"), lines=("Connection: X-Scope-OrgID",)),
    Request(credential=_right("enterprise-a"), lines=(f"{_X}:", f"{_X}: soev")),
    Request(credential=_right("admin"), lines=(f"{_X}: soev|enterprise-a",)),
    Request(credential=_right("admin"), lines=(f"{_X}: soev", f"{_X}: nobody")),
    Request(credential=_right("admin"), lines=(f"{_X}: soev\n",)),
    Request("POST", "/otlp/v1/logs", _right("admin"), (f"{_X}: soev",)),
    Request("GET", "/loki/api/v1/tail?query=x", _right("soev"), ("Upgrade: websocket",)),
    Request("GET", "/tempo/api/traces/..%2f..%2fflush", _right("soev")),
    Request("GET", "/prometheus/api/v1/query\n", _right("soev")),
    Request(credential=_right("soev"), lines=("x-scope-orgid: enterprise-a",), http2=True),
)
@settings(max_examples=EXAMPLES, derandomize=False)
@given(st.lists(_REQUESTS, min_size=BATCH, max_size=BATCH))
def test_what_passes_is_the_authenticated_tenants(gateway: Gateway, batch: list[Request]) -> None:
    seen = _run(gateway, batch)
    gateway.passed += len(seen)
    faults = list(_judge(batch, seen))
    assert not faults, "\n".join(faults)


def test_enough_was_sent_and_enough_of_it_passed(gateway: Gateway) -> None:
    if not gateway.sent:
        pytest.skip("the requests were not sent in this run")
    print(f"{gateway.sent} requests, {gateway.passed} reached a backend")
    assert gateway.sent >= REQUESTS
    # Neither all refused nor all let through: both would prove nothing.
    assert 0.04 * gateway.sent < gateway.passed < 0.6 * gateway.sent


@pytest.mark.parametrize("user", TENANTS)
@pytest.mark.parametrize("target", _LISTED)
def test_the_control_an_honest_request_passes(gateway: Gateway, user: str, target: str) -> None:
    passed = [
        seen
        for method in ("GET", "POST")
        for seen in _run(gateway, [Request(method, target, _right(user))])
    ]
    assert passed
    assert {tuple(seen.values(_X)) for seen in passed} == {(user,)}
