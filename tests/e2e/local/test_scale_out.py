"""The values for the official distributed charts: they render, and no key is without effect.

The charts come from their repositories (`helm pull`), or from the folder $STACKPROOF_CHARTS, in
which each lies unpacked. Where neither is to be had, the tests are skipped and say why.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof.checks.scale_out import installed, tenant_values
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import Release, thaw
from stackproof.helm.renderer import HelmError
from stackproof.repo.checkout import Checkout
from stackproof.toolchain import programs

KUBERNETES = "1.34.0"
CHARTS = {
    "mimir": (
        "mimir-distributed",
        ["mimir-distributed", "--repo", "https://grafana.github.io/helm-charts"],
        "6.2.0",
    ),
    "loki": ("loki", ["oci://ghcr.io/grafana-community/helm-charts/loki"], "18.11.0"),
    "tempo": (
        "tempo-distributed",
        ["oci://ghcr.io/grafana-community/helm-charts/tempo-distributed"],
        "2.26.2",
    ),
}


@pytest.fixture(scope="module", params=list(CHARTS))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def chart(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, where, version = CHARTS[backend]
    if given := os.environ.get("STACKPROOF_CHARTS"):
        folder = Path(given) / name
        if not folder.is_dir():
            pytest.skip(f"$STACKPROOF_CHARTS has no {name}")
        return folder
    target = tmp_path_factory.mktemp("charts")
    try:
        done = subprocess.run(
            [programs.find("helm"), "pull", *where, "--version", version, "--untar", "-d", target],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{name} {version} cannot be had: no answer within 60 s")
    if done.returncode:
        pytest.skip(
            f"{name} {version} cannot be had here: {done.stderr.strip().splitlines()[-1][:160]}"
        )
    return target / name


@pytest.fixture(scope="module")
def values(backend: str, checkout: Checkout) -> dict[str, Any]:
    path = checkout.observability / "scale-out" / f"{backend}-values.yaml"
    data: dict[str, Any] = yaml.safe_load(path.read_bytes())
    return data


def _render(chart: Path, *values: Mapping[str, Any], backend: str) -> Release:
    namespace = installed(Checkout.find())[backend]
    return renderer.render(
        chart, values, release=backend, namespace=namespace, kube_version=KUBERNETES
    )


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def test_no_key_is_without_effect(chart: Path, backend: str, values: dict[str, Any]) -> None:
    defaults = yaml.safe_load((chart / "values.yaml").read_bytes())
    whole = [thaw(m.content) for m in _render(chart, values, backend=backend)]
    idle = []
    for path in _leaves(values):
        if _at(defaults, path) == _at(values, path) is not None:
            continue  # says the default, so that a new one changes nothing
        less = deepcopy(values)
        del _at(less, path[:-1])[path[-1]]
        try:
            if [thaw(m.content) for m in _render(chart, less, backend=backend)] == whole:
                idle.append(".".join(path))
        except HelmError:
            continue  # required: it has an effect
    assert idle == []


def test_every_tenant_has_its_limits(
    chart: Path, backend: str, values: dict[str, Any], checkout: Checkout
) -> None:
    deployment = Deployment.load(checkout)
    release = _render(chart, values, tenant_values(deployment, backend), backend=backend)
    wanted = yaml.safe_load(deployment.lgtm().get("ConfigMap", backend)["data"]["overrides.yaml"])
    found = [
        yaml.safe_load(text)
        for m in release.of_kind("ConfigMap")
        for text in (m.get("data") or {}).values()
        if "overrides:" in text and "max_" in text
    ]
    assert any(one.get("overrides") == wanted["overrides"] for one in found if one)
