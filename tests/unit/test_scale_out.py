"""The tenants' limits, as the distributed charts take them."""

from __future__ import annotations

import argparse

import pytest
import yaml

from stackproof.checkout import Checkout
from stackproof.commands import scale_out as command
from stackproof.deployment import Deployment
from stackproof.errors import StackproofError
from stackproof.scale_out import BACKENDS, tenant_values


@pytest.mark.parametrize(
    ("backend", "path", "limit"),
    [
        ("mimir", ["runtimeConfig", "overrides"], "max_global_series_per_user"),
        ("loki", ["loki", "runtimeConfig", "overrides"], "ingestion_rate_mb"),
        ("tempo", ["per_tenant_overrides"], "ingestion"),
    ],
)
def test_every_tenant(backend: str, path: list[str], limit: str, checkout: Checkout) -> None:
    deployment = Deployment.load(checkout)
    values = tenant_values(deployment, backend)
    for key in path:
        assert list(values) == [key]
        values = values[key]
    assert set(values) == set(deployment.registry.names)
    assert all(limit in limits for limits in values.values())


def test_unknown_backend(checkout: Checkout) -> None:
    with pytest.raises(StackproofError, match="no backend 'cortex'"):
        tenant_values(Deployment.load(checkout), "cortex")


@pytest.mark.parametrize("backend", BACKENDS)
def test_command(backend: str, capsys: pytest.CaptureFixture[str], checkout: Checkout) -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args([backend])) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == tenant_values(Deployment.load(checkout), backend)
