"""What people really use works as a tenant, and stays apart: telemetrygen, an own Alloy, promtool.

Their telemetry carries a run's id and a token in attributes, so that the read APIs of the proof ask
for it as they ask for our own.
"""

from __future__ import annotations

import base64
import itertools
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest
from tests.ran import ran

from stackproof.backends import PROVABLE, Client, poll
from stackproof.flux.deployment import Deployment
from stackproof.isolation import Marks, question
from stackproof.model import Backend, Signal
from stackproof.otlp import synthetic
from stackproof.otlp.synthetic import Emission
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack
from stackproof.stack.ports import PortLeases
from stackproof.stack.process import Process
from stackproof.toolchain import programs

pytestmark = pytest.mark.xdist_group("clients")

_VISIBLE_S = 60.0
_APIS = {
    Signal.TRACES: "tempo.search-traceql",
    Signal.METRICS: "mimir.query",
    Signal.LOGS: "loki.query-range",
}
APIS = {signal: next(api for api in PROVABLE if api.id == name) for signal, name in _APIS.items()}


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with LocalStack(Deployment.load(Checkout.find())) as running:
        yield running


@pytest.fixture(scope="module")
def telemetrygen() -> Path:
    return programs.find("telemetrygen")


def _emissions(stack: LocalStack) -> dict[str, Emission]:
    run = synthetic.new_run()
    return {tenant: synthetic.new_emission(tenant, run) for tenant in stack.tenants}


def _password(stack: LocalStack, tenant: str) -> str:
    auth = stack.reader(tenant).auth
    assert auth
    return auth[1]


def _credential(user: str, password: str) -> list[str]:
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [f'--otlp-header=Authorization="Basic {encoded}"']


def _gateway(stack: LocalStack, signal: Signal) -> list[str]:
    """Return what sends a signal to the gateway over HTTP."""
    host = urlsplit(stack.gateway_url or "").netloc
    return ["--otlp-http", f"--otlp-endpoint={host}", f"--otlp-http-url-path=/otlp/v1/{signal}"]


