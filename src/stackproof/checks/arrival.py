"""What must hold of the real application's telemetry once it runs, asked of the real backends.

Each check drives the application as a browser would, and reads as the tenant whose it is. What it
sent is known by a token in a URL (spans, lines) and by `job` and `instance` (series), which Mimir
makes of the resource's attributes service.namespace, service.name and service.instance.id.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from stackproof.backends import Client
from stackproof.backends.base import Answer
from stackproof.errors import StackproofError
from stackproof.helm.renderer import Values
from stackproof.model import Access, Backend, Signal
from stackproof.otlp import app_metrics, synthetic
from stackproof.rules import Rules
from stackproof.stack.application import Application
from stackproof.stack.local import LocalStack
from stackproof.waiting import until
from stackproof.wording import counted

_PATH = "/api/config"
_WAITED_S = 30.0

#: Faster than in a cluster, where a minute's patience costs nothing.
SOON: Values = {
    "openWebui": {"config": {"telemetry": {"otel": {"metricsExportIntervalMillis": 1000}}}}
}


@dataclass
class RunningApplication:
    """The replicas of one tenant's application, ready, and whoever reads.

    Args:
        stack: Where they run.
        replicas: At least one.
        client: Asks the backends.
        waited_s: How long what was sent may take to arrive.
        strangers: Status and role of each that tried to sign up before anybody else had come.
    """

    stack: LocalStack
    replicas: Sequence[Application]
    client: Client
    waited_s: float = _WAITED_S
    strangers: Sequence[tuple[int | None, str]] = ()
    _driven: dict[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        """Whose application it is."""
        return self.replicas[0].tenant

    @property
    def job(self) -> str:
        """The label that its series must have."""
        attributes = self.replicas[0].attributes
        return f"{attributes['service.namespace']}/{attributes['service.name']}"

    def token(self, application: Application) -> str:
        """Use a replica as its users do, once; return the token that its telemetry holds."""
        name = application.pod.pod_name
        if name not in self._driven:
            self._driven[name] = synthetic.new_run()
            _use(application, self._driven[name])
        return self._driven[name]

    def ask(self, access: Access, backend: Backend, path: str, **params: str) -> Answer:
        """Ask a backend as this reader."""
        return self.client.get(access, backend, path, params)

    def series(self, access: Access) -> tuple[list[dict[str, str]], Answer]:
        """Return the labels of each series of the application's job that this reader sees."""
        answer = self.ask(
            access,
            Backend.MIMIR,
            "/api/v1/series",
            start=str(int(time.time()) - 600),
            **{"match[]": f'{{job="{self.job}"}}'},
        )
        return _body(answer).get("data") or [], answer

    def find(self, access: Access, signal: Signal, token: str) -> Answer:
        """Ask for whatever holds the token; for metrics, for the application's series."""
        if signal is Signal.METRICS:
            return self.series(access)[1]
        if signal is Signal.LOGS:
            query = f'{{service_name="{self.replicas[0].attributes["service.name"]}"}} |= `{token}`'
            return self.ask(access, Backend.LOKI, "/loki/api/v1/query_range", query=query)
        query = f'{{ span.http.url =~ ".*{token}.*" }}'
        return self.ask(access, Backend.TEMPO, "/api/search", q=query, limit="5")


@contextmanager
def running(
    stack: LocalStack,
    tenant: str,
    client: Client,
    *,
    replicas: int = 1,
    values: Sequence[Values] = (),
    waited_s: float = _WAITED_S,
) -> Iterator[RunningApplication]:
    """Start a tenant's application, all replicas at once, and give it when it is ready.

    Raises:
        StackproofError: It does not start.
    """
    with ExitStack() as life:
        started = [
            life.enter_context(Application(stack, tenant, replica=number, values=[SOON, *values]))
            for number in range(replicas)
        ]
        for application in started:
            application.wait()
        strangers = [
            _sign_up(application, f"stranger-{n}") for application in started for n in "ab"
        ]
        yield RunningApplication(stack, started, client, waited_s, strangers)


