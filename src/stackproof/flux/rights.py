"""Who may do what: the rights that the tree gives, against those that are needed.

A tenant's release is installed as an account of its own. What that needs follows from what its
chart renders: Helm reads, makes, changes and deletes each kind, and waits for it. More would let a
chart do more; a ClusterRole such as `admin` grows with every operator that adds itself to it, among
them Flux, whose own kinds are applied with the rights of the cluster's administrator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stackproof.errors import StackproofError
from stackproof.helm import renderer
from stackproof.helm.manifests import CLUSTER_KINDS, WORKLOAD_KINDS, Manifest, pod_template

from .objects import BOOTSTRAP, FLUX_NAMESPACE, group_of
from .subject import FLUX, Subject, applied, at, of, own
from .tree import Applied, Step

_PRUNE = "kustomize.toolkit.fluxcd.io/prune"

Right = tuple[str, str, str]
"""API group, resource, verb."""

_READ = ("get", "list", "watch")
_MANAGE = (*_READ, "create", "update", "patch", "delete")
#: What Helm keeps its releases in (helm.sh/docs/topics/advanced, "Storage backends").
_STORAGE = {("", "secrets", verb) for verb in _MANAGE}
#: What Helm reads to see whether a workload is ready (fluxcd/cli-utils, pkg/kstatus).
_WAITED = {
    (group, name, verb) for group, name in (("apps", "replicasets"), ("", "pods")) for verb in _READ
}
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
#: What Alloy reads, by what its configuration says (grafana.com/docs/alloy, the components'
#: "Permissions"; a kubelet asks for nodes/metrics before it shows its own).
_CONFIGURED = {
    re.compile(r'role\s*=\s*"pod"'): {("", "pods", verb) for verb in _READ},
    re.compile(r'role\s*=\s*"node"'): {("", "nodes", verb) for verb in _READ},
    re.compile(r"loki\.source\.kubernetes "): {("", "pods/log", "get")},
    re.compile(rf'bearer_token_file\s*=\s*"{_TOKEN}"'): {("", "nodes/metrics", "get")},
}
#: What is in no namespace, so that only a ClusterRoleBinding can give it.
_OF_THE_CLUSTER = frozenset({"nodes", "nodes/metrics"})
#: Who has rights in the whole cluster by `flux bootstrap`: the role, and Flux' controllers.
_BOOTSTRAPPED = {
    "cluster-admin": {"kustomize-controller", "helm-controller"},
    "crd-controller-flux-system": {
        "helm-controller",
        "image-automation-controller",
        "image-reflector-controller",
        "kustomize-controller",
        "notification-controller",
        "source-controller",
        "source-watcher",
    },
}


@FLUX.register
def accounts_may_what_they_need(subject: Subject) -> Iterator[str]:
    """The account of a tenant's release may do what its chart needs, there, and nothing else."""
    for release in subject.tenant_releases:
        account = release.manifest["spec"].get("serviceAccountName")
        if not account or release.rendered is None or release.chart is None:
            continue
        home = release.manifest.namespace or ""
        where = f"ServiceAccount/{account} in {home}"
        given = set(_given(subject, home, account))
        for right in sorted(_needed(release.rendered) - given):
            yield f"{where}: may not {_said(right)}, which its release needs"
        for right in sorted(given - _needed(_possible(release.chart))):
            yield f"{where}: may {_said(right)}, which its release does not need"
        for manifest in release.rendered.of_kind(*WORKLOAD_KINDS):
            if pod_template(manifest)["spec"].get("serviceAccountName") == account:
                yield f"{where}: is what {manifest.ref} runs as: its pods may do all that Helm may"


@FLUX.register
def accounts_outlive_their_releases(subject: Subject) -> Iterator[str]:
    """A release that Flux no longer applies is uninstalled by an account that is still there.

    kustomize-controller deletes all that a step no longer applies at once. Without the account
    helm-controller skips the uninstall, so that the pods run on; without its rights it fails for
    ever (`reconcileReleaseDeletion`; fluxcd/flux2#2595).
    """
    for step, release in own(subject, "HelmRelease"):
        account = release["spec"].get("serviceAccountName")
        for one in _of_account(step, release.namespace or "", account) if account else ():
            if one.annotations.get(_PRUNE) != "disabled":
                yield (
                    f"{of(step, one)}: goes together with {release.ref}, which is uninstalled as "
                    f"{account} ({_PRUNE}: disabled)"
                )


def _of_account(step: Step, home: str, account: str) -> Iterator[Manifest]:
    """Yield what a step applies that makes an account what it is: itself and its rights."""
    roles = set()
    for one in step.objects:
        subjects = one.get("subjects") or ()
        if any((s.get("namespace"), s["name"]) == (home, account) for s in subjects):
            roles.add((one["roleRef"]["kind"], one["roleRef"]["name"]))
            yield one
    for one in step.objects:
        itself = (one.kind, one.namespace, one.name) == ("ServiceAccount", home, account)
        if itself or (one.namespace == home and (one.kind, one.name) in roles):
            yield one


@FLUX.register
def pods_may_what_they_need(subject: Subject) -> Iterator[str]:
    """A pod's account may do what the program in the pod asks of Kubernetes, and nothing else."""
    for one, m in applied(subject, *WORKLOAD_KINDS):
        if one.step.name == BOOTSTRAP:
            continue
        spec = pod_template(m)["spec"]
        home, account = m.namespace or "", spec.get("serviceAccountName", "default")
        needed = _asked(one, spec)
        given = set(_given(subject, home, account))
        for right in sorted(needed - given):
            yield f"{at(one)}: its account {account} may not {_said(right)}, which it needs"
        for right in sorted(given - needed):
            yield f"{at(one)}: its account {account} may {_said(right)}, which it does not need"


