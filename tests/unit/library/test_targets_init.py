"""`targets init`: from the objects of a cluster to a file that `prove --targets` takes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof import cli
from stackproof.errors import ExitCode, StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import thaw
from stackproof.kube.client import ApiError, Kube
from stackproof.model import TENANT_HEADER, Backend, Signal
from stackproof.repo.checkout import Checkout
from stackproof.repo.document import FileError
from stackproof.stack import discovery, targets_file
from stackproof.stack.targets import Targets, TargetsStack

Object = dict[str, Any]


def _object(kind: str, name: str, labels: Mapping[str, str] | None = None, **more: Any) -> Object:
    metadata = {"name": name, "namespace": "monitoring", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def _service(
    name: str, *ports: int, of: str = "", component: str = "", names: str = "http-metrics"
) -> Object:
    labels = {"app.kubernetes.io/name": of, "app.kubernetes.io/component": component}
    given = [{"name": names if n == 0 else f"p{n}", "port": port} for n, port in enumerate(ports)]
    return _object("Service", name, {k: v for k, v in labels.items() if v}, spec={"ports": given})


def _config_map(name: str, text: str) -> Object:
    return _object("ConfigMap", name, data={"config": text})


def _ingress(service: str, host: str, path: str = "/", **annotations: str) -> Object:
    backend = {"service": {"name": service, "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": path, "backend": backend}]}}
    made = _object("Ingress", service, spec={"rules": [rule], "tls": [{"hosts": [host]}]})
    made["metadata"]["annotations"] = {
        f"nginx.ingress.kubernetes.io/{key.replace('_', '-')}": value
        for key, value in annotations.items()
    }
    return made


#: The Services of the official charts, as they render them (release `obs`).
MIMIR = [
    _service("obs-mimir-distributor", 8080, 9095, of="mimir", component="distributor"),
    _service("obs-mimir-distributor-headless", 8080, of="mimir", component="distributor"),
    _service("obs-mimir-query-frontend", 8080, of="mimir", component="query-frontend"),
    _service("obs-mimir-gateway", 80, 8080, of="mimir", component="gateway"),
]
LOKI = [
    _service("obs-loki-gateway-exporter", 4040, of="loki", component="gateway"),
    _service("obs-loki-canary", 3500, of="loki", component="canary"),
    _service("obs-loki-memberlist", 7946, of="loki", names="tcp"),
    _service("obs-loki", 3100, 9095, of="loki", component="single-binary"),
    _service("obs-loki-headless", 3100, of="loki", component="single-binary"),
    _service("obs-loki-chunks-cache", 11211, of="loki", component="memcached-chunks-cache"),
]
TEMPO = [_service("tempo", 6831, 3200, 4317, 4318, of="tempo", names="tempo-jaeger")]
TWO = _config_map("overrides", "overrides: {acme: {}, globex: {}, '*': {}}")


def _write(folder: Path, *objects: Object) -> tuple[discovery.Found, Path]:
    found = discovery.discover(objects)
    path = folder / "targets.yaml"
    path.write_text(targets_file.text(found, "here", "a test", "targets.yaml"), encoding="utf-8")
    return found, path


def _load(folder: Path, *objects: Object) -> TargetsStack:
    found, path = _write(folder, *objects)
    environment = dict.fromkeys(targets_file.passwords(found).values(), "hunter2")
    return TargetsStack(Targets.load(path, environment))


# --- where it is ----------------------------------------------------------------------------------


def test_our_own_charts(tmp_path: Path, checkout: Checkout) -> None:
    deployment = Deployment.load(checkout)
    rendered = [
        {**thaw(each), "metadata": {**each.metadata, "namespace": each.namespace}}
        for release in deployment.releases()
        for each in release
    ]
    stack = _load(tmp_path, *rendered)
    assert stack.tenants == deployment.registry.names
    assert stack.signals == tuple(Signal) and stack.absent == ()
    access = stack.reader("soev")
    assert access.auth == ("soev", "hunter2")
    assert access.urls[Backend.TEMPO] == "http://gateway.observability.svc:8080/tempo"
    assert TENANT_HEADER not in access.headers, "the gateway makes the user the tenant"
    assert "port-forward service/gateway 8080" in (tmp_path / "targets.yaml").read_text()


def test_the_official_charts(tmp_path: Path) -> None:
    stack = _load(tmp_path, *MIMIR, *LOKI, *TEMPO, TWO)
    assert stack.reader("acme").urls == {
        Backend.MIMIR: "http://obs-mimir-gateway.monitoring.svc:80/prometheus",
        Backend.LOKI: "http://obs-loki.monitoring.svc:3100",
        Backend.TEMPO: "http://tempo.monitoring.svc:3200",
    }
    assert stack.targets.tenants[0].ways == {
        Signal.TRACES: {"otlpHttp": "http://tempo.monitoring.svc:4318/v1/traces"},
        Signal.METRICS: {"otlpHttp": "http://obs-mimir-gateway.monitoring.svc:80/otlp/v1/metrics"},
        Signal.LOGS: {
            "otlpHttp": "http://obs-loki.monitoring.svc:3100/otlp/v1/logs",
            "lokiPush": "http://obs-loki.monitoring.svc:3100/loki/api/v1/push",
        },
    }
    assert stack.reader("globex").headers == {TENANT_HEADER: "globex"}


@pytest.mark.parametrize(
    ("services", "read", "write"),
    [
        (
            [
                _service("loki-read", 3100, of="loki", component="read"),
                _service("loki-write", 3100, of="loki", component="write"),
                _service("loki-backend", 3100, of="loki", component="backend"),
            ],
            "http://loki-read.monitoring.svc:3100",
            "http://loki-write.monitoring.svc:3100",
        ),
        (
            [
                _service("t-tempo-query-frontend", 3200, of="tempo", component="query-frontend"),
                _service(
                    "t-tempo-distributor", 3200, 9095, 4317, of="tempo", component="distributor"
                ),
            ],
            "http://t-tempo-query-frontend.monitoring.svc:3200",
            "http://t-tempo-distributor.monitoring.svc:4317",
        ),
        (
            [_service("mimir-nginx", 80, of="mimir", component="nginx")],
            "http://mimir-nginx.monitoring.svc:80",
            "http://mimir-nginx.monitoring.svc:80",
        ),
        # No label at all: the name tells.
        (
            [_service("my-loki-gateway", 80, names="web"), _service("my-loki-read", 3100)],
            "http://my-loki-gateway.monitoring.svc:80",
            "http://my-loki-gateway.monitoring.svc:80",
        ),
    ],
    ids=["simple scalable", "tempo-distributed", "nginx of lgtm-distributed", "no labels"],
)
def test_how_else_they_are_deployed(services: list[Object], read: str, write: str) -> None:
    found = discovery.discover(services)
    (reads,), (writes,) = found.reads.values(), found.writes.values()
    assert (reads.url, writes.url) == (read, write)


def test_an_ingress_is_preferred(tmp_path: Path) -> None:
    ingresses = [
        _ingress("obs-mimir-gateway", "lgtm.example"),
        _ingress("obs-loki", "logs.example", "/loki/api/v1/push"),
        _ingress("tempo", "lgtm.example", "/traces(/|$)(.*)", rewrite_target="/$2"),
        _ingress("grafana", "grafana.example"),
    ]
    found, path = _write(tmp_path, *MIMIR, *LOKI, *TEMPO, *ingresses, TWO)
    assert {backend: address.url for backend, address in found.reads.items()} == {
        Backend.MIMIR: "https://lgtm.example",
        Backend.LOKI: "https://logs.example",
        Backend.TEMPO: "https://lgtm.example/traces",
    }
    assert "Ingress monitoring/tempo rewrites paths" in path.read_text()


@pytest.mark.parametrize(
    "beside",
    [
        *("headless", "discovery", "memberlist", "gossip-ring"),
        *("gateway-exporter", "canary", "chunks-cache", "memcached"),
    ],
)
def test_what_is_beside_a_component_is_not_read_from(beside: str) -> None:
    """Whatever its labels say, and whichever is listed first."""
    loki = _service("obs-loki", 3100, of="loki", component="single-binary")
    other = _service(f"obs-loki-{beside}", 3100, of="loki", component="single-binary")
    found = discovery.discover([other, loki])
    assert found.reads[Backend.LOKI].service == "monitoring/obs-loki"
    assert "Beside" not in " ".join(found.open)


def test_two_of_a_kind_are_told() -> None:
    other = _service("other-loki", 3100, of="loki", component="single-binary")
    assert "Beside Service monitoring/obs-loki there is monitoring/other-loki" in "\n".join(
        discovery.discover([*LOKI, other]).open
    )


# --- who asks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guard", "header"),
    [
        (_ingress("obs-loki", "logs.example", auth_type="basic"), True),
        (_config_map("obs-loki-nginx", "server {\n  auth_basic on;\n}"), True),
        (
            _config_map(
                "obs-loki", "  auth_basic 'Loki';\n  proxy_set_header X-Scope-OrgID $remote_user;"
            ),
            False,
        ),
    ],
    ids=["an Ingress", "nginx", "nginx, which names the tenant"],
)
def test_who_asks_for_a_password(guard: Object, header: bool, tmp_path: Path) -> None:
    access = _load(tmp_path, *LOKI, guard, TWO).reader("acme")
    assert access.auth == ("acme", "hunter2")
    assert (TENANT_HEADER in access.headers) is header


@pytest.mark.parametrize("text", ["auth_basic off;", "# auth_basic 'Loki';"])
def test_who_asks_for_none(text: str, tmp_path: Path) -> None:
    stack = _load(tmp_path, *LOKI, _config_map("obs-loki", text), TWO)
    assert stack.reader("acme").auth is None
    assert "anybody may name" in (tmp_path / "targets.yaml").read_text()


def test_no_secret_is_written(tmp_path: Path) -> None:
    secret = _object("Secret", "obs-loki", data={"password": "c3dvcmRmaXNo", "tenant_id": "stolen"})
    value = "overrides: {acme: {}}\npassword: swordfish\n"
    _, path = _write(tmp_path, *LOKI, secret, _config_map("obs-loki", value))
    text = path.read_text()
    assert "acme" in text
    assert not any(word in text for word in ("swordfish", "c3dvcmRmaXNo", "stolen"))


# --- whose it is ----------------------------------------------------------------------------------

ALLOY = 'loki.write "a" {\n  endpoint {\n    url = "http://loki"\n    tenant_id = "acme"\n  }\n}\n'
OTEL = {"exporters": {"otlphttp": {"headers": {"X-Scope-OrgID": "acme"}}}}
GRAFANA = """\
datasources:
  - name: Loki
    jsonData: {httpHeaderName1: Authorization, httpHeaderName2: x-scope-orgid}
    secureJsonData: {httpHeaderValue1: swordfish, httpHeaderValue2: "acme|globex"}
