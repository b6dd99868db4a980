"""Faults of who a tenant is: its names, its credential, and what another's mistake costs it."""

from __future__ import annotations

from .base import Edit, Layer, Twin, edited, in_flux, in_lgtm, in_tenant, invalid


def _named(name: str, fault: str, reason: str, entry: str) -> Twin:
    """A tenant whose entry has another name, namespace or prefix."""
    key, _, _ = entry.partition(":")
    edit = Edit("observability/tenants.yaml", f"{key}: enterprise-b", entry)
    return edited(name, fault, "registry", reason, edit, layer=Layer.SCHEMA)


ACCOUNTS: tuple[Twin, ...] = (
    _named(
        "tenant-called-import",
        "a tenant has the name of a Caddy directive: the gateway does not start",
        r"name 'import' cannot be used \(the gateway, Caddy",
        "name: import",
    ),
    _named(
        "tenant-called-index",
        "a tenant has the name of the folder in which Loki keeps every tenant's index",
        r"name 'index' cannot be used \(Loki",
        "name: index",
    ),
    _named(
        "tenant-called-y",
        "a tenant's name is a truth value where Flux writes it without quotes",
        r"name 'y' cannot be used \(YAML reads it as a truth value",
        'name: "y"',
    ),
    _named(
        "tenant-whose-data-source-has-no-uid",
        "a tenant's name makes a uid that Grafana does not take, and Grafana does not start",
        r"is longer than 34 characters \(Grafana takes uids of 40",
        f"name: {'e' * 35}",
    ),
    _named(
        "tenant-in-kube-system",
        "a tenant's default-deny policy is laid over the cluster's DNS",
        r"namespace 'kube-system' cannot be used \(a namespace of Kubernetes",
        "namespace: kube-system",
    ),
    _named(
        "prefix-that-begins-like-the-platforms",
        "a tenant may ask for the key of Grafana's administrator",
        r"secretPrefix 'lgtm-grafana' cannot be used \(the platform's own keys",
        "secretPrefix: lgtm-grafana",
    ),
    _named(
        "prefix-that-begins-like-a-tenants",
        "a tenant may ask for another's keys",
        r"secretPrefix 'enterprise-a-b' begins with 'enterprise-a' of line",
        "secretPrefix: enterprise-a-b",
    ),
    invalid(
        "tenant-twice-in-the-charts-values",
        "two entries with one name, written by hand: the backends and the gateway do not start",
        r"tenants: two have the name soev",
        lgtm={
            "tenants": [
                {"name": "soev", "namespace": name, "secretPrefix": name} for name in ("a", "b")
            ]
        },
    ),
    edited(
        "something-in-a-tenants-namespace",
        "the platform runs something in a namespace that is a tenant's",
        "flux.tenants-live-alone",
        r"ServiceAccount/backups in enterprise-a .*: is in the namespace of tenant-",
        in_flux(
            "infrastructure/namespaces.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: observability\n",
            "apiVersion: v1\nkind: ServiceAccount\n"
            "metadata: {name: backups, namespace: enterprise-a}\n---\n"
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: observability\n",
        ),
    ),
    edited(
        "a-users-secret-that-must-be-there",
        "one tenant's Secret that cannot be made keeps the gateway from starting",
        "deployment.an-account-harms-its-owner-only",
        r"the gateway does not start without \S+'s Secret gateway-user-",
        in_lgtm("gateway.yaml", "                  optional: true\n", ""),
    ),
    edited(
        "all-users-in-one-secret",
        "a key of one tenant that is missing keeps every password from rotating",
        "deployment.an-account-harms-its-owner-only",
        r"soev and enterprise-a are in one Secret|a key that is missing keeps others'",
        in_lgtm(
            "gateway.yaml",
            'name: {{ printf "%s-%s" $.Values.gateway.userSecretPrefix .name | quote }}',
            "name: {{ $.Values.gateway.userSecretPrefix }}",
        ),
    ),
    edited(
        "alloy-keeps-the-old-password",
        "Alloy has its password from the environment: a rotated one needs a new pod",
        "application.alloy-passes-everything-on-as-its-tenant",
        r"reads its password from no mounted Secret: it keeps one that was rotated",
        in_tenant(
            "alloy.yaml",
            'password_file = sys.env("GATEWAY_PASSWORD_FILE")',
            'password = sys.env("GATEWAY_PASSWORD")',
        ),
    ),
    edited(
        "rotation-longer-than-alloy-waits",
        "the two sides of a password may differ for longer than a sender keeps what it sends",
        "deployment.a-rotation-is-shorter-than-the-senders-patience",
        r"soev: otelcol\.exporter\.otlphttp\.default drops .* for 1:00:00, and both sides",
        Edit("observability/gateway-values.yaml", "Interval: 15m", "Interval: 1h"),
    ),
    edited(
        "pod-logs-dropped-while-a-password-is-rotated",
        "the writer of pod logs gives up after ten tries, eight minutes",
        "deployment.a-rotation-is-shorter-than-the-senders-patience",
        r"loki\.write\.default drops what it could not send for 0:08:31",
        in_tenant(
            "alloy.yaml", '  \t\tmax_backoff_period  = "15s"\n  \t\tmax_backoff_retries = 245\n', ""
        ),
    ),
    edited(
        "reloader-that-nobody-installs",
        "pods ask Reloader to replace them when a Secret changes, and there is none",
        "flux.whoever-asks-is-reloaded",
        r"Deployment/grafana in observability .*no Reloader watches observability",
        in_flux("infrastructure/kustomization.yaml", "  - reloader.yaml\n", ""),
    ),
    edited(
        "reloader-that-does-not-look-at-tenants",
        "Reloader is installed and does not watch the tenants' namespaces",
        "flux.whoever-asks-is-reloaded",
        r"in enterprise-a .*no Reloader watches enterprise-a",
        in_flux("base/open-webui/namespace.yaml", "    reloader: watched\n", ""),
    ),
    edited(
        "reloader-that-flux-undoes",
        "Reloader marks a Deployment where Flux corrects it: each rotation rolls for ever",
        "flux.reloader-does-no-more-than-it-must",
        r"changes what Flux corrects \(reloadStrategy\)",
        in_flux("infrastructure/reloader.yaml", "      reloadStrategy: annotations\n", ""),
    ),
)
