"""The container images of a deployment: pulled as they are pinned, or made here.

Which one a component gets is decided in this order:

1. IMAGE_NAME in the environment (IMAGE_MIMIR, IMAGE_OPEN_WEBUI): that image;
2. with IMAGES=pinned, the one of versions.yaml, pulled if it is not there;
3. one made FROM scratch around the program that tools/ pins, where there is one;
4. the one of versions.yaml, where Docker has it already;
5. one made of the wheel that tools/ pins (PostgreSQL, open-webui), where this machine has busybox
   and a Python that the application fits;
6. a stand-in (tools/standin), which only answers the probes of what it stands for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

from . import deployed, openwebui, postgresql, programs
from .postgresql import When
from .rootfs import RootFs

#: Images that were made here have this instead of a registry: nothing can be pulled from it.
LOCAL = "stackproof.local"

#: The program in a component's image, where it is not called as the component.
_PROGRAMS = {"gateway": "caddy"}

_STANDIN = "standin"
_PATH = "/usr/local/bin"

#: What is there as the program of a wheel.
_WHEELS = (postgresql.NAME, openwebui.NAME)

#: Where the application's image has its driver of the database.
_DRIVER = "opt/postgres-driver"

#: The programs of images in somebody else's charts, where this machine may have them.
_HERE = {"nginx-unprivileged": "nginx", "memcached": "memcached"}

#: Of Python's library, what no program loads.
_NO_PYTHON = {"test", "tests", "idlelib", "ensurepip", "pkgconfig", "site-packages"}


@dataclass(frozen=True, slots=True)
class _Start:
    """How an image starts its program, where a chart leaves that to it."""

    user: str = "65532:65532"
    arguments: Sequence[str] = ()


#: As the official image (weaviate/weaviate, Dockerfile), which names no user.
_WEAVIATE = _Start("0:0", ("--host", "0.0.0.0", "--port", "8080", "--scheme", "http"))  # noqa: S104

#: As the official image: in the foreground.
_NGINX = _Start(arguments=("-g", "daemon off;"))


class How(StrEnum):
    """Where an image comes from."""

    GIVEN = "given"
    PINNED = "pinned"
    BUILT = "built here"
    REAL = "real program"
    STAND_IN = "stand-in"


@dataclass(frozen=True, slots=True)
class ImageChoice:
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

    def choose(self, component: str) -> ImageChoice:
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
            return ImageChoice(component, pin.repository, pin.version, How.PINNED)
        if here:
            return self.built(component, program)
        can_be_real = shutil.which("busybox") and not openwebui.unavailable()
        if component in _WHEELS and can_be_real:
            return self.real(component)
        return self.stand_in(component)

    def built(self, component: str, program: str) -> ImageChoice:
        """Return an image with nothing in it but a program of tools/."""
        found = programs.locate(program, self._checkout)
        assert found.path is not None
        choice = ImageChoice(component, f"{LOCAL}/{program}", _tag(found.version), How.BUILT)
        start = _WEAVIATE if component == "weaviate" else _Start()
        self._make(choice.reference, found.path, program, start=start)
        return choice

    def of_chart(self, reference: str) -> ImageChoice:
        """Let Docker have an image by the very name that somebody else's chart gives it.

        It is pulled; or, with STACKPROOF_IMAGES=off, made around the program that tools/ pins or
        this machine has, so that its tag says nothing of what is in it: the choice does.

        Raises:
            StackproofError: It cannot be pulled, or there is no such program here.
        """
        repository, _, tag = reference.partition("@")[0].rpartition(":")
        name = repository.rsplit("/", 1)[-1]
        if deployed.wanted():
            self._pull(reference)
            return ImageChoice(name, repository, tag, How.PINNED)
        if name in programs.names(self._checkout):
            made = self.built(name, name)
            self.docker.images.get(made.reference).tag(repository, tag)
            return made
        program = _HERE.get(name, name)
        path = shutil.which(program)
        if path is None:
            raise StackproofError(
                f"there is no program {program} to make it of",
                where=reference,
                todo="Install it, or let the image be pulled: STACKPROOF_IMAGES=on.",
            )
        start = _NGINX if program == "nginx" else _Start()
        self._make(reference, Path(path), program, start=start)
        return ImageChoice(name, f"{LOCAL}/{program}", "this machine's", How.BUILT)

    def stand_in(self, component: str) -> ImageChoice:
        """Return the stand-in, under the name of what it stands for."""
        return self._stand_in(component, "stand-in-for", links=["pg_isready"])

    def _stand_in(self, component: str, prefix: str, **made: Any) -> ImageChoice:
        found = programs.locate(_STANDIN, self._checkout)
        assert found.path is not None
        repository = f"{LOCAL}/{prefix}-{component}"
        choice = ImageChoice(component, repository, _tag(found.version), How.STAND_IN)
        self._make(choice.reference, found.path, _STANDIN, **made)
        return choice

    def _given(self, component: str, reference: str, variable: str) -> ImageChoice:
        repository, _, tag = reference.rpartition(":")
        if not repository or "/" in tag:
            raise StackproofError(
                f"{reference!r} has no tag", where=variable, todo="Say REPOSITORY:TAG."
            )
        self._pull(reference)
        return ImageChoice(component, repository, tag, How.GIVEN)

    def _has(self, reference: str) -> bool:
        import docker.errors

        try:
            self.docker.images.get(reference)
        except docker.errors.ImageNotFound:
            return False
        return True

    def _pull(self, reference: str) -> None:
        """Let Docker have an image, by its tag too where a digest is asked for."""
        import docker.errors

        tagged, _, digest = reference.partition("@")
        repository, _, tag = tagged.rpartition(":")
        reference = f"{repository}@{digest}" if digest else tagged
        try:
            if not self._has(reference):
                self.docker.images.pull(reference)
            if digest:
                self.docker.images.get(reference).tag(repository, tag)
        except docker.errors.DockerException as error:
            raise StackproofError(
                f"cannot be pulled: {error}",
                where=reference,
                todo="Load it with `docker load`, or name another with IMAGE_NAME=….",
            ) from error

    def real(self, component: str, when: When = When.NOW) -> ImageChoice:
        """Return an image of the real PostgreSQL, Weaviate or open-webui.

        Weaviate is built as any program of tools/. The others are the programs of a wheel with a
        file system out of this machine's own files (see `rootfs`). Stores start as the official
        images do.

        Raises:
            StackproofError: A wheel cannot be had, or this machine lacks a program.
        """
        make = {
            postgresql.NAME: self._postgres,
            openwebui.NAME: self._application,
            "weaviate": self._weaviate,
        }[component]
        return make(when)

    def root(self, component: str) -> ImageChoice:
        """Return the stand-in as an image that runs as root, as images do that name no user."""
        return self._stand_in(component, "root-stand-in-for", start=_Start("0:0"))

    def _weaviate(self, when: When) -> ImageChoice:
        return self.built("weaviate", "weaviate" if when is When.NOW else "weaviate-before")

    def _postgres(self, when: When) -> ImageChoice:
        binaries = postgresql.locate(self._checkout, when)
        entrypoint = self._checkout.tools / postgresql.NAME / "entrypoint"
        tag = _tag(postgresql.version(binaries))
        choice = ImageChoice(postgresql.NAME, f"{LOCAL}/{postgresql.NAME}", tag, How.REAL)
        setpriv = Path(shutil.which("setpriv") or "/usr/bin/setpriv")

        def write(archive: IO[bytes]) -> None:
            root = RootFs(archive, {"postgres": postgresql.USER})
            root.copy(setpriv, f"{_PATH.strip('/')}/setpriv")
            root.libraries([setpriv])
            root.shell()
            root.copy(entrypoint, f"{_PATH.strip('/')}/entrypoint")
            root.tree(postgresql.package(binaries), "usr/local/postgres")
            for program in binaries.iterdir():
                inside = program.relative_to(postgresql.package(binaries))
                root.link(f"{_PATH.strip('/')}/{program.name}", f"/usr/local/postgres/{inside}")
            root.folder("var/run/postgresql", 0o3777)
            root.close()

        digest = hashlib.sha256(entrypoint.read_bytes()).hexdigest()[:16]
        self._import(
            choice.reference,
            f"{binaries} {digest}",
            write,
            [
                f"ENV PATH={_PATH}",
                "ENV PGDATA=/var/lib/postgresql/data",
                # Where the official image's programs look; those of the wheel look in /tmp.
                "ENV PGHOST=/var/run/postgresql",
                f'ENTRYPOINT ["{_PATH}/entrypoint"]',
                'CMD ["postgres"]',
            ],
        )
        return choice

    def _application(self, when: When) -> ImageChoice:
        made = openwebui.locate(self._checkout, when)
        assert made.path is not None
        python, tag = made.path, _tag(made.version)
        base = Path(os.path.realpath(python)).parents[1]
        choice = ImageChoice(openwebui.NAME, f"{LOCAL}/{openwebui.NAME}", tag, How.REAL)
        replaced = [f"{name}={value}" for name, value in openwebui.here(when).items()]

        def write(archive: IO[bytes]) -> None:
            root = RootFs(archive, {})
            root.shell()
            root.tree(base / "lib", but=_is_left_out)
            root.tree(python.parents[1])
            with tempfile.TemporaryDirectory() as scratch:
                openwebui.install_driver(self._checkout, Path(scratch))
                root.tree(Path(scratch), _DRIVER)
            certificates = Path("/etc/ssl/certs/ca-certificates.crt")
            if certificates.exists():
                root.copy(certificates.resolve(), "etc/ssl/certs/ca-certificates.crt")
            root.folder("app/backend/data")
            root.close()

        self._import(
            choice.reference,
            f"{python} {openwebui.drivers(self._checkout)}",
            write,
            [
                f"ENV PATH={python.parent}:{_PATH}",
                f"ENV PYTHONPATH=/{_DRIVER}",
                "ENV PYTHONDONTWRITEBYTECODE=1",
                "ENV DATA_DIR=/app/backend/data",
                "WORKDIR /app/backend",
                # A pod's variables come before an image's: what is replaced, is replaced here.
                f"ENTRYPOINT {json.dumps(['env', *replaced])}",
                'CMD ["python", "-m", "uvicorn", "open_webui.main:app", "--host", "0.0.0.0", '
                '"--port", "8080"]',
            ],
        )
        return choice

    def _make(
        self,
        reference: str,
        program: Path,
        name: str,
        links: Iterable[str] = (),
        start: _Start = _Start(),
    ) -> None:
        """Import an image of one program, unless Docker has the same already."""
        stat = program.stat()
        self._import(
            reference,
            f"{program.parent.name} {stat.st_size} {stat.st_mtime_ns}",
            lambda archive: _pack(archive, program, name, links),
            [
                f"ENV PATH={_PATH}",
                f'ENTRYPOINT ["{_PATH}/{name}"]',
                f"CMD {json.dumps(start.arguments)}",
                f"USER {start.user}",
            ],
        )

    def _import(
        self, reference: str, mark: str, write: Callable[[IO[bytes]], None], changes: Sequence[str]
    ) -> None:
        """Import a root file system as an image, unless Docker has one with that mark."""
        mark = f"{mark} {hashlib.sha256(json.dumps(changes).encode()).hexdigest()[:16]}"
        for image in self.docker.images.list(name=reference):
            if image.labels.get("stackproof") == mark:
                return
        with tempfile.TemporaryFile() as archive:
            write(archive)
            archive.seek(0)
            repository, _, tag = reference.rpartition(":")
            self.docker.api.import_image_from_data(
                _Chunks(archive),
                repository=repository,
                tag=tag,
                changes=[*changes, f'LABEL stackproof="{mark}"'],
            )

    @cached_property
    def programs(self) -> tuple[str, ...]:
        """What `choose` may have to build, for preparing it with a progress bar."""
        if self._pinned:
            return ()
        known = programs.names(self._checkout)
        wanted = (_PROGRAMS.get(name, name) for name in self._versions.images)
        return tuple(name for name in (*wanted, _STANDIN) if name in known)


def _is_left_out(path: Path) -> bool:
    return path.name in _NO_PYTHON or path.match("config-*") or path.suffix == ".a"


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


def _pack(archive: IO[bytes], program: Path, name: str, links: Iterable[str]) -> None:
    """Write a root file system: the program, and what it loads if it came out of an image."""
    root = RootFs(archive, {"nonroot": 65532})
    root.copy(program, f"{_PATH.strip('/')}/{name}")
    root.libraries([program])
    for link in links:
        root.link(f"{_PATH.strip('/')}/{link}", name)
    root.close()
