"""charts/open-webui-stack: which secrets it asks for, from where, and what a new value rolls."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from tests.unit.charts.openwebui import environment
from tests.unit.charts.openwebui import render as rendered

from stackproof.checks.credentials import homeless
from stackproof.helm.manifests import Release
from stackproof.helm.renderer import HelmError
from stackproof.helm.uses import uses
from stackproof.repo.checkout import Checkout
from stackproof.stack.secrets import SecretStore, materialize

GIVEN = {
    "webuiSecretKey": "one",
    "postgresPassword": "two",
    "openaiApiKey": "three",
    "ragOpenaiApiKey": "four",
    "searxngSecretKey": "five",
    "gatewayPassword": "six",
}
GROUPS = {
    "open-webui-secrets": {"webui-secret-key", "postgres-password"},
    "open-webui-provider-secrets": {"openai-api-key", "rag-openai-api-key"},
    "open-webui-searxng-secrets": {"searxng-secret-key"},
    "open-webui-alloy-secrets": {"gateway-password"},
}
EXTERNAL: dict[str, Any] = {"externalSecrets": {"enabled": True, "gcpProject": "project"}}
OPTIONAL: dict[str, Any] = {
    "openWebui": {
        "admin": {"email": "admin@example.org"},
        "extraSecretEnv": {"OAUTH_CLIENT_SECRET": "oauth", "OAUTH_OTHER": "oauth"},
    },
    "gateway": {"enabled": True, "image": {"tag": "1.0.0"}},
    "crawl4ai": {"enabled": True},
}

render = partial(rendered, existing="", admin="", namespace="open-webui")


def made(release: Release) -> dict[str, set[str]]:
    """Return the keys of each Secret that the release makes or lets make."""
    secrets = {m.name: set(m["stringData"]) for m in release.of_kind("Secret")}
    external = {
        m["spec"]["target"]["name"]: {entry["secretKey"] for entry in m["spec"]["data"]}
        for m in release.of_kind("ExternalSecret")
    }
    assert not secrets.keys() & external.keys()
    return secrets | external


def used(release: Release) -> dict[str, set[str]]:
    """Return the keys of each Secret that the pods read."""
    found: dict[str, set[str]] = {}
    for use in (use for workload in release.workloads() for use in uses(workload)):
        if use.kind == "Secret":
            found.setdefault(use.name, set()).add(use.key)
    return found


def rolled(before: Release, after: Release) -> set[str]:
    """Return the workloads whose pods differ."""
    return {
        workload.name
        for workload in before.workloads()
        if workload["spec"]["template"]
        != after.get(workload.kind, workload.name)["spec"]["template"]
    }


def test_what_is_off_needs_no_key(checkout: Checkout) -> None:
    off = {
        "openWebui": {
            "config": {
                "openaiApiBaseUrl": "",
                "ragEmbeddingEngine": "",
                "telemetry": {"otel": {"enabled": False}},
            }
        },
        "postgres": {"enabled": False},
        "searxng": {"enabled": False},
    }
    release = render(checkout, EXTERNAL, off)
    assert made(release) == used(release) == {"open-webui-secrets": {"webui-secret-key"}}


def test_one_existing_secret_has_them_all(checkout: Checkout) -> None:
    release = render(checkout, {"secrets": {"existingSecret": "mine"}})
    assert made(release) == {}
    assert used(release) == {"mine": set().union(*GROUPS.values())}


def test_a_store_of_the_tenants_own(checkout: Checkout) -> None:
    own = {"externalSecrets": {"secretStore": {"name": "tenant", "kind": "SecretStore"}}}
    release = render(checkout, EXTERNAL, own)
    (store,) = release.of_kind("SecretStore")
    assert store["spec"]["provider"]["gcpsm"] == {
        "projectID": "project",
        "auth": {"workloadIdentity": {"serviceAccountRef": {"name": "open-webui"}}},
    }
    for external in release.of_kind("ExternalSecret"):
        assert external["spec"]["secretStoreRef"] == {"name": "tenant", "kind": "SecretStore"}


def test_what_echo_puts_behind_a_key_is_no_part_of_it(checkout: Checkout) -> None:
    """Stored with `echo KEY | gcloud secrets versions add`; no HTTP header holds a newline."""
    release = render(checkout, EXTERNAL, OPTIONAL)
    store, keys = SecretStore(), set()
    for external in release.of_kind("ExternalSecret"):
        for entry in external["spec"]["data"]:
            store.write(entry["remoteRef"]["key"], f"a {entry['secretKey']}\n")
            keys.add(entry["secretKey"])
    synced = {k: v for secret in materialize(release, store).values() for k, v in secret.items()}
    # What made a database or signed sessions with its newline, must keep it.
    kept = {"webui-secret-key", "postgres-password"}
    assert synced == {key: f"a {key}\n" if key in kept else f"a {key}" for key in keys}


@pytest.mark.parametrize("name", GIVEN)
def test_a_missing_value_is_named(checkout: Checkout, name: str) -> None:
    with pytest.raises(HelmError, match=rf"secrets\.{name} is needed"):
        render(checkout, {"secrets": {key: GIVEN[key] for key in GIVEN if key != name}})


def test_a_missing_extra_value_is_named(checkout: Checkout) -> None:
    extra = {"openWebui": {"extraSecretEnv": {"OAUTH_CLIENT_SECRET": "oauth"}}}
    with pytest.raises(HelmError, match=r"secrets\.extra\.oauth is needed"):
        render(checkout, {"secrets": GIVEN}, extra)
    release = render(checkout, {"secrets": {**GIVEN, "extra": {"oauth": "seven"}}}, extra)
    secret = release.get("Secret", "open-webui-provider-secrets")
    assert secret["stringData"]["oauth"] == "seven"


def test_values_arrive_as_they_are(checkout: Checkout) -> None:
    odd = {key: f'{value} "\\\n: # $(HOME) {{{{ x }}}} %@/' for key, value in GIVEN.items()}
    release = render(checkout, {"secrets": odd})
    values = [value for m in release.of_kind("Secret") for value in m["stringData"].values()]
    assert sorted(values) == sorted(odd.values())


@pytest.mark.parametrize(
    ("name", "pods"),
    [
        ("openaiApiKey", {"open-webui"}),
        ("ragOpenaiApiKey", {"open-webui"}),
        ("searxngSecretKey", {"open-webui-searxng"}),
        # Alloy reads the file again.
        ("gatewayPassword", set()),
        # A new one of these, rolled at once, stops the application or logs everybody out.
        ("postgresPassword", set()),
        ("webuiSecretKey", set()),
    ],
)
def test_a_new_value_rolls_who_reads_it(checkout: Checkout, name: str, pods: set[str]) -> None:
    before = render(checkout, {"secrets": GIVEN})
    assert rolled(before, render(checkout, {"secrets": {**GIVEN, name: "new"}})) == pods


def test_reloader_watches_what_may_roll(checkout: Checkout) -> None:
    release = render(
        checkout, EXTERNAL, OPTIONAL, {"reranker": {"enabled": True, "image": {"tag": "1"}}}
    )
    watched = {
        workload.name: workload["spec"]["template"]["metadata"]
        .get("annotations", {})
        .get("secret.reloader.stakater.com/reload")
        for workload in release.workloads()
    }
    assert watched == {
        "open-webui": "open-webui-provider-secrets",
        "open-webui-gateway": "open-webui-provider-secrets",
        "open-webui-crawl4ai": "open-webui-provider-secrets",
        "open-webui-reranker": None,
        "open-webui-searxng": "open-webui-searxng-secrets",
        "open-webui-alloy": None,
        "open-webui-postgres": None,
        "open-webui-weaviate": None,
    }


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        (
            "OPENAI_API_BASE_URLS",
            "https://api.openai.com/v1;https://b.example/v1",
            "OPENAI_API_KEYS",
        ),
        ("IMAGES_OPENAI_API_BASE_URL", "https://b.example/v1", "IMAGES_OPENAI_API_KEY"),
        ("AUDIO_STT_OPENAI_API_BASE_URL", "http://b.a.svc/v1", "AUDIO_STT_OPENAI_API_KEY"),
        ("AUDIO_TTS_OPENAI_API_BASE_URL", "https://api.openai.com.b/", "AUDIO_TTS_OPENAI_API_KEY"),
    ],
)
def test_a_key_goes_to_no_other_provider(
    checkout: Checkout, variable: str, value: str, key: str
) -> None:
    """The application sends OPENAI_API_KEY wherever it is given a URL and no key."""
    further = {"openWebui": {"extraEnv": {variable: value}}}
    with pytest.raises(HelmError, match=f"{variable} needs {key} in extraSecretEnv"):
        rendered(checkout, further)
    own = {"openWebui": {"extraSecretEnv": {key: "another-key"}}}
    assert list(homeless(rendered(checkout, further, own))) == []
    same = {"openWebui": {"extraEnv": {variable: "https://api.openai.com/v2"}}}
    assert list(homeless(rendered(checkout, same))) == []

    template = "templates/open-webui.yaml"
    text = (checkout.charts / "open-webui-stack" / template).read_text(encoding="utf-8")
    unchecked = text.replace('{{- include "open-webui-stack.open-webui.checkKeys" . }}\n', "")
    (problem,) = homeless(rendered(checkout, further, overlay={template: unchecked}))
    assert f"gets {variable} and no key for it" in problem


def test_the_key_of_the_embeddings_goes_to_their_provider(checkout: Checkout) -> None:
    models = {"openWebui": {"config": {"openaiApiBaseUrl": "https://router.example.org/v1"}}}
    env = environment(render(checkout, EXTERNAL, models))
    assert env["OPENAI_API_BASE_URL"].value == "https://router.example.org/v1"
    # Left out, the application would send RAG_OPENAI_API_KEY to the address above.
    assert env["RAG_OPENAI_API_BASE_URL"].value == "https://api.openai.com/v1"
