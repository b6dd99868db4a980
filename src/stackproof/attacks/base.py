"""What an attack is, how it is run, and what must be unharmed afterwards.

An attacker here is a tenant with a credential of its own, or somebody with none. `run` sends what
the record says and then looks at the effect; a status is only part of it:

- no byte of any answer holds a token of the victim;
- what the attacker wrote is where it may be, or nowhere: not with the victim, not with a bystander,
  and no backend has taken anything for a tenant that is not in the registry (`census`);
- the victim still reads what it wrote before.

Each claim of absence has its control: honest telemetry of the attacker, sent after the attack by
the same way, must have arrived before anything counts as absent.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlsplit

import urllib3

from stackproof.backends import PROVABLE, Client, ReadApi, poll
from stackproof.backends.facts import Fact
from stackproof.errors import StackproofError
from stackproof.isolation import Marks, question
from stackproof.model import Access, Backend, EntryPoint, Signal
from stackproof.otlp import senders, synthetic
from stackproof.otlp.senders import ExportError
from stackproof.otlp.synthetic import Emission
from stackproof.stack.base import Stack

from .wire import Address, Lines, Raw, WireAnswer, WireRequest, http1, send

#: Where each signal is looked for: at once readable, and for traces by the id alone.
LOOKED_FOR: Mapping[Signal, str] = {
    Signal.METRICS: "mimir.query",
    Signal.LOGS: "loki.query-range",
    Signal.TRACES: "tempo.trace",
}
APIS: Mapping[str, ReadApi] = {api.id: api for api in PROVABLE}
ALL = tuple(Signal)
#: One read API of each backend and signal, and the tail.
FEW = (*LOOKED_FOR.values(), "tempo.search-traceql", "loki.tail")

#: Lines of a backend's /metrics that say for which tenants it has taken telemetry.
_TAKEN: Mapping[Backend, re.Pattern[str]] = {
    Backend.MIMIR: re.compile(
        r'^cortex_distributor_received_samples_total\{user="([^"]*)"', re.MULTILINE
    ),
    Backend.LOKI: re.compile(
        r'^loki_distributor_lines_received_total\{.*tenant="([^"]*)"', re.MULTILINE
    ),
    Backend.TEMPO: re.compile(
        r'^tempo_distributor_spans_received_total\{tenant="([^"]*)"', re.MULTILINE
    ),
}
_VISIBLE_S = 20.0


class Expect(StrEnum):
    """What must become of an attack."""

    REFUSED = "refused"
    """No answer is a success, and nothing is stored anywhere."""
    NEUTRALISED = "neutralised"
    """It is taken for what it is: the attacker's own telemetry, or its own question."""
    HARMLESS = "refused or neutralised"
    """Either: the protocol leaves it open."""
    DOCUMENTED = "documented: backend accepts"
    """It succeeds: that is what the gateway and the network policies protect from."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One thing that a hostile or careless tenant does."""

    name: str
    entry_point: EntryPoint = EntryPoint.GATEWAY
    does: str
    """What the attacker does, in one sentence."""
    source: str
    """Where it was seen: an advisory, an issue, or the program that was observed to fall for it."""
    sends: Callable[[AttackRun], Iterable[WireRequest]] = lambda _: ()
    expect: Expect = Expect.REFUSED
    writes: Sequence[Signal] = ()
    """The signals that it tries to store: marked with the tokens of `AttackRun.forged`."""
    after: Callable[[AttackRun], Iterable[str]] | None = None
    """Further harm to look for; each in a sentence."""
    destroys: bool = False
    """Whether a success ruins the stack for whoever comes after: it gets one of its own."""
    measures: bool = False
    """Whether its harm is read from a backend's own metrics, which not every stack has."""
    ineffective_because: str = ""
    """Why not even a gateway that believes every header and path falls for it."""
    refused_by: Fact | None = None
    """Why the backends refuse it themselves, in the versions for which that holds."""

    def against(self, versions: Mapping[str, str]) -> Attack:
        """Return the attack with what is to be expected of these versions of the backends."""
        if self.refused_by is None or not self.refused_by.holds(versions):
            return self
        documented = self.expect is Expect.DOCUMENTED
        return replace(
            self,
            expect=Expect.REFUSED if documented else self.expect,
            ineffective_because=self.ineffective_because or self.refused_by.says,
        )


