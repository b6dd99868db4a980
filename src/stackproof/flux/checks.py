"""What must hold for the Flux tree. Each function is a check: it yields what is wrong."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from stackproof.helm import chartversion, podsecurity, schema
from stackproof.helm.manifests import CLUSTER_KINDS, WORKLOAD_KINDS, Manifest, containers
from stackproof.helm.manifests import hosts as served
from stackproof.helm.references import matches
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import Tenant
from stackproof.repo.versions import Versions
from stackproof.rules import Rule

from . import controllers
from .objects import BOOTSTRAP, FLUX_NAMESPACE, Key, group_of, key_of
from .releases import release_name
from .subject import FLUX, Subject, applied, at, chart_of, dig, of, own, releases_of, remote_keys
from .tree import GENERATED, Applied, HelmRelease, Step, step_name

__all__ = ["FLUX", "Subject", "problems"]

#: Namespaces that are there before Flux applies anything.
_GIVEN_NAMESPACES = frozenset({FLUX_NAMESPACE, "default", "kube-system"})
#: The groups whose CRDs a chart from elsewhere brings along.
_CHART_CRDS = {"external-secrets": "external-secrets.io"}
#: The group of the CRDs that bootstrap installs.
_BOOTSTRAP_CRDS = "toolkit.fluxcd.io"
#: Charts that nobody maintains there any more (January 2026; they moved to grafana-community).
_DEPRECATED = {"https://grafana.github.io/helm-charts": ("grafana", "tempo", "lgtm-distributed")}
_FAILURE_POLICIES = frozenset({"Fail", "Ignore"})
_EXACT_VERSION = re.compile(r"v?\d+\.\d+\.\d+([-+][0-9A-Za-z.-]+)?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MARKER = re.compile(r'^(?P<at>[^#]*?):.*#\s*\{"\$imagepolicy":\s*"(?P<ns>[^:"]+):(?P<name>[^:"]+)')
#: What a commit message template may name: the controller's TemplateData, v1.
_TEMPLATE_FIELDS = frozenset({"AutomationObject", "Changed", "Values"})
_TEMPLATE_ROOT = re.compile(r"(?:^|[\s({|])\.([A-Z]\w*)")


#: The checks that hold for any tree; the others know this repository's house rules.
ANY_TREE = (
    "builds",
    "kinds-served",
    "dependencies-resolve",
    "namespaces-first",
    "sources-resolve",
    "releases-render",
    "objects-have-one-owner",
)


def problems(subject: Subject, names: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield the name of the check and the message of everything that is wrong with a tree.

    Only these checks are made, if any are named.
    What does not build or render, or is not valid, has no shape that the others could look at: it
    is told alone.
    """
    for check in FLUX:
        if names and check.name not in names:
            continue
        found = [(check.name, message) for message in _found(check, subject)]
        yield from found
        if found and check.find in {builds, kinds_served, releases_render}:
            return


#: What a check meets where a part of an object, that no schema describes, has another form.
_MISSHAPEN = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def _found(check: Rule[Subject], subject: Subject) -> Iterator[str]:
    try:
        yield from check.find(subject)
    except _MISSHAPEN as error:
        yield f"cannot be decided: something has not the form that it must have ({error!r})"


@FLUX.register
def builds(subject: Subject) -> Iterator[str]:
    """Every step builds, and every variable in it has a value."""
    for step in subject.tree.steps:
        for problem in step.problems:
            yield f"step {step.name}: {problem}"
        for name in step.undefined:
            yield f"step {step.name}: ${{{name}}} is undefined: it becomes nothing"


