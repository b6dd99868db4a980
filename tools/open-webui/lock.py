#!/usr/bin/env python3
"""Pin the application that versions.yaml deploys: write application.lock and requirements.lock.

    python tools/open-webui/lock.py

application.lock is the wheel of the image's very version; requirements.lock is requirements.in at
the versions that this wheel asks for. Run it after each change of the image's tag.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

HERE = Path(__file__).resolve().parent
MADE = "# Made by tools/open-webui/lock.py. Do not edit by hand.\n"


def run(*command: str) -> str:
    """Run a module of this Python and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", *command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def asked_for(wheel: Path) -> list[str]:
    """Return the requirements of a wheel that no extra and no platform asks for."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    found: list[str] = metadata.get_all("Requires-Dist") or []
    # A constraint may name no extra.
    return [re.sub(r"\[.*?\]", "", each) for each in found if ";" not in each]


def main() -> None:
    """Write both files."""
    tag = Versions.load(Checkout.find(HERE)).image("open-webui").tag
    pin = f"open-webui=={tag.removeprefix('v')}"
    with tempfile.TemporaryDirectory() as folder:
        run("pip", "download", "--quiet", "--no-deps", "--dest", folder, pin)
        (wheel,) = Path(folder).glob("*.whl")
        digest = run("pip", "hash", str(wheel)).split()[-1]
        (HERE / "application.lock").write_text(f"{MADE}{pin} \\\n    {digest}\n")
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(asked_for(wheel)))
        lock = Path(folder) / "requirements.lock"
        run(
            *("piptools", "compile", "--quiet", "--generate-hashes", "--strip-extras"),
            *("--allow-unsafe", "--no-annotate", "--no-header", "--no-emit-index-url"),
            *("--no-emit-trusted-host", "--no-emit-find-links", "--no-emit-options"),
            *("--constraint", str(constraints), "--output-file", str(lock)),
            str(HERE / "requirements.in"),
        )
        (HERE / "requirements.lock").write_text(f"{MADE}{lock.read_text().lstrip()}")


if __name__ == "__main__":
    main()