@FLUX.register
def rights_are_given_to_accounts(subject: Subject) -> Iterator[str]:
    """Rights are given to single accounts, in one namespace; beyond it to read nodes at most.

    What `flux bootstrap` gives its controllers is left aside.
    """
    for binding, m in applied(subject, *_BINDINGS):
        names = {one["name"] for one in m.get("subjects") or ()}
        beyond = [
            r for r in _rights(subject, m) if r[1] not in _OF_THE_CLUSTER or r[2] not in _READ
        ]
        if m.kind == "ClusterRoleBinding" and beyond and not _is_bootstraps(m, names):
            yield f"{at(binding)}: gives rights in the whole cluster to {', '.join(sorted(names))}"
        for one in m.get("subjects") or ():
            if one["kind"] != "ServiceAccount":
                yield f"{at(binding)}: gives rights to {one['kind']}/{one['name']}, whoever that is"


def _is_bootstraps(binding: Manifest, names: set[str]) -> bool:
    return names <= _BOOTSTRAPPED.get(binding["roleRef"]["name"], set()) and all(
        one.get("namespace") == FLUX_NAMESPACE for one in binding.get("subjects") or ()
    )


_BINDINGS = ("RoleBinding", "ClusterRoleBinding")


def _given(subject: Subject, namespace: str, account: str) -> Iterator[Right]:
    """Yield the rights of an account: its own, and those of the groups that it is in."""
    accounts = "system:serviceaccounts"
    groups = {"system:authenticated", accounts, f"{accounts}:{namespace}"}
    for _, m in applied(subject, *_BINDINGS):
        for one in m.get("subjects") or ():
            kind, name = one["kind"], one["name"]
            itself = (kind, one.get("namespace", m.namespace), name)
            if (
                itself == ("ServiceAccount", namespace, account)
                or (kind, name) == ("User", f"system:serviceaccount:{namespace}:{account}")
                or (kind == "Group" and name in groups)
            ):
                yield from _rights(subject, m)


def _rights(subject: Subject, binding: Manifest) -> Iterator[Right]:
    reference = binding["roleRef"]
    where = binding.namespace if reference["kind"] == "Role" else None
    for _, role in applied(subject, reference["kind"]):
        if (role.namespace, role.name) == (where, reference["name"]):
            if role.get("aggregationRule"):
                yield "*", "*", f"* (all that ClusterRole/{role.name} gathers)"
            yield from _expanded(role.get("rules") or ())
            return
    if reference["kind"] == "ClusterRole":
        # Kubernetes' own: whoever adds a kind to the cluster may add it to these.
        yield "*", "*", f"* (all that ClusterRole/{reference['name']} gathers)"


def _expanded(rules: Iterable[Mapping[str, Any]]) -> Iterator[Right]:
    for rule in rules:
        for verb in rule.get("verbs") or ():
            for resource in rule.get("resources") or ():
                for group in rule.get("apiGroups") or ():
                    yield group, resource, verb
            for url in rule.get("nonResourceURLs") or ():
                yield "", url, verb


def _needed(objects: Iterable[Manifest]) -> set[Right]:
    """Return what installing, changing and removing some objects takes, as one who may do no more.

    Who makes a Role must have what it gives (kubernetes.io, "Privilege escalation prevention").
    """
    found = set(_STORAGE) | _WAITED
    for one in objects:
        if one.kind in CLUSTER_KINDS:
            continue  # refused by another check
        found |= {(group_of(one), _plural(one.kind), verb) for verb in _MANAGE}
        if one.kind == "Role":
            found |= set(_expanded(one.get("rules") or ()))
    return found


def _possible(chart: Path) -> tuple[Manifest, ...]:
    """Return what a chart renders in any of its scenarios: a right must not go with a setting."""
    files = tuple(sorted(chart.glob("ci/*-values.yaml")))
    return _scenarios(chart, renderer.chart_digest(chart), files)


@cache
def _scenarios(chart: Path, _digest: str, files: tuple[Path, ...]) -> tuple[Manifest, ...]:
    asked = [
        renderer.Render(chart=chart, values=[file], release="x", namespace="x") for file in files
    ]
    made = (one for one in renderer.render_many(asked) if not isinstance(one, StackproofError))
    return tuple(manifest for release in made for manifest in release)


def _asked(pod: Applied, spec: Mapping[str, Any]) -> set[Right]:
    """Return what a pod's program asks of Kubernetes, by the configuration that it mounts."""
    release = pod.release
    mounted = {(volume.get("configMap") or {}).get("name") for volume in spec.get("volumes") or ()}
    found: set[Right] = set()
    for one in release.rendered or () if release else ():
        if one.kind == "ConfigMap" and one.name in mounted:
            text = "\n".join(str(value) for value in (one.get("data") or {}).values())
            for said, rights in _CONFIGURED.items():
                if said.search(text):
                    found |= rights
    return found


def _plural(kind: str) -> str:
    """Return the resource of a kind, as the API server forms it for those that we use."""
    name = kind.lower()
    if name.endswith("y") and name[-2] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x", "ch")) else f"{name}s"


def _said(right: Right) -> str:
    group, resource, verb = right
    return f"{verb} {resource}{f' of {group}' if group else ''}"
