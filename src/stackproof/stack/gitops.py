"""Let Flux install the repository's own tree in a test cluster, from a Git server in the cluster.

What is pushed is the checkout's charts, values and Flux tree as they are, and one folder beside
`flux/clusters/production`: the same steps, with patches for what a test cluster cannot have. Those
are the Helm repository of External Secrets (the operator is installed already), Google's Secret
Manager (the Fake provider stands for it), registries (images are in the node) and the controllers
for alerts and new images.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from stackproof.errors import StackproofError
from stackproof.flux.objects import BOOTSTRAP, FLUX_NAMESPACE
from stackproof.flux.tree import KUSTOMIZE_GROUP
from stackproof.kube.client import Kube, Object
from stackproof.kube.diagnostics import condition

from .forward import Forward
from .install import CONTROLLERS, Installer, crds, objects, values

SOURCE = "source.toolkit.fluxcd.io/v1"
KUSTOMIZE = f"{KUSTOMIZE_GROUP}/v1"
HELM = "helm.toolkit.fluxcd.io/v2"

#: The folder in flux/clusters that is pushed for the test cluster.
CLUSTER = "test"

_PUSHED = ("charts", "flux", "observability")
#: Steps of production whose controllers a test cluster has not.
_LEFT_OUT = {"flux-extras"}

#: What the API server notes as the manager of what `helm` applies, and of what Flux does.
_HELM, _FLUX = "helm", "helm-controller"

_CONTROLLERS_S = 120.0
_READY_S = 300.0
_SOURCE_S = 60.0


class Repository:
    """The files that Flux reads: a working copy that is committed and pushed."""

    def __init__(self, root: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stackproof-git-")
        self.path = Path(self._folder.name)
        self._git("init", "--quiet", "--initial-branch=main")
        self.take(root)

    def take(self, root: Path) -> None:
        """Replace all files by another checkout's."""
        for name in _PUSHED:
            shutil.rmtree(self.path / name, ignore_errors=True)
            shutil.copytree(root / name, self.path / name)

    def close(self) -> None:
        """Remove the working copy."""
        self._folder.cleanup()

    def write(self, file: str, documents: Sequence[Object]) -> None:
        """Write a YAML file."""
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that must be in a file.

        Raises:
            StackproofError: It is not.
        """
        path = self.path / file
        text = path.read_text(encoding="utf-8")
        if old not in text:
            raise StackproofError(f"has no {old!r}", where=file)
        path.write_text(text.replace(old, new), encoding="utf-8")

    def push(self, url: str, message: str) -> str:
        """Commit everything, push it, return the commit."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", "--message", message)
        # Whole objects: the stand-in's server finds none that differs from one of an earlier push.
        self._git("-c", "pack.window=0", "push", "--quiet", "--force", url, "main")
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        who = {"NAME": "stackproof", "EMAIL": "stackproof@example.com"}
        identity = {f"GIT_{r}_{k}": v for r in ("AUTHOR", "COMMITTER") for k, v in who.items()}
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            # Nobody's own settings: hooks, signatures, line endings.
            env={**os.environ, **identity, "GIT_CONFIG_GLOBAL": "", "GIT_CONFIG_NOSYSTEM": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackproofError(done.stderr.strip(), where=f"git {arguments[0]}")
        return done.stdout


class Flux:
    """Flux in a test cluster, and the repository that it follows."""

    def __init__(self, installer: Installer) -> None:
        self._installer = installer
        self.kube: Kube = installer.kube
        self.repository = Repository(installer.deployment.checkout.root)
        self._overlay()

    def close(self) -> None:
        """Remove the working copy."""
        self.repository.close()

    # --- what is pushed ---

    def _overlay(self) -> None:
        """Write the test cluster's folder: production's steps with patches."""
        production = self.repository.path / "flux" / "clusters" / "production"
        for file in sorted(production.glob("*.yaml")):
            documents = list(yaml.load_all(file.read_bytes(), Loader=yaml.CSafeLoader))
            steps = [self._adapted(one) for one in documents if _name(one) not in _LEFT_OUT]
            if steps:
                self.repository.write(f"flux/clusters/{CLUSTER}/{file.name}", steps)

    def _adapted(self, step: dict[str, Any]) -> dict[str, Any]:
        patches = self._patches(_name(step)) if step["kind"] == "Kustomization" else []
        if not patches:
            return step
        own = step["spec"].get("patches", [])
        return {**step, "spec": {**step["spec"], "patches": own + patches}}

    def _patches(self, step: str) -> list[dict[str, Any]]:
        lgtm, tenant = values(self._installer.choices)
        if step == "infrastructure":
            return [
                {"target": {"kind": kind}, "patch": yaml.safe_dump(_nothing(kind, api))}
                for kind, api in (("HelmRelease", HELM), ("HelmRepository", SOURCE))
            ]
        if step == "secret-store":
            (store,) = self._installer.step_objects("ClusterSecretStore")
            provider = self._installer.store.faked(store)["spec"]["provider"]
            replaced = [{"op": "replace", "path": "/spec/provider", "value": provider}]
            return [{"target": {"kind": "ClusterSecretStore"}, "patch": yaml.safe_dump(replaced)}]
        if step == "observability":
            return [_release_values(lgtm)]
        if step == "tenants":
            return [_further_patch(one, _release_values(tenant)) for one in self._tenants()]
        return []

    def _tenants(self) -> Iterator[Object]:
        """Yield each tenant's step."""
        for file in sorted((self.repository.path / "flux" / "tenants").glob("*/tenant.yaml")):
            yield yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)

    # --- installing ---

    def install(self) -> None:
        """Install the controllers, push the repository, and wait until all of it is applied."""
        choices = self._installer.choices
        for controller in CONTROLLERS:
            self.kube.apply_all(crds(controller, self._installer.deployment))
        images = {n.upper().replace("-", "_"): choices[n].reference for n in CONTROLLERS}
        self.kube.apply_all(objects("flux", STANDIN=choices["standin"].reference, **images))
        self.kube.rolled_out([FLUX_NAMESPACE], within_s=_CONTROLLERS_S)
        self._overlay()  # the store's values may have been rotated since the last time
        commit = self.push("The repository as it is")
        self.kube.apply_all(_bootstrap())
        self.applied(commit)

    def take_over(self) -> None:
        """Install Flux where Helm has deployed the same, as if Flux had done so from the start."""
        self._hand_over(_HELM, _FLUX)
        self.install()

    def rest(self) -> None:
        """End the controllers, so that Helm deploys again; nothing happens where there are none.

        Raises:
            StackproofError: One does not end.
        """
        deployed = self.kube.listed("apps/v1", "Deployment", FLUX_NAMESPACE)
        controllers = [each for each in deployed if _name(each) in CONTROLLERS]
        if not controllers:
            return
        for each in controllers:
            self.kube.patch(each, {"spec": {"replicas": 0}})
        labels = f"app in ({','.join(CONTROLLERS)})"
        self.kube.until(
            lambda: not self.kube.listed("v1", "Pod", FLUX_NAMESPACE, labels),
            within_s=_CONTROLLERS_S,
            what="the controllers of Flux have ended",
        )
        self._hand_over(_FLUX, _HELM)

    def _hand_over(self, giver: str, taker: str) -> None:
        """Note one manager of what is deployed for the other.

        Two that apply the same object own its fields together, and one that both have applied stays
        when one of them leaves it out. Source: Kubernetes' documentation of server-side apply.
        """
        for release in self._installer.deployment.releases():
            for one in release:
                found = self.kube.find(one["apiVersion"], one.kind, one.name, one.namespace)
                noted = found["metadata"]["managedFields"] if found else []
                if found and any(each["manager"] == giver for each in noted):
                    # A manager has one entry: what the taker had before goes.
                    now = [
                        {**each, "manager": taker} if each["manager"] == giver else each
                        for each in noted
                        if each["manager"] != taker
                    ]
                    self.kube.patch(found, {"metadata": {"managedFields": now}})

    def follow(self, installer: Installer, message: str) -> None:
        """Commit what another installer deploys, and wait until all of it is applied."""
        self._installer = installer
        self.repository.take(installer.deployment.checkout.root)
        self._overlay()
        self.applied(self.push(message))

    def applied(self, commit: str) -> None:
        """Wait until a commit is fetched and every release was looked at since.

        Raises:
            StackproofError: A step or a release is not ready; it says which, and why.
        """
        self.fetched(commit)
        self.ready()
        self.kube.until(
            lambda: not list(self._charts_behind(commit)),
            within_s=_SOURCE_S,
            what="every chart is of that commit",
            seen=lambda: "\n".join(self._charts_behind(commit)),
        )
        for each in self.kube.listed(HELM, "HelmRelease"):
            self.reconciled(HELM, "HelmRelease", _name(each), each["metadata"]["namespace"])
        self.ready()

    def _charts_behind(self, commit: str) -> Iterator[str]:
        """Yield a line for each chart that was made of another commit's files."""
        for chart in self.kube.listed(SOURCE, "HelmChart"):
            seen = (chart.get("status") or {}).get("observedSourceArtifactRevision")
            if commit not in str(seen):
                yield f"HelmChart {_name(chart)} is of {seen}"

    def push(self, message: str) -> str:
        """Push what is in the working copy, and let Flux know; return the commit."""
        forward = Forward(self.kube, FLUX_NAMESPACE, 8080, self._git_pod)
        try:
            url = f"http://127.0.0.1:{forward.local_port}/repository"
            commit = self.repository.push(url, message)
        finally:
            forward.close()
        self.reconcile(SOURCE, "GitRepository", BOOTSTRAP, FLUX_NAMESPACE)
        return commit

    def _git_pod(self) -> str:
        (pod,) = self.kube.pods(FLUX_NAMESPACE, "app=git")
        return str(pod["metadata"]["name"])

    def reconcile(self, api_version: str, kind: str, name: str, namespace: str) -> str:
        """Ask a controller to look at an object now; nothing happens where it is not there.

        Returns:
            The mark that it then sets as `status.lastHandledReconcileAt`.
        """
        found = self.kube.find(api_version, kind, name, namespace)
        mark = str(time.time_ns())
        if found:
            asked = {"reconcile.fluxcd.io/requestedAt": mark}
            self.kube.patch(found, {"metadata": {"annotations": asked}})
        return mark

    def reconciled(self, api_version: str, kind: str, name: str, namespace: str) -> None:
        """Ask a controller to look at an object now, and wait until it has."""
        mark = self.reconcile(api_version, kind, name, namespace)

        def handled() -> str:
            found = self.kube.get(api_version, kind, name, namespace)
            return str((found.get("status") or {}).get("lastHandledReconcileAt"))

        self.kube.until(
            lambda: handled() == mark,
            within_s=_READY_S,
            what=f"{kind} {namespace}/{name} is reconciled, as it was asked to be at {mark}",
            seen=lambda: f"last handled: {handled()}",
        )

    def fetched(self, commit: str) -> None:
        """Wait until Flux has fetched a commit."""

        def source() -> str:
            found = self.kube.get(SOURCE, "GitRepository", BOOTSTRAP, FLUX_NAMESPACE)
            artifact = (found.get("status") or {}).get("artifact") or {}
            return f"{artifact.get('revision')}; {condition(found)}"

        def there() -> bool:
            said = source()
            if "; False" in said:
                # After a failure, such as a Service without a pod, it takes ever longer by itself.
                self.reconcile(SOURCE, "GitRepository", BOOTSTRAP, FLUX_NAMESPACE)
            return commit in said

        what = f"commit {commit[:8]} is fetched"
        self.kube.until(there, within_s=_SOURCE_S, what=what, seen=source)

    def ready(self, *, within_s: float = _READY_S) -> None:
        """Wait until every Kustomization has applied the newest commit and every HelmRelease is up.

        Raises:
            StackproofError: One is not; it says which, and why.
        """
        self.kube.until(
            lambda: not list(self.waiting()),
            within_s=within_s,
            what="every Kustomization and HelmRelease is ready",
            seen=lambda: "\n".join(self.waiting()),
        )

    def waiting(self) -> Iterator[str]:
        """Yield a line for each step and release that is not ready at the newest commit."""
        source = self.kube.get(SOURCE, "GitRepository", BOOTSTRAP, FLUX_NAMESPACE)
        newest = ((source.get("status") or {}).get("artifact") or {}).get("revision")
        for step in self.kube.listed(KUSTOMIZE, "Kustomization"):
            said = condition(step)
            applied = (step.get("status") or {}).get("lastAppliedRevision")
            if not said.startswith("True") or applied != newest:
                yield f"Kustomization {_name(step)} at {applied}: {said}"
        for release in self.kube.listed(HELM, "HelmRelease"):
            said = condition(release)
            seen = (release.get("status") or {}).get("observedGeneration")
            if not said.startswith("True") or seen != release["metadata"]["generation"]:
                yield f"HelmRelease {release['metadata']['namespace']}/{_name(release)}: {said}"


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])