#: Why a gateway changes nothing about it.
BACKENDS_LIMIT = "the limits are the backends' own"


def deed(
    name: str,
    does: str,
    source: str,
    after: Callable[[AttackRun], Iterable[str]],
    fails_because: str = "",
    *,
    destroys: bool = False,
    measures: bool = False,
) -> Attack:
    """Return an attack that is more than requests: all of it, and its harm, is in `after`.

    `fails_because` says why it does not succeed on a gateway that trusts too much.
    """
    return Attack(
        name=name,
        does=does,
        source=source,
        expect=Expect.HARMLESS,
        after=after,
        destroys=destroys,
        measures=measures,
        ineffective_because=fails_because,
    )


@dataclass(frozen=True, slots=True)
class AttackOutcome:
    """What became of an attack."""

    attack: Attack
    refused: bool
    """Whether each request was refused: silence is no refusal, as it may still be worked on."""
    harmed: tuple[str, ...]
    """What it has done that it must not, each in a sentence."""
    answer: str
    """The answer that tells most, in a line."""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it came out as it must."""
        if self.attack.expect is Expect.DOCUMENTED:
            return bool(self.harmed) or not self.refused
        return not self.harmed and (self.refused or self.attack.expect is not Expect.REFUSED)

    def record(self) -> dict[str, object]:
        """The outcome as build/report/attacks.json has it."""
        return {
            "name": self.attack.name,
            "entry_point": self.attack.entry_point.value,
            "does": self.attack.does,
            "source": self.attack.source,
            "expected": self.attack.expect.value,
            "refused": self.refused,
            "harmed": "; ".join(self.harmed),
            "answer": self.answer,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class AttackedStack:
    """A running stack with a victim, an attacker and a bystander who all have telemetry in it."""

    stack: Stack
    client: Client
    emissions: dict[str, Emission] = field(default_factory=dict)
    known: dict[Backend, frozenset[str]] = field(default_factory=dict)
    """Tenants for which a backend has taken telemetry before the attack."""
    readers: dict[str, Access] = field(default_factory=dict)
    sound: bool = False
    """Whether the victim was seen to read its telemetry, and nothing has happened since."""
    over_memory: set[str] = field(default_factory=set)
    """Components that exceeded their memory before the attack."""

    @property
    def victim(self) -> str:
        """Whose data is sought."""
        return self.stack.tenants[0]

    @property
    def attacker(self) -> str:
        """Who seeks it."""
        return self.stack.tenants[1]

    @property
    def bystander(self) -> str:
        """Who has nothing to do with it."""
        return self.stack.tenants[2]

    @property
    def gateway(self) -> Address:
        """Where the gateway listens.

        Raises:
            StackproofError: The deployment has none.
        """
        if self.stack.gateway_url is None:
            raise StackproofError("the deployment has no gateway", where=self.stack.name)
        return address(self.stack.gateway_url)

    def reader(self, tenant: str) -> Access:
        """Return how a tenant reads; the stack is asked only once."""
        if tenant not in self.readers:
            self.readers[tenant] = self.stack.reader(tenant)
        return self.readers[tenant]

    def password(self, tenant: str) -> str:
        """Return the password by which a tenant reads and writes."""
        auth = self.reader(tenant).auth
        assert auth is not None
        return auth[1]

    def credential(self, tenant: str) -> str:
        """Return the header line of a tenant's own credential."""
        return basic(tenant, self.password(tenant))

    def prepare(self) -> None:
        """Give the three telemetry of their own, and wait until each reads it."""
        run = synthetic.new_run()
        for tenant in (self.victim, self.attacker, self.bystander):
            emission = synthetic.new_emission(tenant, run)
            self.emissions[tenant] = emission
            exporter = self.exporter(tenant)
            for signal in Signal:
                _patiently(exporter, signal, emission)
            senders.push_label(self.reader(tenant), emission, self.client.pool)
        for tenant in (self.victim, self.attacker, self.bystander):
            self.wait_for(self.emissions[tenant], tuple(Signal))
        self._control_of_reading()
        if self.stack.disposable:
            self.known = self.census()
        self.sound = True

    def _control_of_reading(self) -> None:
        """Wait until the victim reads its own by the very bytes that attackers vary."""
        attack_run = AttackRun(self, self.emissions[self.victim])
        mine = Marks({self.victim: self.emissions[self.victim]})
        credential = self.credential(self.victim)
        for api in PROVABLE:

            def look(api: ReadApi = api) -> tuple[bool | None, str]:
                answer = send(attack_run.read(api, credential))
                return bool(mine.find(answer.body, api.mark)) or None, answer.describe()

            poll(look, _VISIBLE_S, f"{self.victim}'s own {api.signal} through {api.id}")

    def exporter(self, tenant: str) -> senders.HttpSender:
        """Return the honest way in for a tenant: the gateway, with its own credential."""
        reader = self.reader(tenant)
        url = f"{self.stack.gateway_url}/otlp"
        return senders.HttpSender(
            url, auth=reader.auth, headers=reader.headers, pool=self.client.pool
        )

    def shows(self, reader: str, emission: Emission, signal: Signal) -> tuple[bool, str]:
        """Tell whether a tenant sees the emission's token, and what was answered."""
        api = APIS[LOOKED_FOR[signal]]
        answer = self.client.ask(api, self.reader(reader), question(emission))
        return emission.tokens[signal].encode() in answer.body, answer.describe()

    def wait_for(self, emission: Emission, signals: Iterable[Signal]) -> None:
        """Wait until the owner sees these signals of an emission.

        Raises:
            StackproofError: It does not.
        """
        for signal in signals:

            def look(signal: Signal = signal) -> tuple[bool | None, str]:
                seen, answer = self.shows(emission.tenant, emission, signal)
                return seen or None, answer

            poll(look, _VISIBLE_S, f"{emission.tenant}'s own {signal}")

    def harm_to_victim(self) -> Iterator[str]:
        """Yield what of its earlier telemetry the victim no longer reads, and what is unhealthy."""
        emission = self.emissions[self.victim]
        for signal in Signal:
            seen, answer = self.shows(self.victim, emission, signal)
            if not seen:
                yield f"{self.victim} no longer reads its own {signal}: {answer}"
        yield from self.stack.health()
        too_much = self.stack.over_memory()
        yield from (text for name, text in too_much.items() if name not in self.over_memory)
        self.over_memory |= too_much.keys()

    def in_order(self) -> None:
        """Make sure that the victim has telemetry to lose: sent anew where an attack harmed it."""
        sent_ns = max((each.sent_ns for each in self.emissions.values()), default=0)
        # Mimir's instant queries look back five minutes, and ours a minute ahead.
        if not self.sound or time.time_ns() - sent_ns > 120 * 10**9:
            self.prepare()

    def census(self) -> dict[Backend, frozenset[str]]:
        """Return for which tenants each backend has taken telemetry since it was started."""
        return {backend: frozenset(self._taken(backend)) for backend in Backend}

    def _taken(self, backend: Backend) -> list[str]:
        text = self.client.pool.request(
            "GET", f"{backend_url(self.stack, backend)}/metrics", retries=False
        ).data.decode()
        return _TAKEN[backend].findall(text)

    def strangers(self) -> Iterator[str]:
        """Yield which backend has taken telemetry for a tenant that is not in the registry."""
        if not self.stack.disposable:
            return
        before = self.known
        try:
            self.known = self.census()
        except urllib3.exceptions.HTTPError as error:
            yield f"a backend does not answer any more: {error}"
            return
        for backend, tenants in self.known.items():
            old = before[backend]
            if backend is Backend.MIMIR:
                # Tempo's series of old spans come to Mimir after the attack that is to blame.
                old |= _as_mimir_names(before[Backend.TEMPO])
            for stranger in sorted(tenants - old - set(self.stack.tenants)):
                yield f"{backend} stores telemetry under the tenant {stranger!r}"


