"""`prove --targets` on deployments of other people's making: right ones, and one for each fault.

The gateways are nginx, as most people write them: basic auth, and the tenant from a map of users.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from tests.actions import Action

from stackproof import cli
from stackproof.backends.base import poll
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import thaw
from stackproof.isolation import Proof, prove
from stackproof.isolation.verdict import Observed, Verdict, ViolationKind
from stackproof.model import Backend, Signal
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack.local import LocalStack
from stackproof.stack.pod import ServicePort
from stackproof.stack.ports import PortLeases
from stackproof.stack.process import Process
from stackproof.stack.targets import Targets, TargetsStack
from stackproof.twins.base import Edit, Layer, Twin

pytestmark = pytest.mark.xdist_group("targets")

TENANTS = load_registry(Checkout.find()).names
ONE, OTHER = TENANTS[:2]
PASSWORDS = {f"PASSWORD_OF_{n}": f"the password of {name}" for n, name in enumerate(TENANTS)}
DEADLINE_S = 20.0


def _proof(folder: Path, file: Mapping[str, Any]) -> Proof:
    path = folder / "targets.yaml"
    path.write_text(yaml.safe_dump(dict(file)), encoding="utf-8")
    with TargetsStack(Targets.load(path, PASSWORDS)) as stack:
        return prove(stack, deadline_s=DEADLINE_S)


def _told(proof: Proof) -> str:
    return "\n".join([*map(str, proof.violations), *proof.notes])


# --- straight to the backends ---------------------------------------------------------------------


@dataclass(frozen=True)
class Backends:
    """Where the backends are, with nothing before them."""

    mimir: str
    loki: str
    tempo: str
    tempo_otlp: str

    @classmethod
    def of(cls, stack: LocalStack) -> Backends:
        port = stack._services[ServicePort(OBSERVABILITY_NAMESPACE, "tempo", 4318)]
        urls = [stack.backend_url(each) for each in (Backend.MIMIR, Backend.LOKI, Backend.TEMPO)]
        mimir, loki, tempo = (url.removesuffix("/prometheus") for url in urls)
        return cls(mimir, loki, tempo, f"http://127.0.0.1:{port}")

    @property
    def read(self) -> dict[str, str]:
        return {"metrics": f"{self.mimir}/prometheus", "logs": self.loki, "traces": self.tempo}

    @property
    def otlp(self) -> dict[str, dict[str, str]]:
        return {
            "traces": {"otlpHttp": f"{self.tempo_otlp}/v1/traces"},
            "metrics": {"otlpHttp": f"{self.mimir}/otlp/v1/metrics"},
            "logs": {
                "otlpHttp": f"{self.loki}/otlp/v1/logs",
                "lokiPush": f"{self.loki}/loki/api/v1/push",
            },
        }


@pytest.fixture(scope="session")
def backends(stack: LocalStack) -> Backends:
    return Backends.of(stack)


def _by_header(header: str = "X-Scope-OrgID") -> list[dict[str, Any]]:
    return [{"name": name, "auth": {"headers": {header: name}}} for name in TENANTS]


def test_without_a_gateway_anybody_may_name_any_tenant(backends: Backends, tmp_path: Path) -> None:
    proof = _proof(
        tmp_path, {"read": backends.read, "write": backends.otlp, "tenants": _by_header()}
    )
    assert proof.verdict is Verdict.LEAKING, _told(proof)
    # The backends do keep apart whoever names itself: all that is wrong is that nobody checks it.
    assert {violation.kind for violation in proof.violations} == {ViolationKind.NOT_REFUSED}
    assert all(cell.observed is cell.expected for cell in proof.matrix.cells()), _told(proof)
    assert {violation.signal for violation in proof.violations} == set(Signal)
    assert "anybody may name any tenant in X-Scope-OrgID" in _told(proof)
    assert proof.violations[0].curl.startswith("curl") and "$PASSWORD" not in _told(proof)


def test_what_targets_init_writes_is_proven(
    stack: LocalStack, checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the preflight where nobody is; whole, where the Service's port is forwarded."""
    objects = [
        {**thaw(each), "metadata": {**each.metadata, "namespace": each.namespace}}
        for release in Deployment.load(checkout).releases()
        for each in release
    ]
    (tmp_path / "objects.json").write_text(json.dumps({"kind": "List", "items": objects}))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["targets", "init", "--from", "objects.json"]) == 0
    file = tmp_path / "targets.yaml"
    for name in TENANTS:
        access = stack.reader(name)
        assert access.auth
        monkeypatch.setenv(f"{name.upper().replace('-', '_')}_PASSWORD", access.auth[1])
    with (
        pytest.raises(
            StackproofError, match=r"gateway\.observability\.svc:8080.*: nothing answers"
        ),
        TargetsStack(Targets.load(file)),
    ):
        pass
    forwarded = file.read_text().replace(
        "http://gateway.observability.svc:8080", str(stack.gateway_url)
    )
    file.write_text(forwarded)
    with TargetsStack(Targets.load(file)) as found:
        proof = prove(found, deadline_s=DEADLINE_S)
    assert proof.verdict is Verdict.ISOLATED, _told(proof)
    assert proof.signals == tuple(Signal)


