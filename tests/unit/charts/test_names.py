"""Which names a tenant may have: where they are written they are refused, in both charts alike."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stackproof.repo.checkout import Checkout

CHARTS = Checkout.find().charts


def _validator(chart: str, *path: str) -> Any:
    schema = json.loads((CHARTS / chart / "values.schema.json").read_bytes())
    definitions, found = schema.get("$defs", {}), schema
    for step in path:
        found = found[step]
    return jsonschema_rs.validator_for({**found, "$defs": definitions})


NAME = _validator("lgtm", "$defs", "tenant", "properties", "name")
TENANT_ID = _validator(
    "open-webui-stack",
    "properties",
    *("openWebui", "properties", "config", "properties", "telemetry", "properties", "otel"),
    *("properties", "tenantId"),
)

#: Words of YAML 1.1 and 1.2, numbers, dates, directives, folders, and names like them.
_ODD = st.sampled_from(
    (
        *("y", "n", "on", "off", "yes", "no", "true", "false", "null", "1", "1e3", "0x1f"),
        *("2026-1-1", "import", "default", "index", "admin", "fake", "anonymous"),
        *("observability", "single-tenant", "nan", "inf", "A"),
    )
)
_NAMES = st.one_of(
    _ODD,
    st.builds("{}{}".format, _ODD, st.sampled_from(("-", "a", "0", "-a"))),
    st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True),
    st.text(max_size=40),
)


@settings(max_examples=400)
@given(_NAMES)
@example("a" * 34)
@example("a" * 35)
@example("1-2")
@example("1e-5")
@example("e3")
def test_a_name_is_a_tenant_in_both_charts_or_in_none(name: str) -> None:
    if name:  # an empty tenantId is what a release without telemetry has
        assert NAME.is_valid(name) == TENANT_ID.is_valid(name), name


@pytest.mark.parametrize(
    "name", ["soev", "acme", "yellow", "1e3a", "on-call", "imports", "a1", "4u"]
)
def test_names_that_are_good(name: str) -> None:
    assert NAME.is_valid(name)
