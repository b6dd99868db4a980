"""Rendered objects: frozen, comparable, and answering what is asked of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from stackproof.errors import StackproofError
from stackproof.helm.manifests import (
    EnvVar,
    Key,
    Manifest,
    Release,
    containers,
    expand,
    pod_template,
    thaw,
)


def manifest(content: dict[str, Any], source: str = "demo/templates/a.yaml") -> Manifest:
    return Manifest.of(content, source, namespace="here")


def release(*contents: dict[str, Any]) -> Release:
    return Release("one", "here", "1.37.0", tuple(manifest(content) for content in contents))


CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings", "labels": {"app": "demo"}},
    "data": {"COLOUR": "blue", "file.yaml": "a: 1\n"},
}
CONTAINER = {
    "name": "main",
    "envFrom": [{"prefix": "SET_", "configMapRef": {"name": "settings"}}],
    "env": [
        {"name": "PLAIN", "value": "text"},
        {"name": "BUILT", "value": "$(PLAIN)-$(SET_COLOUR)-$(LATER)-$$(PLAIN)"},
        {"name": "LATER", "value": "late"},
        {"name": "MAPPED", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOUR"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "vault", "key": "password"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ],
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "elsewhere"},
    "spec": {
        "template": {"spec": {"initContainers": [{"name": "init"}], "containers": [CONTAINER]}}
    },
}
CRON_JOB = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "nightly"},
    "spec": {"jobTemplate": {"spec": DEPLOYMENT["spec"]}},
}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["data"].__setitem__("x", 1),
        lambda m: m["data"].pop("COLOUR"),
        lambda m: m["data"].update(x=1),
        lambda m: m["items"].append(1),
        lambda m: m["items"].sort(),
        lambda m: m["items"][0].clear(),
    ],
)
def test_manifests_cannot_be_changed(change: Any) -> None:
    found = manifest({**CONFIG_MAP, "items": [{"a": 1}]})
    with pytest.raises(TypeError, match="frozen"):
        change(found)
    assert found["data"] == CONFIG_MAP["data"]


def test_copies_can_be_changed() -> None:
    found = manifest({**CONFIG_MAP, "items": [{"a": 1}]})
    for plain in (thaw(found), copy.deepcopy(found.content)):
        plain["items"][0]["a"] = 2
        plain["items"].append(3)
        assert type(plain["items"][0]) is dict
    assert found["items"] == [{"a": 1}]


def test_equal_contents_are_equal_manifests() -> None:
    one, same = manifest(CONFIG_MAP), manifest(CONFIG_MAP, source="other")
    assert one == same
    assert len({one, same}) == 1
    assert one == CONFIG_MAP
    assert one != manifest({**CONFIG_MAP, "kind": "Secret"})


def test_manifest_says_what_it_is() -> None:
    found = manifest(CONFIG_MAP)
    assert (found.api_version, found.kind, found.name) == ("v1", "ConfigMap", "settings")
    assert found.labels == {"app": "demo"}
    assert repr(found) == "<ConfigMap/settings from demo/templates/a.yaml>"
    assert found.namespace == "here"
    assert manifest(DEPLOYMENT).namespace == "elsewhere"
    assert manifest({"kind": "ClusterRole", "metadata": {"name": "x"}}).namespace is None


def test_release_finds_objects() -> None:
    found = release(CONFIG_MAP, DEPLOYMENT, CRON_JOB)
    assert found.get("ConfigMap", "settings") is found.manifests[0]
    assert [m.name for m in found.workloads()] == ["web", "nightly"]
    assert found.services() == ()
    assert {(f.key, f.text) for f in found.config_files()} == {
        ("COLOUR", "blue"),
        ("file.yaml", "a: 1\n"),
    }


def test_what_is_not_there_is_an_error_that_lists_what_is() -> None:
    found = release(CONFIG_MAP, DEPLOYMENT)
    with pytest.raises(StackproofError, match=r"renders no ConfigMap/no.*there is: settings"):
        found.get("ConfigMap", "no")
    with pytest.raises(StackproofError, match="kinds there are: ConfigMap, Deployment"):
        found.get("Service", "no")


@pytest.mark.parametrize("content", [DEPLOYMENT, CRON_JOB])
def test_pods_of_every_kind_of_workload(content: dict[str, Any]) -> None:
    workload = manifest(content)
    assert [c["name"] for c in containers(workload)] == ["init", "main"]
    assert pod_template(workload)["spec"]["containers"] == [CONTAINER]


def test_environment_as_the_kubelet_makes_it() -> None:
    found = release(CONFIG_MAP).env(CONTAINER)
    assert found == {
        "SET_COLOUR": EnvVar("SET_COLOUR", value="blue"),
        "SET_file.yaml": EnvVar("SET_file.yaml", value="a: 1\n"),
        "PLAIN": EnvVar("PLAIN", value="text"),
        "BUILT": EnvVar("BUILT", value="text-blue-$(LATER)-$(PLAIN)"),
        "LATER": EnvVar("LATER", value="late"),
        "MAPPED": EnvVar("MAPPED", value="blue"),
        "SECRET": EnvVar("SECRET", key=Key("Secret", "vault", "password")),
        "POD": EnvVar("POD", field="metadata.name"),
    }


def test_a_field_of_the_pod_that_is_known_is_expanded_as_well() -> None:
    container = {
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "BUILT", "value": "id=$(POD),on=$(NODE),$$(POD)"},
        ]
    }
    found = release().env(container, {"metadata.name": "web-0"})
    assert found["POD"] == EnvVar("POD", value="web-0")
    assert found["NODE"] == EnvVar("NODE", field="spec.nodeName")
    assert found["BUILT"].value == "id=web-0,on=$(NODE),$(POD)"


def test_a_key_that_this_release_does_not_make_stays_a_reference() -> None:
    assert release().env(CONTAINER)["MAPPED"].key == Key("ConfigMap", "settings", "COLOUR")


def test_expansion_is_the_kubelets() -> None:
    known = {"A": "1", "B": "$(A)"}
    assert expand("$(A) $(B) $(C) $A ${A} $$(A)", known) == "1 $(A) $(C) $A ${A} $(A)"
