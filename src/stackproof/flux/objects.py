"""What Flux applies, as objects: their identities, and what is found among them."""

from __future__ import annotations

import base64
import binascii
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from stackproof.helm import renderer, schema
from stackproof.helm.manifests import Manifest
from stackproof.repo.checkout import Checkout

FLUX_NAMESPACE = "flux-system"
BOOTSTRAP = "flux-system"
"""Name of the GitRepository, the Kustomization and the Secret that `flux bootstrap` makes."""
_FLUX_GROUPS = "toolkit.fluxcd.io"
#: What decides what else is applied: it must be as the API server takes it.
_FOLLOWED = {
    **dict.fromkeys(("Kustomization", "HelmRelease", "HelmChart", "GitRepository"), _FLUX_GROUPS),
    "ExternalSecret": "external-secrets.io",
}
#: How SOPS writes a value.
_ENCRYPTED = "ENC["

Key = tuple[str, str, str | None, str]
"""API group, kind, namespace and name: what an object is to the cluster."""


def group_of(manifest: Manifest) -> str:
    """Return the API group of an object, "" for the core group."""
    return manifest.api_version.rpartition("/")[0]


def key_of(manifest: Manifest) -> Key:
    """Return what identifies an object in the cluster."""
    return group_of(manifest), manifest.kind, manifest.namespace or None, manifest.name


def usable(manifest: Manifest) -> bool:
    """Tell whether an object that decides what else is applied can be followed; others can."""
    return not _is_followed(manifest) or (schemas().knows(manifest) and not refused(manifest))


def refused(manifest: Manifest) -> list[str]:
    """Return why the API server would not take an object that decides what else is applied.

    Flux serves the versions of its own kinds that have a schema here, and no others. Of another
    operator's kinds, an older version is only not understood.
    """
    own = group_of(manifest).endswith(_FLUX_GROUPS)
    if not _is_followed(manifest) or not (own or schemas().knows(manifest)):
        return []
    return [str(problem) for problem in schemas().check(manifest)]


def _is_followed(manifest: Manifest) -> bool:
    return group_of(manifest).endswith(_FOLLOWED.get(manifest.kind, " "))


@cache
def schemas() -> schema.Schemas:
    """Return what Kubernetes, Flux and the operators here take."""
    return schema.schemas(renderer.newest_kubernetes(), Checkout.own().root / "schemas")


@dataclass(frozen=True)
class Held:
    """What a ConfigMap or a Secret holds.

    Args:
        texts: By key; None for what cannot be read here: it is encrypted, or in a store.
        is_open: Whether there may be more, whose names only the cluster knows.
    """

    texts: Mapping[str, str | None]
    is_open: bool = False


def texts(found: Manifest) -> dict[str, str | None]:
    """Return what a ConfigMap or a Secret holds, as text; what is no text is left out."""
    plain = _strings(found.get("stringData")) if found.kind == "Secret" else {}
    for key, value in _strings(found.get("data")).items():
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            coded = found.kind == "Secret" and not value.startswith(_ENCRYPTED)
            text = base64.b64decode(value, validate=True).decode() if coded else value
            plain.setdefault(key, text)
    return {key: None if value.startswith(_ENCRYPTED) else value for key, value in plain.items()}


def _strings(held: object) -> dict[str, str]:
    if not isinstance(held, Mapping):
        return {}
    return {key: value for key, value in held.items() if isinstance(value, str)}


