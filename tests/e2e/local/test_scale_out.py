"""The values for the official distributed charts: they render, and no key is without effect.

The charts come from their repositories (`helm pull`), or from the folder $STACKPROOF_CHARTS, in
which each lies unpacked. Where neither is to be had, the tests are skipped and say why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests import charts_from_elsewhere

from stackproof.checks.lgtm import BACKENDS
from stackproof.checks.scale_out import SHARED, installs, limit_values
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import Release, containers, thaw
from stackproof.helm.renderer import HelmError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions, version_key
from stackproof.values.combinations import value_at

KUBERNETES = "1.34.0"


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def chart(backend: str, checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return charts_from_elsewhere.unpacked(
        installs(checkout)[backend], tmp_path_factory.mktemp("charts")
    )


@pytest.fixture(scope="module")
def values(backend: str, checkout: Checkout) -> dict[str, Any]:
    path = checkout.observability / "scale-out" / f"{backend}-values.yaml"
    data: dict[str, Any] = yaml.safe_load(path.read_bytes())
    return data


def _render(chart: Path, *values: Mapping[str, Any], backend: str) -> Release:
    namespace = installs(Checkout.find())[backend].namespace
    return renderer.render(
        chart, values, release=backend, namespace=namespace, kube_version=KUBERNETES
    )


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def test_no_key_is_without_effect(chart: Path, backend: str, values: dict[str, Any]) -> None:
    defaults = yaml.safe_load((chart / "values.yaml").read_bytes())
    whole = [thaw(m.content) for m in _render(chart, values, backend=backend)]
    idle = []
    for path in _leaves(values):
        if value_at(defaults, path) == value_at(values, path) is not None:
            continue  # says the default, so that a new one changes nothing
        less = deepcopy(values)
        del value_at(less, path[:-1])[path[-1]]
        try:
            if [thaw(m.content) for m in _render(chart, less, backend=backend)] == whole:
                idle.append(".".join(path))
        except HelmError:
            continue  # required: it has an effect
    assert idle == []


# --- what is installed ---


def _files(release: Release, *marks: str) -> Iterator[Any]:
    """Yield the YAML files of ConfigMaps that hold all of some texts."""
    for text in _texts(release):
        if all(mark in text for mark in marks):
            yield yaml.safe_load(text)


def _texts(release: Release) -> Iterator[str]:
    for m in release.of_kind("ConfigMap"):
        yield from (m.get("data") or {}).values()


def faults(release: Release, backend: str, checkout: Checkout) -> Iterator[str]:
    """Yield what is not as it is where one process does it all, or not fit for many."""
    lgtm = Deployment.load(checkout).lgtm().get("ConfigMap", backend)["data"]
    limits = yaml.safe_load(lgtm["overrides.yaml"])["overrides"]
    if not any(one and one.get("overrides") == limits for one in _files(release, "overrides:")):
        yield "the tenants' limits are others"
    one = yaml.safe_load(lgtm[f"{backend}.yaml"])
    (many,) = _files(release, "memberlist:", "join_members:")
    for path in SHARED[backend]:
        # The chart may have settings of its own beside them.
        if not _within(value_at(one, path), value_at(many, path)):
            yield f"{'.'.join(path)}: {value_at(many, path)}"
    # A pod that gets the address of another backend's would else join the two rings for good.
    if value_at(many, ("memberlist", "cluster_label")) != f"{backend}.backends":
        yield "its ring takes everybody in"
    yield from _older(release, backend, Versions.load(checkout))
    yield from _without_volume(release)
    yield from _refused(release, checkout)
    if webhooks := [m.ref for m in release if "Webhook" in m.kind]:
        yield f"it decides about the cluster's other pods: {webhooks}"


def _within(wanted: Any, found: Any) -> bool:
    """Tell whether all settings are there, whatever else is."""
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        return wanted is not None and bool(wanted == found)
    return all(_within(each, found.get(key)) for key, each in wanted.items())


def _older(release: Release, backend: str, pins: Versions) -> Iterator[str]:
    """Whoever scales out does not want to go back a version."""
    pin = pins.image(backend)
    for workload in release.workloads():
        for container in containers(workload):
            repository, _, tag = container["image"].rpartition(":")
            # A chart that is not released yet names a commit.
            if repository.endswith(pin.repository) and () < version_key(tag) < version_key(pin.tag):
                yield f"{workload.ref}: {tag} is older than {pin.tag}"


def _without_volume(release: Release) -> Iterator[str]:
    """What is not in the store of objects yet is to outlive its pod."""
    sets = release.of_kind("StatefulSet")
    ingesters = [m for m in sets if "ingester" in m.content["metadata"]["name"]]
    if sum(m.content["spec"]["replicas"] for m in ingesters) != 3:
        yield "there are not three ingesters"
    if len(ingesters) > 1:
        yield "the ingesters are in zones"
    for m in ingesters:
        if not m.content["spec"].get("volumeClaimTemplates"):
            yield f"{m.ref} has no volume"


def _refused(release: Release, checkout: Checkout) -> Iterator[str]:
    """Alloy does not send again what is answered with 413."""
    first = yaml.safe_load((checkout.charts / "lgtm" / "values.yaml").read_bytes())
    largest = int(first["gateway"]["maxBodySize"].removesuffix("MiB"))
    for text in _texts(release):
        for size in re.findall(r"client_max_body_size\s+(\d+)M;", text):
            if int(size) < largest:
                yield f"the gateway in between takes {size}M, ours {largest}M"


def test_what_is_installed_is_sound(
    chart: Path, backend: str, values: dict[str, Any], checkout: Checkout
) -> None:
    limits = limit_values(Deployment.load(checkout), backend)
    release = _render(chart, values, limits, backend=backend)
    assert list(faults(release, backend, checkout)) == []


#: What is taken out of the values, or of the limits, and what is then said.
TAKEN_OUT = {
    "mimir": {
        ("mimir", "structuredConfig", "memberlist"): "its ring takes everybody in",
        ("mimir", "structuredConfig", "limits"): "limits: {.*max_query_parallelism",
        ("runtimeConfig",): "the tenants' limits are others",
        ("rollout_operator",): "it decides about the cluster's other pods",
    },
    "loki": {
        ("loki", "structuredConfig", "memberlist"): "its ring takes everybody in",
        ("loki", "structuredConfig", "distributor"): "distributor: None",
        ("loki", "image"): r"3\.7\.6 is older than 3\.7\.8",
        ("gateway", "nginxConfig"): "the gateway in between takes 4M, ours 16M",
        ("ingester", "persistence"): "loki-ingester has no volume",
        ("ingester", "zoneAwareReplication"): "the ingesters are in zones",
    },
    "tempo": {
        ("tempo", "structuredConfig", "query_frontend"): "query_frontend: {",
        ("tempo", "structuredConfig", "metrics_generator"): "local_blocks: None",
        ("tempo", "image"): r"2\.10\.7 is older than 2\.10\.8",
        ("ingester", "persistence"): "tempo-ingester has no volume",
    },
}


def test_what_was_wrong_once_is_noticed(
    chart: Path, backend: str, values: dict[str, Any], checkout: Checkout
) -> None:
    limits = limit_values(Deployment.load(checkout), backend)
    for path, reason in TAKEN_OUT[backend].items():
        if path == ("rollout_operator",) and not (chart / "charts").is_dir():
            continue  # a copy without the charts that it brings along
        layers = [deepcopy(values), deepcopy(limits)]
        for layer in layers:
            (value_at(layer, path[:-1]) or {}).pop(path[-1], None)
        found = list(faults(_render(chart, *layers, backend=backend), backend, checkout))
        assert any(re.search(reason, each) for each in found), (path, found)
