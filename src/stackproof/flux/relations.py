"""What must agree in the Flux tree: with itself, with the charts, and with what people are told.

No value stands here that stands in the tree: two places that must mean the same are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import yaml

from stackproof.errors import StackproofError
from stackproof.helm import references
from stackproof.helm.manifests import (
    BEFORE_START_S,
    WORKLOAD_KINDS,
    Manifest,
    Release,
    amount,
    containers,
    hosts,
    start_s,
)
from stackproof.repo.tenants import go_duration
from stackproof.repo.versions import Versions

from . import controllers
from .objects import BOOTSTRAP, FLUX_NAMESPACE, group_of, texts
from .subject import FLUX, Subject, applied, at, dig, leaves, of, own, releases_of, remote_keys
from .tree import KUSTOMIZE_GROUP, Step, step_name

#: ClusterRoles that every cluster has (kubernetes.io, "Default roles and role bindings").
_ROLES = frozenset({"cluster-admin", "admin", "edit", "view"})
#: Where a chart from elsewhere is at home (its project's own instructions).
_HOMES = {"external-secrets": "https://charts.external-secrets.io"}
#: Keys of that chart which may be set here (its values.yaml, 2.9.0): it ignores any other.
_KNOWN = frozenset(
    {
        "installCRDs",
        "crds.annotations",
        "metrics.service.enabled",
        "processPushSecret",
        "serviceAccount.name",
        "serviceAccount.annotations",
        "resources",
        "webhook.resources",
        "certController.resources",
    }
)
#: Keys that a controller reads of the Secret that an object names (fluxcd.io, v1 and v1beta3).
_READ_OF_SECRET = {"Provider": {"address"}, "GitRepository": {"username", "password"}}
#: As flux/README.md says: "undone after three tries".
_TRIES = 3
#: europe-west4 or europe-west4-a (cloud.google.com, "Regions and zones").
_LOCATION = re.compile(r"[a-z]+-[a-z]+\d+(-[a-z])?")


# --- Names and rights ---------------------------------------------------------------------------


@FLUX.register
def names_lead_somewhere(subject: Subject) -> Iterator[str]:
    """Accounts, roles, stores and keys of secrets that a step names are made by a step."""
    # Values lead somewhere as what is rendered with them, or not at all.
    values = {
        (release.namespace, source["kind"], source["name"])
        for _, release in own(subject, "HelmRelease")
        for source in release["spec"].get("valuesFrom") or ()
    }
    objects = tuple(m for m in subject.tree.objects if (m.namespace, m.kind, m.name) not in values)
    made = Release("flux", FLUX_NAMESPACE, "", objects)
    given = references.Externals(objects=frozenset(("ClusterRole", role) for role in _ROLES))
    for problem in references.check([made], given):
        yield str(problem)
    for step, release in own(subject, "HelmRelease"):
        account = release["spec"].get("serviceAccountName")
        if account and not _bound(subject, release.namespace, account):
            yield f"{of(step, release)}: nothing gives rights to ServiceAccount/{account}"


def _bound(subject: Subject, namespace: str | None, account: str) -> bool:
    return any(
        (one["kind"], one.get("namespace", m.namespace), one["name"])
        == ("ServiceAccount", namespace, account)
        for _, m in own(subject, "RoleBinding")
        for one in m.get("subjects") or ()
        if m.namespace == namespace
    )


@FLUX.register
def secrets_have_the_keys_that_are_read(subject: Subject) -> Iterator[str]:
    """A Secret that a Flux object names has the keys that its controller looks for."""
    for step, manifest in own(subject, *_READ_OF_SECRET):
        name = dig(manifest["spec"], "secretRef").get("name", "")
        for _, external in own(subject, "ExternalSecret"):
            target = dig(external["spec"], "target")
            made = external.namespace, target.get("name", external.name)
            if made != (manifest.namespace, name):
                continue
            fetched = {entry["secretKey"] for entry in external["spec"]["data"]}
            keys = set(dig(target, "template").get("data") or fetched)
            for key in sorted(_READ_OF_SECRET[manifest.kind] - keys):
                yield f"{of(step, manifest)}: Secret/{name} has no key {key}"


@FLUX.register
def the_operator_is_set_as_its_chart_reads(subject: Subject) -> Iterator[str]:
    """The operator's chart is from its home, gets keys that it knows, and brings its CRDs."""
    for step, release in releases_of(subject, *_HOMES):
        spec = release["spec"]
        chart, values = spec["chart"]["spec"], spec["values"]
        if subject.repository(release) != _HOMES[chart["chart"]]:
            yield f"{of(step, release)}: comes from elsewhere than {_HOMES[chart['chart']]}"
        for key in sorted({*leaves(values, _KNOWN)} - _KNOWN):
            yield f"{of(step, release)}: values: the chart has no key {key}"
        if values.get("installCRDs") is False:
            yield f"{of(step, release)}: installs no CRDs (installCRDs)"
        # With a CRD go its objects, and with ExternalSecrets the Secrets that they own.
        kept = (values.get("crds") or {}).get("annotations") or {}
        if kept.get("helm.sh/resource-policy") != "keep":
            yield (
                f"{of(step, release)}: an uninstall deletes its CRDs, and with them every "
                "ExternalSecret and its Secret (crds.annotations)"
            )
        if values.get("processPushSecret") is not False:
            yield f"{of(step, release)}: may write to the store (processPushSecret)"
        for action in ("install", "upgrade"):
            if spec[action].get("crds") != "CreateReplace":
                yield f"{of(step, release)}: {action} leaves CRDs as they are (crds)"
        for part in ("", "webhook", "certController"):
            resources = (values.get(part, {}) if part else values).get("resources") or {}
            asked, most = resources.get("requests") or {}, resources.get("limits") or {}
            if {*asked} != {"cpu", "memory"} or {*most} != {"memory"}:
                yield f"{of(step, release)}: {part}.resources lack a request or the limit"
            elif amount(asked["memory"]) > amount(most["memory"]):
                yield f"{of(step, release)}: {part}.resources ask for more than their limit"


