"""What every command prints: the console for people, and the answer for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from stackproof import junit


def console(args: argparse.Namespace | None = None, **how: Any) -> Console:
    """Return the console for progress and summaries: quiet where it is a pipe.

    It is standard output, which with --json is for the answer alone.
    """
    for_json = getattr(args, "json", False)
    return Console(file=sys.stderr if for_json else sys.stdout, highlight=False, **how)


def answer(
    args: argparse.Namespace, found: Path | Mapping[str, Any], cases: Iterable[junit.Case] = ()
) -> None:
    """Give the answer, or the file that holds it, to programs: as --json and --junitxml ask."""
    if path := getattr(args, "junitxml", None):
        junit.write(path, "stackproof", list(cases))
    if args.json and isinstance(found, Path):
        print(found.read_text(encoding="utf-8"), end="", flush=True)
    elif args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False), flush=True)