class Lookup(ABC):
    """What the steps built so far apply themselves, and what is found among it.

    Attributes:
        checkout: Whose files they are built from.
    """

    checkout: Checkout

    @property
    @abstractmethod
    def objects(self) -> tuple[Manifest, ...]:
        """What the steps apply themselves, in order."""

    def find(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """Return an object that a step applies itself, None if none does."""
        wanted = kind, namespace, name
        for manifest in self.objects:
            if (manifest.kind, manifest.namespace or None, manifest.name) == wanted:
                return manifest
        return None

    def held(self, kind: str, namespace: str | None, name: str) -> Held | None:
        """Return what a ConfigMap or a Secret holds, None where no step has it made."""
        if found := self.find(kind, namespace, name):
            return Held(texts(found))
        makers = [one for one in self.objects if _makes_secret(one, namespace, name)]
        if kind != "Secret" or not makers:
            return None
        keys = [_keys_of_secret(one) for one in makers]
        return Held({key: None for some in keys for key in some or ()}, None in keys)

    def is_repository(self, reference: Mapping[str, Any], namespace: str) -> bool:
        """Tell whether a `sourceRef` is this repository, at the commit that Flux starts from."""
        where = reference.get("namespace") or namespace
        if (where, reference.get("name")) == (FLUX_NAMESPACE, BOOTSTRAP):
            return True  # of whatever kind: flux-operator bootstraps from an OCIRepository
        if reference.get("kind") != "GitRepository":
            return False
        own = self.find("GitRepository", FLUX_NAMESPACE, BOOTSTRAP)
        other = self.find("GitRepository", where, str(reference.get("name")))
        return own is not None and other is not None and _fetched(own) == _fetched(other)

    def ignore(self, reference: Mapping[str, Any], namespace: str) -> str | None:
        """Return what the source that a `sourceRef` names says of files to leave out."""
        found: str | None = self._source(reference, namespace).get("ignore")
        return found

    def unfetched(
        self, reference: Mapping[str, Any], namespace: str, names: Iterable[str]
    ) -> tuple[str, ...]:
        """Return those of some files that the source that a `sourceRef` names does not check out.

        As go-git (`SkipUnless`): a file is there where its name begins with one of the folders'.
        """
        folders = self._source(reference, namespace).get("sparseCheckout")
        if not folders:
            return ()
        there = tuple(each.removeprefix("./") for each in folders)
        return tuple(name for name in names if not name.startswith(there))

    def _source(self, reference: Mapping[str, Any], namespace: str) -> Mapping[str, Any]:
        """Return the spec of the source that a `sourceRef` names, empty where it is not here."""
        where = reference.get("namespace") or namespace
        source = self.find("GitRepository", where, str(reference.get("name")))
        return source["spec"] if source and usable(source) else {}


def _fetched(source: Manifest) -> tuple[Any, ...]:
    """Return what a GitRepository fetches: the address as every protocol has it, and what of it."""
    spec = source["spec"] if usable(source) else {}
    url = str(spec.get("url") or "").removesuffix("/").removesuffix(".git")
    address = url.rpartition("@")[2].rpartition("://")[2].replace(":", "/").lower()
    return address, *(spec.get(field) for field in ("ref", "include", "sparseCheckout"))


#: Kinds of which an operator makes Secrets, and where such an object describes the Secret.
_SECRET_MAKERS = {
    ("external-secrets.io", "ExternalSecret"): (),
    ("external-secrets.io", "ClusterExternalSecret"): ("externalSecretSpec",),
    ("bitnami.com", "SealedSecret"): (),
}


def _makes_secret(one: Manifest, namespace: str | None, name: str) -> bool:
    """Tell whether an object has an operator make this Secret."""
    if (group_of(one), one.kind) not in _SECRET_MAKERS:
        return False
    described = _described(one)
    named = (
        dug(described, "target", "name"),
        dug(described, "template", "metadata", "name"),
        dug(one, "spec", "externalSecretName"),
        one.name,
    )
    there = one.kind == "ClusterExternalSecret" or (one.namespace or None) == namespace
    return there and next(filter(None, named)) == name


def _keys_of_secret(one: Manifest) -> set[str] | None:
    """Return the keys of the Secret that is made of an object, None where only the store knows."""
    described = _described(one)
    if one.kind == "SealedSecret":
        return set(dug(described, "encryptedData") or ())
    if template := dug(described, "target", "template", "data"):
        return set(template)
    if dug(described, "dataFrom"):
        return None
    return {str(dug(entry, "secretKey")) for entry in dug(described, "data") or ()}


def _described(one: Manifest) -> Any:
    return dug(one, "spec", *_SECRET_MAKERS[group_of(one), one.kind])


def dug(value: Any, *path: str) -> Any:
    """Return what stands at a path, None if nothing does, whatever the value is."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
