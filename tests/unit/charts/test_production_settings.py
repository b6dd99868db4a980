"""What production was told before this chart it is told still, or docs/settings.md says why not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof.flux.deployment import Deployment
from stackproof.flux.tree import build
from stackproof.helm import renderer
from stackproof.helm.manifests import Release, containers
from stackproof.helm.renderer import HelmError
from stackproof.migrate.values import converted
from stackproof.repo.checkout import Checkout

ROW = re.compile(r"\| `([A-Z_]+)` \| (.+?) \| (.+?) \| (.+?) \|")
TENANT = "open-webui"
ABSENT = "\N{EN DASH}"
#: A tag as the owners publish them.
PIN = {"enabled": True, "image": {"tag": "git-0123abc"}}
SERVICES = {"gateway": PIN, "reranker": PIN, "crawl4ai": {"enabled": True}}


def application(release: Release) -> Mapping[str, Any]:
    """Return the application's container, whatever its Deployment is called."""
    (found,) = (
        container
        for workload in release.of_kind("Deployment")
        for container in containers(workload)
        if container["name"] == "open-webui"
    )
    return found


def told(release: Release) -> Mapping[str, str]:
    """Return the application's environment, but for secrets."""
    given = release.env_values(application(release)).items()
    return {name: value for name, value in given if value is not None}


def soev(checkout: Checkout, values: Mapping[str, Any]) -> Release:
    """Render tenant soev's release with further values."""
    return Deployment.load(checkout).with_values(tenant=[values]).tenant("soev")


def same(one: str | None, other: str | None) -> bool:
    """Tell whether two texts are the same setting: 0.0 is 0."""
    try:
        return one == other or float(one or "x") == float(other or "x")
    except ValueError:
        return False


@pytest.fixture(scope="module")
def production(checkout: Checkout) -> Mapping[str, str]:
    """The table: 124 settings, by variable."""
    path = checkout.root / "tests" / "production-settings.yaml"
    found: Mapping[str, str] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert len(found) == 124
    return found


@pytest.fixture(scope="module")
def deliberate(checkout: Checkout) -> Mapping[str, tuple[str, str, str]]:
    """The list of deliberate changes: variable to what was, what is, and why."""
    text = (checkout.root / "docs" / "settings.md").read_text(encoding="utf-8")
    return {row[1]: (row[2], row[3], row[4]) for row in ROW.finditer(text)}


@pytest.fixture(scope="module")
def rendered(checkout: Checkout) -> Release:
    """The release of tenant soev, as Flux renders it."""
    release = build(checkout).releases[TENANT, "open-webui"].rendered
    assert release is not None
    return release