@FLUX.register
def the_store_reads_as_the_operator(subject: Subject) -> Iterator[str]:
    """The store uses the operator's own account, which stands for the one that GCP lets read."""
    stores = [m for m in subject.tree.objects if m.kind == "ClusterSecretStore"]
    for step, release in releases_of(subject, *_HOMES):
        for store in stores:
            yield from _identities(of(step, release), release, release["spec"]["values"], store)


def _identities(
    where: str, release: Manifest, values: Mapping[str, Any], store: Manifest
) -> Iterator[str]:
    account = values.get("serviceAccount") or {}
    gcp = store["spec"]["provider"]["gcpsm"]
    used = gcp["auth"]["workloadIdentity"]["serviceAccountRef"]
    if (used["name"], used.get("namespace")) != (account.get("name"), release.namespace):
        yield f"{where}: {store.ref} reads as {used['name']}, not as {account.get('name')}"
    stands_for = (account.get("annotations") or {}).get("iam.gke.io/gcp-service-account")
    if stands_for != f"external-secrets-sa@{gcp['projectID']}.iam.gserviceaccount.com":
        yield f"{where}: its account stands for {stands_for}, README.md makes external-secrets-sa"


# --- The cluster --------------------------------------------------------------------------------


@FLUX.register
def the_cluster_is_one(subject: Subject) -> Iterator[str]:
    """Store, secrets, telemetry and hosts mean the same project, cluster and domain."""
    settings = subject.tree.find("ConfigMap", FLUX_NAMESPACE, "cluster")
    if settings is None:
        yield f"no ConfigMap/cluster in {FLUX_NAMESPACE}"
        return
    known = {key: (text or "").replace("\n", "") for key, text in texts(settings).items()}
    domain = known.get("DOMAIN", "")
    for one in subject.tree.applied:
        m = one.manifest
        if m.kind == "ClusterSecretStore":
            store = m["spec"]["provider"]["gcpsm"]
            where = store["auth"]["workloadIdentity"]["clusterLocation"]
            if not _LOCATION.fullmatch(where):
                yield f"{at(one)}: {where} is no region or zone"
        project = m.annotations.get("open-webui-stack/gcp-project")
        if project not in (None, known.get("GCP_PROJECT")):
            yield f"{at(one)}: its keys are in the project {project}, which the store is not"
        for host in hosts(m):
            if not domain or not host.endswith(f".{domain}"):
                yield f"{at(one)}: the host {host} is not in DOMAIN ({domain})"
        for name in _clusters(m) if m.kind in WORKLOAD_KINDS else ():
            if name != known.get("CLUSTER"):
                yield f"{at(one)}: its telemetry says k8s.cluster.name={name}"