def _as_mimir_names(tenants: Iterable[str]) -> frozenset[str]:
    """Return what Mimir takes tenants of Tempo for: `|` lists several, `:` ends a name.

    Tempo keeps such a name whole, and hands it on with the series that it makes of the spans.
    """
    whole = frozenset(tenants)
    return whole | {part.partition(":")[0] for name in whole for part in name.split("|")}


def _patiently(exporter: senders.Sender, signal: Signal, emission: Emission) -> None:
    """Send as an exporter does: again, where the receiver is busy."""

    def attempt() -> tuple[bool | None, str]:
        try:
            exporter.send(signal, synthetic.make(emission, signal))
        except ExportError as error:
            if not error.retryable:
                raise
            return None, str(error)
        return True, ""

    poll(attempt, _VISIBLE_S, f"{emission.tenant}'s {signal} taken", interval_s=0.1)


def address(url: str) -> Address:
    """Return host and port of a URL or of `host:port`."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    return parts.hostname or "", parts.port or 80


def backend_url(stack: Stack, backend: Backend) -> str:
    """Return the base URL of a backend's own HTTP port, without the prefix of its read API."""
    return stack.backend_url(backend).removesuffix("/prometheus")


def basic(user: str, password: str) -> str:
    """Return the header line of a credential."""
    return f"Authorization: Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@dataclass