def differing(was: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    return {name for name, value in was.items() if not same(value, now.get(name))}


def test_nothing_is_dropped_in_silence(
    production: Mapping[str, str], deliberate: Mapping[str, tuple[str, str, str]], rendered: Release
) -> None:
    assert differing(production, told(rendered)) == deliberate.keys()


def test_the_list_says_what_is_so(
    production: Mapping[str, str], deliberate: Mapping[str, tuple[str, str, str]], rendered: Release
) -> None:
    now = told(rendered)
    for name, (before, after, why) in deliberate.items():
        assert before == (f"`{production[name]}`" if production[name] else "empty") or (
            before == "the owner's text"
        )
        assert after in {f"`{now.get(name)}`", ABSENT if name not in now else "our own text"}
        assert len(why) > 10


def test_an_upgrade_by_hand_tells_it_as_well(
    checkout: Checkout,
    production: Mapping[str, str],
    deliberate: Mapping[str, tuple[str, str, str]],
    tmp_path: Path,
) -> None:
    """Of chart 0.1.0's values, `migrate values` drops nothing in silence."""
    file = tmp_path / "old.yaml"
    ingress = {"enabled": True, "hosts": [{"host": "voorbeeld.soev.ai", "paths": [{"path": "/"}]}]}
    config = {key_of(name): value for name, value in production.items()}
    file.write_text(yaml.safe_dump({"openWebui": {"config": config}, "ingress": ingress}))
    found = converted(checkout, file, release=TENANT, namespace=TENANT, tenant="soev")
    chart = checkout.charts / "open-webui-stack"
    release = renderer.render(chart, [found.values], release=TENANT, namespace=TENANT)
    assert release.of_kind("Ingress"), "its users still get in"
    named = {path.rpartition(".")[2] for path in found.homeless}
    silent = {name for name in differing(production, told(release)) if key_of(name) not in named}
    assert silent <= deliberate.keys()


def key_of(variable: str) -> str:
    """Return the key of chart 0.1.0 that became a variable: RAG_TOP_K was ragTopK."""
    first, *others = variable.removeprefix("OPENWEBUI_").lower().split("_")
    return first + "".join(map(str.capitalize, others))


@pytest.mark.parametrize("name", ["RAG_TOP_K", "ENABLE_ADMIN_CHAT_ACCESS", "FEATURE_VOICE"])
def test_a_setting_that_is_lost_is_noticed(
    name: str, production: Mapping[str, str], rendered: Release
) -> None:
    now = dict(told(rendered))
    assert name not in differing(production, now)
    assert name in differing(production, {**now, name: "else"})
    del now[name]
    assert name in differing(production, now)


def test_with_the_pins_the_services_are_as_production_has_them(
    checkout: Checkout, production: Mapping[str, str]
) -> None:
    now = told(soev(checkout, SERVICES))
    for name in ("CONTENT_EXTRACTION_ENGINE", "WEB_LOADER_ENGINE", "RAG_RERANKING_ENGINE"):
        assert now[name] == production[name]
    assert now["SEARXNG_QUERY_URL"].startswith("http://open-webui-open-webui-stack-gateway.")


@pytest.mark.parametrize("service", ["gateway", "reranker"])
@pytest.mark.parametrize("tag", ["", "latest", "main"])
def test_a_service_without_a_pin_is_refused(checkout: Checkout, service: str, tag: str) -> None:
    with pytest.raises(HelmError, match=f"{service}/image/tag"):
        soev(checkout, {service: {"enabled": True, "image": {"tag": tag}}})


def test_private_is_the_charts_own_default(checkout: Checkout) -> None:
    """Without values-prod as well: upstream's defaults are on."""
    chart = checkout.charts / "open-webui-stack"
    values = chart / "ci" / "existing-secret-values.yaml"
    now = told(renderer.render(chart, [values], release="open-webui", namespace="a"))
    off = ("ADMIN_CHAT_ACCESS", "CODE_EXECUTION", "CODE_INTERPRETER", "COMMUNITY_SHARING")
    for name in (*off, "EVALUATION_ARENA_MODELS", "SIGNUP"):
        assert now[f"ENABLE_{name}"] == "false"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("openaiApiBaseUrl", "https://api.openai.com/v1"),
        ("openaiApiBaseUrl", "http://router.huggingface.co/v1"),
        ("openaiApiBaseUrl", "https://router.huggingface.co.example.org"),
        ("ragOpenaiApiBaseUrl", "https://router.huggingface.co/v1"),
    ],
)
def test_a_key_goes_to_nobody_but_its_issuer(checkout: Checkout, name: str, url: str) -> None:
    with pytest.raises(HelmError, match=f"{name}': '{url}' does not match pattern"):
        soev(checkout, {"openWebui": {"config": {name: url}}})


def test_stored_settings_are_not_thrown_away(checkout: Checkout) -> None:
    with pytest.raises(HelmError, match="RESET_CONFIG_ON_START"):
        soev(checkout, {"openWebui": {"config": {"persistentConfig": True}}})


@pytest.mark.parametrize(
    ("tag", "old"),
    [
        *[(tag, True) for tag in ("v0.6.43", "v0.8.9", "v0.8.10", "v0.8.10@sha256:" + "0" * 64)],
        *[(tag, False) for tag in ("v0.8.11", "v0.9.0", "v0.11.3", "v1.1.3", "git-0123abc")],
    ],
)
def test_readiness_asks_what_the_application_has(checkout: Checkout, tag: str, old: bool) -> None:
    """/ready is there from 0.8.11 on."""
    values: dict[str, Any] = {"image": {"tag": tag}}
    if old:
        with pytest.raises(HelmError, match="readinessPath"):
            soev(checkout, {"openWebui": values})
        values["readinessPath"] = "/health/db"
    container = application(soev(checkout, {"openWebui": values}))
    wanted = "/health/db" if old else "/ready"
    assert container["readinessProbe"]["httpGet"]["path"] == wanted
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
