"""The real open-webui, run as it is deployed: all its telemetry arrives, with its own tenant alone.

It is the application itself, whole, from the wheel of the version that is deployed; its environment
is what the rendered Deployment and ConfigMap give a pod. One tenant's sends by gRPC, as it is
deployed, with two replicas; another's sends by HTTP. The same checks catch the broken twins.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

import pytest

from stackproof.backends import Client
from stackproof.checks.arrival import ARRIVAL, RunningApplication, running
from stackproof.model import Signal
from stackproof.otlp import app_metrics
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.rules import Rule
from stackproof.stack.application import Application
from stackproof.stack.base import Stack
from stackproof.stack.local import LocalStack
from stackproof.toolchain import openwebui

# Three applications are started: on a busy machine that takes minutes.
pytestmark = [pytest.mark.xdist_group("application"), pytest.mark.timeout(600)]

VERSIONS = """
import importlib.metadata as m, json
names = {d.name.lower(): d.version for d in m.distributions()}
print(json.dumps([m.requires("open-webui"), names]))
"""
HTTP = {"openWebui": {"config": {"telemetry": {"otel": {"protocol": "http"}}}}}


@pytest.fixture(scope="module")
def applications(stack: Stack, client: Client) -> Iterator[Mapping[str, RunningApplication]]:
    """The applications, by protocol; the third tenant has none."""
    if not isinstance(stack, LocalStack):
        pytest.skip("a cluster runs the application's own image")
    if why := openwebui.unavailable():
        pytest.skip(why)
    by_grpc, by_http, *_ = stack.tenants
    with ExitStack() as life:
        yield {
            "grpc": life.enter_context(running(stack, by_grpc, client, replicas=2)),
            "http": life.enter_context(running(stack, by_http, client, values=[HTTP])),
        }


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("check", list(ARRIVAL), ids=lambda check: check.name)
def test_its_telemetry(
    check: Rule[RunningApplication], protocol: str, applications: Mapping[str, RunningApplication]
) -> None:
    found = list(check.find(applications[protocol]))
    assert not found, f"{check.about}\n" + "\n".join(found)


class Leaking:
    """The stack, as if whoever reads were answered as the first tenant."""

    def __init__(self, stack: LocalStack) -> None:
        self.tenants = stack.tenants
        self.reader = lambda _: stack.reader(stack.tenants[0])


def test_a_leak_is_seen(applications: Mapping[str, RunningApplication]) -> None:
    own = applications["grpc"]
    leaking = replace(own, stack=cast("LocalStack", Leaking(own.stack)))
    found = list(ARRIVAL["nobody-else-sees-it"].find(leaking))
    others = len(own.stack.tenants) - 1
    assert len([each for each in found if "sees soev's" in each]) == others * len(Signal)


def test_a_wrong_attribute_is_seen(
    applications: Mapping[str, RunningApplication], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = applications["http"]
    right = own.replicas[0].attributes
    monkeypatch.setattr(Application, "attributes", {**right, "tenant.id": "somebody"})
    found = list(ARRIVAL["every-signal-arrives"].find(own))
    assert len(found) == len(Signal)
    assert all(f"tenant.id is '{own.tenant}', not 'somebody'" in each for each in found)


def test_a_metric_that_is_not_emitted_is_seen(
    applications: Mapping[str, RunningApplication], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = applications["grpc"]
    total = next(each for each in app_metrics.EMITTED if each.prometheus == "webui_users_total")
    wrong = [
        replace(total, prometheus="webui_users"),
        replace(total, points=({"webui.role": "admin"},)),
    ]
    monkeypatch.setattr(app_metrics, "EMITTED", wrong)
    hurried = replace(own, waited_s=0)
    found = list(ARRIVAL["dashboards-ask-for-what-it-emits"].find(hurried))
    assert [each.split(" is not")[0] for each in found] == [
        "webui_users with labels []",
        "webui_users_total with labels ['webui_role']",
    ]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_it_is_told_to_use_the_protocol(
    protocol: str, applications: Mapping[str, RunningApplication]
) -> None:
    """Both ways were tried: the variable is what the application chooses its exporter by."""
    (told,) = {
        each.environment["OTEL_OTLP_SPAN_EXPORTER"] for each in applications[protocol].replicas
    }
    assert told == protocol


def test_the_application_is_the_charts_own(applications: Mapping[str, RunningApplication]) -> None:
    """Upstream's: the owner's build, which is deployed, is no wheel that could be run here."""
    _, body = applications["grpc"].replicas[0].ask("GET", "/api/version")
    version = json.loads(body)["version"]
    assert Versions.load(Checkout.find()).images["open-webui"].version == f"v{version}"


def test_it_runs_with_what_it_asks_for(checkout: Checkout) -> None:
    """Of each requirement that is installed, the version is the application's own."""
    python = openwebui.find(checkout)
    told = subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True)
    asked, installed = json.loads(told.stdout)
    pins = [re.fullmatch(r"([\w.-]+)(?:\[.*\])?==([\w.]+)", each) for each in asked]
    wanted = {pin[1].lower(): pin[2] for pin in pins if pin}
    common = wanted.keys() & installed.keys()
    assert len(common) > 40
    assert {name: installed[name] for name in common} == {name: wanted[name] for name in common}
