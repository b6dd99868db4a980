#!/usr/bin/env python3
"""Write schemas/GROUP/VERSION/KIND.json: what the custom kinds that this repository uses may hold.

    python tools/schemas.py

The CRDs are generated from the API types of the controllers (the Go modules that schemas/go.mod
pins), or come with the module: the Gateway API's types have fields that its standard channel, which
clusters have, has not. They are then turned into strict JSON schemas: a field that the type has not
is refused, which the API server would drop in silence. Only versions that are served are written,
so a manifest of a version that is not has no schema. CEL rules of the CRDs are left out: a JSON
schema has no words for them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

TOOLS = Path(__file__).resolve().parent
SCHEMAS = TOOLS.parent / "schemas"

PACKAGES = (
    "github.com/external-secrets/external-secrets/apis/externalsecrets/...",
    "github.com/fluxcd/helm-controller/api/...",
    "github.com/fluxcd/image-automation-controller/api/...",
    "github.com/fluxcd/image-reflector-controller/api/...",
    "github.com/fluxcd/kustomize-controller/api/...",
    "github.com/fluxcd/notification-controller/api/...",
    "github.com/fluxcd/source-controller/api/...",
)
# Modules that come with their CRDs, and where. The Gateway API is the one that GKE 1.34 serves.
PUBLISHED = (("sigs.k8s.io/gateway-api", "config/crd/standard"),)
KINDS = frozenset(
    {
        "Alert",
        "ClusterSecretStore",
        "ExternalSecret",
        "Gateway",
        "GitRepository",
        "HelmChart",
        "HelmRelease",
        "HelmRepository",
        "HTTPRoute",
        "ImagePolicy",
        "ImageRepository",
        "ImageUpdateAutomation",
        "Kustomization",
        "OCIRepository",
        "Provider",
        "SecretStore",
    }
)
# The providers that a store here may have; of the rest of the forty, which would be most of the
# bytes, only the names are known.
PROVIDERS = ("fake", "gcpsm", "kubernetes")

TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "namespace": {"type": "string", "minLength": 1},
        "labels": TEXTS,
        "annotations": TEXTS,
        "finalizers": {"type": "array", "items": {"type": "string"}},
    },
}


def crds(folder: Path) -> list[dict[str, Any]]:
    """Generate the CRDs of `PACKAGES` into `folder`, return them and those that are published."""
    environment = {**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    subprocess.run(
        [
            "go",
            "tool",
            "controller-gen",
            "crd",
            *(f"paths={package}" for package in PACKAGES),
            f"output:crd:dir={folder}",
        ],
        cwd=SCHEMAS,
        env=environment,
        check=True,
    )
    files = sorted(folder.iterdir())
    for module, below in PUBLISHED:
        command = ["go", "mod", "download", "-json", module]
        got = json.loads(subprocess.check_output(command, cwd=SCHEMAS, env=environment))
        files += sorted((Path(got["Dir"]) / below).glob("*.yaml"))
    found = (one for path in files for one in yaml.load_all(path.read_bytes(), yaml.CSafeLoader))
    return [one for one in found if one["kind"] == "CustomResourceDefinition"]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a part of an OpenAPI v3 schema as JSON schema that refuses unknown fields."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {
        key: value
        for key, value in schema.items()
        if key not in {"description", "default", "format", "nullable", "example"}
        and not key.startswith("x-kubernetes-")
    }
    if "properties" in kept:
        kept["properties"] = {key: strict(part) for key, part in kept["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept.setdefault("additionalProperties", False)
    if "items" in kept:
        kept["items"] = strict(kept["items"])
    if isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = strict(kept["additionalProperties"])
    if schema.get("nullable") and "type" in kept:
        kept["type"] = [kept["type"], "null"]
    return kept


def kind_schema(crd: dict[str, Any], version: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one kind in one version."""
    schema = strict(version["schema"]["openAPIV3Schema"])
    fields = schema["properties"]
    fields.pop("status", None)  # the controller's, never a manifest's
    fields["apiVersion"] = {"const": f"{crd['spec']['group']}/{version['name']}"}
    fields["kind"] = {"const": crd["spec"]["names"]["kind"]}
    fields["metadata"] = METADATA
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    provider = fields["spec"].get("properties", {}).get("provider", {})
    if "gcpsm" in provider.get("properties", {}):
        unknown = {"type": "object", "additionalProperties": True}
        provider["properties"] = {
            name: part if name in PROVIDERS else unknown
            for name, part in provider["properties"].items()
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by tools/schemas.py from the modules in schemas/go.mod.",
        **schema,
    }


def main() -> int:
    """Write the schemas of every served version of `KINDS`, and remove those of others."""
    written = set()
    with tempfile.TemporaryDirectory() as folder:
        for crd in crds(Path(folder)):
            kind = crd["spec"]["names"]["kind"]
            for version in crd["spec"]["versions"]:
                if kind not in KINDS or not version["served"] or version.get("deprecated"):
                    continue
                path = SCHEMAS / crd["spec"]["group"] / version["name"] / f"{kind}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(kind_schema(crd, version), indent=1) + "\n")
                written.add(path)
    for path in set(SCHEMAS.glob("*/*/*.json")) - written:
        path.unlink()
    print(f"{len(written)} schemas in {SCHEMAS.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
