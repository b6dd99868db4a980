"""What is typed on the command line: numbers within bounds, lists, and known names."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from stackproof.errors import UsageError

MOST = 1e12
"""More than any load has, and little enough that no product of a few of them overflows."""

_FEW = 15  # names that one reads at a glance

#: A DNS label, as Kubernetes has it; a name is several of them, with dots.
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = rf"{_LABEL}(\.{_LABEL})*"

_Number = TypeVar("_Number", int, float)


def number(at_least: float = 1e-3, at_most: float = MOST) -> Callable[[str], float]:
    """Return a type for argparse: a finite number within bounds; `nan` and `inf` are none."""
    return _within(float, "a number", at_least, at_most)


def count(at_least: int = 1, at_most: int = int(MOST)) -> Callable[[str], int]:
    """Return a type for argparse: a whole number within bounds."""
    return _within(int, "a whole number", at_least, at_most)


def _within(
    kind: Callable[[str], _Number], what: str, low: _Number, high: _Number
) -> Callable[[str], _Number]:
    def parse(text: str) -> _Number:
        try:
            value = kind(text)
            if low <= value <= high:  # nan is neither
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {low:g} to {high:g}")

    return parse


def seconds(text: str) -> float:
    """A type for argparse: how long to wait, a day at most: sockets know no centuries."""
    return number(at_most=86_400)(text)


def names(text: str) -> tuple[str, ...]:
    """A type for argparse: `A,B` as names, each once."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names such as A,B")
    return found


def word(text: str) -> str:
    """A type for argparse: any text but none, which a shell makes of an unset variable."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def namespace_name(text: str) -> str:
    """A type for argparse: the name of a namespace."""
    return _named(text, _LABEL, 63, "a namespace")


def tenant_name(text: str) -> str:
    """A type for argparse: the name of a tenant."""
    return _named(text, _LABEL, 63, "a tenant")


def release_name(text: str) -> str:
    """A type for argparse: the name of a Helm release."""
    return _named(text, _NAME, 53, "a Helm release")


def host_name(text: str) -> str:
    """A type for argparse: the name of a host."""
    return _named(text, _NAME, 253, "a host")


def _named(text: str, pattern: str, longest: int, what: str) -> str:
    if len(text) > longest or not re.fullmatch(pattern, text):
        signs = "a-z, 0-9 and -" if pattern is _LABEL else "a-z, 0-9, - and ."
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be the name of {what}: that is at most {longest} of {signs}, the "
            "first and last a letter or digit"
        )
    return text


def chart(text: str) -> Path:
    """A type for argparse: the folder of a chart."""
    folder = Path(text).resolve()
    if not (folder / "Chart.yaml").is_file():
        raise argparse.ArgumentTypeError(f"there is no chart in {text}: it has no Chart.yaml")
    return folder


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    """Add a command of a command. The first line of its text is its summary, as of a module."""
    return commands.add_parser(name, help=text.splitlines()[0].rstrip("."), description=text)


def refuse_beside(args: argparse.Namespace, option: str, others: Iterable[str], why: str) -> None:
    """Refuse what means nothing beside an option: ignored, it would be taken for heeded.

    Raises:
        UsageError: Both were given.
    """
    for other in others if _is_given(args, option) else ():
        if _is_given(args, other):
            raise UsageError(why, where=f"{option} {other}", todo="Leave one of them out.")


def _is_given(args: argparse.Namespace, option: str) -> bool:
    name = "names" if option == "NAME" else option.strip("-").replace("-", "_")
    value = getattr(args, name, None)
    return value is not None and value is not False and value != []


def check_charts(charts: Sequence[Path]) -> None:
    """Refuse charts that a result, which names them by their folders, could not tell apart.

    Raises:
        UsageError: Two of them have the same name.
    """
    names = [each.name for each in charts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"several charts are called {', '.join(twice)}", todo="Name one at a time."
        )


def add_names(parser: argparse.ArgumentParser, what: str) -> None:
    """Add names to choose by, --list, which shows those that there are, and --json."""
    parser.add_argument(
        "names", nargs="*", type=word, metavar="NAME", help=f"{what} (default: all)"
    )
    parser.add_argument(
        "--list", action="store_true", help="only list the names, each with a description"
    )
    add_json(parser)


def add_kubeconfig(parser: argparse.ArgumentParser) -> None:
    """Add --kubeconfig."""
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="another kubeconfig")


def add_deadline(parser: argparse.ArgumentParser) -> None:
    """Add --deadline, of a proof."""
    parser.add_argument(
        "--deadline",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long each piece of telemetry may take to be seen (default: 30); a single answer "
        "may take a third of it, 10 at least",
    )


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add --report, of a proof."""
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="where the report goes (default: build/report)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the answer as JSON, and messages for people on standard error",
    )


def new_file(text: str) -> Path:
    """A type for argparse: the path of a file that is to be written."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, or nothing; name a file")
    return path


def add_junit(parser: argparse.ArgumentParser) -> None:
    """Add --junitxml."""
    parser.add_argument(
        "--junitxml",
        type=new_file,
        metavar="FILE",
        help="also write it as JUnit XML, for a CI system",
    )


def only_listed(args: argparse.Namespace, what: str, known: Mapping[str, str]) -> bool:
    """Refuse names that nothing has; with --list print those that there are.

    Returns:
        Whether that was all there is to do.
    """
    unused = ("--junitxml", "--report", "--record")
    refuse_beside(args, "--list", unused, "a list of names is all that there is")
    check_names(what, args.names, known)
    listed = {name: about for name, about in known.items() if name in (args.names or known)}
    if args.list and args.json:
        print(json.dumps(listed, indent=1))
    elif args.list:
        print(*(f"{name:40} {about}" for name, about in listed.items()), sep="\n")
    return bool(args.list)


def check_names(
    what: str, given: Iterable[str], known: Collection[str], where: str | None = None
) -> None:
    """Refuse names that nothing has.

    Raises:
        UsageError: It names the unknown ones, and those that they may stand for.
    """
    unknown = [name for name in dict.fromkeys(given) if name not in known]
    if not unknown:
        return
    near = [m for name in unknown for m in difflib.get_close_matches(name, known, 2, 0.6)]
    if near:
        todo = f"Did you mean {' or '.join(dict.fromkeys(near))}?"
    elif where or len(known) <= _FEW:
        todo = f"There are: {', '.join(known) or 'none'}."
    else:
        todo = f"There are {len(known)}: --list shows them."
    raise UsageError(f"no {what} is called {', '.join(unknown)}", where=where, todo=todo)
