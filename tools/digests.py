#!/usr/bin/env python3
"""Write the digest of each image beside its tag, in versions.yaml and wherever it is deployed from.

    make pins

A tag may be moved to another image, a digest is that image. Registries are asked as for programs:
through proxies, or the mirror of STACKPROOF_MIRROR. Where one does not answer, what stands there
stays. Images that Flux updates keep their tag alone: it writes no digest beside it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from stackproof.errors import ExitCode
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Image, Versions
from stackproof.toolchain import deployed, programs

_IMAGE = re.compile(
    r"(?P<head>repository: (?P<repository>\S+)\n(?:\s+#[^\n]*\n)*\s+tag: )"
    r"(?P<version>v?\d[^\s@]*)(?:@sha256:[0-9a-f]{64})?(?=\s)"
)


def files(checkout: Checkout) -> Iterator[Path]:
    """Yield the files that name images."""
    yield checkout.versions_file
    yield from sorted(checkout.charts.glob("*/values*.yaml"))
    yield from sorted(checkout.flux.glob("infrastructure/*.yaml"))


def moved_by_flux(checkout: Checkout) -> set[str]:
    """Return the repositories from which Flux chooses a tag itself."""
    documents = (
        document
        for path in checkout.flux.rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_bytes())
    )
    return {each["spec"]["image"] for each in documents if each.get("kind") == "ImageRepository"}


def pinned(text: str, digests: Mapping[tuple[str, str], str]) -> str:
    """Return the text of a file with the digests of repository and version in it."""

    def write(found: re.Match[str]) -> str:
        digest = digests.get((found["repository"], found["version"]))
        return f"{found['head']}{found['version']}@{digest}" if digest else found[0]

    return _IMAGE.sub(write, text)


def main() -> int:
    """Ask for all of them; tell which were not had."""
    checkout = Checkout.find()
    digests: dict[tuple[str, str], str] = {}
    missing = 0
    moved = moved_by_flux(checkout)
    for image in Versions.load(checkout).images.values():
        if image.repository in moved:
            continue
        plain = Image(image.repository, image.version)
        try:
            digest = deployed.digest(plain, lambda: programs.find("fetch"))
        except deployed.NotHadError as error:
            print(f"{plain}: {error}", file=sys.stderr)
            missing += 1
        else:
            digests[image.repository, image.version] = digest
            print(f"{plain}@{digest}")
    changed = 0
    for path in files(checkout):
        text = path.read_text(encoding="utf-8")
        if (now := pinned(text, digests)) != text:
            path.write_text(now, encoding="utf-8")
            changed += path.parent.parent == checkout.charts
    if changed:
        print("Charts have changed: run `make charts`, so that Flux deploys them.")
    return ExitCode.UNAVAILABLE if missing else ExitCode.GOOD


if __name__ == "__main__":
    sys.exit(main())