def _clusters(workload: Manifest) -> Iterator[str]:
    for container in containers(workload):
        for variable in container.get("env") or ():
            if variable["name"] == "OTEL_RESOURCE_ATTRIBUTES":
                given = dict(p.partition("=")[::2] for p in variable["value"].split(","))
                yield given.get("k8s.cluster.name", "")


# --- Time ---------------------------------------------------------------------------------------


@FLUX.register
def everybody_waits_long_enough(subject: Subject) -> Iterator[str]:
    """A step waits as long as what it applies may take, and tries again before its next turn."""
    for step, m in own(subject, "Kustomization", "HelmRelease"):
        spec = m["spec"]
        allowed = go_duration(spec.get("timeout", "0h"))
        for what, needed in _lasting(subject, m):
            if needed > allowed:
                yield f"{of(step, m)}: gives up after {allowed}, and {what} may take {needed}"
        if m.kind == "Kustomization" and m.name != BOOTSTRAP:
            again = spec.get("retryInterval", spec["interval"])
            if go_duration(again) >= go_duration(spec["interval"]):
                yield f"{of(step, m)}: a failure is tried again only at the next turn"
        if m.kind == "HelmRelease":
            for action in ("install", "upgrade"):
                tries = spec[action]["remediation"].get("retries")
                if tries != _TRIES:
                    yield f"{of(step, m)}: retries of {action}: {tries}, not {_TRIES}"


@FLUX.register
def what_failed_keeps_what_it_made(subject: Subject) -> Iterator[str]:
    """A release that fails deletes nothing that it has made: no claim, and no Secret by its owner.

    A rollback takes away what its target does not render. Helm's cleanup comes before it, asks for
    no `helm.sh/resource-policy`, and is all that happens where there is nothing to go back to, as
    at the first upgrade of a release that Flux did not make: its pods then lack what they were
    made with (helm, pkg/action/upgrade.go, failRelease; helm-controller, atomic_release.go).
    """
    for step, m in own(subject, "HelmRelease"):
        for action in ("upgrade", "rollback"):
            if (m["spec"].get(action) or {}).get("cleanupOnFail"):
                yield f"{of(step, m)}: a failed {action} deletes what it made (cleanupOnFail)"


def _lasting(subject: Subject, m: Manifest) -> Iterator[tuple[str, Any]]:
    """Yield what a step or a release waits for, and how long that may take."""
    if m.kind == "Kustomization":
        for step in subject.tree.steps if m["spec"].get("wait") else ():
            for made in step.objects if step.name == step_name(m.name, m.namespace) else ():
                if made.kind in {"Kustomization", "HelmRelease"} and "timeout" in made["spec"]:
                    yield made.ref, go_duration(made["spec"]["timeout"])
        return
    release = subject.tree.releases[m.namespace or "", m.name]
    for workload in release.rendered.workloads() if release.rendered else ():
        for container in containers(workload):
            seconds = start_s(container)
            if seconds:
                yield f"the start of {workload.ref}", timedelta(seconds=BEFORE_START_S + seconds)


# --- Namespaces, alerts, images -----------------------------------------------------------------


