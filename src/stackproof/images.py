"""The container images of a deployment: pulled as they are pinned, or made here.

Which one a component gets is decided in this order:

1. IMAGE_NAME in the environment (IMAGE_MIMIR, IMAGE_OPEN_WEBUI): that image;
2. with IMAGES=pinned, the one of versions.yaml, pulled if it is not there;
3. one made FROM scratch around the program that tools/ pins, where there is one;
4. the one of versions.yaml, where Docker has it already;
5. a stand-in (tools/standin), which only answers the probes of what it stands for.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from stackproof import programs
from stackproof.checkout import Checkout
from stackproof.errors import StackproofError
from stackproof.versions import Versions

#: Images that were made here have this instead of a registry: nothing can be pulled from it.
LOCAL = "stackproof.local"

#: The program in a component's image, where it is not called as the component.
_PROGRAMS = {"gateway": "caddy"}

_STANDIN = "standin"
_PATH = "/usr/local/bin"


class How(StrEnum):
    """Where an image comes from."""

    GIVEN = "given"
    PINNED = "pinned"
    BUILT = "built here"
    STAND_IN = "stand-in"


@dataclass(frozen=True, slots=True)
class Choice:
    """The image of a component, and why it is that one."""

    component: str
    repository: str
    tag: str
    how: How

    @property
    def reference(self) -> str:
        """REPOSITORY:TAG."""
        return f"{self.repository}:{self.tag}"

    def values(self) -> dict[str, str]:
        """Return it as a chart's `image`."""
        return {"repository": self.repository, "tag": self.tag, "pullPolicy": "IfNotPresent"}


class Images:
    """The images that Docker has, gets or is given.

    Raises:
        StackproofError: No Docker daemon answers.
    """

    def __init__(self, checkout: Checkout, environment: Mapping[str, str] = os.environ) -> None:
        self._checkout = checkout
        self._environment = environment
        self._versions = Versions.load(checkout)
        self.docker = connect()
        wanted = environment.get("IMAGES", "built")
        if wanted not in {"built", "pinned"}:
            raise StackproofError(f"is {wanted!r}", where="IMAGES", todo="Say built or pinned.")
        self._pinned = wanted == "pinned"

    def choose(self, component: str) -> Choice:
        """Return the image of a component of versions.yaml, which Docker then has.

        Raises:
            StackproofError: It cannot be pulled or made.
        """
        variable = f"IMAGE_{component.upper().replace('-', '_')}"
        if given := self._environment.get(variable):
            return self._given(component, given, variable)
        pin = self._versions.image(component)
        program = _PROGRAMS.get(component, component)
        here = program in programs.names(self._checkout)
        if self._pinned or (not here and self._has(str(pin))):
            self._pull(str(pin))
            return Choice(component, pin.repository, pin.tag, How.PINNED)
        if here:
            return self.built(component, program)
        return self.stand_in(component)

    def built(self, component: str, program: str) -> Choice:
        """Return an image with nothing in it but a program of tools/."""
        found = programs.locate(program, self._checkout)
        assert found.path is not None
        choice = Choice(component, f"{LOCAL}/{program}", _tag(found.version), How.BUILT)
        self._make(choice.reference, found.path, program)
        return choice

    def stand_in(self, component: str) -> Choice:
        """Return the stand-in, under the name of what it stands for."""
        found = programs.locate(_STANDIN, self._checkout)
        assert found.path is not None
        repository = f"{LOCAL}/stand-in-for-{component}"
        choice = Choice(component, repository, _tag(found.version), How.STAND_IN)
        self._make(choice.reference, found.path, _STANDIN, links=["pg_isready"])
        return choice

    def _given(self, component: str, reference: str, variable: str) -> Choice:
        repository, _, tag = reference.rpartition(":")
        if not repository or "/" in tag:
            raise StackproofError(
                f"{reference!r} has no tag", where=variable, todo="Say REPOSITORY:TAG."
            )
        self._pull(reference)
        return Choice(component, repository, tag, How.GIVEN)

    def _has(self, reference: str) -> bool:
        return bool(self.docker.images.list(name=reference))

    def _pull(self, reference: str) -> None:
        import docker.errors

        if self._has(reference):
            return
        try:
            self.docker.images.pull(reference)
        except docker.errors.DockerException as error:
            raise StackproofError(
                f"cannot be pulled: {error}",
                where=reference,
                todo="Load it with `docker load`, or name another with IMAGE_NAME=….",
            ) from error

    def _make(self, reference: str, program: Path, name: str, links: Iterable[str] = ()) -> None:
        """Import an image of one program, unless Docker has the same already."""
        stat = program.stat()
        mark = f"{program.parent.name} {stat.st_size} {stat.st_mtime_ns}"
        for image in self.docker.images.list(name=reference):
            if image.labels.get("stackproof") == mark:
                return
        with tempfile.TemporaryFile() as archive:
            _pack(archive, program, name, links)
            archive.seek(0)
            repository, _, tag = reference.rpartition(":")
            self.docker.api.import_image_from_data(
                _Chunks(archive),
                repository=repository,
                tag=tag,
                changes=[
                    f"ENV PATH={_PATH}",
                    f'ENTRYPOINT ["{_PATH}/{name}"]',
                    "USER 65532:65532",
                    f'LABEL stackproof="{mark}"',
                ],
            )

    @cached_property
    def programs(self) -> tuple[str, ...]:
        """What `choose` may have to build, for preparing it with a progress bar."""
        if self._pinned:
            return ()
        known = programs.names(self._checkout)
        wanted = (_PROGRAMS.get(name, name) for name in self._versions.images)
        return tuple(name for name in (*wanted, _STANDIN) if name in known)


class _Chunks:
    """A file that is sent in chunks: Docker's client would read it whole."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __iter__(self) -> Any:
        return iter(lambda: self._file.read(1 << 20), b"")


def connect() -> Any:
    """Return a client of the Docker daemon.

    Raises:
        StackproofError: None answers.
    """
    import docker
    import docker.errors

    try:
        return docker.from_env(timeout=300)
    except docker.errors.DockerException as error:
        raise StackproofError(
            f"no Docker daemon answers: {error}",
            where=os.environ.get("DOCKER_HOST", "Docker"),
            todo="Start Docker, or use `--stack local`, which needs none.",
        ) from error


def _tag(version: str) -> str:
    """Return a version as a tag: of our own programs, the digest of its source."""
    return version.replace("+", "-").replace(" ", "-")


def _pack(archive: Any, program: Path, name: str, links: Iterable[str]) -> None:
    """Write a root file system: the program, and the directories that programs expect."""
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder, mode in (("tmp", 0o1777), ("etc", 0o755), (_PATH.strip("/"), 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        passwd = b"root:x:0:0::/:/\nnobody:x:65532:65532::/tmp:/\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
        entry = tarfile.TarInfo(f"{_PATH.strip('/')}/{name}")
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as binary:
            tar.addfile(entry, binary)
        for link in links:
            entry = tarfile.TarInfo(f"{_PATH.strip('/')}/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, name
            tar.addfile(entry)
