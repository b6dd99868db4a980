"""The command line: finds the subcommand, turns errors and signals into messages and exit codes."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import pkgutil
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from stackproof import __version__, commands
from stackproof.errors import ExitCode, StackproofError, not_installed, writing
from stackproof.options import chart, new_file
from stackproof.repo.checkout import Checkout

#: Set to anything, it shows where an error comes from.
DEBUG = "STACKPROOF_DEBUG"

_ISSUES = "https://github.com/Gradient-DS/stackproof/issues"
_SHELLS = ("bash", "zsh", "tcsh")
#: What the machine refuses is no fault of the program.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}

_EPILOG = f"""\
exit codes: 0, 1 and 2 are the answer (prove: isolated, leaking, incomplete); \
{ExitCode.USAGE} usage, {ExitCode.UNAVAILABLE} could not run, {ExitCode.INTERNAL} internal error \
(docs/results.md). {DEBUG}=1 shows where an error comes from."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are not taken for an answer: argparse ends with 2."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")


class _Completion(argparse.Action):
    """Prints what completes the words of a parser, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        import shtab

        _prepare(parser)
        text = shtab.complete(parser, str(values))
        print(_corrected(text) if values == "zsh" else text)
        parser.exit()


def _corrected(text: str) -> str:
    """Return a completion for zsh with what shtab writes wrong put right."""
    # To zsh a script that is sourced is a `file`; taken for a call, it would fail at once.
    text = text.replace("zsh_eval_context[-1] == eval", "zsh_eval_context[-1] == (eval|file)")
    # An argument that repeats is `*:`; in brackets it would be completed the first time only.
    return re.sub(r'^  "\(\*\)::?', '  "*:', text, flags=re.MULTILINE)


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Let paths be completed by those that there are; of each command one line is shown."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                one.description = (one.description or "").partition("\n")[0]
                _prepare(one)
        elif action.type in {Path, chart, new_file}:
            of_folders = action.type is chart or action.metavar == "DIR"
            action.complete = shtab.DIRECTORY if of_folders else shtab.FILE  # type: ignore[attr-defined]


def _subcommands() -> Iterator[tuple[str, ModuleType]]:
    """Yield the name and the module of every subcommand, in alphabetical order."""
    for found in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"{commands.__name__}.{found.name}")
        yield found.name.replace("_", "-"), module


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = _Parser(
        prog="stackproof",
        description="Prove that a multi-tenant observability stack keeps its tenants apart.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"stackproof {__version__}")
    top.add_argument(
        "--print-completion",
        action=_Completion,
        choices=_SHELLS,
        help="print what completes the words of this command in a shell",
    )
    several = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in _subcommands():
        text = (module.__doc__ or "").strip()
        one = several.add_parser(name, help=text.splitlines()[0].rstrip("."), description=text)
        module.configure(one)
        one.set_defaults(run=module.run)
    return top


def _terminated(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Leave by an exception, so that every `finally` ends its child processes."""
    raise SystemExit(ExitCode(128 + number))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Returns:
        An :class:`ExitCode`; the first three are the subcommand's answer.
    """
    _open_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _terminated)
    # What is forked runs another program at once: gRPC need not prepare for it, nor tell of it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        return _told(argv)
    except OSError:  # nobody reads what is told
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())  # Python must not complain again at exit
        return ExitCode.UNREAD


def _open_streams() -> None:
    """Make standard streams that can be used: some are closed, some cannot write all characters."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _told(argv: Sequence[str] | None) -> int:
    """Run one command line; whatever ends it is told."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        print("stackproof: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
        return _failed(error)


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = parser().parse_args(argv)
        _try_places(args)
        code: int = args.run(args)
    finally:
        sys.stdout.flush()  # here, where what goes wrong is told; --help comes by as well
    return code


def _try_places(args: argparse.Namespace) -> None:
    """Refuse to write where that cannot be done, before anything is started that takes long."""
    places = {name: getattr(args, name, None) for name in ("junitxml", "markdown")}
    folders = {f"--{name}": path.parent for name, path in places.items() if path}
    listing = getattr(args, "list", False) or getattr(args, "docs", False)
    if hasattr(args, "report") and not listing:
        folders["--report"] = args.report or Checkout.report_folder()
    for option, folder in folders.items():
        with writing(folder, option), tempfile.TemporaryFile(dir=folder):
            pass


def _failed(error: Exception) -> ExitCode:
    """Say what went wrong, and return the code that says whose fault it is."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    if isinstance(error, ModuleNotFoundError):
        error = not_installed(error) or error
    if isinstance(error, StackproofError):
        print(f"stackproof: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError) and error.errno in _MACHINE:
        where = f"{error.filename}: " if error.filename else ""
        print(f"stackproof: {where}{error.strerror}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    raised = traceback.extract_tb(error.__traceback__)[-1]
    print(
        f"stackproof: internal error: {type(error).__name__}: {error} "
        f"({Path(raised.filename).name}:{raised.lineno})\n"
        "This is a fault of stackproof, and says nothing of what was looked at. Please report it:\n"
        f"{_ISSUES}, with the command, version {__version__} and what it prints with {DEBUG}=1.",
        file=sys.stderr,
    )
    return ExitCode.INTERNAL


if __name__ == "__main__":
    sys.exit(main())
