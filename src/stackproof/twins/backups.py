"""Faults of backups."""

from __future__ import annotations

from .base import Edit, Twin

_TEMPLATE = "charts/open-webui-stack/templates/backup.yaml"
_PRODUCTION = "charts/open-webui-stack/values-prod.yaml"
_RELEASE = "flux/base/open-webui/helmrelease.yaml"
_POLICIES = "charts/open-webui-stack/templates/networkpolicies.yaml"

BACKUPS: tuple[Twin, ...] = (
    Twin(
        name="no-backup-in-production",
        fault="production's values have no dump of the database, as they had none",
        caught_by="platform.every-database-is-dumped",
        reason="nothing dumps StatefulSet/open-webui.*-postgres in open-webui",
        edits=[Edit(_PRODUCTION, "backup:\n  enabled: true\n", "backup:\n  enabled: false\n")],
    ),
    Twin(
        name="backup-waited-for",
        fault="Flux waits for the dumps' claim, which is bound only when the first dump is taken",
        caught_by="flux.releases-wait-for-no-unused-claim",
        reason="HelmRelease/open-webui in .* waits for PersistentVolumeClaim/.*-backup to be bound",
        edits=[
            Edit(
                _RELEASE,
                "current: status.phase in ['Bound', 'Pending']",
                "current: status.phase == 'Bound'",
            )
        ],
    ),
    Twin(
        name="backup-suspended",
        fault="the CronJob is suspended",
        caught_by="platform.every-database-is-dumped",
        reason="what dumps .* is suspended",
        edits=[Edit(_TEMPLATE, "  timeZone: Etc/UTC\n", "  timeZone: Etc/UTC\n  suspend: true\n")],
    ),
    Twin(
        name="backup-on-sundays",
        fault="the database is dumped once a week",
        caught_by="platform.every-database-is-dumped",
        reason="is not dumped daily: 17 2 \\* \\* 0",
        tenant={"backup": {"schedule": "17 2 * * 0"}},
    ),
    Twin(
        name="backup-beside-the-data",
        fault="dumps are written to the database's own volume",
        caught_by="platform.dumps-outlive-the-database",
        reason="which StatefulSet/.*-postgres mounts: one disk for both",
        edits=[
            Edit(
                _TEMPLATE,
                '$claim := printf "%s-backup" (include "open-webui-stack.fullname" .)',
                '$claim := printf "data-%s-postgres-0" (include "open-webui-stack.fullname" .)',
            )
        ],
    ),
    Twin(
        name="backup-in-the-pod",
        fault="dumps are written to an emptyDir",
        caught_by="platform.dumps-outlive-the-database",
        reason="writes to no claim",
        edits=[
            Edit(
                _TEMPLATE,
                r"persistentVolumeClaim:\n    claimName: %s",
                r"emptyDir: {} # %s",
            )
        ],
    ),
    Twin(
        name="backup-deleted-with-the-release",
        fault="the dumps' claim is deleted with the release",
        caught_by="platform.dumps-outlive-the-database",
        reason="which Helm deletes with the release",
        edits=[Edit(_TEMPLATE, "  annotations:\n    helm.sh/resource-policy: keep\n", "")],
    ),
    Twin(
        name="backup-cannot-connect",
        fault="no NetworkPolicy lets the dump reach the database",
        caught_by="invariants.what-policies-close-they-open",
        reason="CronJob/.*-backup.* calls port 5432 of StatefulSet/.*-postgres",
        edits=[Edit(_POLICIES, "  - {from: backup, to: postgres, ports: [postgres]}\n", "")],
    ),
)