def test_the_action_proves_and_says_so(
    backends: Backends, checkout: Checkout, tmp_path: Path
) -> None:
    """Metrics alone: nothing guards the backend, so the action fails, with everything told."""
    write = {"metrics": {"remoteWrite": f"{backends.mimir}/api/v1/push"}}
    file = {"read": {"metrics": backends.read["metrics"]}, "write": write, "tenants": _by_header()}
    (tmp_path / "targets.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")
    action = Action(checkout.root)
    inputs = {"targets": "targets.yaml", "arguments": f"--tenants {ONE},{OTHER} --deadline 20"}
    ran = action.run(1, inputs, tmp_path)
    assert (ran.code, ran.outputs) == (1, "verdict=leaking\n"), ran.said
    assert "anybody may name any tenant" in ran.said
    assert "| tests, junit | " in ran.summary
    assert "| proof of some tenants or read APIs only | **leaking**: " in ran.summary
    whole = action.run(1, {"targets": "targets.yaml"}, tmp_path)
    assert "| proof | **leaking**: " in whole.summary and "file targets.yaml" in whole.summary
    none = action.run(1, {"targets": "nowhere.yaml"}, tmp_path)
    assert (none.code, none.outputs) == (69, "verdict=\n")
    assert "nowhere.yaml: cannot be read" in none.said
    assert "| proof | did not get so far |" in none.summary


def test_formats_that_carry_no_traces_prove_the_rest(backends: Backends, tmp_path: Path) -> None:
    write = {
        "metrics": {"remoteWrite": f"{backends.mimir}/api/v1/push"},
        "logs": {"lokiPush": f"{backends.loki}/loki/api/v1/push"},
    }
    proof = _proof(tmp_path, {"read": backends.read, "write": write, "tenants": _by_header()})
    assert proof.signals == (Signal.METRICS, Signal.LOGS)
    assert all(cell.observed is cell.expected for cell in proof.matrix.cells()), _told(proof)
    assert len(proof.apis) == 23, [api.api for api in proof.apis]
    assert re.search("not compared: tempo.trace, .*: not every tenant both .* traces", _told(proof))


def test_a_single_tenant_stack_says_so_at_once(checkout: Checkout, tmp_path: Path) -> None:
    off = "multitenancy_enabled: true", "multitenancy_enabled: false"
    templates = checkout.charts.relative_to(checkout.root) / "lgtm" / "templates"
    twin = Twin(
        name="single-tenant",
        fault="everything is one tenant's",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason="",
        edits=[
            Edit(f"{templates}/mimir.yaml", *off),
            Edit(f"{templates}/tempo.yaml", *off),
            Edit(f"{templates}/loki.yaml", "auth_enabled: true", "auth_enabled: false"),
        ],
    )
    with twin.deployment(checkout) as deployment, LocalStack(deployment, alloys=False) as stack:
        single = Backends.of(stack)
        proof = _proof(
            tmp_path, {"read": single.read, "write": single.otlp, "tenants": _by_header()}
        )
    assert proof.verdict is Verdict.LEAKING
    for signal, backend in zip(Signal, ("tempo", "mimir", "loki"), strict=True):
        assert f"every tenant reads all others' {signal}: {backend} keeps a single" in _told(proof)
    assert proof.duration_s < DEADLINE_S


# --- behind nginx ---------------------------------------------------------------------------------

