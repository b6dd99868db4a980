"""Attacks by what is sent rather than how: forged labels, floods, tails, late samples."""

from __future__ import annotations

import gzip
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import quote

from stackproof.backends import poll
from stackproof.errors import StackproofError
from stackproof.isolation import Marks, question
from stackproof.model import TENANT_HEADER, Access, Signal
from stackproof.otlp import senders, synthetic
from stackproof.otlp.senders import ExportError
from stackproof.otlp.synthetic import Emission, name_of

from .base import ALL, APIS, BACKENDS_LIMIT, UPGRADE, Attack, AttackRun, Expect, basic, deed
from .payloads import REMOTE_WRITE, loki_push, remote_write
from .wire import Wire, WireAnswer, WireRequest, http1, send

_OWN_LABEL = "__tenant_id__"
_BACKEND_ITSELF = "the backend keeps tenants apart by the header, and that is honest here"


# --- pushes in the older formats ------------------------------------------------------------------


def _labels(emission: Emission, signal: Signal) -> dict[str, str]:
    token = emission.tokens[signal]
    return {"stackproof_run": emission.run, "stackproof_token": token}


def metrics_push(attack_run: AttackRun, *lines: str, **labels: str) -> WireRequest:
    """Return a Prometheus remote write of one series with the forged token."""
    series = {
        "__name__": name_of(attack_run.forged.tokens[Signal.METRICS]).replace(".", "_"),
        **_labels(attack_run.forged, Signal.METRICS),
        **labels,
    }
    return http1(
        attack_run.gateway,
        "POST",
        "/api/v1/push",
        [*REMOTE_WRITE, *lines],
        remote_write([series], attack_run.forged.sent_ns),
    )


def logs_push(attack_run: AttackRun, *lines: str, **labels: str) -> WireRequest:
    """Return a push to Loki of one line with the forged token."""
    token = attack_run.forged.tokens[Signal.LOGS]
    return http1(
        attack_run.gateway,
        "POST",
        "/loki/api/v1/push",
        ["Content-Type: application/json", *lines],
        loki_push(
            {"service_name": "open-webui", **labels},
            [f"forged {token}"],
            attack_run.forged.sent_ns,
            _labels(attack_run.forged, Signal.LOGS),
        ),
    )


_PUSHED = (Signal.METRICS, Signal.LOGS)


def _pushes(*lines: str, **labels: str) -> Callable[[AttackRun], Iterator[WireRequest]]:
    def sends(attack_run: AttackRun) -> Iterator[WireRequest]:
        filled = [attack_run.fill(line) for line in lines]
        named = {name: attack_run.fill(value) for name, value in labels.items()}
        yield metrics_push(attack_run, attack_run.own, *filled, **named)
        yield logs_push(attack_run, attack_run.own, *filled, **named)

    return sends


def _admin_knows_better(attack_run: AttackRun) -> Iterable[str]:
    """Asked for the victim's by the label that names the owner, the admin sees nothing forged."""
    stack, run = attack_run.target.stack, f'stackproof_run="{attack_run.forged.run}"'
    admin = stack.admin_reader(stack.tenants)
    selectors = {
        Signal.METRICS: ("mimir.query", f'{{{_OWN_LABEL}="OWNER", {run}}}'),
        Signal.LOGS: (
            "loki.query-range",
            f'{{{_OWN_LABEL}="OWNER", service_name="open-webui"}} | {run}',
        ),
    }
    for signal, (api, query) in selectors.items():
        shown_as = {
            owner: attack_run.forged.tokens[signal].encode()
            in _asked(attack_run, api, admin, query.replace("OWNER", owner))
            for owner in (attack_run.victim, attack_run.attacker)
        }
        if shown_as[attack_run.victim]:
            yield f"the admin is shown the forged {signal} as {attack_run.victim}'s"
        if not shown_as[attack_run.attacker]:
            yield f"the admin is not shown the forged {signal} as {attack_run.attacker}'s: unproven"