@FLUX.register
def namespaces_with_data_stay(subject: Subject) -> Iterator[str]:
    """Flux marks a namespace as its own, warns before it refuses, and prunes none with data."""
    holding = {m.namespace for _, m in applied(subject, "PersistentVolumeClaim", "StatefulSet")}
    for step, m in own(subject, "Namespace"):
        if m.name == FLUX_NAMESPACE:
            continue  # bootstrap's
        if m.name in holding and m.annotations.get(_PRUNE) != "disabled":
            yield f"{of(step, m)}: goes with its file, and all data with it ({_PRUNE})"
        if m.labels.get("app.kubernetes.io/managed-by") != "flux":
            yield f"{of(step, m)}: does not say that Flux manages it"
        # `enforce` refuses pods: that a Deployment makes such pods, only `warn` says.
        warned, enforced = (
            _STRICTNESS.get(m.labels.get(f"pod-security.kubernetes.io/{mode}", ""), 0)
            for mode in ("warn", "enforce")
        )
        if warned < enforced:
            yield f"{of(step, m)}: warns of other pods than it refuses"


_PRUNE = f"{KUSTOMIZE_GROUP}/prune"
#: https://kubernetes.io/docs/concepts/security/pod-security-standards/
_STRICTNESS = {"privileged": 0, "baseline": 1, "restricted": 2}


@FLUX.register
def failures_are_told(subject: Subject) -> Iterator[str]:
    """Somebody is told when anything fails that Flux applies: of a tenant, by the tenant's step."""
    alerts = list(own(subject, "Alert"))
    listening = {
        (one["kind"], one.get("namespace", FLUX_NAMESPACE))
        for _, alert in alerts
        for one in alert["spec"]["eventSources"]
        if one["name"] == "*"
    }
    for step, alert in alerts:
        if alert["spec"].get("eventSeverity") != "error":
            yield f"{of(step, alert)}: reports every success as well (eventSeverity must be error)"
    homes = {tenant.namespace for tenant in subject.registry}
    for step, m in own(subject, *_RECONCILED):
        wanted = (m.kind, m.namespace or "")
        if m.namespace not in homes and wanted not in listening:
            yield f"{of(step, m)}: no Alert listens to {m.kind} in {m.namespace}"


_RECONCILED = (
    *("GitRepository", "Kustomization", "HelmRelease"),
    *("ImageRepository", "ImageUpdateAutomation"),
)


@FLUX.register
def new_images_are_those_that_run(subject: Subject) -> Iterator[str]:
    """The automation looks for versions of the image that runs, from the one that runs upwards."""
    running = {
        container["image"]
        for release in subject.tenant_releases
        for workload in (release.rendered.workloads() if release.rendered else ())
        for container in containers(workload)
    }
    least = {i.repository: i.at_least for i in Versions.load(subject.checkout).images.values()}
    for step, policy in own(subject, "ImagePolicy"):
        name = policy["spec"]["imageRepositoryRef"]["name"]
        repository = subject.tree.find("ImageRepository", policy.namespace, name)
        image = repository["spec"]["image"] if repository else ""
        tags = [one.removeprefix(f"{image}:") for one in running if one.startswith(f"{image}:")]
        if not tags:
            yield f"{of(step, policy)}: nothing runs {image}"
        try:
            found = list(_chosen_wrongly(policy["spec"], set(tags), least.get(image)))
        except StackproofError as error:
            found = [error.what]
        yield from (f"{of(step, policy)}: {text}" for text in found)


def _chosen_wrongly(
    policy: Mapping[str, Any], running: set[str], least: str | None
) -> Iterator[str]:
    """Yield what an ImagePolicy leaves out or takes that it should not."""
    for tag in sorted(running - set(controllers.accepted(policy, running))):
        yield f"{tag}, which runs, is not among what it chooses from"
    for tag in controllers.accepted(policy, _below(least)):
        yield f"may go back below {least} (versions.yaml): {tag}"
    for tag in controllers.accepted(policy, {_next_minor(tag) for tag in running if _numbers(tag)}):
        yield f"takes {tag}: a new minor version is tried by hand first (README.md)"


def _numbers(tag: str | None) -> list[int]:
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)", tag or "")
    return [int(number) for number in found.groups()] if found else []


