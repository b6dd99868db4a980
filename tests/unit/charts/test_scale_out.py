"""The tenants' limits, as the distributed charts take them."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import pytest
import yaml

from stackproof.checks.lgtm import BACKENDS
from stackproof.checks.scale_out import SHARED, astray, limit_values, too_few
from stackproof.commands import scale_out as command
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.model import STACK_TENANT
from stackproof.repo.checkout import Checkout
from stackproof.values.combinations import value_at


@pytest.mark.parametrize(
    ("backend", "path", "limit"),
    [
        ("mimir", ("runtimeConfig", "overrides"), "max_global_series_per_user"),
        ("loki", ("loki", "runtimeConfig", "overrides"), "ingestion_rate_mb"),
        ("tempo", ("per_tenant_overrides",), "ingestion"),
    ],
)
def test_every_tenant(backend: str, path: tuple[str, ...], limit: str, checkout: Checkout) -> None:
    deployment = Deployment.load(checkout)
    values = limit_values(deployment, backend)
    limits = value_at(values, path)
    # The monitor writes metrics and logs of the stack itself.
    own = set() if backend == "tempo" else {STACK_TENANT}
    assert set(limits) == {*deployment.registry.names, *own}
    assert all(limit in each for each in limits.values())
    # And those of all together.
    assert value_at(values, (backend, "structuredConfig", *SHARED[backend][0]))


def test_unknown_backend(checkout: Checkout) -> None:
    with pytest.raises(StackproofError, match="no backend 'cortex'"):
        limit_values(Deployment.load(checkout), "cortex")


@pytest.mark.parametrize("backend", BACKENDS)
def test_command(backend: str, capsys: pytest.CaptureFixture[str], checkout: Checkout) -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args([backend])) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == limit_values(Deployment.load(checkout), backend)


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (
            "tempo-values.yaml",
            "mimir-gateway.backends.svc",
            "mimir-gateway.observability.svc",
            r"tempo-values\.yaml: mimir-gateway\.observability\.svc: .* mimir into backends",
        ),
        (
            "tempo-values.yaml",
            "mimir-gateway.backends.svc",
            "metrics-gateway.backends.svc",
            r"installs no release that makes a Service metrics-gateway",
        ),
        (
            "gateway-values.yaml",
            "http://loki-gateway.backends.svc:80",
            "http://loki-gateway.logs.svc.cluster.local:80",
            r"gateway-values\.yaml: loki-gateway\.logs\.svc\.cluster\.local: .* loki into backends",
        ),
        (
            "README.md",
            "-n backends -f observability/scale-out/loki-values.yaml",
            "-n logs -f observability/scale-out/loki-values.yaml",
            r"loki-gateway\.backends\.svc: the README installs loki into logs",
        ),
    ],
)
def test_addresses_lead_to_what_is_installed(
    file: str, old: str, new: str, reason: str, checkout: Checkout, tmp_path: Path
) -> None:
    shutil.copytree(checkout.observability, tmp_path / "observability")
    assert list(astray(Checkout(tmp_path))) == []
    changed = tmp_path / "observability" / "scale-out" / file
    text = changed.read_text("utf-8")
    assert old in text
    changed.write_text(text.replace(old, new), "utf-8")
    (problem,) = astray(Checkout(tmp_path))
    assert re.search(reason, problem)


@pytest.mark.parametrize(
    ("backend", "path", "value", "reason"),
    [
        ("loki", ("loki", "commonConfig", "replication_factor"), 1, "none may be lost"),
        ("loki", ("loki", "commonConfig", "replication_factor"), 2, "none may be lost"),
        ("loki", ("loki", "commonConfig", "replication_factor"), None, "is None: of fewer"),
        (
            "mimir",
            ("mimir", "structuredConfig", "ingester", "ring", "replication_factor"),
            1,
            r"mimir-values\.yaml: mimir\.structuredConfig\.ingester\.ring\.replication_factor is 1",
        ),
        ("tempo", ("ingester", "config", "replication_factor"), 1, "none may be lost"),
        ("mimir", ("ingester", "replicas"), 2, r"replicas is 2: of fewer than 3, none may fail"),
        ("loki", ("ingester", "replicas"), None, r"replicas is None: of fewer"),
        ("tempo", ("ingester", "replicas"), 5, None),
        ("mimir", ("mimir", "structuredConfig", "common", "replication_factor"), 3, None),
    ],
)
def test_one_ingester_may_be_lost(
    backend: str,
    path: tuple[str, ...],
    value: int | None,
    reason: str | None,
    checkout: Checkout,
    tmp_path: Path,
) -> None:
    shutil.copytree(checkout.observability, tmp_path / "observability")
    assert list(too_few(Checkout(tmp_path))) == []
    file = tmp_path / "observability" / "scale-out" / f"{backend}-values.yaml"
    values = yaml.safe_load(file.read_bytes())
    *above, last = path
    place = values
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    file.write_text(yaml.safe_dump(values), "utf-8")
    found = list(too_few(Checkout(tmp_path)))
    assert len(found) == (reason is not None)
    assert all(re.search(reason or "", each) for each in found), found


def test_a_readme_that_installs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "observability" / "scale-out"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("Install the charts.\n", "utf-8")
    with pytest.raises(StackproofError, match="installs no release"):
        list(astray(Checkout(tmp_path)))
