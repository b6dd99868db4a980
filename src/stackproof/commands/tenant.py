"""Add a tenant to the registry and to the Flux tree, or remove one.

Two places change: observability/tenants.yaml, and the folder flux/tenants/NAME.
"""

from __future__ import annotations

import argparse

from stackproof.options import add_command, host_name, namespace_name, word
from stackproof.repo.checkout import Checkout

_ADD_TEXT = """\
Add a tenant: an entry in observability/tenants.yaml, and the folder flux/tenants/NAME.

Its secrets must be in the store before that is merged (flux/README.md)."""

_REMOVE_TEXT = """\
Remove a tenant's entry and its folder.

Its namespace and its data stay until somebody deletes them."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `add NAME` and `remove NAME`."""
    does = parser.add_subparsers(title="what to do", metavar="add|remove", required=True)
    add = add_command(does, "add", _ADD_TEXT)
    add.add_argument("name", type=word, help="its user at the gateway and its X-Scope-OrgID")
    add.add_argument(
        "--namespace", type=namespace_name, metavar="NAME", help="where it runs (default: NAME)"
    )
    add.add_argument(
        "--secret-prefix",
        type=word,
        metavar="PREFIX",
        help="prefix of its keys in the secret store (default: NAME)",
    )
    add.add_argument(
        "--host",
        type=host_name,
        metavar="HOST",
        help="where its users reach it (default: NAME.DOMAIN)",
    )
    add.add_argument(
        "--admin-email",
        type=word,
        metavar="ADDRESS",
        help="its first administrator's address (default: admin@HOST)",
    )
    add.set_defaults(do=_add)
    remove = add_command(does, "remove", _REMOVE_TEXT)
    remove.add_argument("name", type=word, help="the tenant's name")
    remove.set_defaults(do=_remove)


def run(args: argparse.Namespace) -> int:
    """Edit the files and say which."""
    args.do(args, Checkout.find())
    return 0


def _add(args: argparse.Namespace, checkout: Checkout) -> None:
    from stackproof.flux import tenancy
    from stackproof.flux import tenant as folders
    from stackproof.repo.tenants import load_registry

    registry = load_registry(checkout)
    namespace, prefix = args.namespace or args.name, args.secret_prefix or args.name
    host = args.host or folders.default_host(checkout, args.name)
    admin = args.admin_email or f"admin@{host}"
    folders.check_address(admin)
    if args.name not in registry.names:
        folders.check_new(checkout, args.name, host)
    registry = registry.add(args.name, namespace, prefix)
    try:
        tenancy.check_free(checkout, namespace, host)
        folder = folders.write(checkout, registry.get(args.name), host, admin)
    except BaseException:  # Ctrl-C as well: half a tenant would have a password and no application
        folders.remove(checkout, args.name)
        registry.remove(args.name)
        raise
    print(f"{checkout.show(checkout.tenants_file)}: {', '.join(registry.names)}")
    print(f"{checkout.show(folder)}/tenant.yaml: https://{host}, namespace {namespace}, {admin}")
    print(f"Its secrets ({prefix}-…) must be in the store before this is merged: flux/README.md.")


def _remove(args: argparse.Namespace, checkout: Checkout) -> None:
    from stackproof.flux import tenant as folders
    from stackproof.repo.tenants import load_registry

    registry = load_registry(checkout)
    namespace = registry.get(args.name).namespace
    registry = registry.remove(args.name)
    folder = folders.remove(checkout, args.name)
    print(f"{checkout.show(checkout.tenants_file)}: {', '.join(registry.names) or 'no tenants'}")
    if folder:
        print(f"{checkout.show(folder)}: removed")
    print(f"The namespace {namespace} and its data stay until somebody deletes them.")
