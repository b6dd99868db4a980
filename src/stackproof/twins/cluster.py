"""Faults that nothing but a cluster shows: they need kind, and are tried with `--stack kind`."""

from __future__ import annotations

from .base import Layer, Twin, edited


def _only(name: str, number: int, fault: str, reason: str) -> Twin:
    return edited(name, fault, "cluster", reason, number=number, layer=Layer.CLUSTER)


CLUSTER: tuple[Twin, ...] = (
    _only(
        "lines-once-for-each-node",
        6,
        "Alloy as a DaemonSet collects every pod's lines on every node, and sends each as often",
        r"100 lines were sent [2-9]\d\d times",
    ),
    _only(
        "second-tenant-does-not-install",
        14,
        "two releases own one cluster-scoped store: Helm refuses the second",
        r"cannot be imported into the current release",
    ),
    _only(
        "pod-waits-for-a-key",
        15,
        "a pod asks for a key that the operator does not sync",
        r"CreateContainerConfigError",
    ),
    _only(
        "pod-keeps-the-old-password",
        16,
        "a rotated password reaches the Secret and no pod",
        r"still sends the old password",
    ),
    _only(
        "release-without-a-namespace",
        18,
        "a HelmRelease is in a namespace that nothing makes",
        r"namespaces .* not found",
    ),
    _only(
        "object-before-its-kind",
        20,
        "a ClusterSecretStore is applied before the operator's CRDs",
        r"no matches for kind",
    ),
    _only(
        "backend-open-to-the-cluster",
        22,
        "without its policy a backend answers whoever asks, as whatever tenant they say",
        r"mimir answers from",
    ),
)
