"""Faults of a merge onto a release that chart 0.1.0 made: each would lose some of its data."""

from __future__ import annotations

from functools import partial

from .base import Edit, Twin, edited, in_flux, in_tenant

_in_values = partial(in_flux, "tenants/soev/tenant.yaml")

MIGRATION: tuple[Twin, ...] = (
    edited(
        "names-of-a-new-release",
        "the release gets the names of a new one: its databases begin empty",
        "migration.nothing-is-lost",
        r"data-open-webui-open-webui-stack-postgres-0 .*: orphaned: .*begins with an empty volume",
        _in_values("            fullnameOverride: open-webui-open-webui-stack\n", ""),
    ),
    edited(
        "uploads-of-another-claim",
        "the release makes a claim of its own for uploads: Helm deletes the one that has them",
        "migration.nothing-is-lost",
        r"PersistentVolumeClaim/open-webui-open-webui-stack-open-webui-pvc .*: deleted: ",
        _in_values(
            "              persistence:\n"
            "                claimName: open-webui-open-webui-stack-open-webui-pvc\n",
            "",
        ),
    ),
    edited(
        "uploads-of-an-existing-claim",
        "the release names the claim and does not render it: Helm deletes it under the pod",
        "migration.nothing-is-lost",
        r"open-webui-pvc .*: deleted: no manifest has it any more, although a pod still names it",
        _in_values("                claimName: ", "                existingClaim: "),
    ),
    edited(
        "claim-that-nobody-keeps",
        "the claim with the uploads goes with the next release that does not render it",
        "migration.nothing-is-lost",
        r"open-webui-pvc .*: unguarded: ",
        in_tenant("open-webui.yaml", "  annotations:\n    helm.sh/resource-policy: keep\n", ""),
    ),
    edited(
        "weaviate-under-another-name",
        "Weaviate's name in its own records changes: it does not find its vectors",
        "migration.nothing-is-lost",
        r"weaviate .*: emptied: CLUSTER_HOSTNAME was 'node1' and becomes 'weaviate-0'",
        _in_values("              clusterHostname: node1\n", ""),
    ),
    edited(
        "merged-by-server-side-apply",
        "the merge leaves the application's rolling defaults beside Recreate: it is refused",
        "migration.nothing-is-refused",
        r"Deployment/open-webui-open-webui-stack-open-webui .*refuses to change spec.strategy",
        _in_values("upgrade: {serverSideApply: disabled}", "upgrade: {serverSideApply: auto}"),
    ),
    edited(
        "database-elsewhere-on-the-volume",
        "PostgreSQL looks for its files in another folder of the volume",
        "migration.nothing-is-lost",
        r"postgres .*: emptied: PGDATA was '/var/lib/postgresql/data/pgdata' and becomes",
        in_tenant("postgres.yaml", "/var/lib/postgresql/data/pgdata", "/var/lib/pgdata"),
    ),
    edited(
        "volume-mounted-elsewhere",
        "Weaviate's volume is mounted where it does not look",
        "migration.nothing-is-lost",
        r"weaviate .*: emptied: its volume was mounted at /var/lib/weaviate",
        in_tenant("weaviate.yaml", "mountPath: /var/lib/weaviate\n", "mountPath: /weaviate\n"),
    ),
    edited(
        "template-of-a-claim-that-changed",
        "the StatefulSets' claims get labels: Kubernetes refuses, and the upgrade stops half-way",
        "migration.nothing-is-refused",
        r"StatefulSet/open-webui-open-webui-stack-postgres .*spec\.volumeClaimTemplates",
        _in_values("claimTemplateLabels: false", "claimTemplateLabels: true"),
    ),
    edited(
        "history-of-a-database",
        "the databases keep fewer old versions: a cluster before 1.34 refuses, and the merge stops",
        "migration.nothing-is-refused",
        r"StatefulSet/open-webui-open-webui-stack-weaviate .*spec\.revisionHistoryLimit",
        in_tenant(
            "_helpers.tpl",
            'or (eq .kind "Deployment") .root.Values.global.claimTemplateLabels',
            "true",
        ),
    ),
    edited(
        "another-password-in-the-store",
        "the store was given a new postgres-password",
        "migration.secrets-are-the-present-ones",
        r"open-webui-postgres-password in the store is not the postgres-password of the cluster",
        Edit("tests/earlier/store.yaml", "-password: the present", "-password: a new"),
    ),
    edited(
        "pod-security-one-step-too-early",
        "the namespace refuses pods that run as root, as those of a rollback do",
        "migration.pods-are-admitted",
        r"under pod-security\.kubernetes\.io/enforce: restricted a rollback brings up none",
        _in_values("      POD_SECURITY: baseline\n", ""),
    ),
    edited(
        "versions-skipped",
        "Weaviate goes from 1.28 to 1.35 at once",
        "migration.versions-go-step-by-step",
        r"weaviate: 1\.28\.4 to 1\.35\.\d+ skips versions; first 1\.29, .*1\.34",
        _in_values("                tag: 1.28.4\n", "                tag: 1.35.2\n"),
    ),
    edited(
        "image-without-its-credential",
        "the new pods do not name the Secret with which the registry gave the image",
        "migration.images-are-pulled-as-before",
        r"Deployment/.* its image came from ghcr\.io with Secret/ghcr-secret, which its new",
        _in_values("              imagePullSecrets: [ghcr-secret]\n", ""),
    ),
    edited(
        "ingress-of-a-host-that-is-taken",
        "an Ingress of another name has the host while the old one is still there",
        "migration.hosts-are-served-once",
        r"open-webui-open-webui-stack .*has voorbeeld\.soev\.ai/ already",
        _in_values("            fullnameOverride: open-webui-open-webui-stack\n", ""),
    ),
)
