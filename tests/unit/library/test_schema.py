"""Validation against Kubernetes' schemas: each fault is found, and named."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tests.edits import DELETE, edit

from stackproof.errors import StackproofError
from stackproof.helm.manifests import Manifest, parts
from stackproof.helm.schema import Schemas, schemas, validate
from stackproof.repo.checkout import Checkout

CUSTOM = Checkout.find().root / "schemas"
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "web"}},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "ports": [{"containerPort": 80}]}]},
        },
    },
}
EXTERNAL_SECRET: dict[str, Any] = {
    "apiVersion": "external-secrets.io/v1",
    "kind": "ExternalSecret",
    "metadata": {"name": "keys"},
    "spec": {
        "refreshInterval": "1h",
        "secretStoreRef": {"name": "gcp", "kind": "ClusterSecretStore"},
        "target": {"name": "keys", "template": {"engineVersion": "v2", "data": {"a": "b"}}},
        "data": [{"secretKey": "a", "remoteRef": {"key": "remote-a"}}],
    },
}
STORE: dict[str, Any] = {
    "apiVersion": "external-secrets.io/v1",
    "kind": "ClusterSecretStore",
    "metadata": {"name": "gcp"},
    "spec": {"provider": {"gcpsm": {"projectID": "project"}}},
}
CONFIG_MAP: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}


def manifest(content: dict[str, Any]) -> Manifest:
    return Manifest.of(content, "demo/templates/a.yaml")


def problems(content: dict[str, Any], kube_version: str = "1.37.0") -> list[str]:
    return [str(problem) for problem in validate([manifest(content)], kube_version, CUSTOM)]


@pytest.mark.parametrize("content", [DEPLOYMENT, EXTERNAL_SECRET, STORE], ids=lambda c: c["kind"])
@pytest.mark.parametrize("kube_version", ["1.32", "1.37.0", "v1.37.4"])
def test_good_objects_pass(content: dict[str, Any], kube_version: str) -> None:
    assert problems(content, kube_version) == []


_MAIN = "spec|template|spec|containers|0"
FAULTS: list[tuple[dict[str, Any], str, Any, str]] = [
    (DEPLOYMENT, "spec|replicas", "1", r"at spec\.replicas: .*integer"),
    (DEPLOYMENT, "spec|replicaCount", 1, r"at spec: .*'replicaCount'"),
    (DEPLOYMENT, "spec|selector", DELETE, r"at spec: .*selector.* required"),
    (DEPLOYMENT, f"{_MAIN}|prots", [], r"at spec\.template\.spec\.containers\[0\]: .*'prots'"),
    (
        DEPLOYMENT,
        f"{_MAIN}|ports|0|containerPort",
        "http",
        r"containers\[0\]\.ports\[0\]\.containerPort: ",
    ),
    (DEPLOYMENT, "apiVersion", "apps/v2", "no schema for apps/v2 Deployment"),
    (DEPLOYMENT, "apiVersion", "apps.other/v1", "no schema for apps.other/v1"),
    (DEPLOYMENT, "kind", "Deploiment", "no schema for apps/v1 Deploiment"),
    (DEPLOYMENT, "kind", DELETE, "has no kind"),
    (DEPLOYMENT, "apiVersion", DELETE, "no apiVersion"),
    (DEPLOYMENT, "metadata|name", "Web_1", "'Web_1' is no valid name"),
    (DEPLOYMENT, "metadata|name", DELETE, "'' is no valid name"),
    (
        DEPLOYMENT,
        "metadata|labels|helm.sh/chart",
        "a+b",
        r"at metadata\.labels: 'a\+b' is no valid value",
    ),
    (
        DEPLOYMENT,
        "spec|template|metadata|labels|a b",
        "x",
        r"at spec\.template\.metadata\.labels: 'a b' is no valid label",
    ),
    (EXTERNAL_SECRET, "spec|store", {}, r"at spec: .*'store'"),
    (EXTERNAL_SECRET, "spec|data|0|secretKey", DELETE, "secretKey"),
    (EXTERNAL_SECRET, "spec|target|creationPolicy", "Ours", "creationPolicy"),
    (STORE, "spec|provider|gcpsm|project", "a", "'project'"),
    (CONFIG_MAP, "data", 7, r"at data: 7 is not of type"),
    (CONFIG_MAP, "metadata|labels", [1], r"at metadata\.labels: \[1\] is not of"),
]


@pytest.mark.parametrize(("content", "path", "value", "message"), FAULTS)
def test_faults_are_found_and_named(
    content: dict[str, Any], path: str, value: Any, message: str
) -> None:
    twin = copy.deepcopy(content)
    edit(twin, path, value)
    (found,) = problems(twin)
    assert re.search(f"^demo/templates/a.yaml: .*{message}", found)


@pytest.mark.parametrize(
    ("kind", "name", "good"),
    [
        ("Service", "a" * 63, True),
        ("Service", "a" * 64, False),
        ("Service", "1a", False),
        ("Service", "a.b", False),
        ("ConfigMap", "a.b" * 60, True),
        ("ConfigMap", "a-", False),
        ("Role", "system:Node", True),
        ("Role", "a/b", False),
    ],
)
def test_names_follow_the_rules_of_their_kind(kind: str, name: str, good: bool) -> None:
    api_version = "rbac.authorization.k8s.io/v1" if kind == "Role" else "v1"
    content = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}
    if kind == "Service":
        content["spec"] = {"ports": [{"port": 80}]}
    assert (problems(content) == []) is good


def test_a_bad_key_in_a_config_map() -> None:
    assert problems({**CONFIG_MAP, "data": {"good.key-1_": ""}}) == []
    (problem,) = problems({**CONFIG_MAP, "data": {"a/b": ""}})
    assert "'a/b' is no valid key" in problem


#: Data of a Secret or a ConfigMap, and what the API server says of it.
DATA = [
    ("Secret", {"data": {"a": "YQ=="}}, None),
    ("Secret", {"data": {"a": ""}}, None),
    ("Secret", {"data": {"a": "YWFh\nYWFh\n"}}, None),
    ("Secret", {"data": {"a": "ENC[AES256_GCM,data:x]"}}, None),
    ("Secret", {"data": {"a": "secret-name"}}, None),
    ("Secret", {"stringData": {"a": "any text"}}, None),
    ("Secret", {"data": {"a": "hunter2"}}, "at data.a: is not base64"),
    ("Secret", {"data": {"a": "YQ"}}, "at data.a: is not base64"),
    ("Secret", {"data": {"a": "grün"}}, "at data.a: is not base64"),
    ("ConfigMap", {"data": {"a": "any text"}}, None),
    ("ConfigMap", {"binaryData": {"a": "any text"}}, "at binaryData.a: is not base64"),
    ("ConfigMap", {"data": {"a": "x" * 2**20}}, None),
    ("ConfigMap", {"data": {"a": "x" * 2**20, "b": "x"}}, "holds 1,048,577 bytes"),
    ("ConfigMap", {"data": {"a": "ü" * 2**19 + "x"}}, "holds 1,048,577 bytes"),
    ("Secret", {"data": {"a": "YWFh" * 349_525}}, None),
    ("Secret", {"data": {"a": "YWFh" * 349_526}}, "holds 1,048,578 bytes"),
]


@pytest.mark.parametrize(("kind", "data", "told"), DATA, ids=range(len(DATA)))
def test_data(kind: str, data: dict[str, dict[str, str]], told: str | None) -> None:
    found = problems({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}, **data})
    assert len(found) == bool(told)
    assert told is None or told in found[0]


def test_kinds_come_and_go_with_versions() -> None:
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1beta1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "a"},
    }
    assert "no schema" in problems(policy, "1.32")[0]
    assert "no schema" not in "".join(problems(policy, "1.34"))


def test_a_version_without_schemas_is_an_error() -> None:
    with pytest.raises(StackproofError, match=r"no schemas for Kubernetes 1\.99.*it has .*1\.37"):
        Schemas("1.99.0")


@pytest.mark.parametrize(
    ("provider", "good"),
    [
        ({"vault": {"server": "https://vault.example.test", "path": "secret"}}, True),
        ({"aws": {"service": "SecretsManager", "region": "eu-west-1"}}, True),
        ({"onepassword": {"connectHost": "http://connect", "vaults": {"main": 1}}}, True),
        ({"gcpsm": {"projectId": "project"}}, False),
        ({"vaultt": {}}, False),
        ({"vault": "https://vault.example.test"}, False),
    ],
)
def test_stores_of_other_people(provider: dict[str, Any], good: bool) -> None:
    """Whatever provider there is; of those that a store here may have, each field is known."""
    assert (problems({**STORE, "spec": {"provider": provider}}) == []) is good


def test_custom_kinds_need_their_schema(tmp_path: Path) -> None:
    content = {"apiVersion": "demo.example/v1", "kind": "Thing", "metadata": {"name": "a"}}
    known = Schemas("1.37", tmp_path)
    (problem,) = known.check(manifest(content))
    assert "schemas/demo.example/v1/Thing.json" in problem.reason
    file = tmp_path / "demo.example/v1/Thing.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"properties": {"metadata": {}, "kind": {}, "apiVersion": {}}, ')
    with pytest.raises(StackproofError, match=r"Thing\.json: is not a valid JSON schema"):
        Schemas("1.37", tmp_path).check(manifest(content))
    file.write_text('{"required": ["spec"]}')
    (problem,) = Schemas("1.37", tmp_path).check(manifest(content))
    assert '"spec" is a required property' in problem.reason


def test_verdicts_are_kept_by_content() -> None:
    known = schemas("1.37", CUSTOM)
    assert known is schemas("1.37", CUSTOM)
    twin = {**DEPLOYMENT, "spec": {"replicas": "1"}}
    assert known.check(manifest(twin)) == known.check(manifest(twin)) != []


def test_every_custom_schema_is_strict_and_in_its_place() -> None:
    """A schema that allows unknown fields would pass a mistake silently."""
    files = sorted(CUSTOM.rglob("*.json"))
    assert files
    for file in files:
        schema = json.loads(file.read_text())
        api_version = str(file.parent.relative_to(CUSTOM))
        assert schema["properties"]["apiVersion"] == {"const": api_version}, file
        assert schema["properties"]["kind"] == {"const": file.stem}, file
        for path, part in parts([schema]):
            if isinstance(part, dict) and part.get("type") == "object":
                assert "additionalProperties" in part, f"{file}: {path}"


@pytest.mark.parametrize("content", [DEPLOYMENT, EXTERNAL_SECRET])
def test_a_schema_for_other_programs_needs_no_other_file(content: dict[str, Any]) -> None:
    schema = Schemas("1.37.0", CUSTOM).standalone(manifest(content))
    assert schema is not None
    alone = jsonschema_rs.Draft202012Validator(schema)
    assert alone.is_valid(content)
    assert not alone.is_valid({**content, "spec": {**content["spec"], "unknown": 1}})


def test_there_is_no_schema_for_other_programs_of_an_unknown_kind() -> None:
    assert Schemas("1.37.0").standalone(manifest(EXTERNAL_SECRET)) is None