def _asked(attack_run: AttackRun, name: str, access: Access, query: str) -> bytes:
    """Ask an API for the forged telemetry with another query than its own."""
    api, values = APIS[name], question(attack_run.forged).values()
    window = f"start={values['start_ns']}&end={values['end_ns']}&limit=100"
    if api.id == "mimir.query":
        window = f"time={values['end_s']}"
    url = f"{access.urls[api.backend]}{api.path}?query={quote(query)}&{window}"
    headers = {**access.headers, **senders.basic_auth(access.auth)}
    pool = attack_run.target.client.pool
    return pool.request("GET", url, headers=headers, retries=False).data


def _forged_otlp(attack_run: AttackRun) -> Iterator[WireRequest]:
    """OTLP with attributes that look like the backends' own label, in the resource and beside."""
    for signal in Signal:
        request: Any = synthetic.make(attack_run.forged, signal)
        (part,) = getattr(request, f"resource_{'spans' if signal is Signal.TRACES else signal}")
        for name in (_OWN_LABEL, "__tenant__", "tenant", "X-Scope-OrgID", "tenant.id"):
            part.resource.attributes.add(key=name).value.string_value = attack_run.victim
        yield attack_run.write(signal, attack_run.own, body=request.SerializeToString())


# --- generated series, exemplars, caches ----------------------------------------------------------


def _service(attack_run: AttackRun) -> str:
    return f"open-webui-{attack_run.forged.tokens[Signal.TRACES]}"


def _spans(attack_run: AttackRun) -> Iterator[WireRequest]:
    """Spans of a service that has the forged token for a name."""
    message = synthetic.make(attack_run.forged, Signal.TRACES, service=_service(attack_run))
    yield attack_run.write(Signal.TRACES, attack_run.own, body=message.SerializeToString())


def _generated(attack_run: AttackRun) -> Iterable[str]:
    """The series that Tempo makes of the spans are in the sender's Mimir tenant, and only there."""
    target = attack_run.target
    query = f'traces_spanmetrics_calls_total{{service="{_service(attack_run)}"}}'
    wanted = _service(attack_run).encode()

    def seen_by(tenant: str) -> bytes:
        return _asked(attack_run, "mimir.query", target.reader(tenant), query)

    def look() -> tuple[bool | None, str]:
        body = seen_by(attack_run.attacker)
        return wanted in body or None, body[:200].decode()

    try:
        poll(look, 60, "generated span metrics", interval_s=0.1)
    except StackproofError as error:
        yield str(error)
    for reader in (attack_run.victim, target.bystander):
        if wanted in seen_by(reader):
            yield f"series made of the attacker's spans are in {reader}'s tenant"


def _same_query(attack_run: AttackRun) -> Iterable[str]:
    """One query again and again by changing readers: a cache must not mix them up."""
    target, stack = attack_run.target, attack_run.target.stack
    about = target.emissions[attack_run.victim]
    marks = Marks(target.emissions)
    everybody = stack.admin_reader((attack_run.attacker, attack_run.victim))
    one, two = target.reader(attack_run.attacker), target.reader(attack_run.victim)
    for name in ("mimir.query-range", "loki.query-range", "tempo.search-traceql"):
        api = APIS[name]
        # The very same bytes each time: the window does not move.
        asked = question(about)
        for access, owners in (
            (one, {attack_run.attacker}),
            (two, {attack_run.victim}),
            (one, {attack_run.attacker}),
            (everybody, {attack_run.attacker, attack_run.victim}),
            (two, {attack_run.victim}),
            (one, {attack_run.attacker}),
        ):
            answer = target.client.ask(api, access, asked)
            shown = {owner for owner, _ in marks.find(answer.body).values()}
            if shown != owners:
                yield f"{name} shows {access.name} the telemetry of {sorted(shown) or 'nobody'}"


def _late(attack_run: AttackRun) -> Iterable[str]:
    """Six hours late: refused with a 200, and no sender may take that for a success."""
    request: Any = synthetic.make(attack_run.forged, Signal.METRICS)
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            point.time_unix_nano -= 6 * 3600 * 10**9
    try:
        attack_run.target.exporter(attack_run.attacker).send(Signal.METRICS, request)
    except ExportError:
        return
    yield "points were dropped, and the sender was not told"