@FLUX.register
def files_referenced(subject: Subject) -> Iterator[str]:
    """Every file of the tree, and every values file of the deployment, is used by something."""
    checkout = subject.checkout
    used: set[Path] = set().union(*(step.files for step in subject.tree.steps))
    for release in subject.tree.releases.values():
        used |= {path for path in release.values if isinstance(path, Path)}
    there = [
        *checkout.flux.rglob("*.y*ml"),
        *checkout.observability.glob("*.y*ml"),
        *checkout.charts.glob("*/values-*.y*ml"),
    ]
    for path in sorted(there):
        if path.is_symlink() or path.name.startswith("."):
            continue  # Flux fetches no link
        if path.resolve() not in used:
            yield f"{checkout.show(path)}: nothing that Flux applies refers to this file"


@FLUX.register
def kinds_served(subject: Subject) -> Iterator[str]:
    """Every object is of a kind that is served, with only fields and choices that it knows."""
    whose = subject.checkout if subject.checkout.versions_file.is_file() else Checkout.own()
    kubernetes = Versions.load(whose).kubernetes
    custom = whose.root / "schemas"
    for version in (kubernetes.oldest, kubernetes.newest):
        schemas = schema.schemas(version, custom)
        for step, manifest in own(subject):
            if manifest.kind == "CustomResourceDefinition":
                continue  # bootstrap's
            if whose is not subject.checkout and schemas.foreign(manifest):
                continue
            for problem in schemas.check(manifest):
                yield f"step {step.name}: {problem} (Kubernetes {version})"
    for step, manifest in own(subject, "ValidatingAdmissionPolicy"):
        # The published schemas name the choices in words only.
        if manifest["spec"].get("failurePolicy", "Fail") not in _FAILURE_POLICIES:
            yield f"{of(step, manifest)}: no failurePolicy {manifest['spec']['failurePolicy']}"


@FLUX.register
def dependencies_resolve(subject: Subject) -> Iterator[str]:
    """Steps and releases depend on such as there are, and not in a circle."""
    tree = subject.tree
    if tree.circle:
        yield f"steps depend on each other in a circle: {', '.join(tree.circle)}"
    for step in tree.steps:
        for name in step.depends_on:
            if name not in tree.by_name:
                yield f"step {step.name}: depends on {name}, and there is no such step"
    seen: Counter[str] = Counter(
        step_name(m.name, m.namespace)
        for _, m in own(subject, "Kustomization")
        if m.name != BOOTSTRAP
    )
    for name, times in seen.items():
        if times > 1:
            yield f"step {name}: there are {times} Kustomizations of this name"
    yield from _dependencies_of_releases(subject)


def _dependencies_of_releases(subject: Subject) -> Iterator[str]:
    named = {
        (m.namespace, m.name): [
            (one.get("namespace") or m.namespace, one["name"])
            for one in m["spec"].get("dependsOn") or ()
        ]
        for _, m in own(subject, "HelmRelease")
    }
    if all(step.known for step in subject.tree.steps):
        for (space, name), others in named.items():
            for other in others:
                if other not in named:
                    yield (
                        f"HelmRelease {space}/{name}: depends on {'/'.join(map(str, other))}, "
                        "and there is no such HelmRelease"
                    )
    try:
        TopologicalSorter(named).prepare()
    except CycleError as error:
        circle = ", ".join(f"{space}/{name}" for space, name in error.args[1][1:])
        yield f"HelmReleases depend on each other in a circle: {circle}"


@FLUX.register
def crds_first(subject: Subject) -> Iterator[str]:
    """An object of a custom kind is applied by a step that waits for the kind's CRD."""
    made: dict[str, Step] = {}
    for one, manifest in applied(subject, "CustomResourceDefinition"):
        made[manifest["spec"]["group"]] = one.step
    for one, manifest in applied(subject, "HelmRelease"):
        if group := _CHART_CRDS.get(chart_of(manifest).get("chart", "")):
            made[group] = one.step
    for one in subject.tree.applied:
        group = group_of(one.manifest)
        # Kubernetes' own have no dot, or end in .k8s.io.
        if "." not in group or group.endswith((".k8s.io", _BOOTSTRAP_CRDS)):
            continue
        maker = made.get(group)
        if maker is None:
            if not _unseen(subject, one.step):
                yield f"{at(one)}: no step installs the CRDs of {group}"
        elif one.step.name == maker.name:
            yield (
                f"{at(one)}: is applied together with the CRDs of {group}: a step of its own, "
                f"after {maker.name}, must do it"
            )
        elif not _waits_for(subject, one.step, maker):
            yield (
                f"{at(one)}: nothing makes its step wait for {maker.name}, "
                f"which installs the CRDs of {group}"
            )