class AttackRun:
    """One run of one attack: the target, and telemetry that only this attack sends."""

    target: AttackedStack
    forged: Emission
    """Made by the attacker; its tokens show where it was stored."""

    @property
    def victim(self) -> str:
        """Whose data is sought."""
        return self.target.victim

    @property
    def attacker(self) -> str:
        """Who seeks it."""
        return self.target.attacker

    @property
    def gateway(self) -> Address:
        """Where the gateway listens."""
        return self.target.gateway

    @property
    def alloy(self) -> Address:
        """Where the attacker's own Alloy takes OTLP over HTTP."""
        return address(self.target.stack.otlp_http(self.attacker))

    @property
    def alloy_grpc(self) -> Address:
        """Where the attacker's own Alloy takes OTLP over gRPC."""
        return address(self.target.stack.otlp_grpc(self.attacker))

    def backend(self, backend: Backend) -> Address:
        """Where a backend itself listens."""
        return address(backend_url(self.target.stack, backend))

    @property
    def own(self) -> str:
        """The header line of the attacker's own credential."""
        return self.target.credential(self.attacker)

    @property
    def admin(self) -> str:
        """The header line of the administrator's credential."""
        auth = self.target.stack.admin_reader(self.target.stack.tenants).auth
        assert auth is not None
        return basic(*auth)

    def fill(self, text: str) -> str:
        """Return a text with names in the place of `{victim}`, `{VICTIM}` and `{attacker}`."""
        return text.format(victim=self.victim, VICTIM=self.victim.upper(), attacker=self.attacker)

    def payload(self, signal: Signal) -> bytes:
        """Return the forged telemetry as an OTLP request."""
        return synthetic.make(self.forged, signal).SerializeToString()

    def write(
        self,
        signal: Signal,
        *lines: str | bytes,
        path: str = "",
        to: Address | None = None,
        body: bytes | None = None,
    ) -> Raw:
        """Return an export of the forged telemetry through the gateway, with these header lines."""
        return http1(
            to or self.gateway,
            "POST",
            path or f"/otlp/v1/{signal}",
            ["Content-Type: application/x-protobuf", *lines],
            self.payload(signal) if body is None else body,
        )

    def writes(self, *lines: str | bytes) -> Iterator[Raw]:
        """Export all signals through the gateway."""
        return (self.write(signal, *lines) for signal in Signal)

    def read(self, api: ReadApi, *lines: str | bytes) -> Raw:
        """Return a question for the victim's data, asked of the gateway with these lines."""
        return self.request(api, self.target.reader(self.victim), lines)

    def reads(self, *lines: str | bytes) -> Iterator[Raw]:
        """Ask every read API there is for the victim's data.

        The tail first: Loki opens it for any name, and hangs on the others if that is `|`.
        """
        apis = sorted(PROVABLE, key=lambda api: not api.stream)
        return (self.read(api, *lines) for api in apis)

    def few(self, *lines: str | bytes) -> Iterator[Raw]:
        """Ask one API of each backend, and the tail."""
        return (self.read(APIS[name], *lines) for name in FEW)

    def request(self, api: ReadApi, access: Access, lines: Lines) -> Raw:
        """Return one question on the wire; only the URLs of `access` are used."""
        bare = Access(access.name, access.urls)
        asked = api.request(bare, question(self.target.emissions[self.victim]))
        parts = urlsplit(asked.url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        given = [f"{name}: {value}" for name, value in asked.headers.items()]
        if api.stream:
            given += UPGRADE
        return http1(
            (parts.hostname or "", parts.port or 80),
            asked.method,
            target,
            [*given, *lines],
            asked.body,
            frames_s=0.3 if api.stream else 0.0,
            decode=api.decode,
        )


#: The header lines that turn a request into a websocket.
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: c3RhY2twcm9vZi1wcm9vZg==",
)


