"""Programs out of the very images that are deployed: what ran is then what production runs.

Docker gives the file if it has the image; else the registry does by its HTTP API (tools/fetch),
or the mirror that STACKPROOF_MIRROR names. What is not the deployed version, or does not run here,
is not used: the caller is told why, and builds. STACKPROOF_IMAGES=off leaves all of this out.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import platform
import re
import ssl
import subprocess
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stackproof.errors import StackproofError
from stackproof.repo.versions import Image, plain

from . import golang, identity
from .cache import Entry, cache_root
from .progress import Progress

_DOCKER_HUB = "index.docker.io"
_MIRROR = "STACKPROOF_MIRROR"
_SWITCH = "STACKPROOF_IMAGES"

#: A registry that has not answered by then is not waited for.
_PROBE_S = 3.0
_DOCKER_S = 10

#: What the processor is called: by Python, by images, and in the header of an ELF file.
_PROCESSORS: Final[Mapping[str, tuple[str, int]]] = {
    "x86_64": ("amd64", 62),
    "aarch64": ("arm64", 183),
    "arm64": ("arm64", 183),
}

#: Registries that do not answer, or want no more questions, and why: no image is asked of them
#: again in this run.
_gone: dict[str, str] = {}


class NotHadError(Exception):
    """A program is not had out of its image, for the reason that this says.

    Args:
        reason: The reason.
        of_registry: Whether it is one for every image of that registry.
    """

    def __init__(self, reason: str, *, of_registry: bool = False) -> None:
        super().__init__(reason)
        self.of_registry = of_registry


@dataclass(frozen=True)
class DeployedProgram:
    """A program that production runs from an image."""

    name: str
    image: Image
    inside: str
    ask: Sequence[str]

    @property
    def version(self) -> str:
        """Its version, as the image's tag has it."""
        return plain(self.image.version)

    @property
    def entry(self) -> Entry:
        """Its place in the cache."""
        what = f"{self.image} {self.inside} {platform.machine()}"
        key = f"image-{hashlib.sha256(what.encode()).hexdigest()[:24]}"
        return Entry(cache_root() / "programs" / self.name, key, self.name)

    def take(self, fetch: Callable[[], Path], progress: Progress) -> None:
        """Take it out of its image, into the cache.

        Args:
            fetch: Returns the program tools/fetch; called once a registry has answered.
            progress: Is told how far it is.

        Raises:
            NotHadError: It cannot be had that way.
            StackproofError: The cache cannot be written, or a setting is wrong.
        """
        this_platform()  # or there is nothing to ask for

        def into(folder: Path, lock: int) -> None:
            binary = folder / self.name
            if _from_docker(self.image, self.inside, binary):
                origin = {"from": "Docker"}
            else:
                origin = self._from_registry(fetch, progress, binary, lock)
            binary.chmod(0o755)
            check(binary, self.version, self.ask)
            record = {"image": str(self.image), "inside": self.inside, **origin}
            (folder / "image.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
            progress.end(f"got {self.name} {self.version}")

        self.entry.make(into, progress.say)

    def _from_registry(
        self, fetch: Callable[[], Path], progress: Progress, binary: Path, lock: int
    ) -> dict[str, str]:
        reference = Reference.of(self.image)
        reference.reach()
        command = [str(fetch()), "file", "-platform", this_platform()]
        command += [str(reference), self.inside, str(binary)]
        progress.begin(f"getting {self.name} {self.version} out of {self.image}", 1)
        answered = reference.ask(command, progress.tick, lock)
        return {"from": str(reference), "digest": answered}


def wanted() -> bool:
    """Tell whether images are asked for programs: STACKPROOF_IMAGES.

    Raises:
        StackproofError: It says something else than on and off.
    """
    said = os.environ.get(_SWITCH, "on")
    if said not in {"on", "off"}:
        raise StackproofError(f"is {said!r}", where=_SWITCH, todo="Say on or off.")
    return said == "on"


def this_platform() -> str:
    """Return what images call this machine: `linux/amd64`.

    Raises:
        NotHadError: No image is for it.
    """
    here = f"{platform.system()} {platform.machine()}"
    if platform.system() != "Linux" or platform.machine() not in _PROCESSORS:
        raise NotHadError(f"images have programs for Linux on amd64 and arm64, this is {here}")
    return f"linux/{_PROCESSORS[platform.machine()][0]}"


def digest(image: Image, fetch: Callable[[], Path]) -> str:
    """Return the digest that a registry has of an image: for all of its platforms.

    Raises:
        NotHadError: It does not say.
    """
    reference = Reference.of(image)
    reference.reach()
    return reference.ask([str(fetch()), "digest", str(reference)])


# --- the registry ---


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is asked for.

    Args:
        registry: HOST[:PORT].
        rest: What comes after it: the path, with tag or digest.
    """

    registry: str
    rest: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.rest}"

    @classmethod
    def of(cls, image: Image) -> Reference:
        """Return where an image is: in its registry, or under the mirror of STACKPROOF_MIRROR.

        Raises:
            StackproofError: The mirror is none.
        """
        registry, path = _split(image.repository)
        # A digest says which; the tag beside it says no more.
        path += f"@{image.digest}" if image.digest else f":{image.version}"
        mirror = os.environ.get(_MIRROR)
        if not mirror:
            return cls(registry, path)
        if not re.fullmatch(r"([\w.-]+|\[[\da-fA-F:]+\])(:\d+)?(/[\w.-]+)*/?", mirror):
            raise StackproofError(
                f"{mirror!r} names no registry",
                where=_MIRROR,
                todo="Say HOST, HOST:PORT or HOST:PORT/PREFIX, without https:// before it.",
            )
        registry, _, prefix = mirror.rstrip("/").partition("/")
        return cls(registry, f"{prefix}/{path}" if prefix else path)

    def reach(self) -> None:
        """Ask whether the registry answers, unless it is known not to.

        Raises:
            NotHadError: It does not.
        """
        if self.registry not in _gone and (why := _unreachable(self.registry)):
            _gone[self.registry] = f"the registry {self.registry} cannot be reached ({why})"
        if self.registry in _gone:
            raise NotHadError(_gone[self.registry], of_registry=True)

    def ask(
        self,
        command: Sequence[str],
        tick: Callable[[float], None] = lambda _: None,
        lock: int | None = None,
    ) -> str:
        """Let tools/fetch ask for the image; return its digest.

        Raises:
            NotHadError: The registry does not give it.
        """
        answer = _run(command, tick, lock)
        if answer.get("kind") in {"unreachable", "limited"}:
            _gone[self.registry] = f"the registry {self.registry} cannot be used: {answer['error']}"
            raise NotHadError(_gone[self.registry], of_registry=True)
        if "error" in answer:
            raise NotHadError(str(answer["error"]).rstrip(": "))
        return str(answer["digest"])


def _split(repository: str) -> tuple[str, str]:
    """Return the registry and the path of a repository, as Docker reads it."""
    first, _, rest = repository.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return _DOCKER_HUB, repository if rest else f"library/{repository}"


def _unreachable(registry: str) -> str:
    """Return why a registry does not answer, "" if it does; decided within seconds."""
    why = [f"no answer within {_PROBE_S:g} s"]

    def probe() -> None:
        why[0] = _probe(registry)

    # Looking up a name has no timeout of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_S)
    return why[0]


def _probe(registry: str) -> str:
    here = _is_loopback(registry)
    # tools/fetch goes through the same proxies, and to this machine itself through none.
    proxies = urllib.request.ProxyHandler({} if here else None)
    url = f"{'http' if here else 'https'}://{registry}/v2/"
    try:
        urllib.request.build_opener(proxies).open(url, timeout=_PROBE_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # an answer as well: mostly that one must have a token
    except urllib.error.URLError as error:
        # Which certificates are trusted here, tools/fetch may know better.
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return ""
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _is_loopback(registry: str) -> bool:
    host = registry.rpartition(":")[0] if re.search(r":\d+$", registry) else registry
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _run(command: Sequence[str], tick: Callable[[float], None], lock: int | None) -> dict[str, Any]:
    """Run tools/fetch, and end it with us; return the last thing it says."""
    answer: dict[str, Any] = {"error": f"{command[0]} ended without an answer"}
    with (
        golang.terminable(),
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            pass_fds=[] if lock is None else [lock],
        ) as process,
    ):
        assert process.stdout
        try:
            for line in process.stdout:
                said = json.loads(line)
                if "of" in said:
                    tick(said["got"] / max(said["of"], 1))
                else:
                    answer = said
        finally:
            process.kill()
    return answer


# --- Docker ---


def _from_docker(image: Image, inside: str, to: Path) -> bool:
    """Copy a file out of an image that Docker has already; tell whether it has.

    It is not told to pull: how long that takes in vain, nobody can bound.
    """
    try:
        import docker
        import docker.errors
    except ModuleNotFoundError:
        return False
    try:
        client = docker.from_env(timeout=_DOCKER_S)
    except docker.errors.DockerException:
        return False
    try:
        container = client.containers.create(client.images.get(str(image)).id)
        try:
            chunks, stat = container.get_archive(inside)
            if stat["linkTarget"]:
                chunks, _ = container.get_archive(stat["linkTarget"])
            return _unpack(chunks, to)
        finally:
            container.remove()
    except (docker.errors.DockerException, OSError, tarfile.TarError):
        return False
    finally:
        client.close()


def _unpack(chunks: Any, to: Path) -> bool:
    """Write the one file of an archive that comes in chunks."""
    with to.with_suffix(".tar").open("w+b") as archive:
        archive.writelines(chunks)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            content = next((tar.extractfile(each) for each in tar if each.isreg()), None)
            if content is None:
                return False
            with to.open("wb") as file:
                while block := content.read(1 << 20):
                    file.write(block)
    to.with_suffix(".tar").unlink()
    return True


# --- what came out ---


def check(binary: Path, version: str, ask: Sequence[str]) -> None:
    """Refuse a file that is no program for this machine, or not of that version.

    Raises:
        NotHadError: It is not; the reason is said.
    """
    processor, number = _PROCESSORS[platform.machine()]
    with binary.open("rb") as file:
        header = file.read(20)
    if header[:6] != b"\x7fELF\x02\x01":
        raise NotHadError("its file is not a program for Linux on 64 bits")
    if int.from_bytes(header[18:20], "little") != number:
        raise NotHadError(f"its program is for another processor than {processor}")
    try:
        said = identity.ask(binary, ask)
    except FileNotFoundError as error:
        # What is missing is the loader that its header names.
        raise NotHadError("it needs a C library that this machine does not have") from error
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise NotHadError(f"it does not start here: {error}") from error
    if not identity.names(said, version):
        first = next(iter(said.strip().splitlines()), "nothing")
        raise NotHadError(f"its program does not say that it is {version}, but: {first}")
