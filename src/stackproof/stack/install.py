"""Put the deployment into a test cluster: what it takes for given there, and its releases.

What a production cluster has and a test cluster lacks is made first: the StorageClass that the
values name, the External Secrets Operator, and in place of Google's Secret Manager the operator's
Fake provider, with a random value for each key that the rendered ExternalSecrets ask for. The rest
is the repository's own: namespaces, policies and the store's conditions come from the Flux tree.
"""

from __future__ import annotations

import string
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from stackproof.errors import StackproofError
from stackproof.flux import tree
from stackproof.flux.deployment import LGTM_RELEASE, TENANT_RELEASE, Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import thaw
from stackproof.kube.client import Kube, Object
from stackproof.kube.diagnostics import condition
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE
from stackproof.repo.versions import version_key
from stackproof.toolchain import programs
from stackproof.toolchain.images import ImageChoice
from stackproof.toolchain.openwebui import READY_SINCE

from .secrets import SecretStore

STORE = "gcp-secret-manager"
OPERATORS = ("external-secrets",)
CONTROLLERS = ("source-controller", "kustomize-controller", "helm-controller")
OPERATOR_NAMESPACE = "external-secrets"

#: Where a component's values are: in charts/lgtm, and in charts/open-webui-stack.
_LGTM = {name: name for name in ("mimir", "loki", "tempo", "gateway", "grafana")}
_TENANT = {
    "open-webui": "openWebui",
    "postgres": "postgres",
    "weaviate": "weaviate",
    "searxng": "searxng",
    "alloy": "alloy",
}
COMPONENTS = (*_LGTM, *_TENANT)

#: A laptop has no four processors to reserve; the limits are those of production.
_REQUESTS = {"requests": {"cpu": "10m", "memory": "32Mi"}}

_OPERATOR_S = 90.0
_SYNC_S = 60.0


def objects(name: str, **images: str) -> list[dict[str, Any]]:
    """Return the objects of a file beside this module, `$NAME` replaced by an image."""
    text = resources.files("stackproof.stack").joinpath("objects", f"{name}.yaml").read_text()
    filled = string.Template(text).substitute(images)
    return [each for each in yaml.load_all(filled, Loader=yaml.CSafeLoader) if each]


def values(choices: Mapping[str, ImageChoice]) -> tuple[renderer.Values, renderer.Values]:
    """Return what a test cluster lays over the values of charts/lgtm, and of a tenant's release."""

    def some(keys: Mapping[str, str]) -> dict[str, Any]:
        return {
            key: {"image": choices[name].values(), "resources": _REQUESTS}
            for name, key in keys.items()
            if name in choices
        }

    lgtm = some(_LGTM)
    if "alloy" in choices:
        lgtm["monitor"] = {"image": choices["alloy"].values(), "resources": _REQUESTS}
    tenant = some(_TENANT)
    application = choices.get("open-webui")
    if application and () < version_key(application.tag) < READY_SINCE:
        tenant["openWebui"]["readinessPath"] = "/health/db"
    return lgtm, tenant


@dataclass
class Store:
    """The Fake provider's values, as they are in the cluster."""

    kube: Kube
    values: SecretStore = field(default_factory=SecretStore)
    known: dict[str, str] = field(default_factory=dict)

    def fill(self, manifests: Iterable[Object], definition: Object) -> None:
        """Make the ClusterSecretStore, with a value for each key that the objects ask for."""
        found = self.kube.find(definition["apiVersion"], "ClusterSecretStore", STORE)
        if found:
            data = found["spec"]["provider"].get("fake", {}).get("data", ())
            self.known = {entry["key"]: entry["value"] for entry in data}
        for manifest in manifests:
            if manifest["kind"] == "ExternalSecret":
                for entry in manifest["spec"].get("data") or ():
                    key = entry["remoteRef"]["key"]
                    self.known.setdefault(key, self.values.read(key))
        self.kube.apply(self.faked(definition))

    def preset(self, key: str, value: str) -> None:
        """Give a key the value that production has, before the store is made."""
        self.known[key] = value

    def faked(self, definition: Object) -> dict[str, Any]:
        """Return the store as it is in the repository, with the Fake provider."""
        return {**definition, "spec": {**definition["spec"], "provider": self._provider()}}

    def _provider(self) -> dict[str, Any]:
        data = [{"key": key, "value": value} for key, value in sorted(self.known.items())]
        return {"fake": {"data": data}}

    def __getitem__(self, key: str) -> str:
        return self.known[key]

    def rotate(self, key: str, value: str) -> None:
        """Give a key another value, and let the operator take it over at once."""
        self.known[key] = value
        found = self.kube.get("external-secrets.io/v1", "ClusterSecretStore", STORE)
        self.kube.patch(found, {"spec": {"provider": self._provider()}})
        for each in self.kube.listed("external-secrets.io/v1", "ExternalSecret"):
            if any(entry["remoteRef"]["key"] == key for entry in each["spec"].get("data") or ()):
                mark = {"force-sync": str(time.time_ns())}
                self.kube.patch(each, {"metadata": {"annotations": mark}})


#: Of `helm upgrade` and `helm rollback`: not by server-side apply.
_FROM_CLIENT = "--server-side=false"


