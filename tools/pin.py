#!/usr/bin/env python3
"""Write tools/NAME/go.mod and go.sum for one program: the only way a pin is made or moved.

    python tools/pin.py loki github.com/grafana/loki/v3@v3.7.8 github.com/grafana/loki/v3/cmd/loki

A Go program that is built as a dependency loses the `replace` lines of its own go.mod, so they are
repeated here (those that point into the program's own tree are left out: there the released module
is meant). go.sum starts as the program's own, so that a build asks nobody what a hash should be.
Further arguments MODULE@VERSION are required beside the program (Alloy needs its `syntax` module).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

TOOLS = Path(__file__).resolve().parent


def go(*args: str, cwd: Path, **env: str) -> str:
    """Run `go` and return what it printed."""
    done = subprocess.run(
        ["go", *args],
        cwd=cwd,
        env={**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0", **env},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def wrapper(name: str, package: str, source: Path, requires: list[str]) -> str:
    """Return the text of the go.mod that builds `package` just as its own go.mod would."""
    own = json.loads(go("mod", "edit", "-json", cwd=source, GOFLAGS="-mod=readonly"))
    lines = [f"module stackproof.example/tools/{name}", "", f"go {own['Go']}", ""]
    lines += [f"godebug {d['Key']}={d['Value']}" for d in own.get("Godebug") or []]
    if package != ".":
        lines += [f"tool {package}", ""]
    lines += ["require " + required.replace("@", " ") for required in requires]
    for replace in own.get("Replace") or []:
        old, new = replace["Old"], replace["New"]
        if not new["Path"].startswith("."):
            left = f"{old['Path']} {old.get('Version', '')}".strip()
            lines.append(f"replace {left} => {new['Path']} {new.get('Version', '')}".rstrip())
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the two files, then build once so that every hash is known."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("name")
    parse.add_argument("module", help="MODULE@VERSION")
    parse.add_argument("package", help="main package; '.' where tools/NAME has its own main.go")
    parse.add_argument("extra", nargs="*", help="MODULE@VERSION")
    parse.add_argument("--tags", default="", help="build tags: those of its recipe in programs.py")
    args = parse.parse_args()

    folder = TOOLS / args.name
    folder.mkdir(exist_ok=True)
    # A commit that the checksum database was never told of: trust on first use, here only.
    nosum = {"GONOSUMDB": ",".join(m.split("@")[0] for m in [args.module, *args.extra])}
    found = json.loads(go("mod", "download", "-json", args.module, cwd=folder.parent, **nosum))
    source = Path(found["Dir"])
    (folder / "go.mod").write_text(
        wrapper(args.name, args.package, source, [args.module, *args.extra])
    )
    (folder / "go.sum").write_bytes((source / "go.sum").read_bytes())
    build = ["build", "-trimpath", "-tags", args.tags, "-o", os.devnull, args.package]
    go(*build, cwd=folder, **nosum)


if __name__ == "__main__":
    main()