@FLUX.register
def operators_outlive_what_waits_for_them(subject: Subject) -> Iterator[str]:
    """An operator whose objects only it can let go stays when its step goes.

    When several steps are removed at once, as by reverting a merge, kustomize-controller deletes
    what they applied in no order. External Secrets puts a finalizer on each ExternalSecret: without
    the operator none is ever deleted, and neither is the release or the namespace that it is in.
    """
    for step, release in releases_of(subject, *_CHART_CRDS):
        group = _CHART_CRDS[chart_of(release)["chart"]]
        waiting = [one for one in subject.tree.applied if group_of(one.manifest) == group]
        if waiting and not step.outlived:
            yield (
                f"{of(step, release)}: goes with its step, together with {len(waiting)} objects of "
                f"{group}, which wait for it to be deleted (spec.deletionPolicy: Orphan)"
            )


def _waits_for(subject: Subject, step: Step, other: Step) -> bool:
    """Tell whether `step` starts only when `other` is ready: its parents' dependsOn count."""
    by_name = subject.tree.by_name
    waiting, seen = [step.name], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in by_name:
            continue
        seen.add(name)
        before = by_name[name].depends_on
        if other.name in before:
            return True
        waiting += before
        parent = by_name[name].parent
        if parent and parent != BOOTSTRAP:
            waiting.append(parent)
    return False


def _unseen(subject: Subject, step: Step) -> bool:
    """Tell whether a step waits for one that is built elsewhere: that may make anything."""
    return any(one.elsewhere and _waits_for(subject, step, one) for one in subject.tree.steps)


@FLUX.register
def namespaces_first(subject: Subject) -> Iterator[str]:
    """A namespace is made by the same or an earlier step than what lives in it."""
    made = {m.name: step for step, m in own(subject, "Namespace")}
    for one in subject.tree.applied:
        namespace = one.manifest.namespace
        if one.manifest.kind in CLUSTER_KINDS or namespace in _GIVEN_NAMESPACES:
            continue
        maker = made.get(namespace or "")
        if not namespace:
            if not _of_unknown_scope(one.manifest):
                yield f"{at(one)}: has no namespace"
        elif maker is None:
            if not _unseen(subject, one.step):
                yield f"{at(one)}: nobody creates the namespace {namespace}"
        elif one.step.name != maker.name and not _waits_for(subject, one.step, maker):
            yield (
                f"{at(one)}: nothing makes its step wait for {maker.name}, "
                f"which creates {namespace}"
            )


def _of_unknown_scope(manifest: Manifest) -> bool:
    """Tell whether only a CRD that is not here says if the kind is namespaced."""
    known = (_BOOTSTRAP_CRDS, *_CHART_CRDS.values())
    group = group_of(manifest)
    return "." in group and group not in schema.SERVED and not group.endswith(known)


@FLUX.register
def namespaces_guarded(subject: Subject) -> Iterator[str]:
    """Every namespace that Flux makes enforces the pod security level `restricted`.

    One whose release chart 0.1.0 made may enforce `baseline`: that chart's pods run as root, and a
    rollback to it brings up none of them under `restricted`.
    """
    older = {
        release.manifest.namespace
        for release in subject.tenant_releases
        if dig(release.manifest["spec"], "values", "global").get("claimTemplateLabels") is False
    }
    for step, manifest in own(subject, "Namespace"):
        level = manifest.labels.get(podsecurity.LABEL)
        allowed = {"restricted", "baseline"} if manifest.name in older else {"restricted"}
        if manifest.name != FLUX_NAMESPACE and level not in allowed:
            wanted = " or ".join(sorted(allowed))
            yield f"{of(step, manifest)}: {podsecurity.LABEL} is {level!r}, must be {wanted}"