def run(attack: Attack, target: AttackedStack) -> AttackOutcome:
    """Run one attack on a prepared target, and say what became of it.

    Raises:
        StackproofError: The stack is not in order, so nothing can be proven.
    """
    target.in_order()
    began = time.monotonic()
    attack_run = AttackRun(target, synthetic.new_emission(target.attacker, synthetic.new_run()))
    answers: list[WireAnswer] = []
    harmed: list[str] = []
    for wire_request in attack.sends(attack_run):
        answer = send(wire_request)
        answers.append(answer)
        harmed += _shown(target, wire_request, answer)
        if answer.accepted and attack.expect is Expect.REFUSED:
            break  # it has succeeded: more of it would only take time
    if attack.expect is Expect.NEUTRALISED and answers and not attack.writes:
        harmed += _own_is_shown(target, answers)
    refused = bool(answers) and not any(answer.accepted or answer.silent for answer in answers)
    # Who had no answer does not know that it was refused: it may be stored.
    told = refused and all(answer.statuses for answer in answers)
    harmed += _aftermath(attack, attack_run, told)
    unique = tuple(dict.fromkeys(harmed))
    return AttackOutcome(attack, refused, unique, _telling(answers), time.monotonic() - began)


def _shown(target: AttackedStack, wire_request: WireRequest, answer: WireAnswer) -> Iterator[str]:
    """Say what an answer shows that is not the attacker's."""
    found = Marks(target.emissions).find(answer.body).values()
    for owner in sorted({owner for owner, _ in found} - {target.attacker}):
        yield f"shows {owner}'s telemetry"
    trace = target.emissions[target.victim].trace_id.encode()
    asked = wire_request.data if isinstance(wire_request, Raw) else b""
    if trace in answer.body and trace not in asked:
        yield f"shows the id of {target.victim}'s trace"


def _own_is_shown(target: AttackedStack, answers: Iterable[WireAnswer]) -> Iterator[str]:
    """The control of a question that is answered: it shows the attacker what is its own."""
    marks = Marks({target.attacker: target.emissions[target.attacker]})
    if not any(marks.find(answer.body) for answer in answers):
        yield "no answer shows the attacker's own telemetry, so what is absent proves nothing"


def _aftermath(attack: Attack, attack_run: AttackRun, refused: bool) -> Iterator[str]:
    """Say what harm was done; an honest export of the attacker goes in and arrives before that."""
    if attack.writes:
        yield from _arrival(attack, attack_run)
        yield from _stored(attack, attack_run, refused)
    if attack.after is not None:
        yield from attack.after(attack_run)
    if attack.writes or not refused:
        yield from attack_run.target.strangers()
    lost = list(attack_run.target.harm_to_victim())
    attack_run.target.sound = not lost
    yield from lost


def _arrival(attack: Attack, attack_run: AttackRun) -> Iterator[str]:
    """Send honest telemetry after the forged, and wait for it: the control of what is absent."""
    target = attack_run.target
    honest = synthetic.new_emission(target.attacker, attack_run.forged.run)
    exporter = target.exporter(target.attacker)
    if attack.entry_point in {EntryPoint.ALLOY_GRPC, EntryPoint.ALLOY_HTTP}:
        exporter = senders.HttpSender(
            target.stack.otlp_http(target.attacker), pool=target.client.pool
        )
    try:
        for signal in attack.writes:
            _patiently(exporter, signal, honest)
        target.wait_for(honest, attack.writes)
        if attack.expect is Expect.NEUTRALISED:
            target.wait_for(attack_run.forged, attack.writes)
    except StackproofError as error:
        yield f"the attacker's own telemetry does not arrive: {error}"


def _stored(attack: Attack, attack_run: AttackRun, refused: bool) -> Iterator[str]:
    target = attack_run.target
    readers = [target.victim, target.bystander]
    if refused or attack.expect is Expect.REFUSED:
        readers.append(target.attacker)
    for reader in readers:
        for signal in attack.writes:
            if target.shows(reader, attack_run.forged, signal)[0]:
                yield f"the forged {signal} are in {reader}'s tenant"


def _telling(answers: Sequence[WireAnswer]) -> str:
    """Return the answer that tells most: a success if there was one, else the last refusal."""
    if not answers:
        return ""
    taken = [answer for answer in answers if answer.accepted]
    return (taken or answers)[-1].describe()
