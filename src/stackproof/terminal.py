"""What every command prints: the console for people, and the answer for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from stackproof import junit


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Say so, where rich would end the process, and with what is a verdict."""
        raise BrokenPipeError

    def status(self, status: RenderableType, **how: Any) -> Status:
        """Show what is being done: here rich reads markup whatever it is told."""
        return super().status(Text(status) if isinstance(status, str) else status, **how)


def console(args: argparse.Namespace | None = None, **how: Any) -> Console:
    """Return the console for progress and summaries: quiet where it is a pipe.

    It is standard output, which with --json is for the answer alone. Brackets are printed as they
    stand: what is shown is mostly of others' making.
    """
    for_json = getattr(args, "json", False)
    file = sys.stderr if for_json else sys.stdout
    return _Console(file=file, highlight=False, markup=False, **how)


def answer(
    args: argparse.Namespace, found: Path | Mapping[str, Any], cases: Iterable[junit.Case] = ()
) -> None:
    """Give the answer, or the file that holds it, to programs: as --json and --junitxml ask.

    Raises:
        StackproofError: The file cannot be written.
    """
    if path := getattr(args, "junitxml", None):
        junit.write(path, "stackproof", list(cases))
    if args.json and isinstance(found, Path):
        print(found.read_text(encoding="utf-8"), end="", flush=True)
    elif args.json:
        print(json.dumps(found, indent=1), flush=True)