_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=shared:1m;
  map $http_upgrade $keep {{ default upgrade; "" ""; }}
  map {identity} $tenant {{
    default "";
{tenants}
  }}
  map $tenant $alloy {{
{alloys}
  }}
  map $http_x_scope_orgid $named {{ default $http_x_scope_orgid; "" $tenant; }}
  server {{
    listen 127.0.0.1:{port}{tls};
    {guard}
    client_max_body_size 10m;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $keep;
    proxy_set_header X-Scope-OrgID {header};
    location /opentelemetry.proto.collector. {{ grpc_pass grpc://$alloy; }}
    location = /otlp/v1/traces {{ proxy_pass {tempo_otlp}/v1/traces; }}
    location = /otlp/v1/metrics {{ proxy_pass {mimir}/otlp/v1/metrics; }}
    location = /otlp/v1/logs {{ proxy_pass {loki}/otlp/v1/logs; }}
    location /prometheus/ {{ proxy_pass {mimir}; }}
    location /loki/ {{ proxy_pass {loki}; {loki_extra} }}
    location /tempo/ {{ proxy_pass {tempo}/; {tempo_extra} }}
    {location}
  }}
}}
"""


@dataclass(frozen=True)
class Gateway:
    """One nginx.conf; what is not given is as it should be."""

    identity: str = "$remote_user"
    users: Mapping[str, str] = field(default_factory=lambda: {name: name for name in TENANTS})
    """Whatever `identity` is, to tenant."""
    guard: str = 'auth_basic "lgtm"; auth_basic_user_file {folder}/users;'
    header: str = "$tenant"
    tls: str = ""
    loki_extra: str = ""
    tempo_extra: str = ""
    location: str = ""

    @contextmanager
    def running(self, stack: LocalStack, folder: Path) -> Iterator[str]:
        """Yield `host:port` of it."""
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(nginx).exists():
            pytest.skip("there is no nginx: apt-get install nginx-light")
        words = list(PASSWORDS.values())
        users = zip((*TENANTS, "admin"), (*words, words[0]), strict=True)
        (folder / "users").write_text("".join(f"{name}:{{PLAIN}}{word}\n" for name, word in users))
        ports = PortLeases()
        port = ports.lease()
        where = {**vars(Backends.of(stack)), "folder": folder, "port": port}
        text = _NGINX.format(
            **where,
            identity=self.identity,
            tenants="\n".join(f'    "{key}" {value};' for key, value in self.users.items()),
            alloys="\n".join(f"    {name} {stack.otlp_grpc(name)};" for name in TENANTS),
            guard=self.guard.format(**where),
            header=self.header,
            tls=self.tls,
            loki_extra=self.loki_extra,
            tempo_extra=self.tempo_extra,
            location=self.location.format(**where),
        )
        (folder / "nginx.conf").write_text(text)
        process = Process(
            "nginx",
            [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")],
            {},
            folder,
            folder / "log",
        )
        process.start()
        try:
            poll(lambda: (_listens(port) or process.ended(), process.tail()), 10, "nginx")
            assert process.ended() is None, process.tail()
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            ports.release()


def _listens(port: int) -> bool:
    try:
        urllib3.PoolManager(retries=False).request("GET", f"http://127.0.0.1:{port}/", timeout=1)
    except urllib3.exceptions.HTTPError:
        return False
    return True


def _behind(address: str, auth: Callable[[str, str], object], **more: object) -> dict[str, Any]:
    """Return the file of a deployment behind a gateway; `auth` takes tenant and variable."""
    url = f"http{'s' if 'tls' in more else ''}://{address}"
    return {
        "read": {"metrics": f"{url}/prometheus", "logs": url, "traces": f"{url}/tempo"},
        "write": {"otlpHttp": f"{url}/otlp", "logs": {
            "otlpHttp": f"{url}/otlp/v1/logs", "lokiPush": f"{url}/loki/api/v1/push"
        }},
        "tenants": [
            {"name": name, "auth": auth(name, variable)}
            for name, variable in zip(TENANTS, PASSWORDS, strict=True)
        ],
        **more,
    }  # fmt: skip


def _basic(name: str, variable: str) -> object:
    return {"basic": {"user": name, "password": {"env": variable}}}


def _isolated(proof: Proof) -> None:
    assert proof.verdict is Verdict.ISOLATED, _told(proof)
    assert all(cell.observed is cell.expected for cell in proof.matrix.cells())
    assert proof.matrix.cell(ONE, OTHER, Signal.LOGS).observed is Observed.HIDDEN
    refused = {check.name for check in proof.checks if check.name.startswith("refused: ")}
    assert {"refused: no credential", "refused: another tenant's header"} <= refused


def test_a_right_gateway_is_isolated(stack: LocalStack, tmp_path: Path) -> None:
    with Gateway().running(stack, tmp_path) as address:
        _isolated(_proof(tmp_path, _behind(address, _basic)))


@pytest.mark.parametrize(
    ("named", "verdict", "seen"),
    [
        ("$http_x_scope_orgid", Verdict.ISOLATED, f"shows {', '.join(sorted(TENANTS))}"),
        (ONE, Verdict.INCOMPLETE, f"lacks {', '.join(sorted(set(TENANTS) - {ONE}))}"),
    ],
)
def test_an_administrator_sees_all(
    named: str, verdict: Verdict, seen: str, stack: LocalStack, tmp_path: Path
) -> None:
    gateway = Gateway(users={**{name: name for name in TENANTS}, "admin": named})
    with gateway.running(stack, tmp_path) as address:
        admin = {"auth": _basic("admin", "PASSWORD_OF_0")}
        proof = _proof(tmp_path, _behind(address, _basic, admin=admin))
    assert proof.verdict is verdict, _told(proof)
    shown = {each.detail for each in proof.checks if each.name == "data source administrator"}
    assert shown == {seen}


def test_bearer_tokens(stack: LocalStack, tmp_path: Path) -> None:
    words = {f"Bearer {word}": name for name, word in zip(TENANTS, PASSWORDS.values(), strict=True)}
    guard = 'if ($tenant = "") {{ return 401; }}'
    gateway = Gateway(identity="$http_authorization", users=words, guard=guard)
    with gateway.running(stack, tmp_path) as address:
        proof = _proof(tmp_path, _behind(address, lambda _, word: {"bearer": {"env": word}}))
    _isolated(proof)
    assert "refused: a wrong password" in {check.name for check in proof.checks}


def test_client_certificates_and_grpc_with_tls(stack: LocalStack, tmp_path: Path) -> None:
    _certificates(tmp_path)
    gateway = Gateway(
        identity="$ssl_client_s_dn",
        users={f"CN={name}": name for name in TENANTS},
        tls=" ssl http2",
        guard="ssl_certificate {folder}/gateway.pem; ssl_certificate_key {folder}/gateway.key;"
        " ssl_client_certificate {folder}/ca.pem; ssl_verify_client on;",
    )
    with gateway.running(stack, tmp_path) as address:
        file = _behind(address, lambda *_: {}, tls={"ca": "ca.pem"})
        file["write"] = {
            "otlpGrpc": f"https://{address}",
            "logs": {
                "otlpGrpc": f"https://{address}",
                "lokiPush": f"https://{address}/loki/api/v1/push",
            },
        }
        for tenant in file["tenants"]:
            tenant["tls"] = {"cert": f"{tenant['name']}.pem", "key": f"{tenant['name']}.key"}
        _isolated(_proof(tmp_path, file))


def _certificates(folder: Path) -> None:
    """Make an authority, and certificates of the gateway and of each tenant."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    for name in ("gateway", *TENANTS):
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN={name}")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
        openssl("x509", "-req", "-in", "request", *signed, "-out", f"{name}.pem")


