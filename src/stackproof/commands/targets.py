"""Write the file for `prove --targets` from the objects of a cluster, or from a list of them.

Objects are only read, and no Secret is: passwords are to come from the environment.

Exit code: 0 a proof can be tried with it; 2 something must be added first, which its comments say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stackproof.errors import ExitCode, StackproofError, UsageError, writing
from stackproof.options import add_command, add_kubeconfig, word
from stackproof.wording import counted

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

    to_file = str(args.output) != "-"
    if to_file and args.output.exists():
        raise UsageError(
            "is there already", where=str(args.output), todo="Delete it, or name another: --output."
        )
    if args.objects and args.kubeconfig:
        raise UsageError("with a file of objects no cluster is asked", where="--from --kubeconfig")
    refused: list[str] = []
    if args.objects:
        name, source = args.objects.stem, str(args.objects)
        objects = list(discovery.from_text(_read(args.objects), source))
    else:
        from stackproof.kube.client import Kube

        kube = Kube(args.context, args.kubeconfig)
        name, source = kube.context, kube.where
        objects, refused = discovery.from_cluster(kube)
    try:
        found = discovery.discover(objects, refused)
    except StackproofError as error:
        raise StackproofError(error.what, error.where or source, error.todo) from error
    written = targets_file.text(found, name, source, str(args.output) if to_file else "FILE")
    if to_file:
        with (
            writing(args.output.parent, "--output"),
            args.output.open("x", encoding="utf-8") as file,  # of two at once, one is told
        ):
            file.write(written)
    else:
        sys.stdout.write(written)
    gaps = targets_file.missing(found)
    told = sys.stderr if not to_file else sys.stdout
    print(
        f"{args.output}: {counted(len(found.tenants), 'tenant')}, "
        f"{counted(len(found.reads), 'backend')}, "
        f"{counted(len(found.open), 'thing')} not found out",
        file=told,
    )
    for gap in gaps:
        print(f"add {gap}", file=told)
    return ExitCode.UNDECIDED if gaps else ExitCode.GOOD


def _read(path: Path) -> str:
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot be read: {reason}", where=str(path)) from error
