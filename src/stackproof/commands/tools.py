"""Show which programs, and which application, run on this machine; get those that are missing.

Where a version is not the deployed one, both are shown, with the reason below the table.
"""

from __future__ import annotations

import argparse
import json

from stackproof.options import add_json, check_names, refuse_beside, word
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the names, --build and --local."""
    parser.add_argument(
        "names", nargs="*", type=word, metavar="NAME", help="a program (default: all)"
    )
    parser.add_argument(
        "--build",
        action="store_true",
        help="get what is neither cached nor on PATH: take it out of its image, else build it",
    )
    parser.add_argument("--local", action="store_true", help="leave out what only a cluster needs")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table; with --build, after whatever had to be built."""
    from stackproof.toolchain import openwebui, programs

    checkout = Checkout.find()
    check_names("program", args.names, (*programs.names(checkout), openwebui.NAME), "tools")
    refuse_beside(args, "--local", ["NAME"], "it chooses among all programs")
    pins = Versions.load(checkout)
    reasons = []
    rows = [("PROGRAM", "VERSION", "FOUND", "PATH")]
    for name in args.names or (*programs.names(checkout, cluster=not args.local), openwebui.NAME):
        if name == openwebui.NAME and name not in args.names and openwebui.unavailable():
            continue  # tests that need it say so; nothing else does
        if name == openwebui.NAME:
            program = openwebui.locate(checkout, build=args.build)
        else:
            program = programs.locate(name, checkout, build=args.build)
        compared = pins.compare(name, program.version)
        rows.append((name, compared.version, program.how, str(program.path or "-")))
        if compared.differs:
            reasons.append(compared.explained)
    if args.json:
        keys = [title.lower() for title in rows[0]]
        listed = [dict(zip(keys, row, strict=True)) for row in rows[1:]]
        print(json.dumps({"programs": listed, "differences": reasons}, indent=1))
        return 0
    # No library's table: it would wrap or cut the paths where a terminal is narrow.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print(*reasons, sep="\n", end="\n" if reasons else "")
    return 0
