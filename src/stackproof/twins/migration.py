"""Faults of a merge onto a release that chart 0.1.0 made: each would lose some of its data."""

from __future__ import annotations

from .base import Edit, Layer, Twin

_SOEV = "flux/tenants/soev/tenant.yaml"
_CHART = "charts/open-webui-stack/templates"


def _twin(name: str, fault: str, check: str, reason: str, *edits: Edit) -> Twin:
    return Twin(
        name=name,
        fault=fault,
        layer=Layer.UNIT,
        caught_by=f"migration.{check}",
        reason=reason,
        edits=edits,
    )


MIGRATION: tuple[Twin, ...] = (
    _twin(
        "names-of-a-new-release",
        "the release gets the names of a new one: its databases begin empty",
        "nothing-is-lost",
        r"data-open-webui-open-webui-stack-postgres-0 .*: orphaned: .*begins with an empty volume",
        Edit(_SOEV, "            fullnameOverride: open-webui-open-webui-stack\n", ""),
    ),
    _twin(
        "uploads-of-another-claim",
        "the release makes a claim of its own for uploads: Helm deletes the one that has them",
        "nothing-is-lost",
        r"PersistentVolumeClaim/open-webui-open-webui-stack-open-webui-pvc .*: deleted: ",
        Edit(
            _SOEV,
            "              persistence:\n"
            "                claimName: open-webui-open-webui-stack-open-webui-pvc\n",
            "",
        ),
    ),
    _twin(
        "uploads-of-an-existing-claim",
        "the release names the claim and does not render it: Helm deletes it under the pod",
        "nothing-is-lost",
        r"open-webui-pvc .*: deleted: no manifest has it any more, although a pod still names it",
        Edit(_SOEV, "                claimName: ", "                existingClaim: "),
    ),
    _twin(
        "claim-that-nobody-keeps",
        "the claim with the uploads goes with the next release that does not render it",
        "nothing-is-lost",
        r"open-webui-pvc .*: unguarded: ",
        Edit(
            f"{_CHART}/open-webui.yaml", "  annotations:\n    helm.sh/resource-policy: keep\n", ""
        ),
    ),
    _twin(
        "weaviate-under-another-name",
        "Weaviate's name in its own records changes: it does not find its vectors",
        "nothing-is-lost",
        r"weaviate .*: emptied: CLUSTER_HOSTNAME was 'node1' and becomes 'weaviate-0'",
        Edit(_SOEV, "              clusterHostname: node1\n", ""),
    ),
    _twin(
        "merged-by-server-side-apply",
        "the merge leaves the application's rolling defaults beside Recreate: it is refused",
        "nothing-is-refused",
        r"Deployment/open-webui-open-webui-stack-open-webui .*refuses to change spec.strategy",
        Edit(_SOEV, "upgrade: {serverSideApply: disabled}", "upgrade: {serverSideApply: auto}"),
    ),
    _twin(
        "database-elsewhere-on-the-volume",
        "PostgreSQL looks for its files in another folder of the volume",
        "nothing-is-lost",
        r"postgres .*: emptied: PGDATA was '/var/lib/postgresql/data/pgdata' and becomes",
        Edit(f"{_CHART}/postgres.yaml", "/var/lib/postgresql/data/pgdata", "/var/lib/pgdata"),
    ),
    _twin(
        "volume-mounted-elsewhere",
        "Weaviate's volume is mounted where it does not look",
        "nothing-is-lost",
        r"weaviate .*: emptied: its volume was mounted at /var/lib/weaviate",
        Edit(
            f"{_CHART}/weaviate.yaml",
            "mountPath: /var/lib/weaviate\n",
            "mountPath: /weaviate\n",
        ),
    ),
    _twin(
        "template-of-a-claim-that-changed",
        "the StatefulSets' claims get labels: Kubernetes refuses, and the upgrade stops half-way",
        "nothing-is-refused",
        r"StatefulSet/open-webui-open-webui-stack-postgres .*spec\.volumeClaimTemplates",
        Edit(_SOEV, "            global:\n              claimTemplateLabels: false\n", ""),
    ),
    _twin(
        "another-password-in-the-store",
        "the store was given a new postgres-password",
        "secrets-are-the-present-ones",
        r"open-webui-postgres-password in the store is not the postgres-password of the cluster",
        Edit(
            "tests/earlier/store.yaml", "postgres-password: the present", "postgres-password: a new"
        ),
    ),
    _twin(
        "pod-security-one-step-too-early",
        "the namespace refuses pods that run as root, as those of a rollback do",
        "pods-are-admitted",
        r"under pod-security\.kubernetes\.io/enforce: restricted a rollback brings up none",
        Edit(_SOEV, "      POD_SECURITY: baseline\n", ""),
    ),
    _twin(
        "versions-skipped",
        "Weaviate goes from 1.28 to 1.35 at once",
        "versions-go-step-by-step",
        r"weaviate: 1\.28\.4 to 1\.35\.\d+ skips versions; first 1\.29, .*1\.34",
        Edit(_SOEV, "                tag: 1.28.4\n", "                tag: 1.35.2\n"),
    ),
    _twin(
        "ingress-of-a-host-that-is-taken",
        "an Ingress of another name has the host while the old one is still there",
        "hosts-are-served-once",
        r"open-webui-open-webui-stack .*has voorbeeld\.soev\.ai/ already",
        Edit(_SOEV, "            fullnameOverride: open-webui-open-webui-stack\n", ""),
    ),
)
