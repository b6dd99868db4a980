"""Faults of backups."""

from __future__ import annotations

from .base import Edit, Twin, edited, in_flux, in_tenant

BACKUPS: tuple[Twin, ...] = (
    edited(
        "no-backup-in-production",
        "production's values have no dump of the database, as they had none",
        "platform.every-database-is-dumped",
        "nothing dumps StatefulSet/open-webui.*-postgres in open-webui",
        Edit(
            "charts/open-webui-stack/values-prod.yaml",
            "backup:\n  enabled: true\n",
            "backup:\n  enabled: false\n",
        ),
    ),
    edited(
        "backup-waited-for",
        "Flux waits for the dumps' claim, which is bound only when the first dump is taken",
        "flux.releases-wait-for-no-unused-claim",
        "HelmRelease/open-webui in .* waits for PersistentVolumeClaim/.*-backup to be bound",
        in_flux("base/open-webui/helmrelease.yaml", "in ['Bound', 'Pending']", "== 'Bound'"),
    ),
    edited(
        "backup-suspended",
        "the CronJob is suspended",
        "platform.every-database-is-dumped",
        "what dumps .* is suspended",
        in_tenant("backup.yaml", "  timeZone: Etc/UTC\n", "  timeZone: Etc/UTC\n  suspend: true\n"),
    ),
    edited(
        "backup-on-sundays",
        "the database is dumped once a week",
        "platform.every-database-is-dumped",
        "is not dumped daily: 17 2 \\* \\* 0",
        tenant={"backup": {"schedule": "17 2 * * 0"}},
    ),
    edited(
        "backup-beside-the-data",
        "dumps are written to the database's own volume",
        "platform.dumps-outlive-the-database",
        "which StatefulSet/.*-postgres mounts: one disk for both",
        in_tenant("backup.yaml", ':= printf "%s-backup" (', ':= printf "data-%s-postgres-0" ('),
    ),
    edited(
        "backup-in-the-pod",
        "dumps are written to an emptyDir",
        "platform.dumps-outlive-the-database",
        "writes to no claim",
        in_tenant("backup.yaml", "persistentVolumeClaim:\\n    claimName: %s", "emptyDir: {} # %s"),
    ),
    edited(
        "backup-deleted-with-the-release",
        "the dumps' claim is deleted with the release",
        "platform.dumps-outlive-the-database",
        "which Helm deletes with the release",
        in_tenant("backup.yaml", "  annotations:\n    helm.sh/resource-policy: keep\n", ""),
    ),
    edited(
        "backup-cannot-connect",
        "no NetworkPolicy lets the dump reach the database",
        "invariants.what-policies-close-they-open",
        "CronJob/.*-backup.* calls port 5432 of StatefulSet/.*-postgres",
        in_tenant(
            "networkpolicies.yaml", "  - {from: backup, to: postgres, ports: [postgres]}\n", ""
        ),
    ),
)