@FLUX.register
def sources_resolve(subject: Subject) -> Iterator[str]:
    """What a Flux object names (source, path, provider, repository, policy) is there."""
    tree = subject.tree
    for step, manifest in own(subject):
        for field, reference in _references(manifest):
            namespace = reference.get("namespace") or manifest.namespace
            # Bootstrap makes the one; controllers that are not Flux' own make the others.
            given = (namespace, reference["name"]) == (FLUX_NAMESPACE, BOOTSTRAP)
            given = given or reference["kind"] == "ExternalArtifact"
            if not given and tree.find(reference["kind"], namespace, reference["name"]) is None:
                yield (
                    f"{of(step, manifest)}: {field} names {reference['kind']}/{reference['name']} "
                    f"in {namespace}, which no step makes"
                )


def _references(manifest: Manifest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    spec = manifest.get("spec") or {}
    chart = chart_of(manifest) if manifest.kind == "HelmRelease" else {}
    named = [
        ("chart.spec.sourceRef", chart.get("sourceRef"), None),
        ("chartRef", spec.get("chartRef"), None),
        ("sourceRef", spec.get("sourceRef"), None),
        ("providerRef", spec.get("providerRef"), "Provider"),
        ("imageRepositoryRef", spec.get("imageRepositoryRef"), "ImageRepository"),
    ]
    for field, reference, kind in named:
        if reference and group_of(manifest).endswith(_BOOTSTRAP_CRDS):
            yield field, {"kind": kind, **reference} if kind else reference


@FLUX.register
def releases_render(subject: Subject) -> Iterator[str]:
    """Every chart in the repository renders with the values that its HelmRelease names."""
    for release in subject.tree.releases.values():
        for problem in release.problems:
            yield f"{release.manifest.source}: {problem}"


@FLUX.register
def merges_deploy(subject: Subject) -> Iterator[str]:
    """A chart in the repository is deployed when it or its values change, and only then.

    source-controller builds a chart anew at another version only, whatever became of `valuesFiles`;
    with `reconcileStrategy: Revision` the commit is part of the version.
    """
    charts: set[Path] = set()
    for step, manifest in own(subject, "HelmRelease"):
        chart = chart_of(manifest)
        if dig(chart, "sourceRef").get("kind") != "GitRepository":
            continue
        if chart.get("reconcileStrategy") == "Revision":
            yield (
                f"{of(step, manifest)}: reconcileStrategy is Revision: every commit, of "
                "documentation too, upgrades the release"
            )
        if chart.get("valuesFiles"):
            yield (
                f"{of(step, manifest)}: valuesFiles are read only when the chart's version is "
                "another one: give them by valuesFrom, from a ConfigMap that kustomize generates"
            )
        release = subject.tree.releases.get((manifest.namespace or "", manifest.name))
        if release and release.chart:
            charts.add(release.chart)
        for source in manifest["spec"].get("valuesFrom") or ():
            found = subject.tree.find(source["kind"], manifest.namespace, source["name"])
            if found and found.kind == "ConfigMap" and not GENERATED.search(found.name):
                yield (
                    f"{of(step, manifest)}: ConfigMap/{found.name} keeps its name when a value "
                    "changes: the release is upgraded only at its interval"
                )
    for folder in sorted(charts):
        if problem := chartversion.stale(folder):
            yield problem


@FLUX.register
def steps_guarded(subject: Subject) -> Iterator[str]:
    """Every step prunes, waits and has a time limit; every release corrects drift and failures."""
    for step, manifest in own(subject, "Kustomization"):
        spec = manifest["spec"]
        if manifest.name == BOOTSTRAP:
            continue
        for key in ("prune", "wait"):
            if spec.get(key) is not True:
                yield f"{of(step, manifest)}: {key} is not true"
        if "timeout" not in spec:
            yield f"{of(step, manifest)}: has no timeout"
    for step, manifest in own(subject, "HelmRelease"):
        spec = manifest["spec"]
        if dig(spec, "driftDetection").get("mode") != "enabled":
            yield f"{of(step, manifest)}: driftDetection.mode is not enabled"
        for action in ("install", "upgrade"):
            if not dig(spec, action, "remediation").get("retries"):
                yield f"{of(step, manifest)}: {action}.remediation.retries is not set"
        if "timeout" not in spec:
            yield f"{of(step, manifest)}: has no timeout"


@FLUX.register
def secrets_resolve(subject: Subject) -> Iterator[str]:
    """Secrets that Flux objects name are made, from a store that admits their namespace."""
    made = {(FLUX_NAMESPACE, BOOTSTRAP)}
    for one, manifest in applied(subject, "Secret", "ExternalSecret"):
        name = manifest.name
        if manifest.kind == "ExternalSecret":
            name = dig(manifest["spec"], "target").get("name") or name
            yield from _store_problems(subject, one)
        made.add((manifest.namespace or "", name))
    for step, manifest in own(subject):
        if not group_of(manifest).endswith(_BOOTSTRAP_CRDS):
            continue
        for field in ("secretRef", "certSecretRef", "proxySecretRef"):
            asked = dig(manifest["spec"], field).get("name")
            if asked and (manifest.namespace or "", asked) not in made:
                yield f"{of(step, manifest)}: {field} names Secret/{asked}, which nobody makes"


def _store_problems(subject: Subject, external: Applied) -> Iterator[str]:
    reference = dig(external.manifest["spec"], "secretStoreRef")
    if reference.get("kind") != "ClusterSecretStore":
        return  # a SecretStore of its own release: references.py
    for other, store in applied(subject, "ClusterSecretStore"):
        if store.name != reference["name"]:
            continue
        here, there = external.step, other.step
        if there.name != here.name and not _waits_for(subject, here, there):
            yield f"{at(external)}: nothing makes its step wait for {store.ref}"
        namespace = external.manifest.namespace or ""
        if not _admits(subject, store, namespace):
            yield f"{at(external)}: {store.ref} does not admit the namespace {namespace}"
        return
    yield f"{at(external)}: there is no ClusterSecretStore/{reference['name']}"


def _admits(subject: Subject, store: Manifest, namespace: str) -> bool:
    conditions = store["spec"].get("conditions")
    if not conditions:
        return True
    found = subject.tree.find("Namespace", None, namespace)
    labels = found.labels if found else {}
    return any(
        namespace in (one.get("namespaces") or ())
        or ("namespaceSelector" in one and matches(one["namespaceSelector"], labels))
        for one in conditions
    )


@FLUX.register
def store_is_limited(subject: Subject) -> Iterator[str]:
    """A cluster-wide store may be used from named namespaces only."""
    for one, manifest in applied(subject, "ClusterSecretStore"):
        if not manifest["spec"].get("conditions"):
            yield f"{at(one)}: has no conditions: every namespace may read every secret"


@FLUX.register
def objects_have_one_owner(subject: Subject) -> Iterator[str]:
    """No two steps or releases apply the same object."""
    owners: dict[Any, list[Applied]] = defaultdict(list)
    for one in subject.tree.applied:
        if not one.manifest.is_hook:
            owners[key_of(one.manifest)].append(one)
    for found in owners.values():
        if len(found) > 1:
            names = [
                f"HelmRelease/{one.release.manifest.name} in {one.release.manifest.namespace}"
                if one.release
                else f"step {one.step.name}"
                for one in found
            ]
            yield f"{found[0].manifest.ref} is applied by {' and by '.join(names)}"
    stored: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for release in subject.tree.releases.values():
        m = release.manifest
        if not m["spec"].get("kubeConfig"):
            where = m["spec"].get("storageNamespace") or m.namespace
            stored[where, release_name(m)].append(f"{m.ref} in {m.namespace}")
    for (where, name), found_names in stored.items():
        if len(found_names) > 1:
            yield f"the release {name} in {where} is that of {' and of '.join(found_names)}"


@FLUX.register
def tenants_match(subject: Subject) -> Iterator[str]:
    """The tenants in the tree are those of the registry, by their names and prefixes, and alike."""
    where = subject.checkout.show(subject.checkout.tenants_file)
    by_namespace = {r.manifest.namespace: r for r in subject.tenant_releases}
    for tenant in subject.registry:
        release = by_namespace.pop(tenant.namespace, None)
        if release is None:
            yield f"{where}: no step deploys tenant {tenant.name} into namespace {tenant.namespace}"
        else:
            yield from _mismatches(subject, tenant, release)
    for namespace, release in by_namespace.items():
        yield f"{release.manifest.ref} in {namespace}: no tenant in {where} has this namespace"
    yield from _unlike(subject)


#: What a tenant's step may have of its own: it lays values over those of the HelmRelease.
_TENANTS_OWN = ("patches", "components")
#: A variable that not every tenant names: it has a default in the base.
_OPTIONAL = frozenset({"POD_SECURITY"})


def _unlike(subject: Subject) -> Iterator[str]:
    """Yield the tenants whose step has another name, or more of its own than what it puts in."""
    names = {f"tenant-{tenant.name}" for tenant in subject.registry}
    steps = [step for step in subject.tree.steps if step.name in names and step.manifest]
    for name in sorted(names - {step.name for step in steps}):
        yield f"there is no step {name}, by which flux/README.md has people suspend a tenant"
    for step in steps:
        usual, spec = _shared(steps[0]), _shared(step)
        for key in sorted(spec.keys() | usual.keys()):
            if spec.get(key) != usual.get(key):
                yield (
                    f"step {step.name}: {key} is {spec.get(key)}, "
                    f"{steps[0].name} has {usual.get(key)}"
                )
        for ref in _overlaid(subject, step):
            yield f"step {step.name}: changes {ref}: only its HelmRelease is a tenant's own"


def _shared(step: Step) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = step.manifest["spec"] if step.manifest else {}
    post = spec.get("postBuild") or {}
    shared = {key: value for key, value in spec.items() if key not in _TENANTS_OWN}
    return {
        **shared,
        "postBuild": {**post, "substitute": sorted(post.get("substitute", {}).keys() - _OPTIONAL)},
    }


def _overlaid(subject: Subject, step: Step) -> Iterator[str]:
    """Yield what a step's patches and components change or take away, but for HelmReleases."""
    if step.manifest is None or step.problems:
        return
    patches, components = (step.manifest["spec"].get(key) or [] for key in _TENANTS_OWN)
    if not patches and not components:
        return
    where = {"path": step.manifest["spec"].get("path")}

    def built(**more: object) -> dict[Key, Manifest]:
        made = controllers.build(subject.checkout.root, {"spec": {**where, **more}})
        return {key_of(m): m for m in made.objects}

    plain, patched = built(), built(patches=patches, components=components)
    for (_, kind, _, name), was in plain.items():
        if kind != "HelmRelease" and patched.get(key_of(was)) != was:
            yield f"{kind}/{name}"


def _mismatches(subject: Subject, tenant: Tenant, release: HelmRelease) -> Iterator[str]:
    values = release.manifest["spec"].get("values") or {}
    otel = dig(values, "openWebui", "config", "telemetry", "otel")
    prefix = tenant.secret_prefix
    found = [
        ("tenantId", otel.get("tenantId"), tenant.name),
        ("externalSecrets.keyPrefix", dig(values, "externalSecrets").get("keyPrefix"), prefix),
    ]
    if namespace := subject.tree.find("Namespace", None, tenant.namespace):
        for label, wanted in (("tenant", tenant.name), ("secret-prefix", prefix)):
            found.append((f"the namespace's label {label}", namespace.labels.get(label), wanted))
    for what, there, wanted in found:
        if there != wanted:
            yield (
                f"HelmRelease/{release.manifest.name} in {tenant.namespace}: {what} is {there!r}, "
                f"the registry says {wanted!r}"
            )


@FLUX.register
def tenants_stay_home(subject: Subject) -> Iterator[str]:
    """A tenant's release makes objects in its namespace only, and its rights end there."""
    homes = {tenant.namespace for tenant in subject.registry}
    for one in subject.tree.applied:
        manifest = one.manifest
        if one.release and one.release in subject.tenant_releases:
            home = one.release.manifest.namespace
            if manifest.kind in CLUSTER_KINDS:
                yield f"{at(one)}: a tenant's release makes an object of the whole cluster"
            elif manifest.namespace != home:
                yield f"{at(one)}: a tenant's release makes an object outside {home}"
        if manifest.kind == "RoleBinding" and manifest.namespace in homes:
            for who in manifest.get("subjects") or ():
                where = who.get("namespace", manifest.namespace)
                if who["kind"] != "ServiceAccount" or where != manifest.namespace:
                    yield f"{at(one)}: gives rights to {who['kind']}/{who['name']} of {where}"
    for release in subject.tenant_releases:
        if not release.manifest["spec"].get("serviceAccountName"):
            yield (
                f"{release.manifest.ref} in {release.manifest.namespace}: has no "
                "serviceAccountName: it is installed with the rights of the cluster's administrator"
            )


@FLUX.register
def tenants_share_nothing(subject: Subject) -> Iterator[str]:
    """No two tenants read the same remote key, serve the same host or have one service name."""
    used: dict[str, set[str]] = defaultdict(set)
    for release in subject.tenant_releases:
        for manifest in release.rendered or ():
            for what in _of_one_tenant(manifest):
                used[what].add(release.manifest.namespace or "")
    for what, namespaces in used.items():
        if len(namespaces) > 1:
            yield f"{what} is used by several tenants: {', '.join(sorted(namespaces))}"


def _of_one_tenant(manifest: Manifest) -> Iterator[str]:
    if manifest.kind == "ExternalSecret":
        yield from (f"remote key {key}" for key in remote_keys(manifest))
    yield from (f"host {host}" for host in served(manifest))
    if manifest.kind == "ConfigMap" and "OTEL_SERVICE_NAME" in (manifest["data"] or ()):
        yield f"service name {manifest['data']['OTEL_SERVICE_NAME']}"


@FLUX.register
def hosts_are_apart(subject: Subject) -> Iterator[str]:
    """No tenant serves a host of the platform's, such as where Grafana asks for passwords."""
    homes = {tenant.namespace for tenant in subject.registry}
    platforms: dict[str, Applied] = {}
    tenants: list[tuple[str, Applied]] = []
    for one in subject.tree.applied:
        for host in served(one.manifest):
            if one.manifest.namespace in homes:
                tenants.append((host, one))
            else:
                platforms[host] = one
    for host, one in tenants:
        if host in platforms:
            yield f"{at(one)}: serves {host}, as does {at(platforms[host])}"


@FLUX.register
def prefixes_are_apart(subject: Subject) -> Iterator[str]:
    """What a tenant may read from the store, by the prefix of its keys, is none of the platform's.

    That no two tenants' prefixes begin one another is the registry's to say.
    """
    homes = {tenant.namespace for tenant in subject.registry}
    others = {
        key: one
        for one, manifest in applied(subject, "ExternalSecret")
        if manifest.namespace not in homes
        for key in remote_keys(manifest)
    }
    # The gateway checks every tenant's password, and so reads it.
    passwords = {f"{tenant.secret_prefix}-gateway-password" for tenant in subject.registry}
    for tenant in subject.registry:
        begins = f"tenant {tenant.name}: the prefix {tenant.secret_prefix} of its secrets begins"
        for key, one in others.items():
            if key.startswith(f"{tenant.secret_prefix}-") and key not in passwords:
                yield f"{begins} the key {key} of {at(one)}"


@FLUX.register
def pinned(subject: Subject) -> Iterator[str]:
    """Charts and images are pinned to one version, and are maintained where they come from."""
    for step, manifest in own(subject, "HelmRelease"):
        chart = chart_of(manifest)
        version = str(chart.get("version", ""))
        from_git = dig(chart, "sourceRef").get("kind") == "GitRepository"
        if chart and not from_git and not _EXACT_VERSION.fullmatch(version):
            yield f"{of(step, manifest)}: chart version {version!r} is no single version"
        source = subject.repository(manifest)
        if chart.get("chart") in _DEPRECATED.get(source, ()):
            yield f"{of(step, manifest)}: chart {chart['chart']} of {source} is deprecated"
    for step, manifest in own(subject, "OCIRepository"):
        reference = dig(manifest["spec"], "ref")
        if not reference.get("digest") and not _EXACT_VERSION.fullmatch(str(reference.get("tag"))):
            yield f"{of(step, manifest)}: ref names no digest and no single version"
    for one, manifest in applied(subject, *WORKLOAD_KINDS):
        for container in containers(manifest):
            plain, _, digest = container["image"].partition("@")
            name, _, tag = plain.rpartition(":")
            is_tagged = name and "/" not in tag and re.search(r"\d", tag)
            if not is_tagged and not _DIGEST.fullmatch(digest):
                yield f"{at(one)}: image {container['image']} is not pinned"


@FLUX.register
def images_are_updated(subject: Subject) -> Iterator[str]:
    """Image automation finds a marker, writes a message that it can, and goes through review."""
    root = subject.checkout.root
    policies = {(m.namespace or "", m.name) for _, m in own(subject, "ImagePolicy")}
    marked: set[tuple[str, str]] = set()
    for step, manifest in own(subject, "ImageUpdateAutomation"):
        spec = manifest["spec"]
        folder = root / str((spec.get("update") or {}).get("path", "."))
        where = subject.checkout.show(folder)
        found = set(_markers(folder))
        marked |= found
        if not found:
            yield f"{of(step, manifest)}: no file below {where} has a marker"
        for namespace, name in sorted(found - policies):
            yield f"{where}: a marker names ImagePolicy {namespace}:{name}, which nobody makes"
        template = dig(spec, "git", "commit").get("messageTemplate") or ""
        for name in _unknown_fields(template):
            yield (
                f"{of(step, manifest)}: messageTemplate names .{name}, which is no field "
                f"(there are: {', '.join(sorted(_TEMPLATE_FIELDS))})"
            )
        checkout_branch = dig(spec, "git", "checkout", "ref").get("branch")
        pushed = dig(spec, "git", "push").get("branch")
        if pushed is None or pushed == checkout_branch:
            yield f"{of(step, manifest)}: pushes to {checkout_branch}, past the proof"
    for namespace, name in sorted(policies - marked):
        yield f"ImagePolicy/{name} in {namespace}: no marker names it: it updates nothing"


def _markers(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the policies that setter markers below a folder name."""
    for path in sorted(folder.rglob("*.yaml")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := _MARKER.match(line):
                yield found["ns"], found["name"]


def _unknown_fields(template: str) -> Iterator[str]:
    """Yield the fields at the top of a Go template that the controller's data does not have."""
    depth = 0
    for action in re.findall(r"\{\{-?(.*?)-?\}\}", template, re.DOTALL):
        words = action.split()
        if depth == 0 or words[:1] == ["$"]:
            yield from (f for f in _TEMPLATE_ROOT.findall(action) if f not in _TEMPLATE_FIELDS)
        if words[:1] in (["range"], ["with"]):
            depth += 1
        elif words[:1] == ["end"] and depth:
            depth -= 1


# Last, because they look at objects that build and are valid. They register themselves.
from . import admission, claims, pins, relations, reloader, rights, tenancy  # noqa: E402, F401
