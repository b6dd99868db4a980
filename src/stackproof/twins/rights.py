"""Rights that are more, or less, than what is needed; and what post-renderers change."""

from __future__ import annotations

from functools import partial

from .base import Edit, Twin, edited, in_flux, in_tenant

_in_rbac = partial(in_flux, "base/open-webui/rbac.yaml")
_ROLE = "  kind: Role\n  name: release\n"
_CONFIGMAPS = "resources: [configmaps, persistentvolumeclaims,"
_BINDING = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: {kind}Binding
metadata:
  name: more
  namespace: ${{NAMESPACE}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {role}
  name: {name}
subjects:
  - {{kind: {subject}, name: '{who}', apiGroup: rbac.authorization.k8s.io}}
---
apiVersion: v1
kind: ServiceAccount
"""


def _bound(kind: str, role: str, name: str, subject: str, who: str) -> Edit:
    text = _BINDING.format(kind=kind, role=role, name=name, subject=subject, who=who)
    return _in_rbac("apiVersion: v1\nkind: ServiceAccount\n", text)


_KEPT = "  annotations:\n    kustomize.toolkit.fluxcd.io/prune: disabled\n"
_RELEASE = "  name: release\n  namespace: ${NAMESPACE}\n"

RIGHTS: tuple[Twin, ...] = (
    edited(
        "account-goes-before-its-release",
        "a tenant that is removed: its account goes first, and its pods run on",
        "flux.accounts-outlive-their-releases",
        r"ServiceAccount/flux in enterprise-a .*: goes together with HelmRelease/open-webui",
        _in_rbac(
            f"  name: flux\n  namespace: ${{NAMESPACE}}\n{_KEPT}",
            "  name: flux\n  namespace: ${NAMESPACE}\n",
        ),
    ),
    edited(
        "rights-go-before-the-release",
        "a tenant that is removed: its account has no rights any more to uninstall it",
        "flux.accounts-outlive-their-releases",
        r"RoleBinding/release in enterprise-a .*: goes together with HelmRelease/open-webui",
        _in_rbac(f"{_RELEASE}{_KEPT}roleRef:", f"{_RELEASE}roleRef:"),
    ),
    edited(
        "release-as-the-cluster's-administrator",
        "a tenant's Flux account is bound to cluster-admin",
        "flux.accounts-may-what-they-need",
        r"in enterprise-a: may \* \(all that ClusterRole/cluster-admin gathers\)",
        _in_rbac(_ROLE, "  kind: ClusterRole\n  name: cluster-admin\n"),
    ),
    edited(
        "release-with-the-rights-of-every-operator",
        "a tenant's Flux account is bound to ClusterRole admin, to which operators add their kinds",
        "flux.accounts-may-what-they-need",
        r"ServiceAccount/flux in open-webui: may \* \(all that ClusterRole/admin gathers\)",
        _in_rbac(_ROLE, "  kind: ClusterRole\n  name: admin\n"),
    ),
    edited(
        "release-that-may-all-in-its-namespace",
        "the role of a tenant's Flux account has a wildcard",
        "flux.accounts-may-what-they-need",
        r"may create \* of apps, which its release does not need",
        _in_rbac("resources: [deployments, statefulsets]", 'resources: ["*"]'),
    ),
    edited(
        "release-that-may-give-more-than-it-has",
        "the role of a tenant's Flux account may escalate",
        "flux.accounts-may-what-they-need",
        r"may escalate roles of rbac\.authorization\.k8s\.io, which its release does not need",
        _in_rbac(
            "resources: [roles, rolebindings]\n    verbs: *manage",
            "resources: [roles, rolebindings]\n"
            "    verbs: [get, list, watch, create, update, patch, delete, bind, escalate]",
        ),
    ),
    edited(
        "release-that-may-take-another's-token",
        "the role of a tenant's Flux account may make tokens of other accounts",
        "flux.accounts-may-what-they-need",
        r"may create serviceaccounts/token, which its release does not need",
        _in_rbac(
            "  # To see whether a workload is ready.\n",
            '  - {apiGroups: [""], resources: [serviceaccounts/token], verbs: [create]}\n',
        ),
    ),
    edited(
        "release-that-may-make-steps",
        "a release may make Kustomizations, which Flux applies as the cluster's administrator",
        "flux.accounts-may-what-they-need",
        r"may create kustomizations of kustomize\.toolkit\.fluxcd\.io, which its release does not",
        _in_rbac(
            "  # To see whether a workload is ready.\n",
            "  - apiGroups: [kustomize.toolkit.fluxcd.io]\n"
            "    resources: [kustomizations]\n"
            "    verbs: [create]\n",
        ),
    ),
    edited(
        "release-without-a-right",
        "the role of a tenant's Flux account lacks a kind that the chart renders",
        "flux.accounts-may-what-they-need",
        r"may not create configmaps, which its release needs",
        _in_rbac(_CONFIGMAPS, "resources: [persistentvolumeclaims,"),
    ),
    edited(
        "release-that-cannot-grant",
        "the account lacks what Alloy's Role gives: the API server refuses to make that Role",
        "flux.accounts-may-what-they-need",
        r"may not get pods/log, which its release needs",
        _in_rbac("    resources: [pods/log]\n", "    resources: [pods/status]\n"),
    ),
    edited(
        "application-that-may-what-helm-may",
        "the application's pods run as the account that installs them",
        "flux.accounts-may-what-they-need",
        r"is what Deployment/open-webui-alloy runs as",
        in_tenant(
            "_helpers.tpl",
            '.serviceAccount | default (include "open-webui-stack.fullname" $root) | quote',
            '"flux" | quote',
        ),
    ),
    edited(
        "rights-for-everybody",
        "a role is bound to a group that every account is in",
        "flux.rights-are-given-to-accounts",
        r"gives rights to Group/system:serviceaccounts, whoever that is",
        _bound("Role", "Role", "release", "Group", "system:serviceaccounts"),
    ),
    edited(
        "rights-in-the-whole-cluster",
        "a ClusterRoleBinding in a tenant's folder",
        "flux.rights-are-given-to-accounts",
        r"ClusterRoleBinding/more .*gives rights in the whole cluster to flux",
        _bound("ClusterRole", "ClusterRole", "view", "ServiceAccount", "flux"),
    ),
    edited(
        "alloy-reads-secrets",
        "Alloy's Role lets it read the tenant's secrets",
        "flux.pods-may-what-they-need",
        r"its account open-webui-alloy may get secrets, which it does not need",
        in_tenant("alloy.yaml", "    resources: [pods]\n", "    resources: [pods, secrets]\n"),
    ),
    edited(
        "alloy-may-not-read-logs",
        "Alloy's Role lacks pods/log: no log of a pod arrives",
        "flux.pods-may-what-they-need",
        r"its account open-webui-alloy may not get pods/log, which it needs",
        in_tenant("alloy.yaml", "    resources: [pods/log]\n", "    resources: [pods/status]\n"),
    ),
    edited(
        "everything-in-a-namespace-may-read",
        "a role is bound to all accounts of the tenant's namespace",
        "flux.pods-may-what-they-need",
        r"its account \S+ may create secrets, which it does not need",
        _bound("Role", "Role", "release", "Group", "system:serviceaccounts:${NAMESPACE}"),
    ),
    edited(
        "image-of-a-post-renderer",
        "a post-renderer puts an image without a version into what the chart renders",
        "flux.pinned",
        r"image \S*caddy\S*:latest is not pinned",
        in_flux(
            "observability/helmrelease.yaml",
            "  valuesFrom:\n",
            "  postRenderers:\n"
            "    - kustomize: {images: [{name: caddy, newTag: latest}]}\n"
            "  valuesFrom:\n",
        ),
    ),
)

DELIVERED: tuple[Twin, ...] = (
    edited(
        "policy-of-a-post-renderer",
        "a post-renderer opens Mimir to everybody: what is checked is not what is applied",
        "delivered",
        r"Flux applies another NetworkPolicy/mimir",
        in_flux(
            "observability/helmrelease.yaml",
            "  valuesFrom:\n",
            "  postRenderers:\n"
            "    - kustomize:\n"
            "        patches:\n"
            "          - target: {kind: NetworkPolicy, name: mimir}\n"
            "            patch: '- {op: replace, path: /spec/ingress, value: [{}]}'\n"
            "  valuesFrom:\n",
        ),
    ),
    edited(
        "release-of-another-name",
        "a HelmRelease has a target namespace and no release name: all its objects are renamed",
        "delivered",
        r"Flux applies another|only in the Flux tree",
        in_flux(
            "observability/helmrelease.yaml",
            "  releaseName: lgtm\n",
            "  targetNamespace: observability\n",
        ),
    ),
)