class Installer:
    """Installs a deployment into a cluster."""

    def __init__(
        self,
        kube: Kube,
        kubeconfig: Path,
        deployment: Deployment,
        choices: Mapping[str, ImageChoice],
    ) -> None:
        self.kube = kube
        self.kubeconfig = kubeconfig
        lgtm, tenant = values(choices)
        self.deployment = deployment.with_values(lgtm=[lgtm], tenant=[tenant])
        self.choices = choices
        self.store = Store(kube)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where something of the deployment is."""
        return OPERATOR_NAMESPACE, *self.of_releases

    @property
    def of_releases(self) -> tuple[str, ...]:
        """Where a release is: that of observability first."""
        tenants = (tenant.namespace for tenant in self.deployment.registry)
        return OBSERVABILITY_NAMESPACE, *tenants

    # --- what a production cluster has ---

    def prerequisites(self) -> None:
        """Make what the releases take for given, and wait until it works."""
        self.kube.apply_all(objects("storage-class"))
        self.kube.apply_all(crds("external-secrets", self.deployment))
        self.kube.apply_all(self.step_objects("Namespace"))
        image = self.choices["external-secrets"].reference
        self.kube.apply_all(objects("external-secrets", EXTERNAL_SECRETS=image))
        self.kube.rolled_out([OPERATOR_NAMESPACE], within_s=_OPERATOR_S)
        policies = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        self.kube.apply_all(self.step_objects(*policies))
        self.fill_store()

    def fill_store(self) -> None:
        """Make the store of secrets, with a value for each key that the releases ask for."""
        (definition,) = self.step_objects("ClusterSecretStore")
        asked = [thaw(one.content) for release in self.deployment.releases() for one in release]
        self.store.fill(asked, definition)

    def step_objects(self, *kinds: str) -> list[dict[str, Any]]:
        """Return what the Flux tree applies itself of these kinds."""
        steps = tree.build(self.deployment.checkout).steps
        found = [one for step in steps for one in step.objects if one.kind in kinds]
        return [thaw(one.content) for one in found]

    # --- by Helm ---

    def helm(self) -> None:
        """Install or upgrade every release with `helm upgrade --install`, without waiting."""
        self.upgrade(LGTM_RELEASE)
        for tenant in self.deployment.registry:
            self.upgrade(TENANT_RELEASE, tenant.name)

    def upgrade(self, release: str, tenant: str | None = None, *extra: str) -> None:
        """Install or upgrade one release.

        Raises:
            StackproofError: Helm refuses it; with its own words.
        """
        deployed = self.deployment
        if tenant is None:
            name, layers = "lgtm", deployed.lgtm_values()
            namespace = OBSERVABILITY_NAMESPACE
        else:
            one = deployed.registry.get(tenant)
            name, layers = "open-webui-stack", deployed.tenant_values(one)
            namespace = one.namespace
        chart = str(deployed.checkout.charts / name)
        with _files(layers) as files:
            arguments = [part for file in files for part in ("--values", str(file))]
            # What somebody has changed by hand is changed back, as helm-controller does it
            # (internal/action/upgrade.go); also where Flux had applied it from the client.
            how = () if _FROM_CLIENT in extra else ("--server-side=true", "--force-conflicts")
            what = (release, chart, "-n", namespace, *arguments)
            self.run_helm("upgrade", "--install", *what, *extra, *how)

    def run_helm(self, *arguments: str) -> str:
        """Run helm on the cluster, return what it printed.

        Raises:
            StackproofError: It failed.
        """
        done = subprocess.run(
            [programs.find("helm"), "--kubeconfig", str(self.kubeconfig), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackproofError(done.stderr.strip(), where=f"helm {' '.join(arguments[:4])}")
        return done.stdout

    def synced(self) -> None:
        """Wait until every ExternalSecret has its Secret.

        Raises:
            StackproofError: One has not; with the operator's reason.
        """
        self.kube.until(
            lambda: not list(self._unsynced()),
            within_s=_SYNC_S,
            what="every ExternalSecret is synced",
            seen=lambda: "\n".join(self._unsynced()),
        )

    def _unsynced(self) -> Iterator[str]:
        for each in self.kube.listed("external-secrets.io/v1", "ExternalSecret"):
            said = condition(each)
            if not said.startswith("True"):
                yield f"{each['metadata']['namespace']}/{each['metadata']['name']}: {said}"


def crds(program: str, deployment: Deployment) -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions that a controller was released with."""
    source = programs.source(program, deployment.checkout)
    files = sorted(source.glob("config/crd*/bases/*.yaml"))
    return [
        each
        for file in files
        if file.name != "kustomization.yaml"
        for each in yaml.load_all(file.read_bytes(), Loader=yaml.CSafeLoader)
        if each
    ]


@contextmanager
def _files(layers: Sequence[renderer.Values]) -> Iterator[list[Path]]:
    """Give values as files for helm: what is one already, and a temporary one for what is not."""
    with tempfile.TemporaryDirectory(prefix="stackproof-values-") as folder:
        found = []
        for number, layer in enumerate(layers):
            path = layer if isinstance(layer, Path) else Path(folder) / f"{number}.yaml"
            if path is not layer:
                path.write_text(yaml.safe_dump(thaw(layer)), encoding="utf-8")
            found.append(path)
        yield found
