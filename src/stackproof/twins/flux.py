"""Faults that building the Flux tree shows, before anything reaches a cluster."""

from __future__ import annotations

from stackproof.twins.base import Edit, Layer, Twin
from stackproof.twins.rights import RIGHTS

_PRODUCTION = "flux/clusters/production"
_BASE = "flux/base/open-webui"
_IMAGES = "flux/flux-system/image-automation.yaml"
_FLUX_KUSTOMIZATION = """\
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: infrastructure
  namespace: flux-system
spec:
  path: ./flux/infrastructure
"""


def _twin(name: str, seed: int | None, fault: str, check: str, reason: str, *edits: Edit) -> Twin:
    return Twin(
        name=name,
        fault=fault,
        layer=Layer.UNIT,
        caught_by=f"flux.{check}",
        reason=reason,
        edits=edits,
        seed=seed,
    )


FLUX: tuple[Twin, ...] = (
    _twin(
        "store-of-a-version-that-is-gone",
        13,
        "external-secrets.io/v1beta1 is not served any more",
        "kinds-served",
        r"no schema for external-secrets\.io/v1beta1 ClusterSecretStore",
        Edit(
            "flux/secret-store/cluster-secret-store.yaml",
            "external-secrets.io/v1\n",
            "external-secrets.io/v1beta1\n",
        ),
    ),
    _twin(
        "store-in-every-release",
        14,
        "the application's chart makes a cluster-wide store of a fixed name: the second collides",
        "objects-have-one-owner",
        r"ClusterSecretStore/gcp-secret-manager is applied by .* and by HelmRelease/open-webui in",
        Edit(
            "charts/open-webui-stack/templates/services.yaml",
            '{{- range (include "open-webui-stack.components"',
            "apiVersion: external-secrets.io/v1\nkind: ClusterSecretStore\n"
            "metadata: {name: gcp-secret-manager}\n"
            "spec: {provider: {gcpsm: {projectID: soev-ai-001}}}\n"
            '{{- range (include "open-webui-stack.components"',
        ),
    ),
    _twin(
        "store-made-by-a-tenant",
        14,
        "a tenant's release makes an object of the whole cluster",
        "tenants-stay-home",
        r"ClusterSecretStore/mine .*an object of the whole cluster",
        Edit(
            "charts/open-webui-stack/templates/services.yaml",
            '{{- range (include "open-webui-stack.components"',
            "apiVersion: external-secrets.io/v1\nkind: ClusterSecretStore\n"
            "metadata: {name: mine}\n"
            "spec: {provider: {gcpsm: {projectID: soev-ai-001}}}\n"
            '{{- range (include "open-webui-stack.components"',
        ),
    ),
    _twin(
        "tenants-read-the-same-secrets",
        14,
        "two tenants read the same remote keys",
        "tenants-share-nothing",
        r"remote key open-webui-gateway-password is used by several tenants: enterprise-a, open-",
        Edit(
            "flux/tenants/enterprise-a/tenant.yaml",
            "SECRET_PREFIX: enterprise-a",
            "SECRET_PREFIX: open-webui",
        ),
    ),
    _twin(
        "flux-kustomization-in-kustomization-yaml",
        17,
        "a Flux Kustomization in a file called kustomization.yaml: kustomize takes it for its own",
        "builds",
        r"(?s)step infrastructure: .*apiVersion for Kustomization should be kustomize\.config",
        Edit(
            "flux/infrastructure/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n",
            _FLUX_KUSTOMIZATION,
        ),
    ),
    _twin(
        "operator-is-not-deployed",
        18,
        "External Secrets is used, and nothing in the tree deploys it",
        "crds-first",
        r"no step installs the CRDs of external-secrets\.io",
        Edit("flux/infrastructure/kustomization.yaml", "  - external-secrets.yaml\n", ""),
    ),
    _twin(
        "stack-is-not-deployed",
        18,
        "the HelmRelease of the observability stack is in no kustomization",
        "files-referenced",
        r"flux/observability/helmrelease\.yaml: nothing that Flux applies refers to this file",
        Edit("flux/observability/kustomization.yaml", "  - helmrelease.yaml\n", ""),
    ),
    _twin(
        "image-automation-is-not-applied",
        18,
        "image-automation.yaml is in no kustomization",
        "files-referenced",
        r"flux/flux-system/image-automation\.yaml: nothing that Flux applies refers to this file",
        Edit("flux/flux-system/kustomization.yaml", "  - image-automation.yaml\n", ""),
    ),
    _twin(
        "production-values-are-not-used",
        18,
        "no HelmRelease names values-prod.yaml",
        "files-referenced",
        r"charts/open-webui-stack/values-prod\.yaml: nothing that Flux applies refers",
        Edit(
            f"{_BASE}/helmrelease.yaml",
            "        - ./charts/open-webui-stack/values-prod.yaml\n",
            "",
        ),
    ),
    _twin(
        "namespace-of-nobody",
        18,
        "nobody creates the tenants' namespaces",
        "namespaces-first",
        r"nobody creates the namespace enterprise-a",
        Edit(f"{_BASE}/kustomization.yaml", "  - namespace.yaml\n", ""),
    ),
    _twin(
        "tenant-without-a-folder",
        18,
        "a tenant of the registry that Flux does not deploy",
        "tenants-match",
        r"no step deploys tenant enterprise-b into namespace enterprise-b",
        Edit("flux/tenants/enterprise-b/tenant.yaml", "enterprise-b", "enterprise-c"),
    ),
    _twin(
        "image-api-that-is-gone",
        19,
        "image.toolkit.fluxcd.io/v1beta2 is not served any more",
        "kinds-served",
        r"no schema for image\.toolkit\.fluxcd\.io/v1beta2 ImageUpdateAutomation",
        Edit(_IMAGES, "image.toolkit.fluxcd.io/v1\n", "image.toolkit.fluxcd.io/v1beta2\n"),
    ),
    _twin(
        "message-of-no-field",
        19,
        "the commit message names .NewTag, which the controller's data does not have",
        "images-are-updated",
        r"messageTemplate names \.NewTag, which is no field",
        Edit(_IMAGES, "Update the image of open-webui\n", "Update it to {{.NewTag}}\n"),
    ),
    _twin(
        "no-marker",
        19,
        "no file has a setter marker: the automation changes nothing",
        "images-are-updated",
        r"no file below flux/base/open-webui has a marker",
        Edit(f"{_BASE}/helmrelease.yaml", ' # {"$imagepolicy": "flux-system:open-webui:tag"}', ""),
    ),
    _twin(
        "marker-of-another-policy",
        19,
        "the setter marker names a policy that nobody makes",
        "images-are-updated",
        r"a marker names ImagePolicy flux-system:webui, which nobody makes",
        Edit(f"{_BASE}/helmrelease.yaml", "flux-system:open-webui:tag", "flux-system:webui:tag"),
    ),
    _twin(
        "images-past-the-proof",
        None,
        "new images are pushed to main, where nothing tests them first",
        "images-are-updated",
        r"pushes to main, past the proof",
        Edit(_IMAGES, "branch: image-updates", "branch: main"),
    ),
    _twin(
        "operator-of-another-version",
        None,
        "Flux installs another version of the External Secrets Operator than the pins name",
        "charts-are-those-of-the-pins",
        r"external-secrets is 2\.9\.1 of .*versions\.yaml has 2\.9\.0",
        Edit("flux/infrastructure/external-secrets.yaml", "version: 2.9.0", "version: 2.9.1"),
    ),
    _twin(
        "merge-deploys-nothing",
        19,
        "reconcileStrategy is left at ChartVersion: a commit deploys nothing",
        "merges-deploy",
        r"HelmRelease/lgtm in observability .*reconcileStrategy is ChartVersion",
        Edit("flux/observability/helmrelease.yaml", "      reconcileStrategy: Revision\n", ""),
    ),
    _twin(
        "store-before-its-kind",
        20,
        "nothing makes the store wait for the operator that brings its CRD",
        "crds-first",
        r"step secret-store: .*nothing makes its step wait for infrastructure",
        Edit(
            f"{_PRODUCTION}/infrastructure.yaml",
            "  dependsOn:\n    - name: infrastructure\n",
            "",
        ),
    ),
    _twin(
        "store-beside-its-kind",
        20,
        "the store is applied in the same step as the operator that brings its CRD",
        "crds-first",
        r"step infrastructure: ClusterSecretStore/.* is applied together with the CRDs",
        Edit(
            "flux/infrastructure/kustomization.yaml",
            "  - namespaces.yaml\n",
            "  - namespaces.yaml\n  - ../secret-store\n",
        ),
    ),
    _twin(
        "tenants-before-the-store",
        20,
        "the observability stack does not wait for the store of its secrets",
        "secrets-resolve",
        r"step observability: ExternalSecret/.* makes its step wait for ClusterSecretStore",
        Edit(f"{_PRODUCTION}/observability.yaml", "  dependsOn:\n    - name: secret-store\n", ""),
    ),
    _twin(
        "steps-in-a-circle",
        20,
        "two steps wait for each other: neither is ever applied",
        "dependencies-resolve",
        r"in a circle: .*secret-store",
        Edit(
            f"{_PRODUCTION}/infrastructure.yaml",
            "  name: infrastructure\n  namespace: flux-system\nspec:\n",
            "  name: infrastructure\n  namespace: flux-system\nspec:\n"
            "  dependsOn:\n    - name: secret-store\n",
        ),
    ),
    _twin(
        "step-that-waits-for-nobody",
        20,
        "a step depends on one that there is not: it is never applied",
        "dependencies-resolve",
        r"step tenants: depends on observabilty, and there is no such step",
        Edit(f"{_PRODUCTION}/tenants.yaml", "- name: observability", "- name: observabilty"),
    ),
    _twin(
        "chart-of-any-version",
        21,
        "the operator's chart is whatever is newest",
        "pinned",
        r"HelmRelease/external-secrets .*chart version '2\.x' is no single version",
        Edit("flux/infrastructure/external-secrets.yaml", "version: 2.9.0", "version: 2.x"),
    ),
    _twin(
        "chart-that-is-deprecated",
        21,
        "a chart from where nobody maintains it any more",
        "pinned",
        r"chart grafana of https://grafana\.github\.io/helm-charts is deprecated",
        Edit(
            "flux/infrastructure/external-secrets.yaml",
            "https://charts.external-secrets.io",
            "https://grafana.github.io/helm-charts",
        ),
        Edit(
            "flux/infrastructure/external-secrets.yaml",
            "chart: external-secrets\n",
            "chart: grafana\n",
        ),
    ),
    _twin(
        "image-without-a-version",
        21,
        "the application's image is whatever is newest",
        "releases-render",
        r"(?s)HelmRelease/open-webui: .*at '/openWebui/image/tag': 'not' failed",
        Edit(f"{_BASE}/helmrelease.yaml", "tag: v1.1.3", "tag: latest"),
    ),
    _twin(
        "base-from-elsewhere",
        21,
        "a kustomization fetches manifests from the network at every build",
        "builds",
        r"step infrastructure: .*is fetched at every build",
        Edit(
            "flux/infrastructure/kustomization.yaml",
            "  - external-secrets.yaml\n",
            "  - external-secrets.yaml\n"
            "  - https://github.com/external-secrets/external-secrets//config/crds/bases?ref=main\n",
        ),
    ),
    _twin(
        "rights-of-another-tenant",
        None,
        "every tenant's RoleBinding gives its rights to open-webui's ServiceAccount",
        "tenants-stay-home",
        r"RoleBinding/release in enterprise-a .*gives rights to ServiceAccount/flux of open-webui",
        Edit(
            f"{_BASE}/rbac.yaml",
            "    name: flux\n    namespace: ${NAMESPACE}",
            "    name: flux\n    namespace: open-webui",
        ),
    ),
    _twin(
        "tenant-with-the-cluster's-rights",
        None,
        "a tenant's release is installed with the rights of the cluster's administrator",
        "tenants-stay-home",
        r"HelmRelease/open-webui in enterprise-a: has no serviceAccountName",
        Edit(f"{_BASE}/helmrelease.yaml", "  serviceAccountName: flux\n", ""),
    ),
    _twin(
        "store-for-everybody",
        None,
        "every namespace of the cluster may use the store",
        "store-is-limited",
        r"ClusterSecretStore/gcp-secret-manager .*has no conditions",
        Edit(
            "flux/secret-store/cluster-secret-store.yaml",
            "  conditions:\n    - namespaceSelector:\n        matchExpressions:\n"
            "          - {key: tenant, operator: Exists}\n"
            "    - namespaces: [observability, flux-system]\n",
            "",
        ),
    ),
    _twin(
        "store-refuses-the-tenants",
        None,
        "the tenants' namespaces lack the label that the store asks for",
        "secrets-resolve",
        r"ClusterSecretStore/gcp-secret-manager does not admit the namespace enterprise-a",
        Edit(f"{_BASE}/namespace.yaml", "    tenant: ${TENANT}\n", ""),
    ),
    _twin(
        "values-do-not-follow",
        None,
        "the HelmRelease names a ConfigMap whose generated name has changed",
        "releases-render",
        r"valuesFrom names ConfigMap/lgtm-values, which is made by no step",
        Edit(
            "flux/observability/kustomization.yaml",
            "configurations:\n  - kustomizeconfig.yaml\n",
            "",
        ),
    ),
    _twin(
        "variable-of-nobody",
        None,
        "a tenant does not say its host: it becomes nothing",
        "builds",
        r"step tenant-enterprise-a: nobody defines \$\{HOST\}",
        Edit("flux/tenants/enterprise-a/tenant.yaml", "      HOST: enterprise-a.soev.ai\n", ""),
    ),
    _twin(
        "cluster-values-of-nobody",
        None,
        "a step takes its variables from a ConfigMap that nobody makes",
        "builds",
        r"substituteFrom names ConfigMap/cluster, which no earlier step makes",
        Edit(f"{_PRODUCTION}/cluster.yaml", "  name: cluster\n", "  name: clusters\n"),
    ),
    _twin(
        "alerts-without-an-address",
        None,
        "the secret with the alerts' address is made by nobody",
        "secrets-resolve",
        r"Provider/alerts .*secretRef names Secret/alert-webhook, which nobody makes",
        Edit("flux/flux-system/secrets.yaml", "    name: alert-webhook\n", "    name: alerts\n"),
    ),
    _twin(
        "alerts-to-nobody",
        None,
        "the alert names a provider that there is not",
        "sources-resolve",
        r"Alert/failures .*providerRef names Provider/alert in flux-system",
        Edit("flux/flux-system/notification.yaml", "    name: alerts\n", "    name: alert\n"),
    ),
    _twin(
        "step-that-does-not-wait",
        None,
        "a step counts as done before what it applies is healthy",
        "steps-guarded",
        r"Kustomization/observability .*wait is not true",
        Edit(f"{_PRODUCTION}/observability.yaml", "  wait: true\n", ""),
    ),
    _twin(
        "release-that-drifts",
        None,
        "what somebody changes by hand in the cluster stays",
        "steps-guarded",
        r"HelmRelease/lgtm .*driftDetection\.mode is not enabled",
        Edit("flux/observability/helmrelease.yaml", "    mode: enabled\n", "    mode: warn\n"),
    ),
    _twin(
        "namespace-without-a-guard",
        None,
        "the observability namespace accepts privileged pods",
        "namespaces-guarded",
        r"Namespace/observability .*pod-security\.kubernetes\.io/enforce is 'privileged'",
        Edit(
            "flux/infrastructure/namespaces.yaml",
            "    pod-security.kubernetes.io/enforce: restricted\n",
            "    pod-security.kubernetes.io/enforce: privileged\n",
        ),
    ),
    _twin(
        "folder-of-a-former-tenant",
        None,
        "a tenant was taken from the registry, and Flux still deploys it",
        "tenants-match",
        r"HelmRelease/open-webui in enterprise-b: no tenant in .* has this namespace",
        Edit(
            "observability/tenants.yaml",
            "  - name: enterprise-b\n    namespace: enterprise-b\n    secretPrefix: enterprise-b\n",
            "  - name: gone\n    namespace: gone\n    secretPrefix: gone\n",
        ),
    ),
    _twin(
        "prefix-that-begins-the-platforms-keys",
        None,
        "the prefix of one tenant's secrets begins a key of the platform's",
        "prefixes-are-apart",
        r"the prefix enterprise-b of its secrets begins the key enterprise-b-lgtm-",
        Edit("observability/gateway-values.yaml", "Prefix: lgtm", "Prefix: enterprise-b-lgtm"),
    ),
    _twin(
        "tenants-may-ask-for-any-key",
        None,
        "nothing keeps a tenant's namespace from asking the store for another's keys",
        "tenants-ask-for-their-own-secrets",
        r"a CREATE of it passes, though it names another's key",
        Edit("flux/secret-store/kustomization.yaml", "  - tenant-secrets.yaml\n", ""),
    ),
    _twin(
        "one-good-key-admits-the-others",
        None,
        "the rule asks for one key with the tenant's prefix, where all must have it",
        "tenants-ask-for-their-own-secrets",
        r"an? UPDATE of it passes, though it names another's key",
        Edit("flux/secret-store/tenant-secrets.yaml", "spec.data.all(", "spec.data.exists("),
    ),
    _twin(
        "store-without-a-status-is-ready",
        None,
        "the step of the store is done before the operator has looked at the store",
        "readiness-is-what-the-operator-says",
        r"external-secrets\.io/v1 ClusterSecretStore: current is True where Ready is False",
        Edit(
            "flux/clusters/production/infrastructure.yaml",
            "'Ready' && e.status == 'True'",
            "'Ready' || e.status == 'True'",
        ),
    ),
    _twin(
        "account-that-nobody-makes",
        None,
        "a tenant's release is installed as an account that there is not",
        "names-lead-somewhere",
        r"nothing gives rights to ServiceAccount/helm",
        Edit(f"{_BASE}/helmrelease.yaml", "serviceAccountName: flux", "serviceAccountName: helm"),
    ),
    _twin(
        "secret-without-the-key",
        None,
        "the secret of the alerts has another key than the one that Flux reads",
        "secrets-have-the-keys-that-are-read",
        r"Secret/alert-webhook has no key address",
        Edit("flux/flux-system/secrets.yaml", "secretKey: address", "secretKey: url"),
    ),
    _twin(
        "operator-with-a-misspelt-value",
        None,
        "a key of the operator's values is misspelt: its chart ignores it",
        "the-operator-is-set-as-its-chart-reads",
        r"the chart has no key certcontroller\.resources",
        Edit("flux/infrastructure/external-secrets.yaml", "certController:", "certcontroller:"),
    ),
    _twin(
        "store-reads-as-another-account",
        None,
        "the store uses an account that stands for nobody in GCP",
        "the-store-reads-as-the-operator",
        r"reads as default, not as external-secrets",
        Edit(
            "flux/secret-store/cluster-secret-store.yaml",
            "            name: external-secrets\n",
            "            name: default\n",
        ),
    ),
    _twin(
        "store-of-another-project",
        None,
        "the store reads from another project than the one that the tenants' keys are in",
        "the-cluster-is-one",
        r"its keys are in the project soev-ai-001, which the store is not",
        Edit(f"{_PRODUCTION}/cluster.yaml", "GCP_PROJECT: soev-ai-001", "GCP_PROJECT: soev-ai-2"),
    ),
    _twin(
        "step-gives-up-before-helm",
        None,
        "a step waits less long than the release that it applies may take",
        "everybody-waits-long-enough",
        r"gives up after 0:05:00, and HelmRelease/lgtm may take 0:10:00",
        Edit(f"{_PRODUCTION}/observability.yaml", "timeout: 15m", "timeout: 5m"),
    ),
    _twin(
        "namespace-goes-with-its-folder",
        None,
        "removing a tenant's folder deletes the namespace with all its data",
        "namespaces-with-data-stay",
        r"Namespace/open-webui .*goes with its file, and all data with it",
        Edit(f"{_BASE}/namespace.yaml", "/prune: disabled", "/prune: enabled"),
    ),
    _twin(
        "nobody-hears-of-a-failed-step",
        None,
        "no alert listens to the steps",
        "failures-are-told",
        r"no Alert listens to Kustomization in flux-system",
        Edit("flux/flux-system/notification.yaml", '    - {kind: Kustomization, name: "*"}\n', ""),
    ),
    _twin(
        "images-below-the-least",
        None,
        "the automation may go back to a version that does not start",
        "new-images-are-those-that-run",
        r"may go back below v1\.1\.3",
        Edit(_IMAGES, ">=1.1.3", ">=1.1.0"),
    ),
    _twin(
        "images-pushed-unproven",
        None,
        "new images are pushed to a branch that no workflow looks at",
        "branches-are-proven",
        r"no workflow proves what it pushes",
        Edit(_IMAGES, "branch: image-updates", "branch: new-images"),
    ),
    _twin(
        "secret-that-nobody-is-told-to-make",
        None,
        "flux/README.md names another key than the one that is asked for",
        "the-readme-is-right",
        r"does not say that somebody must make the secret flux-webhook",
        Edit("flux/flux-system/secrets.yaml", "key: flux-alert-webhook", "key: flux-webhook"),
    ),
    *RIGHTS,
)