ARRIVAL: Rules[RunningApplication] = Rules()


@ARRIVAL.register
def its_administrator_is_there_first(run: RunningApplication) -> Iterator[str]:
    """Nobody signs up, not even first, and the administrator of the values signs in."""
    for status, role in run.strangers:
        if status == 200:
            yield f"a stranger signed up: {status}, role {role}"
    for application in run.replicas:
        status, role, _ = _sign_in(application)
        if (status, role) != (200, "admin"):
            yield f"the administrator cannot sign in: {status}, role {role}"


@ARRIVAL.register
def every_signal_arrives(run: RunningApplication) -> Iterator[str]:
    """All signals of every replica are there for their tenant, and say whose they are."""
    for application in run.replicas:
        for signal in Signal:
            yield from _arrives(run, application, signal)


@ARRIVAL.register
def each_line_arrives_once(run: RunningApplication) -> Iterator[str]:
    """A line is exported once: by the application's own handler, not by OpenTelemetry's as well."""
    application = run.replicas[0]
    token, later = run.token(application), synthetic.new_run()
    # A second copy may come later than the first; but before a line that is written after that.
    _copies(run, token)
    _fail_to_sign_in(application, later)
    _copies(run, later)
    count, said = _copies(run, token)
    if count != 1:
        yield f"a line of {run.tenant}'s is stored {count} times: {said}"


def _copies(run: RunningApplication, token: str) -> tuple[int, str]:
    """Count a line once it has come, or is given up; say what was answered.

    It is a line of the application: of those of its server only the application makes telemetry.
    """

    def look() -> tuple[int, str]:
        answer = run.find(run.stack.reader(run.tenant), Signal.LOGS, f"authenticate_user: {token}")
        streams = _body(answer).get("data", {}).get("result") or []
        return sum(len(stream["values"]) for stream in streams), answer.describe()

    return until(look, lambda seen: seen[0], within_s=run.waited_s)


@ARRIVAL.register
def nobody_else_sees_it(run: RunningApplication) -> Iterator[str]:
    """No other tenant sees any of it, by the requests by which its own tenant does."""
    application = run.replicas[0]
    token = run.token(application)
    for signal in Signal:
        mark = _mark(run, application, signal)
        if mark is None:
            yield f"{signal}: unproven, their own tenant does not see them"
            continue
        for tenant in run.stack.tenants:
            answer = run.find(run.stack.reader(tenant), signal, token)
            seen = mark.encode() in answer.body
            if answer.status != 200:
                yield f"{signal}: {tenant} was not answered: {answer.describe()}"
            elif seen and tenant != run.tenant:
                yield f"{signal}: {tenant} sees {run.tenant}'s: {answer.describe()}"
            elif not seen and tenant == run.tenant:
                yield f"{signal}: {tenant} no longer sees its own: {answer.describe()}"


@ARRIVAL.register
def dashboards_ask_for_what_it_emits(run: RunningApplication) -> Iterator[str]:
    """Each metric of the list that dashboards are held to is emitted, with the list's labels."""
    run.token(run.replicas[0])
    yield from until(lambda: _not_emitted(run), lambda missing: not missing, within_s=run.waited_s)


