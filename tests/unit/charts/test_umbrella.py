"""Both charts fit below other people's: as a dependency, with a condition, an alias and globals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof.helm import renderer
from stackproof.helm.externals import merged, read_values
from stackproof.helm.manifests import Release, containers, thaw
from stackproof.helm.renderer import HelmError
from stackproof.repo.checkout import Checkout

CHARTS = Checkout.find().charts
SCENARIOS = {"lgtm": "production.yaml", "open-webui-stack": "everything-values.yaml"}
#: What other charts below the same parent may want of `global`; of ours, only two are read.
GLOBAL = {"imageRegistry": "registry.example.org", "domain": {"name": "example.org"}}


def render(
    folder: Path,
    dependencies: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    release: str = "one",
) -> Release:
    """Render a chart that has ours below it."""
    (folder / "charts").mkdir(parents=True)
    chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
    whole = {**chart, "dependencies": list(dependencies)}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(whole))
    for name in {one["name"] for one in dependencies}:
        shutil.copytree(CHARTS / name, folder / "charts" / name)
    return renderer.render(folder, [values], release=release, namespace="here")


def dependency(name: str, **more: str) -> Mapping[str, Any]:
    version = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text())["version"]
    return {"name": name, "version": version, "repository": "", **more}


def texts(release: Release) -> list[str]:
    return sorted(json.dumps(thaw(m), sort_keys=True) for m in release)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_below_a_parent_it_renders_as_by_itself(name: str, tmp_path: Path) -> None:
    scenario = read_values(CHARTS / name / "ci" / SCENARIOS[name])
    alone = renderer.render(CHARTS / name, [scenario], release="one", namespace="here")
    on = merged(scenario, {"enabled": True})
    for_all = {"global": GLOBAL, name: on}
    below = render(tmp_path, [dependency(name, condition=f"{name}.enabled")], for_all)
    assert texts(below) == texts(alone)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_its_parent_may_switch_it_off(name: str, tmp_path: Path) -> None:
    off = {name: {"enabled": False}}
    assert not render(tmp_path, [dependency(name, condition=f"{name}.enabled")], off).manifests


@pytest.mark.parametrize(
    ("release", "names"),
    [
        ("one", ("soev", "acme")),
        # The release's name is a part of both, one of them, or has both as parts.
        ("webui", ("webui-soev", "webui-acme")),
        ("soev", ("soev", "soev-acme")),
        ("soev-and-acme", ("soev", "acme")),
        ("open-webui", ("open-webui-stack", "acme")),
        ("one", ("Soev", "acme_two")),
    ],
)
def test_one_parent_may_have_several_tenants_and_the_stack(
    tmp_path: Path, release: str, names: tuple[str, str]
) -> None:
    tenants = {name: name.lower().replace("_", "-") for name in names}
    both = [dependency("open-webui-stack", alias=name) for name in names]
    lists = {
        "global": {**GLOBAL, "imagePullSecrets": ["plain", {"name": "as-a-map"}]},
        **{
            name: {
                "openWebui": {"config": {"telemetry": {"otel": {"tenantId": tenant}}}},
                "secrets": {"existingSecret": "mine"},
            }
            for name, tenant in tenants.items()
        },
    }
    made = render(tmp_path, [*both, dependency("lgtm")], lists, release)
    keys = [(m.kind, m.name) for m in made]
    assert len(keys) == len(set(keys))
    assert all(name == name.lower() and "_" not in name for _, name in keys)
    alloys = [m for m in made.of_kind("Deployment") if m.name.endswith("alloy")]
    assert {m.labels["tenant.id"] for m in alloys} == set(tenants.values())
    pods = [m["spec"]["template"]["spec"] for m in alloys]
    assert all(pod["imagePullSecrets"] == [{"name": "plain"}, {"name": "as-a-map"}] for pod in pods)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lgtm", {"enabled": "yes"}),
        ("lgtm", {"global": []}),
        ("lgtm", {"globals": {}}),
        # GKE's own controller does not read the field; no Ingress is made that has both.
        ("lgtm", {"grafana": {"ingress": {"className": "gce"}}}),
        ("lgtm", {"grafana": {"ingress": {"annotations": {"kubernetes.io/ingress.class": "gce"}}}}),
        ("open-webui-stack", {"enabled": "yes"}),
        ("open-webui-stack", {"global": {"imagePullSecrets": [{}]}}),
    ],
)
def test_what_is_wrong_is_still_refused(name: str, values: Mapping[str, Any]) -> None:
    scenario = read_values(CHARTS / name / "ci" / SCENARIOS[name])
    with pytest.raises(HelmError) as caught:
        renderer.render(CHARTS / name, [merged(scenario, values)], release="one", namespace="here")
    assert caught.value.kind == "schema"


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_limit_can_be_taken_away(name: str) -> None:
    """Of cpu: without one of memory a pod could take its node along."""
    chart = CHARTS / name
    defaults = read_values(chart / "values.yaml")
    parts = [key for key, v in defaults.items() if isinstance(v, Mapping) and "resources" in v]
    assert len(parts) > 4
    for part in parts:
        given: list[renderer.Values] = [chart / "ci" / SCENARIOS[name], _limits(part, cpu=None)]
        release = renderer.render(chart, given, release="one", namespace="here")
        limits = [
            container["resources"]["limits"]
            for workload in release.workloads()
            for container in containers(workload)
        ]
        assert any("cpu" not in one for one in limits), part
        with pytest.raises(HelmError, match="memory"):
            renderer.render(chart, [*given, _limits(part, memory=None)], release="a", namespace="b")


def _limits(part: str, **limits: object) -> dict[str, Any]:
    return {part: {"resources": {"limits": limits}}}