def _nothing(kind: str, api_version: str) -> dict[str, Any]:
    """Return the patch that takes an object out."""
    head = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "external-secrets"}}
    return {**head, "$patch": "delete"}


def _further_patch(step: Object, patch: Object) -> dict[str, Any]:
    """Return the patch that gives a Kustomization one more patch, after its own."""
    own = step["spec"].get("patches", [])
    change = {"op": "add", "path": "/spec/patches", "value": [*own, patch]}
    return {
        "target": {"kind": "Kustomization", "name": _name(step)},
        "patch": yaml.safe_dump([change]),
    }


def _release_values(wanted: Any) -> dict[str, Any]:
    """Return the patch that lays values over a HelmRelease's."""
    head = {"apiVersion": HELM, "kind": "HelmRelease", "metadata": {"name": "any"}}
    patch = yaml.safe_dump({**head, "spec": {"values": wanted}})
    return {"target": {"kind": "HelmRelease"}, "patch": patch}


def _bootstrap() -> list[dict[str, Any]]:
    """Return what `flux bootstrap` makes: the source, and the step that applies the cluster."""
    metadata = {"name": BOOTSTRAP, "namespace": FLUX_NAMESPACE}
    source = {
        "interval": "1m",
        "url": f"http://git.{FLUX_NAMESPACE}.svc/repository",
        "ref": {"branch": "main"},
    }
    step = {
        "interval": "10m",
        "path": f"./flux/clusters/{CLUSTER}",
        "prune": True,
        "sourceRef": {"kind": "GitRepository", "name": BOOTSTRAP},
    }
    return [
        {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
        for api_version, kind, spec in (
            (SOURCE, "GitRepository", source),
            (KUSTOMIZE, "Kustomization", step),
        )
    ]