@ARRIVAL.register
def replicas_are_told_apart(run: RunningApplication) -> Iterator[str]:
    """Each replica writes series of its own: none is written by two."""
    # One is used more than the other: what both write goes up and down.
    for number, application in enumerate(run.replicas):
        for _ in range(5 * number):
            application.ask("GET", "/api/version")
    wanted = {application.pod.pod_name for application in run.replicas}
    selector = f'{{job="{run.job}", http_route="/api/version"}}'
    query = f"http_server_requests_total{selector}"
    reader = run.stack.reader(run.tenant)
    ends = time.monotonic() + run.waited_s
    said = "nothing"
    while time.monotonic() < ends:
        for application in run.replicas:
            application.ask("GET", "/api/version")
        answer = run.ask(reader, Backend.MIMIR, "/api/v1/query", query=f"{query}[1m]")
        said = answer.describe()
        found = _body(answer).get("data", {}).get("result") or []
        for each in found:
            values = [float(value) for _, value in each["values"]]
            if any(later < earlier for earlier, later in pairwise(values)):
                yield (
                    f"{counted(len(wanted), 'replica')} for one series: its counter goes back, "
                    f"{values[-8:]}: {each['metric']}"
                )
                return
        if {each["metric"].get("instance") for each in found} == wanted:
            return
        time.sleep(0.3)
    yield f"not every replica of {sorted(wanted)} has series: {said}"


#: What the exporters call a signal when they give it up, by gRPC and by HTTP.
_LOST: Mapping[Signal, Sequence[str]] = {
    Signal.TRACES: ("traces", "span batch"),
    Signal.METRICS: ("metrics",),
    Signal.LOGS: ("logs",),
}


# --- driving it ---


def _use(application: Application, token: str) -> None:
    """Be its administrator: sign in, ask for the models, and fail to sign in."""
    application.ask("GET", f"{_PATH}?probe={token}")
    status, _, session = _sign_in(application)
    if status != 200:
        raise StackproofError(f"its administrator cannot sign in: {status}", where=application.url)
    # Its provider of models, itself here, is called over HTTP.
    signed_in = {"Authorization": f"Bearer {session}"}
    application.ask("GET", "/api/models?refresh=true", headers=signed_in)
    _fail_to_sign_in(application, token)


def _sign_up(application: Application, name: str) -> tuple[int | None, str]:
    """Try to make an account, as whoever reaches the page can; return status and role."""
    account = {"name": name, "email": f"{name}@example.test", "password": f"{name}-A1!"}
    status, body = application.ask("POST", "/api/v1/auths/signup", account)
    return status, str(json.loads(body).get("role")) if status == 200 else ""


def _sign_in(application: Application) -> tuple[int | None, str, str]:
    """Sign in as the administrator that the pod's environment names: status, role and token."""
    given = application.environment
    account = {
        "email": given.get("WEBUI_ADMIN_EMAIL", ""),
        "password": given.get("WEBUI_ADMIN_PASSWORD", ""),
    }
    status, body = application.ask("POST", "/api/v1/auths/signin", account)
    said = json.loads(body) if status == 200 else {}
    return status, str(said.get("role")), str(said.get("token"))


def _fail_to_sign_in(application: Application, token: str) -> None:
    account = {"email": f"{token}@example.test", "password": "wrong"}
    application.ask("POST", "/api/v1/auths/signin", account)


# --- reading it ---


def _body(answer: Answer) -> Mapping[str, Any]:
    """Return what was answered, nothing where it was refused."""
    found: Mapping[str, Any] = json.loads(answer.body) if answer.status == 200 else {}
    return found


def _arrives(run: RunningApplication, application: Application, signal: Signal) -> Iterator[str]:
    name = f"{signal} of {run.tenant}'s {application.pod.pod_name}"
    token = run.token(application)

    def given_up() -> bool:
        log = " ".join(application.log_errors())
        return any(f"Failed to export {each}" in log for each in _LOST[signal])

    found, said = until(
        lambda: _resource(run, application, signal, token),
        # What it gave up to send never comes: nothing to wait for.
        lambda seen: seen[0] is not None or given_up(),
        within_s=run.waited_s,
    )
    if found is None:
        log_errors = application.log_errors()
        # The first say why, the last what became of it; between them it tries again and again.
        told = "; ".join(dict.fromkeys([*log_errors[:6], *log_errors[-6:]])) or "nothing"
        yield f"{name} do not arrive: the application says: {told}; the backend: {said}"
        return
    for key, value in application.attributes.items():
        if found.get(key) != value:
            yield f"{name}: {key} is {found.get(key)!r}, not {value!r}"