# --- tails ----------------------------------------------------------------------------------------


def _tail(attack_run: AttackRun, user: str, run: str) -> bytes:
    query = quote(f'{{service_name="open-webui"}} | stackproof_run="{run}"')
    wire_request = http1(
        attack_run.gateway,
        "GET",
        f"/loki/api/v1/tail?query={query}&limit=5000",
        [*UPGRADE, attack_run.target.credential(user)],
        linger_s=1,
    )
    return wire_request.data


def _live_tail(attack_run: AttackRun) -> Iterable[str]:
    """The attacker tails while the victim writes twenty lines, and one of its own comes last."""
    target, run = attack_run.target, attack_run.forged.run
    wire = Wire(attack_run.gateway)
    try:
        wire.write(_tail(attack_run, attack_run.attacker, run))
        opened = wire.read()
        if opened.statuses != (101,):
            yield f"no tail: {opened.describe()}"
            return
        victims = [synthetic.new_emission(attack_run.victim, run, [Signal.LOGS]) for _ in range(20)]
        for emission in victims:
            target.exporter(attack_run.victim).send(
                Signal.LOGS, synthetic.make(emission, Signal.LOGS)
            )
        target.wait_for(victims[-1], [Signal.LOGS])
        target.exporter(attack_run.attacker).send(
            Signal.LOGS, synthetic.make(attack_run.forged, Signal.LOGS)
        )
        heard = _hear(wire, attack_run.forged.tokens[Signal.LOGS].encode())
    finally:
        wire.close()
    if attack_run.forged.tokens[Signal.LOGS].encode() not in heard:
        yield "the tail does not even show the attacker's own line"
    shown = sum(emission.tokens[Signal.LOGS].encode() in heard for emission in victims)
    if shown:
        yield f"the tail shows {shown} of the victim's 20 lines"


def _hear(wire: Wire, wanted: bytes, seconds: float = 15) -> bytes:
    """Listen until the wanted bytes have come, and a little longer."""
    heard, ends = b"", time.monotonic() + seconds
    while wanted not in heard and time.monotonic() < ends:
        heard += wire.rest(0.15)
    return heard + wire.rest(0.3)


_TAILS = 1000