LEAKS = {
    "passes-the-client's-header": (
        Gateway(header="$named"),
        r"not refused: \S+ with another tenant's header was answered with HTTP 200",
    ),
    "a-location-without-auth": (
        Gateway(tempo_extra="auth_basic off;"),
        r"not refused: tempo\.\S+ with a wrong password was answered with HTTP 200",
    ),
    "a-wrong-entry-in-the-map": (
        Gateway(users={name: ONE if name == OTHER else name for name in TENANTS}),
        rf"leak: {ONE} reads {OTHER}'s logs through loki\.",
    ),
    "a-path-for-several-tenants": (
        Gateway(
            location="location = /loki/api/v1/series {{ proxy_pass {loki};"
            f' proxy_set_header X-Scope-OrgID "{"|".join(TENANTS)}"; }}}}'
        ),
        r"leak: \S+ reads .+'s logs through loki\.series",
    ),
    "a-cache-for-all-users": (
        Gateway(
            loki_extra="proxy_cache shared; proxy_cache_key $request_uri; proxy_cache_valid 1m;"
        ),
        r"leak: \S+ reads \S+'s logs through loki\.labels",
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_leaking_gateway_is_caught_and_the_leak_is_named(
    name: str, stack: LocalStack, tmp_path: Path
) -> None:
    gateway, reason = LEAKS[name]
    with gateway.running(stack, tmp_path) as address:
        proof = _proof(tmp_path, _behind(address, _basic))
    assert proof.verdict is Verdict.LEAKING, _told(proof)
    assert re.search(reason, _told(proof)), _told(proof)