def _resource(
    run: RunningApplication, application: Application, signal: Signal, token: str
) -> tuple[Mapping[str, str] | None, str]:
    """Return what arrived telemetry says of its sender, None where there is none yet."""
    reader = run.stack.reader(run.tenant)
    if signal is Signal.METRICS:
        series, answer = run.series(reader)
        found = _of_metrics(series, application)
    else:
        answer = run.find(reader, signal, token)
        body = _body(answer)
        found = _of_line(body) if signal is Signal.LOGS else _of_trace(run, reader, body)
    return found, answer.describe()


def _of_metrics(
    series: Sequence[Mapping[str, str]], application: Application
) -> Mapping[str, str] | None:
    """Join what Mimir keeps of a resource: `job` and `instance`, the rest in target_info."""
    instance = application.pod.pod_name
    mine = [each for each in series if each.get("instance") in {instance, None}]
    used = [each for each in mine if each.get("http_route") == _PATH]
    info = [each for each in mine if each["__name__"] == "target_info"]
    if not used or not info:
        return None
    namespace, _, service = used[0]["job"].partition("/")
    return {
        "service.name": service,
        "service.namespace": namespace,
        "service.instance.id": used[0].get("instance", ""),
        "tenant.id": info[0].get("tenant_id", ""),
    }


def _of_line(body: Mapping[str, Any]) -> Mapping[str, str] | None:
    for stream in body.get("data", {}).get("result") or ():
        labels: Mapping[str, str] = stream["stream"]
        # Loki writes dots as underscores; of these keys none has both.
        return {key.replace("_", "."): value for key, value in labels.items()}
    return None


def _of_trace(
    run: RunningApplication, reader: Access, body: Mapping[str, Any]
) -> Mapping[str, str] | None:
    for trace in body.get("traces") or ():
        answer = run.ask(reader, Backend.TEMPO, f"/api/v2/traces/{trace['traceID']}")
        for resource in _body(answer).get("trace", {}).get("resourceSpans") or ():
            attributes = resource["resource"]["attributes"]
            return {each["key"]: each["value"].get("stringValue", "") for each in attributes}
    return None


def _mark(run: RunningApplication, application: Application, signal: Signal) -> str | None:
    """Return what an answer holds if it holds its spans, lines or series; None where none come."""
    return until(lambda: _shown(run, application, signal), within_s=run.waited_s)


def _shown(run: RunningApplication, application: Application, signal: Signal) -> str | None:
    answer = run.find(run.stack.reader(run.tenant), signal, run.token(application))
    if signal is Signal.TRACES:
        traces = _body(answer).get("traces")
        return str(traces[0]["traceID"]) if traces else None
    mark = run.job if signal is Signal.METRICS else f"probe={run.token(application)}"
    return mark if mark.encode() in answer.body else None


def _not_emitted(run: RunningApplication) -> list[str]:
    series, answer = run.series(run.stack.reader(run.tenant))
    # What says whose a series is, and not what of: the attributes of the resource.
    info = [each.keys() for each in series if each["__name__"] == "target_info"]
    if not info:
        return [f"no series of {run.job}: {answer.describe()}"]
    labels: dict[str, set[frozenset[str]]] = {}
    for each in series:
        keys = each.keys() - {"le"}.union(*info)
        labels.setdefault(each["__name__"], set()).add(frozenset(keys))
    missing = []
    for metric in app_metrics.EMITTED:
        wanted = {frozenset(key.replace(".", "_") for key in point) for point in metric.points}
        for name in metric.series:
            found = labels.get(name, set())
            said = [sorted(one) for one in found] or "no series of that name"
            missing += [
                f"{name} with labels {sorted(one)} is not emitted: {said}" for one in wanted - found
            ]
    return missing