def _many_tails(attack_run: AttackRun) -> Iterable[str]:
    """A thousand tails: most are refused, and the victim still tails and reads."""
    data = _tail(attack_run, attack_run.target.bystander, attack_run.forged.run)
    held: list[socket.socket] = []
    try:
        for _ in range(_TAILS):
            connection = socket.create_connection(attack_run.gateway, timeout=10)
            held.append(connection)
            connection.sendall(data)
        if (let_in := _let_in(held, _TAILS // 10)) > _TAILS // 10:
            yield f"{let_in} tails of one tenant are open at once"
        credential = attack_run.target.credential(attack_run.victim)
        for answer in [send(wire_request) for wire_request in attack_run.few(credential)]:
            if not answer.accepted:
                yield f"the victim is not answered meanwhile: {answer.describe()}"
    finally:
        for connection in held:
            connection.close()


#: What Loki says to a tail that is one too many, after it has let it in.
_TOO_MANY = b"max concurrent tail requests limit exceeded"


def _let_in(connections: Iterable[socket.socket], wanted: int, seconds: float = 20) -> int:
    """Count the tails that were not refused: once they are few enough, or when the time is over.

    One that ends for another reason counts: Loki drops all of them when an ingester is slow.
    """
    waiting = selectors.DefaultSelector()
    for connection in connections:
        connection.setblocking(False)
        waiting.register(connection, selectors.EVENT_READ)
    unanswered, opened = set(waiting.get_map()), set[int]()
    ends = time.monotonic() + seconds
    while waiting.get_map() and time.monotonic() < ends and (unanswered or len(opened) > wanted):
        for key, _ in waiting.select(timeout=0.1):
            if not _goes_on(key.fileobj, opened):
                waiting.unregister(key.fileobj)
            unanswered.discard(key.fd)
    return len(opened)


def _goes_on(connection: Any, opened: set[int]) -> bool:
    """Read what has come; tell whether more may come."""
    try:
        data: bytes = connection.recv(65536)
    except OSError:
        return False
    if data.startswith(b"HTTP/1.1 101"):
        opened.add(connection.fileno())
    if _TOO_MANY in data:
        opened.discard(connection.fileno())
    return bool(data) and connection.fileno() in opened


# --- passwords ------------------------------------------------------------------------------------


_GUESSES_S = 2.5


def _guesses(attack_run: AttackRun) -> Iterable[str]:
    """A name that is nobody's, with many passwords at once: answered in no time.

    A hash of cost 14 takes about half a second of a core, so that twelve a core take six.
    """
    waiting = selectors.DefaultSelector()
    guesses = 12 * (os.cpu_count() or 1)
    try:
        for number in range(guesses):
            wire_request = attack_run.write(
                Signal.LOGS, basic("nobody", f"{attack_run.forged.run}-{number}")
            )
            connection = socket.create_connection(attack_run.gateway, timeout=10)
            waiting.register(connection, selectors.EVENT_READ)
            connection.sendall(wire_request.data)
        ends = time.monotonic() + _GUESSES_S
        while waiting.get_map() and time.monotonic() < ends:
            for key, _ in waiting.select(timeout=0.1):
                _hang_up(waiting, key.fileobj)
        if busy := len(waiting.get_map()):
            yield f"{busy} of {guesses} guesses keep the gateway busy for over {_GUESSES_S} s"
    finally:
        for key in list(waiting.get_map().values()):
            _hang_up(waiting, key.fileobj)


def _hang_up(waiting: selectors.BaseSelector, connection: Any) -> None:
    waiting.unregister(connection)
    connection.close()


# --- floods ---------------------------------------------------------------------------------------


_FLOODS = 3
#: So many exports, each as large as is taken, are more than any burst of the registry.
_EXPORTS = 40


def _flood(
    signal: Signal, body: Callable[[int], tuple[str, list[str], bytes]]
) -> Callable[[AttackRun], Iterable[str]]:
    """More at once than the limit's burst; what the victim sends meanwhile is counted."""

    def after(attack_run: AttackRun) -> Iterable[str]:
        target = attack_run.target
        noisy = target.credential(target.bystander)
        answers: list[WireAnswer] = []
        sent: list[Emission] = []
        numbers = iter(range(_FLOODS * _EXPORTS))
        for _ in range(_FLOODS):
            for number in islice(numbers, _EXPORTS):
                path, lines, data = body(number)
                answer = send(http1(attack_run.gateway, "POST", path, [noisy, *lines], data))
                if not answer.accepted:
                    break
            answers.append(answer)
            emission = synthetic.new_emission(attack_run.victim, attack_run.forged.run, [signal])
            # Once, and without a second chance: nothing of the victim's may be refused.
            target.exporter(attack_run.victim).send(signal, synthetic.make(emission, signal))
            sent.append(emission)
        for answer in answers:
            if 429 not in answer.statuses:
                yield f"no limit: {answer.describe()}"
        for emission in sent:
            target.wait_for(emission, [signal])

    return after


# Each is almost what a backend unpacks.


def _much_metrics(number: int) -> tuple[str, list[str], bytes]:
    """50,000 samples."""
    series = ({"__name__": "flood", "number": str(each)} for each in range(100))
    now = time.time_ns() - number * 10**9
    return "/api/v1/push", [*REMOTE_WRITE], remote_write(series, now, samples=500)


def _much_logs(number: int) -> tuple[str, list[str], bytes]:
    """1 MB."""
    text = ["x" * 200_000 for _ in range(5)]
    data = loki_push({"service_name": "flood", "number": str(number)}, text, time.time_ns(), {})
    return "/loki/api/v1/push", ["Content-Type: application/json"], data


def _many_spans(number: int) -> tuple[str, list[str], bytes]:
    """1 MB."""
    del number
    request: Any = synthetic.make(
        synthetic.new_emission("flood", synthetic.new_run(), [Signal.TRACES]), Signal.TRACES
    )
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="flood").value.string_value = "x" * 1_020_000
    lines = ["Content-Type: application/x-protobuf", "Content-Encoding: gzip"]
    return "/otlp/v1/traces", lines, gzip.compress(request.SerializeToString())


CONDUCT: tuple[Attack, ...] = (
    Attack(
        name="push-naming-another-tenant",
        does="pushes by remote write and to Loki with the victim's name in the header",
        source="the older ways in are ways in",
        sends=_pushes(f"{TENANT_HEADER}: {{victim}}"),
        writes=_PUSHED,
    ),
    Attack(
        name="push-without-credential",
        does="pushes by remote write and to Loki with a header alone",
        source="the older ways in are ways in",
        sends=lambda attack_run: (
            push(attack_run, f"{TENANT_HEADER}: {attack_run.victim}")
            for push in (metrics_push, logs_push)
        ),
        writes=_PUSHED,
    ),
    Attack(
        name="forged-tenant-label",
        does=f"pushes series and lines with the label {_OWN_LABEL} of the victim",
        source="a stored label of that name becomes original___tenant_id__ (observed, Mimir)",
        expect=Expect.NEUTRALISED,
        sends=_pushes(**{_OWN_LABEL: "{victim}"}),
        writes=_PUSHED,
        after=_admin_knows_better,
        ineffective_because=_BACKEND_ITSELF,
    ),
    Attack(
        name="forged-tenant-attributes",
        does="exports resources with every attribute that might be taken for the tenant",
        source="an attribute of the client's decides nothing",
        expect=Expect.NEUTRALISED,
        sends=_forged_otlp,
        writes=ALL,
        after=_admin_knows_better,
        ineffective_because=_BACKEND_ITSELF,
    ),
    Attack(
        name="generated-series",
        does="exports spans, of which Tempo makes series in Mimir",
        source="Tempo's generator takes the tenant from the trace, or from a header that is set",
        expect=Expect.NEUTRALISED,
        sends=_spans,
        writes=[Signal.TRACES],
        after=_generated,
        ineffective_because=_BACKEND_ITSELF,
    ),
    Attack(
        name="exemplars-of-another",
        does="asks for exemplars, which carry trace ids",
        source="Mimir federates query_exemplars",
        expect=Expect.NEUTRALISED,
        sends=lambda attack_run: [attack_run.read(APIS["mimir.exemplars"], attack_run.own)],
        ineffective_because=_BACKEND_ITSELF,
    ),
    deed(
        "same-query-by-turns",
        "asks the same as the victim and the admin, by turns",
        "result caches are keyed by tenant in Mimir, Loki and Tempo",
        _same_query,
        _BACKEND_ITSELF,
    ),
    deed(
        "late-samples",
        "exports points of six hours ago, which Mimir drops with a 200",
        "partial_success.rejected_data_points (observed, Mimir)",
        _late,
        "the backend drops them; that is about being told",
    ),
    deed(
        "live-tail",
        "tails while the victim writes",
        "grafana/loki#9493, grafana/loki#7153",
        _live_tail,
        _BACKEND_ITSELF,
    ),
    deed(
        "thousand-tails",
        "opens a thousand tails",
        "Loki bounds tails a tenant: max_concurrent_tail_requests",
        _many_tails,
        BACKENDS_LIMIT,
    ),
    deed(
        "guessing-names",
        "tries a name that is nobody's with many passwords at once",
        "Caddy compares a password of an unknown user with a bcrypt hash of cost 14 (observed)",
        _guesses,
        destroys=True,
    ),
    *(
        deed(
            f"flood-of-{signal}",
            "writes over its limit while the victim writes",
            "a noisy neighbour",
            _flood(signal, body),
            BACKENDS_LIMIT,
        )
        for signal, body in (
            (Signal.METRICS, _much_metrics),
            (Signal.LOGS, _much_logs),
            (Signal.TRACES, _many_spans),
        )
    ),
)
