"""What a roll goes from and to: files of a revision, and the programs that they pin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from stackproof.errors import StackproofError, UsageError
from stackproof.flux.deployment import Deployment
from stackproof.flux.diff import revision
from stackproof.options import check_names
from stackproof.repo.checkout import Checkout
from stackproof.stack.pod import PROGRAMS
from stackproof.toolchain import programs
from stackproof.toolchain.programs import Program

#: What a revision must have to be deployed as this repository is.
_NEEDED = ("charts/lgtm", "charts/open-webui-stack", "observability/tenants.yaml", "versions.yaml")


@contextmanager
def earlier(checkout: Checkout, name: str) -> Iterator[Deployment]:
    """Give the deployment of a revision, whose files are removed afterwards.

    Raises:
        UsageError: There is no such revision.
        StackproofError: It cannot be deployed as this repository is.
    """
    with revision(checkout, name) as files:
        missing = [path for path in _NEEDED if not (files.root / path).exists()]
        if missing:
            raise _too_old(name, f"it has no {', '.join(missing)}")
        try:
            deployment = Deployment.load(files)
            deployment.releases()
        except StackproofError as error:
            raise _too_old(name, error.what) from error
        yield deployment


def _too_old(name: str, why: str) -> StackproofError:
    return StackproofError(
        f"cannot be deployed: {why}",
        where=f"revision {name}",
        todo="Name a later one: it may be older than what is rendered here.",
    )


def same(before: Deployment, after: Deployment) -> bool:
    """Tell whether both render the same objects, so that nothing would roll."""
    return [release.manifests for release in before.releases()] == [
        release.manifests for release in after.releases()
    ]


def pinned(checkout: Checkout) -> dict[str, Program]:
    """Return the programs that a checkout pins, of those that are built already."""
    found = {}
    for name in PROGRAMS:
        try:
            program = programs.locate(name, checkout, build=False)
        except StackproofError:  # an older revision may pin it in another way
            continue
        if program.path is not None:
            found[name] = program
    return found


def chosen(options: Sequence[str]) -> Mapping[str, Program]:
    """Return the programs of NAME=PATH options.

    Raises:
        UsageError: One names no program of the stack, or no file that can be run.
    """
    found = {}
    for option in options:
        name, equals, path = option.partition("=")
        if not equals:
            raise UsageError(
                f"{option!r} is not NAME=PATH", where="--program", todo="Such as tempo=/tmp/tempo."
            )
        check_names("program", [name], PROGRAMS, "--program")
        where, todo = f"--program {name}", "Name the binary that is to run."
        found[name] = programs.given(name, path, where, todo)
    return found
