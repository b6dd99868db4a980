"""Write the file for `prove --targets` from the objects of a cluster, or from a list of them.

Objects are only read, and no Secret is: passwords are to come from the environment.

Exit code: 0 a proof can be tried with it; 2 something must be added first, which its comments say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stackproof.errors import ExitCode, StackproofError, UsageError, writing
from stackproof.options import add_command, add_kubeconfig, word
from stackproof.wording import counted

if TYPE_CHECKING:
    from stackproof.kube.client import Object

#: Standard input or output in place of a file.
_STREAM = Path("-")
_STANDARD_INPUT = ("deployment", "standard input")

_INIT_TEXT = """\
Write a file for `prove --targets` from the objects of a cluster, or from a list of them.

It only reads, and reads no Secret: passwords are to come from the environment.
Exit code: 0 a proof can be tried with it, 2 something must be added first (see its comments)."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `init`."""
    does = parser.add_subparsers(title="what to do", metavar="init", required=True)
    init = add_command(does, "init", _INIT_TEXT)
    source = init.add_mutually_exclusive_group()
    source.add_argument(
        "--from",
        dest="objects",
        type=Path,
        metavar="FILE",
        help="look at what `kubectl get services,configmaps,ingresses,deployments,daemonsets,"
        "statefulsets -A -o yaml` prints (-: standard input), and ask no cluster",
    )
    source.add_argument(
        "--context",
        type=word,
        metavar="NAME",
        help="a cluster's context in the kubeconfig (default: the current one)",
    )
    add_kubeconfig(init)
    init.add_argument(
        "--output",
        type=Path,
        default=Path("targets.yaml"),
        metavar="FILE",
        help="where it goes (default: %(default)s; -: standard output)",
    )
    init.set_defaults(do=_init)


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    code: int = args.do(args)
    return code


def _init(args: argparse.Namespace) -> int:
    from stackproof.stack import discovery, targets_file

    to_file = args.output != _STREAM
    if to_file and args.output.exists():
        raise UsageError(
            "is there already", where=str(args.output), todo="Delete it, or name another: --output."
        )
    if args.objects and args.kubeconfig:
        raise UsageError(
            "with a file of objects no cluster is asked",
            where="--from --kubeconfig",
            todo="Leave one of them out.",
        )
    name, source, objects, refused = _objects(args)
    try:
        found = discovery.discover(objects, refused)
    except StackproofError as error:
        raise StackproofError(error.what, error.where or source, error.todo) from error
    written = targets_file.text(found, name, source, str(args.output) if to_file else "FILE")
    if to_file:
        with (
            writing(args.output.parent, "--output"),
            args.output.open("x", encoding="utf-8") as file,  # of two runs at once, one fails
        ):
            file.write(written)
    else:
        sys.stdout.write(written)
    gaps = targets_file.missing(found)
    told, place = (sys.stdout, args.output) if to_file else (sys.stderr, "standard output")
    print(
        f"{place}: {counted(len(found.tenants), 'tenant')}, "
        f"{counted(len(found.reads), 'backend')}, "
        f"{counted(len(found.open), 'thing')} not found out",
        file=told,
    )
    for gap in gaps:
        print(f"add {gap}", file=told)
    return ExitCode.UNDECIDED if gaps else ExitCode.GOOD


def _objects(args: argparse.Namespace) -> tuple[str, str, list[Object], list[str]]:
    """Return name and source of a deployment, its objects, and kinds that may not be listed."""
    from stackproof.kube.client import Kube
    from stackproof.stack import discovery

    if args.objects is None:
        kube = Kube(args.context, args.kubeconfig)
        return kube.context, kube.where, *discovery.from_cluster(kube)
    given = args.objects != _STREAM
    name, source = (args.objects.stem, str(args.objects)) if given else _STANDARD_INPUT
    text = _read(args.objects.read_bytes if given else sys.stdin.buffer.read, source)
    return name, source, list(discovery.from_text(text, source)), []


def _read(read: Callable[[], bytes], source: str) -> str:
    try:
        return read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot be read: {reason}", where=source) from error
