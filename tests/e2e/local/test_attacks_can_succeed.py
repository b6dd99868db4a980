"""An attack that can never succeed proves nothing: each is run on a gateway that trusts too much.

That gateway believes the tenant header, asks for a password only where there is none, passes every
path and method on by its prefix, lets the admin write, and bounds no body. Whatever comes to
nothing even there has its reason in the record; this test keeps the reasons exact.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.e2e.local.groups import in_halves

from stackproof.attacks import ATTACKS, Arena, Attack, AttackedStack, wire
from stackproof.attacks.base import AttackRun
from stackproof.attacks.exhaustion import gauge
from stackproof.backends import Client
from stackproof.errors import StackproofError
from stackproof.model import EntryPoint
from stackproof.otlp import synthetic
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack
from stackproof.twins import Edit, Layer, Twin

_GATEWAY = "charts/lgtm/templates/gateway.yaml"
_TRUSTING = """
		@named header X-Scope-OrgID *
		@nameless not header X-Scope-OrgID *
		basic_auth @nameless {
			import {$USERS_DIR}/*
		}
		vars @nameless tenant {http.auth.user.id}
		vars @named tenant {http.request.header.X-Scope-OrgID}
		handle /otlp/v1/traces {
			uri strip_prefix /otlp
			import trusting {$TEMPO_OTLP_URL}
		}
		handle_path /tempo/* {
			import trusting {$TEMPO_URL}
		}
		@loki path /otlp/v1/logs /loki/api/*
		handle @loki {
			import trusting {$LOKI_URL}
		}
		handle_path /loki/* {
			import trusting {$LOKI_URL}
		}
		handle {
			import trusting {$MIMIR_URL}
		}
"""
_BEFORE_ACCOUNTS = "\n\t\t# A name that is nobody's ends here"
_BACKEND = """
(trusting) {
	@names header X-Scope-OrgID *
	@names-nobody not header X-Scope-OrgID *
	reverse_proxy @names {args[0]} {
		transport http {
			compression off
		}
	}
	reverse_proxy @names-nobody {args[0]} {
		header_up X-Scope-OrgID {vars.tenant}
		transport http {
			compression off
		}
	}
}

http://:{$HTTP_PORT} {
"""
TRUSTING = Twin(
    name="gateway-trusts-everything",
    fault="the gateway believes the header, and passes every path on",
    layer=Layer.LOCAL,
    caught_by="attacks",
    reason=".",
    edits=[
        Edit(_GATEWAY, _BEFORE_ACCOUNTS, _TRUSTING + _BEFORE_ACCOUNTS),
        Edit(_GATEWAY, "\nhttp://:{$HTTP_PORT} {\n", _BACKEND),
    ],
)

_MIMIR = "charts/lgtm/templates/mimir.yaml"
_LOKI = "charts/lgtm/templates/loki.yaml"
#: What the deployment sets against what tenants can take from each other, left out.
UNBOUNDED = Twin(
    name="what-is-shared-is-not-bounded",
    fault="backends bound nothing that tenants share, and half exports and deep spans get there",
    layer=Layer.LOCAL,
    caught_by="attacks",
    reason=".",
    edits=[
        Edit(_MIMIR, "  max_global_metadata_per_user: 10000\n", ""),
        Edit(_MIMIR, "  max_query_expression_size_bytes: 8192\n", ""),
        Edit(_MIMIR, "label_(replace|join).*label_(replace|join)", "unblocked"),
        Edit(_MIMIR, "[0-9]+y|1[5-9]w|[2-9][0-9]w|[0-9]{3,}[dw]", "unblocked"),
        Edit(_MIMIR, ":[0-9]+ms", "unblocked"),
        Edit("charts/lgtm/templates/_helpers.tpl", "1048576\n{{- end }}", "20971520\n{{- end }}"),
        Edit(
            "charts/open-webui-stack/templates/alloy.yaml",
            "  			`flatten(attributes, depth = 1000) where IsMatch(String(attributes), "
            '"^([^[{]*[[{]){256}")`,\n',
            "",
        ),
        # Loki's own limit is 10.
        Edit(
            _LOKI, "  split_queries_by_interval: 24h\n", "  max_concurrent_tail_requests: 100000\n"
        ),
        Edit(_LOKI, "  split_instant_metric_queries_by_interval: 0s\n", ""),
        Edit(_LOKI, "  parallelise_shardable_queries: false\n", ""),
        Edit(_GATEWAY, "\t\trequest_buffers 512KiB\n", ""),
    ],
)


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with TRUSTING.deployment(Checkout.find()) as deployment, Arena(deployment) as running:
        yield running


@pytest.mark.parametrize(
    "attack",
    in_halves("trusting-gateway", (a for a in ATTACKS if a.entry_point is not EntryPoint.BACKEND)),
)
def test_it_succeeds_on_a_gateway_that_trusts(attack: Attack, arena: Arena) -> None:
    outcome = arena.run(attack)
    if outcome.attack.ineffective_because:
        assert outcome.ok, f"it succeeds: remove the reason why it does not; {outcome.record()}"
    else:
        assert not outcome.ok, f"give the reason why it does not succeed: {outcome.record()}"


@pytest.mark.xdist_group("trusting-gateway-0")
def test_they_succeed_where_nothing_bounds_what_is_shared() -> None:
    reasons = {
        "thousand-tails": "1000 tails of one tenant",
        "half-exports": "of Mimir's places",
        "flood-of-descriptions": "30000 descriptions in memory",
        "long-ago": " MB for it",
        "sum-of-a-day": " MB for it",
        "hollow-exports": "",
        "brackets-in-brackets": "mimir: exited",
        "deep-span": "Tempo works on it",
        "century-by-milliseconds": "mimir: exited",
        "endless-sum": "",
        "growing-label": "no longer reads its own metrics",
    }
    attacks = [attack for attack in ATTACKS if attack.name in reasons]
    assert len(attacks) == len(reasons)
    with UNBOUNDED.deployment(Checkout.find()) as deployment, Arena(deployment) as arena:
        for attack in attacks:
            outcome = arena.run(attack)
            assert not outcome.ok, outcome.record()
            assert reasons[attack.name] in "; ".join(outcome.harmed), outcome.record()


def test_those_on_the_backends_are_past_every_gateway() -> None:
    direct = [attack for attack in ATTACKS if attack.entry_point is EntryPoint.BACKEND]
    assert {attack.ineffective_because for attack in direct} == {"it is past every gateway"}


def test_what_cannot_be_measured_is_no_success(stack: LocalStack, client: Client) -> None:
    target = AttackedStack(stack, client)
    attack_run = AttackRun(target, synthetic.new_emission(target.attacker, synthetic.new_run()))
    assert gauge(attack_run, "cortex_ingester_memory_series") >= 0
    with pytest.raises(StackproofError, match="there is no metric cortex_misspelt"):
        gauge(attack_run, "cortex_misspelt")


def test_silence_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mimir that works on a question for longer than one waits has not refused it."""
    monkeypatch.setattr(wire, "_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        request = wire.http1(listening.getsockname(), "GET", "/")
        answer = wire.send(request)
    assert (answer.silent, answer.accepted) == (True, False), answer
    refused = wire.send(request)
    assert (refused.silent, refused.accepted) == (False, False), refused
