"""Objects: valid, named once, labelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from stackproof.helm import schema
from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import COMPONENT, Manifest, parts, pod_labels

from .base import INVARIANTS, of_each_object


@INVARIANTS.register
def schema_valid(rendered: Rendered) -> Iterator[str]:
    """Every object is valid for the oldest and the newest Kubernetes."""
    for version in rendered.kubernetes:
        for problem in schema.validate(rendered.release, version, rendered.schemas):
            yield f"Kubernetes {version}: {problem}"


@INVARIANTS.register
def names_unique(rendered: Rendered) -> Iterator[str]:
    """No two objects of a release are the same one: the second would replace the first."""
    named = Counter((m.api_version, m.kind, m.namespace, m.name) for m in rendered.release)
    for (_, kind, _, name), times in named.items():
        if times > 1:
            yield f"{kind}/{name} is rendered {times} times"


@INVARIANTS.register
def in_the_release_namespace(rendered: Rendered) -> Iterator[str]:
    """Every namespaced object is in the release's namespace: a tenant's chart touches no other."""
    for m in rendered.release:
        if m.namespace not in (None, rendered.release.namespace):
            yield f"{m.source}: {m.ref} is in the namespace {m.namespace}"


@INVARIANTS.register
def no_undeclared_cluster_scope(rendered: Rendered) -> Iterator[str]:
    """No object is cluster-scoped unless the chart's externals.yaml says that it makes it."""
    for m in rendered.release:
        if m.namespace is None and (m.kind, m.name) not in rendered.cluster_scoped:
            yield f"{m.source}: {m.ref} is cluster-scoped: a second release would collide with it"


_REQUIRED_LABELS = ("name", "instance", "component", "managed-by")


@INVARIANTS.register
def labels_consistent(rendered: Rendered) -> Iterator[str]:
    """Objects and pods carry the recommended labels, and they agree with each other."""
    release = rendered.release
    wanted = {"instance": release.name, "managed-by": "Helm"}
    # A chart of one program need not say which part of it an object is.
    parted = any(COMPONENT in m.labels for m in release)
    required = [key for key in _REQUIRED_LABELS if parted or key != "component"]
    for m in release:
        labels = {key: m.labels.get(f"app.kubernetes.io/{key}") for key in required}
        for key, value in labels.items():
            if value is None:
                yield f"{m.source}: {m.ref} has no label app.kubernetes.io/{key}"
            elif value != wanted.get(key, value):
                yield f"{m.source}: {m.ref}: app.kubernetes.io/{key} is {value}, not {wanted[key]}"
        for key, value in pod_labels(m).items():
            short = key.removeprefix("app.kubernetes.io/")
            if short in _REQUIRED_LABELS[:3] and value != labels.get(short):
                yield f"{m.source}: {m.ref}: its pods say {key}={value}, itself {labels.get(short)}"


@INVARIANTS.register
@of_each_object
def nothing_is_left_empty(m: Manifest) -> Iterator[str]:
    """No key of an object is without a value: the template that was to fill it gave nothing."""
    for path, value in parts(m.content) if m.kind != "CustomResourceDefinition" else ():
        if value is None and (m.kind, path) not in _NULLS:
            yield f"{path} has no value"


#: A null that is meant: it takes away what an earlier strategy has left.
_NULLS = {("Deployment", "spec.strategy.rollingUpdate")}