def _below(tag: str | None) -> set[str]:
    """Return versions below one, as near to it as they can be, with and without the `v`."""
    if not (numbers := _numbers(tag)):
        return set()
    found = []
    for place in range(3):
        if numbers[place]:
            lower = [*numbers[:place], numbers[place] - 1, *([999] * (2 - place))]
            found.append(".".join(map(str, lower)))
    return {*found, *(f"v{one}" for one in found)}


def _next_minor(tag: str) -> str:
    major, minor, _ = _numbers(tag)
    return f"{'v' if tag.startswith('v') else ''}{major}.{minor + 1}.0"


@FLUX.register
def branches_are_proven(subject: Subject) -> Iterator[str]:
    """What the automation reads is what is deployed, and what it pushes the workflow proves."""
    workflow = _workflow((subject.checkout.root / ".github/workflows/ci.yaml").read_text("utf-8"))
    deployed, *others = workflow
    for step, m in own(subject, "ImageUpdateAutomation"):
        git = m["spec"]["git"]
        source = subject.tree.find("GitRepository", m.namespace, m["spec"]["sourceRef"]["name"])
        if source and "secretRef" not in source["spec"]:
            yield f"{of(step, source)}: has no credential that may push (secretRef)"
        if git["checkout"]["ref"]["branch"] != deployed:
            yield f"{of(step, m)}: reads {git['checkout']['ref']['branch']}, not {deployed}"
        if (git.get("push") or {}).get("branch") not in others:
            yield f"{of(step, m)}: no workflow proves what it pushes: it must be {others}"
        message = git["commit"].get("messageTemplate", "")
        if not {".OldValue", ".NewValue"} <= set(re.findall(r"\.\w+", message)):
            yield f"{of(step, m)}: its message does not say from what to what"
        if {"name", "email"} - git["commit"]["author"].keys():
            yield f"{of(step, m)}: its commits do not say by whom they are (name, email)"
    for step, m in _sources(subject):
        if (m["spec"].get("ref") or {}).get("branch") != deployed:
            yield f"{of(step, m)}: is not the branch {deployed}, which is proven and deployed"


def _sources(subject: Subject) -> Iterator[tuple[Step, Manifest]]:
    """Yield the Git repositories but the one that bootstrap writes itself."""
    return ((s, m) for s, m in own(subject, "GitRepository") if m.name != BOOTSTRAP)


@cache
def _workflow(text: str) -> tuple[str, ...]:
    """Return the branches whose pushes a workflow runs for; `on` is a boolean in YAML 1.1."""
    return tuple(yaml.load(text, yaml.CSafeLoader)[True]["push"]["branches"])


# --- What people are told -----------------------------------------------------------------------


@FLUX.register
def the_readme_is_right(subject: Subject) -> Iterator[str]:
    """flux/README.md names the repository, each step, and the secrets to make, no more, no less."""
    text = (subject.checkout.flux / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"--(owner|repository|branch|path)=(\S+)", text))
    for step, m in _sources(subject):
        address = f"https://github.com/{told.get('owner')}/{told.get('repository')}"
        if m["spec"]["url"] != address:
            yield f"{of(step, m)}: is {m['spec']['url']}, README.md bootstraps {address}"
    for step in subject.tree.steps:
        shown = re.search(rf"(?<![\w-]){step.name}(?![\w-])", text)
        if not shown and step.name != BOOTSTRAP and not step.name.startswith("tenant-"):
            yield f"step {step.name}: is not in README.md's picture of a merge"
    listed = set(re.findall(r"`((?:PREFIX|lgtm|flux)-[a-z-]+)`", text)) - {"flux-extras"}
    asked = set(_asked(subject))
    for key in sorted(asked - listed):
        yield f"README.md does not say that somebody must make the secret {key}"
    for key in sorted(listed - asked):
        yield f"README.md has somebody make the secret {key}, which nothing asks for"


def _asked(subject: Subject) -> Iterator[str]:
    prefixes = {tenant.namespace: tenant.secret_prefix for tenant in subject.registry}
    for _, m in applied(subject, "ExternalSecret"):
        for key in remote_keys(m) if group_of(m) == "external-secrets.io" else ():
            for prefix in prefixes.values():
                key = re.sub(rf"^{prefix}-", "PREFIX-", key)
            yield key