def _generate(
    telemetrygen: Path, signal: Signal, emission: Emission, *how: str, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Send three spans, points or lines of an emission."""
    token = emission.tokens[signal]
    body = [f"--body={token}"] if signal is Signal.LOGS else []
    return ran(
        [
            *(telemetrygen, signal.value, f"--{signal}=3", "--otlp-insecure", "--workers=1"),
            *("--service=open-webui", "--rate=0"),
            f'--telemetry-attributes={synthetic.RUN}="{emission.run}"',
            f'--telemetry-attributes={synthetic.TOKEN}="{token}"',
            *body,
            *how,
        ],
        timeout=timeout_s,
    )


_Own = TypeVar("_Own")


def _until_apart(asked: Iterable[_Own], shown: Callable[[_Own], set[_Own]]) -> None:
    """Wait until each one is shown its own; then nobody is shown anything else."""
    everybody = list(asked)
    for one in everybody:

        def look(one: _Own = one) -> tuple[bool | None, str]:
            seen = shown(one)
            return one in seen or None, str(seen)

        poll(look, _VISIBLE_S, f"what is {one}'s own")
    for one in everybody:
        assert shown(one) == {one}


def _apart(stack: LocalStack, client: Client, emissions: Mapping[str, Emission]) -> None:
    marks = Marks(emissions)

    def shown(to: tuple[str, Signal]) -> set[tuple[str, Signal]]:
        reader, signal = to
        answer = client.ask(APIS[signal], stack.reader(reader), question(emissions[reader]))
        assert answer.status == 200, answer.describe()
        return set(marks.find(answer.body).values())

    _until_apart(itertools.product(stack.tenants, Signal), shown)


def _send(
    stack: LocalStack,
    telemetrygen: Path,
    emission: Emission,
    user: str,
    signals: Iterable[Signal] = Signal,
) -> None:
    """Send a tenant's emission to the gateway, with the credential of `user`."""
    for signal in signals:
        how = [*_gateway(stack, signal), *_credential(user, _password(stack, user))]
        done = _generate(telemetrygen, signal, emission, *how)
        assert done.returncode == 0, done.stderr


def test_telemetrygen_sends_to_the_gateway(
    stack: LocalStack, client: Client, telemetrygen: Path
) -> None:
    emissions = _emissions(stack)
    for tenant in stack.tenants:
        _send(stack, telemetrygen, emissions[tenant], tenant)
    _apart(stack, client, emissions)


def test_what_is_not_apart_is_seen(stack: LocalStack, client: Client, telemetrygen: Path) -> None:
    """One tenant's telemetry is sent as another's too, before that one's own."""
    emissions = _emissions(stack)
    owner, other, *_ = stack.tenants
    _send(stack, telemetrygen, emissions[owner], other)
    for tenant in stack.tenants:
        _send(stack, telemetrygen, emissions[tenant], tenant)
    with pytest.raises(AssertionError, match=owner):
        _apart(stack, client, emissions)


def test_telemetrygen_sends_to_the_tenants_alloy(
    stack: LocalStack, client: Client, telemetrygen: Path
) -> None:
    """Over gRPC, its default, and without a credential: the Alloy has the tenant's."""
    emissions = _emissions(stack)
    for tenant, emission in emissions.items():
        for signal in Signal:
            endpoint = f"--otlp-endpoint={stack.otlp_grpc(tenant)}"
            done = _generate(telemetrygen, signal, emission, endpoint)
            assert done.returncode == 0, done.stderr
    _apart(stack, client, emissions)


@pytest.mark.parametrize("signal", Signal)
def test_telemetrygen_is_refused_another_tenants_name(
    stack: LocalStack, telemetrygen: Path, signal: Signal
) -> None:
    victim, attacker, *_ = stack.tenants
    forged = synthetic.new_emission(attacker, synthetic.new_run())
    own = _credential(attacker, _password(stack, attacker))
    named = f'--otlp-header=X-Scope-OrgID="{victim}"'
    done = _generate(telemetrygen, signal, forged, *_gateway(stack, signal), *own, named)
    assert "403 X-Scope-OrgID names another tenant" in done.stderr
    # Of traces, its exit code does not tell.
    assert done.returncode != 0 or signal is Signal.TRACES


def test_telemetrygen_keeps_what_it_has_while_its_password_is_unknown(
    stack: LocalStack, telemetrygen: Path
) -> None:
    """As every exporter: one that is refused for good would drop it (ADR 5)."""
    victim, attacker, *_ = stack.tenants
    forged = synthetic.new_emission(attacker, synthetic.new_run())
    wrong = _credential(victim, _password(stack, attacker))
    how = [*_gateway(stack, Signal.LOGS), *wrong]
    with pytest.raises(subprocess.TimeoutExpired):
        _generate(telemetrygen, Signal.LOGS, forged, *how, timeout_s=4)


# --- an Alloy of the tenant's own -----------------------------------------------------------------

#: As documentation tells people to: remote write, the push API of Loki, and OTLP over HTTP.
_ALLOY = """
prometheus.exporter.self "alloy" {{ }}
prometheus.scrape "alloy" {{
  targets         = prometheus.exporter.self.alloy.targets
  forward_to      = [prometheus.remote_write.gateway.receiver]
  scrape_interval = "1s"
  scrape_timeout  = "1s"
}}
prometheus.remote_write "gateway" {{
  endpoint {{
    url = "{gateway}/api/v1/push"
    basic_auth {{
      username      = "{tenant}"
      password_file = "{folder}/password"
    }}
  }}
  external_labels = {{ stackproof_run = "{run}", stackproof_token = "{metrics}" }}
}}

loki.source.file "application" {{
  targets    = [{{ __path__ = "{folder}/application.log", service_name = "open-webui" }}]
  forward_to = [loki.write.gateway.receiver]
}}
loki.write "gateway" {{
  endpoint {{
    url = "{gateway}/loki/api/v1/push"
    basic_auth {{
      username      = "{tenant}"
      password_file = "{folder}/password"
    }}
  }}
  external_labels = {{ stackproof_run = "{run}" }}
}}

otelcol.receiver.otlp "application" {{
  grpc {{ endpoint = "127.0.0.1:{grpc}" }}
  output {{ traces = [otelcol.exporter.otlphttp.gateway.input] }}
}}
otelcol.auth.basic "gateway" {{
  username = "{tenant}"
  password = "{password}"
}}
otelcol.exporter.otlphttp "gateway" {{
  client {{
    endpoint = "{gateway}/otlp"
    auth     = otelcol.auth.basic.gateway.handler
  }}
}}
"""


class OwnAlloy:
    """An Alloy that a tenant runs somewhere else, with the password that it was given."""

    def __init__(
        self, stack: LocalStack, emission: Emission, folder: Path, ports: PortLeases
    ) -> None:
        folder.mkdir()
        self.grpc = ports.lease()
        password = _password(stack, emission.tenant)
        (folder / "password").write_text(password)
        (folder / "application.log").write_text(f"one line {emission.tokens[Signal.LOGS]}\n")
        configuration = folder / "config.alloy"
        configuration.write_text(
            _ALLOY.format(
                gateway=stack.gateway_url,
                tenant=emission.tenant,
                password=password,
                folder=folder,
                run=emission.run,
                metrics=emission.tokens[Signal.METRICS],
                grpc=self.grpc,
            )
        )
        argv = [
            *(str(programs.find("alloy")), "run", str(configuration), "--disable-reporting"),
            *(
                f"--storage.path={folder}/data",
                f"--server.http.listen-addr=127.0.0.1:{ports.lease()}",
            ),
        ]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
        self.process = Process(
            f"alloy of {emission.tenant}", argv, environment, folder, folder / "alloy.log"
        )


@pytest.fixture
def ports() -> Iterator[PortLeases]:
    leases = PortLeases()
    yield leases
    leases.release()


def test_an_alloy_of_the_tenants_own_sends_to_the_gateway(
    stack: LocalStack, client: Client, telemetrygen: Path, ports: PortLeases, tmp_path: Path
) -> None:
    emissions = _emissions(stack)
    alloys = {
        tenant: OwnAlloy(stack, emission, tmp_path / tenant, ports)
        for tenant, emission in emissions.items()
    }
    try:
        for alloy in alloys.values():
            alloy.process.start()
        for tenant, emission in emissions.items():

            def attempt(
                tenant: str = tenant, emission: Emission = emission
            ) -> tuple[bool | None, str]:
                endpoint = f"--otlp-endpoint=127.0.0.1:{alloys[tenant].grpc}"
                done = _generate(telemetrygen, Signal.TRACES, emission, endpoint)
                return done.returncode == 0 or None, done.stderr + alloys[tenant].process.tail()

            poll(attempt, _VISIBLE_S, f"{tenant}'s own Alloy takes spans")
        _apart(stack, client, emissions)
    finally:
        for alloy in alloys.values():
            alloy.process.kill()


# --- promtool -------------------------------------------------------------------------------------

#: The commands of `promtool query` that show series, each with how it asks a server for some.
_QUERIES: Mapping[str, Callable[[str, str], list[str]]] = {
    "instant": lambda server, series: [server, series],
    "range": lambda server, series: [server, series],
    "series": lambda server, series: [f"--match={series}", server],
    "labels": lambda server, series: [f"--match={series}", server, "stackproof_token"],
}


@pytest.fixture(scope="module")
def promtool() -> Path:
    return programs.find("promtool")


class Querier:
    """Somebody with promtool and a password, as Prometheus' documentation tells people to ask."""

    def __init__(
        self, promtool: Path, folder: Path, stack: LocalStack, user: str, password: str
    ) -> None:
        folder.mkdir()
        credential = folder / "http.yaml"
        credential.write_text(f"basic_auth:\n  username: {user}\n  password: {password}\n")
        self.server = stack.reader(user).urls[Backend.MIMIR]
        self.command = [str(promtool), "query", f"--http.config.file={credential}"]

    def ask(self, query: str, run: str, *how: str) -> subprocess.CompletedProcess[str]:
        """Ask for all that is marked with a run."""
        words = _QUERIES[query](self.server, f'{{stackproof_run="{run}"}}')
        return ran([*self.command, query, *how, *words], timeout=60)


def _queriers(promtool: Path, stack: LocalStack, folder: Path) -> dict[str, Querier]:
    return {
        tenant: Querier(promtool, folder / tenant, stack, tenant, _password(stack, tenant))
        for tenant in stack.tenants
    }


def _promtool_apart(
    queriers: Mapping[str, Querier], query: str, emissions: Mapping[str, Emission]
) -> None:
    marks = Marks(emissions)

    def shown(to: str) -> set[str]:
        done = queriers[to].ask(query, emissions[to].run)
        assert done.returncode == 0, done.stderr
        return {owner for owner, _ in marks.find(done.stdout.encode()).values()}

    _until_apart(queriers, shown)


@pytest.fixture(scope="module")
def metrics(stack: LocalStack, telemetrygen: Path) -> dict[str, Emission]:
    """What all tenants have sent of metrics, in one run."""
    emissions = _emissions(stack)
    for tenant in stack.tenants:
        _send(stack, telemetrygen, emissions[tenant], tenant, [Signal.METRICS])
    return emissions


@pytest.mark.parametrize("query", _QUERIES)
def test_promtool_shows_a_tenant_its_own_alone(
    stack: LocalStack, promtool: Path, metrics: Mapping[str, Emission], query: str, tmp_path: Path
) -> None:
    _promtool_apart(_queriers(promtool, stack, tmp_path), query, metrics)


@pytest.mark.parametrize("query", _QUERIES)
def test_promtool_would_show_what_is_not_apart(
    stack: LocalStack, promtool: Path, telemetrygen: Path, query: str, tmp_path: Path
) -> None:
    """One tenant's series are sent as another's too."""
    emissions = _emissions(stack)
    owner, other, *_ = stack.tenants
    _send(stack, telemetrygen, emissions[owner], other, [Signal.METRICS])
    for tenant in stack.tenants:
        _send(stack, telemetrygen, emissions[tenant], tenant, [Signal.METRICS])
    with pytest.raises(AssertionError, match=owner):
        _promtool_apart(_queriers(promtool, stack, tmp_path), query, emissions)


@pytest.mark.parametrize(
    ("query", "status"),
    [*((query, "401") for query in _QUERIES), ("instant", "403"), ("range", "403")],
)
def test_promtool_is_refused(
    stack: LocalStack,
    promtool: Path,
    metrics: Mapping[str, Emission],
    query: str,
    status: str,
    tmp_path: Path,
) -> None:
    """With a wrong password 401; with another tenant's name in a header 403."""
    victim, attacker, *_ = stack.tenants
    user, *how = [victim] if status == "401" else [attacker, f"--header=X-Scope-OrgID={victim}"]
    intruder = Querier(promtool, tmp_path / "intruder", stack, user, _password(stack, attacker))
    done = intruder.ask(query, metrics[victim].run, *how)
    assert (done.stdout, done.returncode) == ("", 1)
    assert status in done.stderr
