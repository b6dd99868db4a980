"""A tenant's folder in the Flux tree: `flux/tenants/NAME/tenant.yaml`."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import yaml

from stackproof.errors import StackproofError, UsageError
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import Tenant

_TEMPLATE = """\
# Tenant {name}: flux/base/open-webui with these values. Its entry is in observability/tenants.yaml.
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: tenant-{name}
  namespace: flux-system
spec:
  interval: 10m
  retryInterval: 1m
  timeout: 15m
  sourceRef:
    kind: GitRepository
    name: flux-system
  path: ./flux/base/open-webui
  prune: true
  wait: true
  postBuild:
    substitute:
      TENANT: {name}
      NAMESPACE: {namespace}
      SECRET_PREFIX: {prefix}
      SERVICE_NAME: {service}
      HOST: {host}
      ADMIN_EMAIL: {admin}
"""


def folder(checkout: Checkout, name: str) -> Path:
    """Return where a tenant's folder is, or would be."""
    return checkout.flux / "tenants" / name


def default_host(checkout: Checkout, name: str) -> str:
    """Return the host of a tenant that names none: NAME.DOMAIN, with the cluster's own DOMAIN.

    Raises:
        StackproofError: The cluster has no DOMAIN.
    """
    path = checkout.flux / "clusters" / "production" / "cluster.yaml"
    try:
        data = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)["data"]
        return f"{name}.{data['DOMAIN']}".replace("\n", "")  # as Flux does
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise StackproofError(
            "has no data.DOMAIN", where=checkout.show(path), todo="Name the host: --host."
        ) from None


def check_new(checkout: Checkout, name: str, host: str) -> None:
    """Raise where a tenant's folder is there already, or could not say what it must."""
    there = folder(checkout, name)
    if there.exists():
        raise StackproofError(
            "is there already",
            where=checkout.show(there),
            todo="The registry does not know it: remove the folder, then try again.",
        )
    # Flux puts it into YAML as it stands, without quotes. The registry looks at all other names.
    if not _is_text(host):
        raise UsageError(
            f"{host!r} is not text to YAML, where Flux writes it without quotes",
            todo="Name another host: --host.",
        )


def check_address(address: str) -> None:
    """Raise where an administrator's address is none, as the application takes it.

    Raises:
        UsageError: It is no `NAME@HOST`.
    """
    # Flux writes it without quotes: nothing in it that YAML could take for something else.
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", address):
        raise UsageError(
            f"{address!r} is not an e-mail address", todo="Name one: --admin-email NAME@HOST."
        )


def _is_text(value: str) -> bool:
    """Tell whether YAML 1.1 and 1.2 both read a plain word as text: 1e3 is a number to one only."""
    if value[:1].isdigit():
        with contextlib.suppress(ValueError):
            float(value)
            return False
    return bool(yaml.load(value, Loader=yaml.CSafeLoader) == value)


def write(checkout: Checkout, tenant: Tenant, host: str, admin: str) -> Path:
    """Write a tenant's folder and return it."""
    there = folder(checkout, tenant.name)
    there.mkdir(parents=True)
    text = _TEMPLATE.format(
        name=tenant.name,
        namespace=tenant.namespace,
        prefix=tenant.secret_prefix,
        service=f"open-webui-{tenant.name}",
        host=host,
        admin=admin,
    )
    (there / "tenant.yaml").write_text(text, encoding="utf-8")
    return there


def remove(checkout: Checkout, name: str) -> Path | None:
    """Remove a tenant's folder and return where it was; None where there is none."""
    there = folder(checkout, name)
    if not there.is_dir():
        return None
    shutil.rmtree(there)
    return there
