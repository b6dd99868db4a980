"""The command line: finds the subcommand, turns errors and signals into messages and exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType, ModuleType

from stackproof import __version__, commands
from stackproof.errors import StackproofError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


def _subcommands() -> Iterator[tuple[str, ModuleType]]:
    """Yield the name and the module of every subcommand, in alphabetical order."""
    for found in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{found.name}")
        yield found.name.replace("_", "-"), module


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="stackproof",
        description="Prove that a multi-tenant observability stack keeps its tenants apart.",
    )
    top.add_argument("--version", action="version", version=f"stackproof {__version__}")
    several = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in _subcommands():
        text = (module.__doc__ or "").strip()
        one = several.add_parser(name, help=text.splitlines()[0].rstrip("."), description=text)
        module.configure(one)
        one.set_defaults(run=module.run)
    return top


def _terminated(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Leave by an exception on SIGTERM, so that every `finally` ends its child processes."""
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Returns:
        The subcommand's exit code; 2 where it could not do its work, 130 after Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _terminated)
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except StackproofError as error:
        print(f"stackproof: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("stackproof: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
