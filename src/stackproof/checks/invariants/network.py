"""NetworkPolicies: who is let through."""

from __future__ import annotations

from collections.abc import Iterator

from stackproof.checks import network
from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import Manifest

from .base import INVARIANTS, of_each_object


@INVARIANTS.register
@of_each_object
def policies_name_their_peers(m: Manifest) -> Iterator[str]:
    """A NetworkPolicy says which directions it rules, and lets in nobody who is not named."""
    if m.kind != "NetworkPolicy":
        return
    spec = m["spec"]
    types = spec.get("policyTypes") or ()
    for direction, side in (("Ingress", "from"), ("Egress", "to")):
        rules = spec.get(direction.lower()) or ()
        if not types or len(set(types)) != len(types):
            yield "does not say which directions it rules (policyTypes)"
        if rules and direction not in types:
            yield f"has {direction.lower()} rules that policyTypes does not switch on"
        for rule in rules:
            ports = {port.get("port") for port in rule.get("ports") or ()}
            # Of kubelets alone, no peer means a node on every network.
            if not rule.get(side) and not (side == "to" and ports == {network.KUBELET_PORT}):
                yield f"an {direction.lower()} rule names nobody, which means everybody"
            if not ports:
                yield f"an {direction.lower()} rule names no port, which means all"
            for peer in rule.get(side) or ():
                where = peer.get("namespaceSelector", "here")
                if not where or (where != "here" and not any(where.values())):
                    yield f"an {direction.lower()} rule has every namespace as its peer"
                if not any(peer.values()):
                    yield f"an {direction.lower()} rule has an empty peer, which means everybody"


@INVARIANTS.register
def what_policies_close_they_open(rendered: Rendered) -> Iterator[str]:
    """What a pod is configured to call is let out by policies and let in there; ways in lead in."""
    for find in (network.blocked, network.cut_off, network.locked_out, network.uncertified):
        yield from find(rendered.cluster)


@INVARIANTS.register
def policies_open_no_more(rendered: Rendered) -> Iterator[str]:
    """Where policies close a pod off, only pods that are configured to call it get through."""
    if rendered.release.of_kind("NetworkPolicy"):
        yield from network.unneeded(rendered.cluster)