"""


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (_config_map("alloy", ALLOY), ["acme"]),
        (_config_map("alloy", 'headers = {"X-Scope-OrgID" = "acme", "A" = "b"}'), ["acme"]),
        (_config_map("promtail", "clients:\n  - url: a\n    tenant_id: acme\n"), ["acme"]),
        (_config_map("otel", yaml.safe_dump(OTEL)), ["acme"]),
        (_config_map("prometheus", "headers:\n  X-Scope-OrgID: 'acme'\n"), ["acme"]),
        (_config_map("grafana", GRAFANA), ["acme", "globex"]),
        (_config_map("runtime", "overrides:\n  acme: {a: 1}\n  '*': {}\n"), ["acme"]),
        (_config_map("values", "tenants:\n  - name: acme\n  - name: globex\n"), ["acme", "globex"]),
        (_object("OpenTelemetryCollector", "otel", spec={"config": OTEL}), ["acme"]),
        (_object("Deployment", "app", spec={"args": ["--header=X-Scope-OrgID=acme"]}), ["acme"]),
        (_config_map("nginx", "proxy_set_header X-Scope-OrgID $remote_user;"), []),
        (_config_map("tempo", "server: {}\noverrides: {defaults: {}}\n"), []),
        (_config_map("loki", 'tenant_id: "fake"\n'), []),
        (_config_map("broken", "overrides: {\n"), []),
    ],
)
def test_where_tenants_are_named(told: Object, names: list[str]) -> None:
    found = discovery.discover([*LOKI, told])
    assert list(found.tenants) == names
    assert set(found.tenants.values()) <= {f"{told['kind']} monitoring/{told['metadata']['name']}"}


@pytest.mark.parametrize(
    "text", ["X-Scope-OrgID: ${TENANT}", '"X-Scope-OrgID" = sys.env("T")', "tenant_id: $TENANT"]
)
def test_a_variable_is_no_name(text: str) -> None:
    found = discovery.discover([*LOKI, _config_map("alloy", text)])
    assert not found.tenants
    assert "ConfigMap monitoring/alloy names a tenant by a variable" in "\n".join(found.open)


def test_names_that_yaml_takes_for_something_else(tmp_path: Path) -> None:
    names = ["yes", "007", "1.0", "null", "2024-01-01", "a'b", "*x", "-", "!a", "a-b", "a.b"]
    text = json.dumps({name: {} for name in names})
    guard = _config_map("obs-loki", "auth_basic on;")
    runtime = _config_map("runtime", f"overrides: {text}")
    assert _load(tmp_path, *LOKI, guard, runtime).tenants == tuple(names)


class _MayNotListAll(Kube):
    """A client of a user who may not list one kind; what the others are is told here."""

    def __init__(self, refused: str) -> None:
        self.refused = refused

    def listed(
        self, api_version: str, kind: str, namespace: str | None = None, labels: str = ""
    ) -> list[dict[str, Any]]:
        assert (namespace, labels) == (None, "")
        if kind == self.refused:
            raise ApiError(403, "is forbidden", f"GET {api_version}")
        return [each for each in (*LOKI, TWO) if each["kind"] == kind]


def test_what_may_not_be_listed_is_told() -> None:
    objects, refused = discovery.from_cluster(_MayNotListAll("Ingress"))
    found = discovery.discover(objects, refused)
    assert list(found.tenants) == ["acme", "globex"]
    assert found.open[0] == "This user may not list the kind Ingress in all namespaces."
    with pytest.raises(ApiError, match="is forbidden"):
        discovery.from_cluster(_MayNotListAll("Service"))


# --- the command ----------------------------------------------------------------------------------


def _listed(folder: Path, *objects: Object) -> str:
    path = folder / "objects.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return str(path)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["targets", "init", "--from", _listed(tmp_path, *MIMIR, *LOKI, *TEMPO, TWO)]
    assert cli.main(argv) == ExitCode.GOOD
    assert (
        capsys.readouterr().out == "targets.yaml: 2 tenants, 3 backends, 4 things not found out\n"
    )
    assert Targets.load(tmp_path / "targets.yaml").name == "objects"
    assert cli.main(argv) == ExitCode.USAGE
    assert "targets.yaml: is there already" in capsys.readouterr().err
    assert cli.main([*argv, "--output", "-"]) == ExitCode.GOOD
    assert capsys.readouterr().out.startswith("# Written by `stackproof targets init` from ")


def test_what_must_be_added_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = _config_map("overrides", "overrides: {acme: {}}")
    argv = ["targets", "init", "--from", _listed(tmp_path, *LOKI, one)]
    assert cli.main(argv) == ExitCode.UNDECIDED
    assert "add tenants, of which two are needed at least (found: 1)" in capsys.readouterr().out
    with pytest.raises(FileError, match=r"targets\.yaml:\d+:\d+: tenants"):
        Targets.load(tmp_path / "targets.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{kind: List, items: []}", "there is no Service of Mimir, Loki or Tempo"),
        ("a: [", "is not valid YAML"),
        ("a: 1", "is not a list of Kubernetes' objects"),
        ("{kind: List, items: 3}", "holds a List as Kubernetes has none"),
        ("kind: Service", 'holds a Service as Kubernetes has none: "metadata" is a required'),
        ("{kind: Service, metadata: {name: loki}}", '"spec" is a required property'),
        ('{kind: Service, metadata: {name: "a\\nb"}, spec: {}}', "metadata.name: "),
        ("{kind: ConfigMap, metadata: {name: a}, data: [1]}", "a ConfigMap as Kubernetes has none"),
        ("{kind: ConfigMap, metadata: {name: a}, data: {a: 1}}", "data.a: 1 is not of type"),
        ("{kind: Ingress, metadata: {name: a}, spec: {rules: [{http: 1}]}}", "spec.rules.0.http: "),
        ("{kind: Deployment, metadata: {name: a}, spec: {}}", 'spec: "template" is a required'),
        (
            "{kind: Service, metadata: {name: loki}, spec: {type: ExternalName}}",
            "there is no Service of Mimir, Loki or Tempo",
        ),
        (
            "{kind: Service, metadata: {name: g, labels: {app.kubernetes.io/name: lgtm, "
            "app.kubernetes.io/component: gateway}}, spec: {ports: [{port: 9999}]}}",
            "there is no Service of Mimir, Loki or Tempo",
        ),
    ],
)
def test_what_tells_nothing_is_one_message(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "objects.yaml"
    path.write_text(text)
    output = tmp_path / "targets.yaml"
    argv = ["targets", "init", "--from", str(path), "--output", str(output)]
    assert cli.main(argv) == ExitCode.UNAVAILABLE
    said = capsys.readouterr().err
    assert said.startswith(f"stackproof: {path}: ") and told in said
    assert not output.exists()


def test_documents_one_after_another() -> None:
    text = "---\n".join(yaml.safe_dump(each) for each in LOKI)
    assert list(discovery.from_text(text, "here")) == LOKI
    nowhere = {"kind": "ClusterRole", "metadata": {"name": "a:b c", "namespace": None}}
    assert list(discovery.from_text(yaml.safe_dump(nowhere), "here")) == [nowhere]
    with pytest.raises(StackproofError, match="here: is not a list"):
        list(discovery.from_text("[1]", "here"))


def test_a_port_that_is_not_known_is_told(tmp_path: Path) -> None:
    found, path = _write(tmp_path, *MIMIR, _service("loki", 9999, of="loki", names="x"), TWO)
    assert Backend.LOKI not in found.reads
    assert "Service monitoring/loki has no port that is known: http" in path.read_text()


def test_what_objects_hold_stays_in_its_comment(tmp_path: Path) -> None:
    odd = {"datasources": [{"jsonData": {"httpHeaderName1": TENANT_HEADER}, "secureJsonData": {}}]}
    odd["datasources"][0]["secureJsonData"]["httpHeaderValue1"] = "${X}\nname: theirs"
    _, path = _write(tmp_path, *LOKI, TWO, _config_map("sources", yaml.safe_dump(odd)))
    assert "names a tenant by a variable: ${X} name: theirs" in path.read_text()
    assert Targets.load(path).name == "here"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--output .", ".: is there already"),
        ("--kubeconfig here", "--from --kubeconfig: with a file of objects no cluster is asked"),
    ],
)
def test_a_mistake_is_one_message(
    words: str,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["targets", "init", "--from", _listed(tmp_path, *LOKI, TWO), *words.split()]
    assert cli.main(argv) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(f"stackproof: {told}")


def test_a_place_that_cannot_be_written_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "objects.json" / "targets.yaml"
    argv = ["targets", "init", "--from", _listed(tmp_path, *LOKI, TWO), "--output", str(output)]
    assert cli.main(argv) == ExitCode.UNAVAILABLE
    said = capsys.readouterr().err
    assert "cannot be written: " in said and said.endswith("Choose another place: --output.\n")


def _from_standard_input(content: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    return cli.main(["targets", "init", "--from", "-", "--output", "-"])


def test_standard_input_and_output_have_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployment is not called "-", which the report would show."""
    content = Path(_listed(tmp_path, *LOKI, TWO)).read_bytes()
    assert _from_standard_input(content, monkeypatch) == ExitCode.GOOD
    said = capsys.readouterr()
    assert said.out.startswith("# Written by `stackproof targets init` from standard input. ")
    assert yaml.safe_load(said.out)["name"] == "deployment"
    assert said.err.startswith("standard output: 2 tenants, ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\x00", "cannot be read: "),
        (b"", "there is no Service of "),
        (b"[1]", "is not a list"),
    ],
)
def test_what_is_wrong_with_standard_input_is_one_message(
    content: bytes, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _from_standard_input(content, monkeypatch) > ExitCode.UNDECIDED
    assert capsys.readouterr().err.startswith(f"stackproof: standard input: {told}")


def test_what_kubectl_is_told_to_list_is_what_is_looked_at(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for kinds that not every cluster has."""
    kinds = {kind for api, kind in discovery._KINDS if "." not in api or api.endswith("k8s.io/v1")}
    names = {f"{kind.lower()}{'es' if kind.endswith('s') else 's'}" for kind in kinds}
    with pytest.raises(SystemExit):
        cli.main(["targets", "init", "--help"])
    page = (checkout.root / "docs" / "targets.md").read_text()
    with pytest.raises(StackproofError) as refused:
        list(discovery.from_text("[1]", "here"))
    for told in (capsys.readouterr().out, page, str(refused.value)):
        listed = re.search(r"kubectl get ([\w,\s]+?) -A", told)
        assert listed and set(re.sub(r"\s", "", listed[1]).split(",")) == names
