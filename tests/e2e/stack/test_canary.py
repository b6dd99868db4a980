"""A canary knows only the gateway and some passwords, and its verdict can be alerted on."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from stackproof import report
from stackproof.backends import Client
from stackproof.errors import StackproofError
from stackproof.isolation import prove
from stackproof.isolation.verdict import Verdict
from stackproof.model import Backend, EntryPoint, Signal
from stackproof.otlp import senders
from stackproof.stack.base import Stack
from stackproof.stack.remote import RemoteStack, variable
from stackproof.waiting import until

pytestmark = pytest.mark.xdist_group("stack")


def _passwords(stack: Stack) -> dict[str, str]:
    found = {}
    for tenant in stack.tenants:
        auth = stack.reader(tenant).auth
        assert auth
        found[variable(tenant)] = auth[1]
    return found


def test_the_gateway_and_the_passwords_are_enough(stack: Stack, client: Client) -> None:
    assert stack.gateway_url
    remote = RemoteStack(stack.gateway_url, stack.tenants, _passwords(stack))
    found = prove(remote)
    assert found.verdict is Verdict.ISOLATED, "\n".join(map(str, found.violations))
    # Nothing is known of it but what the backends say themselves; an image's tag has no `+`.
    assert [(each.name, each.ran.replace("+", "-")) for each in found.programs] == [
        (name, version.replace("+", "-"))
        for name, version in stack.versions.items()
        if name in set(Backend)
    ]
    assert found.exports == len(stack.tenants) * len(Signal)
    reader = remote.tenants[0]
    report.send_metrics(found, remote, reader)
    access = remote.reader(reader)
    query = urlencode({"query": '{__name__=~"stackproof_.+",service_name!="open-webui"}'})
    url = f"{access.urls[Backend.MIMIR]}/api/v1/query?{query}"
    expected = {
        ("stackproof_isolated", ""): 1.0,
        ("stackproof_verdict", "isolated"): 1.0,
        ("stackproof_verdict", "leaking"): 0.0,
        ("stackproof_pairs", "leaks"): 0.0,
    }

    def look() -> dict[tuple[str, str], float]:
        answer = client.pool.request("GET", url, headers=senders.basic_auth(access.auth))
        return {
            (
                each["metric"]["__name__"],
                each["metric"].get("verdict") or each["metric"].get("state", ""),
            ): float(each["value"][1])
            for each in json.loads(answer.data)["data"]["result"]
        }

    seen = until(look, lambda seen: expected.items() <= seen.items(), within_s=30)
    assert expected.items() <= seen.items()


def test_a_wrong_password_is_not_called_isolated(stack: Stack) -> None:
    assert stack.gateway_url
    passwords = _passwords(stack) | {variable(stack.tenants[0]): "wrong"}
    found = prove(
        RemoteStack(stack.gateway_url, stack.tenants, passwords),
        entry_point=EntryPoint.GATEWAY,
        deadline_s=2,
    )
    assert found.verdict is Verdict.INCOMPLETE
    # What was refused is not said to be left behind.
    assert found.exports == (len(stack.tenants) - 1) * len(Signal)


def test_a_missing_password_is_named() -> None:
    with pytest.raises(StackproofError, match="not set: STACKPROOF_PASSWORD_ENTERPRISE_B"):
        RemoteStack("http://gateway:8080", ["enterprise-b"], {})
