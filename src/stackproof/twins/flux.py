"""Faults that building the Flux tree shows, before anything reaches a cluster."""

from __future__ import annotations

from .base import Edit, Twin, edited, in_flux, in_lgtm, in_tenant
from .rights import RIGHTS

_HEALTH_OF_SECRETS = """\
    - apiVersion: external-secrets.io/v1
      kind: ExternalSecret
"""
_CLEANUP = """\
  upgrade:
    cleanupOnFail: true
"""
_FLUX_KUSTOMIZATION = """\
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: infrastructure
  namespace: flux-system
spec:
  path: ./flux/infrastructure
"""


FLUX: tuple[Twin, ...] = (
    edited(
        "store-of-a-version-that-is-gone",
        "external-secrets.io/v1beta1 is not served any more",
        "flux.kinds-served",
        r"no schema for external-secrets\.io/v1beta1 ClusterSecretStore",
        in_flux("secret-store/cluster-secret-store.yaml", "-secrets.io/v1", "-secrets.io/v1beta1"),
        number=13,
    ),
    edited(
        "store-in-every-release",
        "the application's chart makes a cluster-wide store of a fixed name: the second collides",
        "flux.objects-have-one-owner",
        r"ClusterSecretStore/gcp-secret-manager is applied by .* and by HelmRelease/open-webui in",
        in_tenant(
            "services.yaml",
            '{{- range (include "open-webui-stack.components"',
            "apiVersion: external-secrets.io/v1\nkind: ClusterSecretStore\n"
            "metadata: {name: gcp-secret-manager}\n"
            "spec: {provider: {gcpsm: {projectID: soev-ai-001}}}\n"
            '{{- range (include "open-webui-stack.components"',
        ),
        number=14,
    ),
    edited(
        "store-made-by-a-tenant",
        "a tenant's release makes an object of the whole cluster",
        "flux.tenants-stay-home",
        r"ClusterSecretStore/mine .*an object of the whole cluster",
        in_tenant(
            "services.yaml",
            '{{- range (include "open-webui-stack.components"',
            "apiVersion: external-secrets.io/v1\nkind: ClusterSecretStore\n"
            "metadata: {name: mine}\n"
            "spec: {provider: {gcpsm: {projectID: soev-ai-001}}}\n"
            '{{- range (include "open-webui-stack.components"',
        ),
        number=14,
    ),
    edited(
        "tenants-read-the-same-secrets",
        "two tenants read the same remote keys",
        "flux.tenants-share-nothing",
        r"remote key open-webui-gateway-password is used by several tenants: enterprise-a, open-",
        in_flux(
            "tenants/enterprise-a/tenant.yaml",
            "SECRET_PREFIX: enterprise-a",
            "SECRET_PREFIX: open-webui",
        ),
        number=14,
    ),
    edited(
        "stack-waits-for-every-tenant's-secret",
        "one tenant's password that cannot be hashed undoes each upgrade of the backends of all",
        "flux.releases-wait-for-no-store",
        r"HelmRelease/lgtm in observability: waits for ExternalSecret/gateway-user-soev",
        in_flux(
            "observability/helmrelease.yaml",
            f"  healthCheckExprs:\n{_HEALTH_OF_SECRETS}      current: 'true'\n",
            "",
        ),
    ),
    edited(
        "tenants-wait-for-the-store",
        "while the store of secrets does not answer, each upgrade of each tenant is undone",
        "flux.releases-wait-for-no-store",
        r"HelmRelease/open-webui in enterprise-a: waits for ExternalSecret/open-webui-secrets",
        in_flux(
            "base/open-webui/helmrelease.yaml",
            f"{_HEALTH_OF_SECRETS}      current: 'true'\n",
            f"{_HEALTH_OF_SECRETS}      current: status.conditions.exists("
            "e, e.type == 'Ready' && e.status == 'True')\n",
        ),
    ),
    edited(
        "flux-kustomization-in-kustomization-yaml",
        "a Flux Kustomization in a file called kustomization.yaml: kustomize takes it for its own",
        "flux.builds",
        r"(?s)step infrastructure: .*apiVersion for Kustomization should be kustomize\.config",
        in_flux(
            "infrastructure/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n",
            _FLUX_KUSTOMIZATION,
        ),
        number=17,
    ),
    edited(
        "operator-is-not-deployed",
        "External Secrets is used, and nothing in the tree deploys it",
        "flux.crds-first",
        r"no step installs the CRDs of external-secrets\.io",
        in_flux("infrastructure/kustomization.yaml", "  - external-secrets.yaml\n", ""),
        number=18,
    ),
    edited(
        "secrets-go-with-their-operator",
        "the operator's CRDs are deleted with its release: so are all ExternalSecrets, and Secrets",
        "flux.the-operator-is-set-as-its-chart-reads",
        r"HelmRelease/external-secrets .*an uninstall deletes its CRDs, and with them every E",
        in_flux("infrastructure/external-secrets.yaml", "helm.sh/resource-policy: keep", "a: b"),
    ),
    edited(
        "operator-goes-with-everything",
        "a reverted merge removes the operator beside the ExternalSecrets that wait for it",
        "flux.operators-outlive-what-waits-for-them",
        r"HelmRelease/external-secrets .*: goes with its step, together with \d+ objects",
        in_flux(
            "clusters/production/infrastructure.yaml", "deletionPolicy: Orphan", "force: false"
        ),
    ),
    edited(
        "stack-is-not-deployed",
        "the HelmRelease of the observability stack is in no kustomization",
        "flux.files-referenced",
        r"flux/observability/helmrelease\.yaml: nothing that Flux applies refers to this file",
        in_flux("observability/kustomization.yaml", "  - helmrelease.yaml\n", ""),
        number=18,
    ),
    edited(
        "image-automation-is-not-applied",
        "image-automation.yaml is in no kustomization",
        "flux.files-referenced",
        r"flux/flux-system/image-automation\.yaml: nothing that Flux applies refers to this file",
        in_flux("flux-system/kustomization.yaml", "  - image-automation.yaml\n", ""),
        number=18,
    ),
    edited(
        "production-values-are-not-used",
        "no HelmRelease names values-prod.yaml",
        "flux.files-referenced",
        r"charts/open-webui-stack/values-prod\.yaml: nothing that Flux applies refers",
        in_flux(
            "base/open-webui/kustomization.yaml",
            "      - ../../../charts/open-webui-stack/values-prod.yaml\n",
            "",
        ),
        number=18,
    ),
    edited(
        "namespace-of-nobody",
        "nothing creates the tenants' namespaces",
        "flux.namespaces-first",
        r"nobody creates the namespace enterprise-a",
        in_flux("base/open-webui/kustomization.yaml", "  - namespace.yaml\n", ""),
        number=18,
    ),
    edited(
        "tenant-without-a-folder",
        "a tenant in the list that Flux does not deploy",
        "flux.tenants-match",
        r"no step deploys tenant enterprise-b into namespace enterprise-b",
        in_flux("tenants/enterprise-b/tenant.yaml", "enterprise-b", "enterprise-c"),
        number=18,
    ),
    edited(
        "image-api-that-is-gone",
        "image.toolkit.fluxcd.io/v1beta2 is not served any more",
        "flux.kinds-served",
        r"no schema for image\.toolkit\.fluxcd\.io/v1beta2 ImageUpdateAutomation",
        in_flux(
            "flux-system/image-automation.yaml",
            "image.toolkit.fluxcd.io/v1\n",
            "image.toolkit.fluxcd.io/v1beta2\n",
        ),
        number=19,
    ),
    edited(
        "message-of-no-field",
        "the commit message names .NewTag, which the controller's data does not have",
        "flux.images-are-updated",
        r"messageTemplate names \.NewTag, which is no field",
        in_flux(
            "flux-system/image-automation.yaml",
            "Update the image of open-webui\n",
            "Update it to {{.NewTag}}\n",
        ),
        number=19,
    ),
    edited(
        "no-marker",
        "no file has a setter marker: the automation changes nothing",
        "flux.images-are-updated",
        r"no file below flux/base/open-webui has a marker",
        in_flux(
            "base/open-webui/helmrelease.yaml",
            ' # {"$imagepolicy": "flux-system:open-webui:tag"}',
            "",
        ),
        number=19,
    ),
    edited(
        "marker-of-another-policy",
        "the setter marker names a policy that does not exist",
        "flux.images-are-updated",
        r"a marker names ImagePolicy flux-system:webui, which nobody makes",
        in_flux(
            "base/open-webui/helmrelease.yaml",
            "flux-system:open-webui:tag",
            "flux-system:webui:tag",
        ),
        number=19,
    ),
    edited(
        "images-past-the-proof",
        "new images are pushed to main, where nothing tests them first",
        "flux.images-are-updated",
        r"pushes to main, past the proof",
        in_flux("flux-system/image-automation.yaml", "branch: image-updates", "branch: main"),
    ),
    edited(
        "operator-of-another-version",
        "Flux installs another version of the External Secrets Operator than the pins name",
        "flux.charts-are-those-of-the-pins",
        r"external-secrets is 2\.9\.1 of .*versions\.yaml has 2\.9\.0",
        in_flux("infrastructure/external-secrets.yaml", "version: 2.9.0", "version: 2.9.1"),
    ),
    edited(
        "merge-deploys-nothing",
        "a chart is changed and its version is not: the commit deploys nothing",
        "flux.merges-deploy",
        r"lgtm/Chart\.yaml: version is .* the chart was changed and nothing of it",
        in_lgtm("gateway.yaml", "kind: Deployment\n", "kind: Deployment\n\n"),
        number=19,
    ),
    edited(
        "values-deploy-nothing",
        "values come from valuesFiles of a chart whose version they do not change",
        "flux.merges-deploy",
        r"HelmRelease/lgtm in observability .*valuesFiles are read only when",
        in_flux(
            "observability/helmrelease.yaml",
            "      reconcileStrategy: ChartVersion\n",
            "      valuesFiles: [./charts/lgtm/values.yaml, ./observability/loki-values.yaml]\n",
        ),
        number=19,
    ),
    edited(
        "docs-upgrade-everything",
        "reconcileStrategy is Revision: every commit upgrades every tenant's release",
        "flux.merges-deploy",
        r"HelmRelease/open-webui in enterprise-a .*reconcileStrategy is Revision",
        in_flux(
            "base/open-webui/helmrelease.yaml", "Strategy: ChartVersion\n", "Strategy: Revision\n"
        ),
    ),
    edited(
        "values-keep-their-name",
        "the ConfigMap of a tenant's values has the same name whatever it holds",
        "flux.merges-deploy",
        r"ConfigMap/values keeps its name when a value changes",
        in_flux(
            "base/open-webui/kustomization.yaml",
            "  - name: values\n",
            "  - name: values\n    options: {disableNameSuffixHash: true}\n",
        ),
    ),
    edited(
        "store-before-its-kind",
        "nothing makes the store wait for the operator that brings its CRD",
        "flux.crds-first",
        r"step secret-store: .*nothing makes its step wait for infrastructure",
        in_flux(
            "clusters/production/infrastructure.yaml",
            "  dependsOn:\n    - name: infrastructure\n",
            "",
        ),
        number=20,
    ),
    edited(
        "store-beside-its-kind",
        "the store is applied in the same step as the operator that brings its CRD",
        "flux.crds-first",
        r"step infrastructure: ClusterSecretStore/.* is applied together with the CRDs",
        in_flux(
            "infrastructure/kustomization.yaml",
            "  - namespaces.yaml\n",
            "  - namespaces.yaml\n  - ../secret-store\n",
        ),
        number=20,
    ),
    edited(
        "tenants-before-the-store",
        "the observability stack does not wait for the store of its secrets",
        "flux.secrets-resolve",
        r"step observability: ExternalSecret/.* makes its step wait for ClusterSecretStore",
        in_flux(
            "clusters/production/observability.yaml", "  dependsOn:\n    - name: secret-store\n", ""
        ),
        number=20,
    ),
    edited(
        "steps-in-a-circle",
        "two steps wait for each other: neither is ever applied",
        "flux.dependencies-resolve",
        r"in a circle: .*secret-store",
        in_flux(
            "clusters/production/infrastructure.yaml",
            "  name: infrastructure\n  namespace: flux-system\nspec:\n",
            "  name: infrastructure\n  namespace: flux-system\nspec:\n"
            "  dependsOn:\n    - name: secret-store\n",
        ),
        number=20,
    ),
    edited(
        "step-that-waits-for-nobody",
        "a step depends on one that does not exist: it is never applied",
        "flux.dependencies-resolve",
        r"step tenants: depends on observabilty, and there is no such step",
        in_flux(
            "clusters/production/tenants.yaml", "- name: observability", "- name: observabilty"
        ),
        number=20,
    ),
    edited(
        "chart-of-any-version",
        "the operator's chart is whatever is newest",
        "flux.pinned",
        r"HelmRelease/external-secrets .*chart version '2\.x' is no single version",
        in_flux("infrastructure/external-secrets.yaml", "version: 2.9.0", "version: 2.x"),
        number=21,
    ),
    edited(
        "chart-that-is-deprecated",
        "a chart from a repository that is no longer maintained",
        "flux.pinned",
        r"chart grafana of https://grafana\.github\.io/helm-charts is deprecated",
        in_flux(
            "infrastructure/external-secrets.yaml",
            "https://charts.external-secrets.io",
            "https://grafana.github.io/helm-charts",
        ),
        in_flux(
            "infrastructure/external-secrets.yaml", "chart: external-secrets\n", "chart: grafana\n"
        ),
        number=21,
    ),
    edited(
        "image-without-a-version",
        "the application's image is whatever is newest",
        "flux.releases-render",
        r"(?s)HelmRelease/open-webui: .*at '/openWebui/image/tag': 'not' failed",
        in_flux("base/open-webui/helmrelease.yaml", "tag: v1.1.3", "tag: latest"),
        number=21,
    ),
    edited(
        "base-from-elsewhere",
        "a kustomization fetches manifests from the network at every build",
        "flux.builds",
        r"step infrastructure: .*is fetched at every build",
        in_flux(
            "infrastructure/kustomization.yaml",
            "  - external-secrets.yaml\n",
            "  - external-secrets.yaml\n"
            "  - https://github.com/external-secrets/external-secrets//config/crds/bases?ref=main\n",
        ),
        number=21,
    ),
    edited(
        "rights-of-another-tenant",
        "every tenant's RoleBinding gives its rights to open-webui's ServiceAccount",
        "flux.tenants-stay-home",
        r"RoleBinding/release in enterprise-a .*gives rights to ServiceAccount/flux of open-webui",
        in_flux(
            "base/open-webui/rbac.yaml",
            "    name: flux\n    namespace: ${NAMESPACE}",
            "    name: flux\n    namespace: open-webui",
        ),
    ),
    edited(
        "tenant-with-the-cluster's-rights",
        "a tenant's release is installed with the rights of the cluster's administrator",
        "flux.tenants-stay-home",
        r"HelmRelease/open-webui in enterprise-a: has no serviceAccountName",
        in_flux("base/open-webui/helmrelease.yaml", "  serviceAccountName: flux\n", ""),
    ),
    edited(
        "store-for-everybody",
        "every namespace of the cluster may use the store",
        "flux.store-is-limited",
        r"ClusterSecretStore/gcp-secret-manager .*has no conditions",
        in_flux(
            "secret-store/cluster-secret-store.yaml",
            "  conditions:\n    - namespaceSelector:\n        matchExpressions:\n"
            "          - {key: tenant, operator: Exists}\n"
            "    - namespaces: [observability, flux-system]\n",
            "",
        ),
    ),
    edited(
        "store-refuses-the-tenants",
        "the tenants' namespaces lack the label that the store asks for",
        "flux.secrets-resolve",
        r"ClusterSecretStore/gcp-secret-manager does not admit the namespace enterprise-a",
        in_flux("base/open-webui/namespace.yaml", "    tenant: ${TENANT}\n", ""),
    ),
    edited(
        "values-do-not-follow",
        "the HelmRelease names a ConfigMap whose generated name has changed",
        "flux.releases-render",
        r"valuesFrom names ConfigMap/lgtm-values, which is made by no step",
        in_flux(
            "observability/kustomization.yaml", "configurations:\n  - kustomizeconfig.yaml\n", ""
        ),
    ),
    edited(
        "variable-of-nobody",
        "a tenant does not set its host, which becomes empty",
        "flux.builds",
        r"step tenant-enterprise-a: \$\{HOST\} is undefined",
        in_flux("tenants/enterprise-a/tenant.yaml", "      HOST: enterprise-a.soev.ai\n", ""),
    ),
    edited(
        "cluster-values-of-nobody",
        "a step takes its variables from a ConfigMap that nothing makes",
        "flux.builds",
        r"substituteFrom names ConfigMap/cluster, which no earlier step makes",
        in_flux("clusters/production/cluster.yaml", "  name: cluster\n", "  name: clusters\n"),
    ),
    edited(
        "alerts-without-an-address",
        "nothing makes the secret with the alerts' address",
        "flux.secrets-resolve",
        r"Provider/alerts .*secretRef names Secret/alert-webhook, which nobody makes",
        in_flux("flux-system/secrets.yaml", "    name: alert-webhook\n", "    name: alerts\n"),
    ),
    edited(
        "alerts-to-nobody",
        "the alert names a provider that does not exist",
        "flux.sources-resolve",
        r"Alert/failures .*providerRef names Provider/alert in flux-system",
        in_flux("flux-system/notification.yaml", "    name: alerts\n", "    name: alert\n"),
    ),
    edited(
        "step-that-does-not-wait",
        "a step counts as done before what it applies is healthy",
        "flux.steps-guarded",
        r"Kustomization/observability .*wait is not true",
        in_flux("clusters/production/observability.yaml", "  wait: true\n", ""),
    ),
    edited(
        "release-that-drifts",
        "what somebody changes by hand in the cluster stays",
        "flux.steps-guarded",
        r"HelmRelease/lgtm .*driftDetection\.mode is not enabled",
        in_flux("observability/helmrelease.yaml", "    mode: enabled\n", "    mode: warn\n"),
    ),
    edited(
        "namespace-without-a-guard",
        "the observability namespace accepts privileged pods",
        "flux.namespaces-guarded",
        r"Namespace/observability .*pod-security\.kubernetes\.io/enforce is 'privileged'",
        in_flux("infrastructure/namespaces.yaml", "enforce: restricted\n", "enforce: privileged\n"),
    ),
    edited(
        "folder-of-a-former-tenant",
        "a tenant was removed from the list, and Flux still deploys it",
        "flux.tenants-match",
        r"HelmRelease/open-webui in enterprise-b: no tenant in .* has this namespace",
        Edit(
            "observability/tenants.yaml",
            "  - name: enterprise-b\n    namespace: enterprise-b\n    secretPrefix: enterprise-b\n",
            "  - name: gone\n    namespace: gone\n    secretPrefix: gone\n",
        ),
    ),
    edited(
        "prefix-that-begins-the-platforms-keys",
        "the prefix of one tenant's secrets begins a key of the platform's",
        "flux.prefixes-are-apart",
        r"the prefix enterprise-b of its secrets begins the key enterprise-b-lgtm-",
        Edit("observability/gateway-values.yaml", "Prefix: lgtm", "Prefix: enterprise-b-lgtm"),
    ),
    edited(
        "tenants-may-ask-for-any-key",
        "nothing keeps a tenant's namespace from asking the store for another's keys",
        "flux.tenants-ask-for-their-own-secrets",
        r"a CREATE of it passes, though it names another's key",
        in_flux("secret-store/kustomization.yaml", "  - tenant-secrets.yaml\n", ""),
    ),
    edited(
        "one-good-key-admits-the-others",
        "the rule asks for one key with the tenant's prefix, where all must have it",
        "flux.tenants-ask-for-their-own-secrets",
        r"an? UPDATE of it passes, though it names another's key",
        in_flux("secret-store/tenant-secrets.yaml", "spec.data.all(", "spec.data.exists("),
    ),
    edited(
        "store-without-a-status-is-ready",
        "the step of the store is done before the operator has looked at the store",
        "flux.readiness-is-what-the-operator-says",
        r"external-secrets\.io/v1 ClusterSecretStore: current is True where Ready is False",
        in_flux(
            "clusters/production/infrastructure.yaml",
            "'Ready' && e.status == 'True'",
            "'Ready' || e.status == 'True'",
        ),
    ),
    edited(
        "account-that-nobody-makes",
        "a tenant's release is installed as an account that does not exist",
        "flux.names-lead-somewhere",
        r"nothing gives rights to ServiceAccount/helm",
        in_flux(
            "base/open-webui/helmrelease.yaml",
            "serviceAccountName: flux",
            "serviceAccountName: helm",
        ),
    ),
    edited(
        "secret-without-the-key",
        "the secret of the alerts has another key than the one that Flux reads",
        "flux.secrets-have-the-keys-that-are-read",
        r"Secret/alert-webhook has no key address",
        in_flux("flux-system/secrets.yaml", "secretKey: address", "secretKey: url"),
    ),
    edited(
        "operator-with-a-misspelt-value",
        "a key of the operator's values is misspelt: its chart ignores it",
        "flux.the-operator-is-set-as-its-chart-reads",
        r"the chart has no key certcontroller\.resources",
        in_flux("infrastructure/external-secrets.yaml", "certController:", "certcontroller:"),
    ),
    edited(
        "store-reads-as-another-account",
        "the store uses an account without a counterpart in GCP",
        "flux.the-store-reads-as-the-operator",
        r"reads as default, not as external-secrets",
        in_flux(
            "secret-store/cluster-secret-store.yaml",
            "            name: external-secrets\n",
            "            name: default\n",
        ),
    ),
    edited(
        "store-of-another-project",
        "the store reads from another project than the one that the tenants' keys are in",
        "flux.the-cluster-is-one",
        r"its keys are in the project soev-ai-001, which the store is not",
        in_flux(
            "clusters/production/cluster.yaml", "GCP_PROJECT: soev-ai-001", "GCP_PROJECT: soev-ai-2"
        ),
    ),
    edited(
        "step-gives-up-before-helm",
        "a step waits for less time than its release may take",
        "flux.everybody-waits-long-enough",
        r"gives up after 0:05:00, and HelmRelease/lgtm may take 0:10:00",
        in_flux("clusters/production/observability.yaml", "timeout: 15m", "timeout: 5m"),
    ),
    edited(
        "failed-merge-takes-the-secrets",
        "a first upgrade that is late deletes its ExternalSecrets, and the Secrets with them",
        "flux.what-failed-keeps-what-it-made",
        r"HelmRelease/open-webui in open-webui .*: a failed upgrade deletes what it made",
        in_flux("base/open-webui/helmrelease.yaml", "  upgrade:\n", _CLEANUP),
    ),
    edited(
        "namespace-goes-with-its-folder",
        "removing a tenant's folder deletes the namespace with all its data",
        "flux.namespaces-with-data-stay",
        r"Namespace/open-webui .*goes with its file, and all data with it",
        in_flux("base/open-webui/namespace.yaml", "/prune: disabled", "/prune: enabled"),
    ),
    edited(
        "nobody-hears-of-a-failed-step",
        "no alert listens to the steps",
        "flux.failures-are-told",
        r"no Alert listens to Kustomization in flux-system",
        in_flux("flux-system/notification.yaml", '    - {kind: Kustomization, name: "*"}\n', ""),
    ),
    edited(
        "images-below-the-least",
        "the automation may go back to a version that does not start",
        "flux.new-images-are-those-that-run",
        r"may go back below v1\.1\.3",
        in_flux("flux-system/image-automation.yaml", ">=1.1.3", ">=1.1.0"),
    ),
    edited(
        "images-pushed-unproven",
        "new images are pushed to a branch that no workflow looks at",
        "flux.branches-are-proven",
        r"no workflow proves what it pushes",
        in_flux("flux-system/image-automation.yaml", "branch: image-updates", "branch: new-images"),
    ),
    edited(
        "secret-that-nobody-is-told-to-make",
        "flux/README.md names another key than the one that is asked for",
        "flux.the-readme-is-right",
        r"does not say that somebody must make the secret flux-webhook",
        in_flux("flux-system/secrets.yaml", "key: flux-alert-webhook", "key: flux-webhook"),
    ),
    *RIGHTS,
)
