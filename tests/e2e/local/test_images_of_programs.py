"""Programs are taken out of the images that are deployed; where that fails, it is said and built.

The registry is ours, on loopback; the programs are real ones, a small one that is built here among
them.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from rich.console import Console
from tests.copies import edit
from tests.e2e.local.registry import Registry, layer
from tests.foreground import usual_signals

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.toolchain import deployed, golang, programs
from stackproof.waiting import until

OWN, OTHER = ("amd64", "arm64") if platform.machine() == "x86_64" else ("arm64", "amd64")
GO = """package main

import "fmt"

var Version = "none"

func main() { fmt.Println("hello, version", Version) }
"""


@pytest.fixture(scope="session")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Build the program that says a version."""
    folder = tmp_path_factory.mktemp("hello")
    (folder / "go.mod").write_text("module example.test/hello\n\ngo 1.26.0\n")
    (folder / "main.go").write_text(GO)
    go = golang.find_go(Checkout.find(), golang.OLDEST, print)

    def build(version: str) -> bytes:
        made, flags = folder / version, f"-s -w -X main.Version={version}"
        if not made.exists():
            command = [str(go), "build", "-ldflags", flags, "-o", version, "."]
            environment = os.environ | {"CGO_ENABLED": "0"}
            subprocess.run(command, cwd=folder, env=environment, check=True)
        return made.read_bytes()

    return build


@pytest.fixture(scope="session")
def fetch() -> Path:
    return programs.find("fetch")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch: Path) -> Checkout:
    """A clone whose one program, hello 1.2.2, is deployed as 1.2.3, and an empty cache."""
    checkout = Checkout(tmp_path / "clone")
    folder = checkout.tools / "hello"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module example.test/hello\n\ngo 1.26.0\n")
    (folder / "main.go").write_text(GO)
    (checkout.tools / "fetch").symlink_to(Checkout.find().tools / "fetch")
    shutil.copy(Checkout.find().versions_file, checkout.versions_file)
    image = "\n  hello:\n    repository: example/hello\n    tag: v1.2.3"
    edit(checkout.versions_file, "\nimages:", f"\nimages:{image}")
    recipe = programs.Recipe(2, {"main.Version": "1.2.2"}, ["--version"], inside="/bin/hello")
    monkeypatch.setattr(programs, "RECIPES", {"hello": recipe})
    monkeypatch.setattr(deployed, "_gone", {})
    monkeypatch.setattr(programs, "_said", set())
    monkeypatch.setenv("STACKPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STACKPROOF_FETCH", str(fetch))
    monkeypatch.delenv("STACKPROOF_IMAGES", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return checkout


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, hello: Callable[[str], bytes]) -> Iterator[Registry]:
    """A registry that has the image, and takes the place of every other."""
    made = Registry()
    push(made, layer({"bin/hello": hello("1.2.3")}))
    with made.serving():
        monkeypatch.setenv("STACKPROOF_MIRROR", made.address)
        yield made


def push(registry: Registry, *layers: bytes) -> None:
    """Give a registry the image that is deployed, for this machine."""
    registry.push("example/hello", "v1.2.3", {f"linux/{OWN}": list(layers)})


def locate(home: Checkout) -> tuple[programs.Program, str]:
    """Return the program, and what was said meanwhile."""
    said = io.StringIO()
    found = programs.locate("hello", home, console=Console(file=said))
    return found, said.getvalue()


def says(found: programs.Program) -> str:
    assert found.path
    return subprocess.run([found.path], capture_output=True, text=True, check=True).stdout.strip()


def is_deployed(found: programs.Program) -> bool:
    """Tell whether it is the deployed one; else it must be the one that is built."""
    deployed = re.fullmatch(r"image example/(hello|docked):v1\.2\.3", found.how)
    assert deployed or found.how == "built here"
    assert says(found) == f"hello, version {'1.2.3' if deployed else '1.2.2'}"
    return bool(deployed)


# --- right ---


def test_it_is_the_deployed_one_and_is_fetched_once(home: Checkout, registry: Registry) -> None:
    found, said = locate(home)
    assert is_deployed(found)
    assert found.version == "1.2.3"
    assert re.fullmatch(
        r"getting hello 1\.2\.3 out of example/hello:v1\.2\.3 …\ngot hello 1\.2\.3 in \d+ s\n", said
    )
    record = json.loads((found.path or Path()).with_name("image.json").read_text())
    assert record["digest"] == registry._tags["example/hello:v1.2.3"]
    before = len(registry.asked)
    assert locate(home) == (found, "")
    assert len(registry.asked) == before


def test_of_several_platforms_it_is_this_machines(
    home: Checkout, registry: Registry, hello: Callable[[str], bytes]
) -> None:
    own = layer({"bin/hello": hello("1.2.3")}, zipped=True)
    other = layer({"bin/hello": other_processors(hello("1.2.3"))})
    several = {f"linux/{OTHER}": [other], f"linux/{OWN}": [own], "windows/amd64": [layer({})]}
    registry.push("example/hello", "v1.2.3", several)
    assert is_deployed(locate(home)[0])


def test_the_uppermost_layer_wins(
    home: Checkout, registry: Registry, hello: Callable[[str], bytes]
) -> None:
    push(registry, *(layer({"bin/hello": hello(version)}) for version in ("1.2.2", "1.2.3")))
    assert is_deployed(locate(home)[0])
    lower = json.loads(registry._blobs[registry._tags["example/hello:v1.2.3"]])["layers"][0]
    assert not any(lower["digest"] in path for path in registry.asked), "it is not needed"


def test_a_pinned_digest_is_what_is_asked_for(home: Checkout, registry: Registry) -> None:
    pinned = registry._tags["example/hello:v1.2.3"]
    push(registry, layer({"bin/hello": b"other"}))
    edit(home.versions_file, "tag: v1.2.3\n", f"tag: v1.2.3@{pinned}\n")
    found, _ = locate(home)
    assert found.how == f"image example/hello:v1.2.3@{pinned}"
    assert (says(found), found.version) == ("hello, version 1.2.3", "1.2.3")


def test_a_mirror_may_have_a_prefix(
    home: Checkout, monkeypatch: pytest.MonkeyPatch, hello: Callable[[str], bytes]
) -> None:
    mirror = Registry()
    image = {f"linux/{OWN}": [layer({"bin/hello": hello("1.2.3")})]}
    mirror.push("hub/proxy/example/hello", "v1.2.3", image)
    with mirror.serving():
        monkeypatch.setenv("STACKPROOF_MIRROR", f"{mirror.address}/hub/proxy")
        assert is_deployed(locate(home)[0])


def test_a_token_is_asked_for_and_given(home: Checkout, registry: Registry) -> None:
    registry.token = True
    assert is_deployed(locate(home)[0])
    assert any(path.startswith("/token?") for path in registry.asked)


def test_who_is_told_to_wait_waits(home: Checkout, registry: Registry) -> None:
    registry.limited = 2
    assert is_deployed(locate(home)[0])


def test_one_of_the_stacks_own_programs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fetch: Path
) -> None:
    """Caddy, as it is built here, says the version that is deployed."""
    real = programs.locate("caddy")
    assert real.path
    monkeypatch.setattr(deployed, "_gone", {})
    monkeypatch.setenv("STACKPROOF_CACHE", str(tmp_path))
    monkeypatch.setenv("STACKPROOF_FETCH", str(fetch))
    hub = Registry()
    hub.push("library/caddy", real.version, {f"linux/{OWN}": [layer({"usr/bin/caddy": real.path})]})
    with hub.serving():
        monkeypatch.setenv("STACKPROOF_MIRROR", hub.address)
        found = programs.locate("caddy", console=Console(file=io.StringIO()))
    assert (found.how, found.version) == (f"image caddy:{real.version}", real.version)
    assert found.path
    assert found.path.read_bytes() == real.path.read_bytes()


# --- wrong: it is said, and built ---


def other_processors(program: bytes) -> bytes:
    """Return a program as one for another processor: its header says so."""
    machine = {"arm64": 183, "amd64": 62}[OTHER]
    return program[:18] + machine.to_bytes(2, "little") + program[20:]


def _image(*files: bytes) -> Callable[[Registry], object]:
    layers = [layer({"bin/hello": content}) for content in files]
    return lambda registry: push(registry, *layers)


def _set(**faults: object) -> Callable[[Registry], object]:
    return lambda registry: vars(registry).update(faults)


def _for_others_only(registry: Registry) -> None:
    image = {f"linux/{OTHER}": [layer({})], "windows/amd64": [layer({})]}
    registry.push("example/hello", "v1.2.3", image)


def _foreign_libc(registry: Registry) -> None:
    """A program whose loader is nowhere, as one for glibc on Alpine."""
    program, count = re.subn(
        rb"(/ld-)linux([\w.-]*\0)", rb"\1other\2", Path(shutil.which("env") or "").read_bytes()
    )
    assert count
    _image(program)(registry)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (_set(truncated=True), "unexpected EOF"),
        (_set(corrupt=True), "error verifying sha256 checksum"),
        (_set(shut=True), "UNAUTHORIZED"),
        (lambda registry: registry._tags.clear(), "MANIFEST_UNKNOWN"),
        (lambda registry: push(registry, layer({"../bin/hello": b"x"})), "leads out of the image"),
        (_for_others_only, "no child with platform linux/"),
        (_foreign_libc, "it needs a C library that this machine does not have"),
        (_image(b"#!/bin/sh\necho 1.2.3"), "its file is not a program for Linux"),
        (_image(b"\x7fELF\x02\x01" + bytes(12) + b"\0\0"), "its program is for another processor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_told_and_not_used(
    home: Checkout, registry: Registry, fault: Callable[[Registry], object], reason: str
) -> None:
    fault(registry)
    found, said = locate(home)
    assert not is_deployed(found)
    first, *rest = [line for line in said.splitlines() if not line.startswith("getting ")]
    assert first.startswith("hello is built, not taken out of example/hello:v1.2.3: ")
    assert reason in first
    assert rest[0].startswith("building hello ")


def test_a_program_for_another_processor_is_refused(
    home: Checkout, registry: Registry, hello: Callable[[str], bytes]
) -> None:
    _image(other_processors(hello("1.2.3")))(registry)
    found, said = locate(home)
    assert not is_deployed(found)
    assert f"its program is for another processor than {OWN}" in said


def test_a_program_of_another_version_is_refused(
    home: Checkout, registry: Registry, hello: Callable[[str], bytes]
) -> None:
    _image(hello("1.2.30"))(registry)
    found, said = locate(home)
    assert not is_deployed(found)
    assert "does not say that it is 1.2.3, but: hello, version 1.2.30" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_leaves_nothing(
    registry: Registry, fetch: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Of Caddy, since another process knows no other recipe; its image is half there."""
    registry.stops = threading.Event()
    version = programs._Pin.read(Checkout.find(), "caddy").version
    image = {f"linux/{OWN}": [layer({"usr/bin/caddy": bytes(1_000_000)})]}
    registry.push("library/caddy", version, image)
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-m", "stackproof.cli", "tools", "--build", "caddy"],
        env={
            **{name: each for name, each in os.environ.items() if name != "STACKPROOF_CADDY"},
            "STACKPROOF_CACHE": str(cache),
            "STACKPROOF_FETCH": str(fetch),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=usual_signals,
    )
    try:
        half = until(lambda: any("/blobs/" in path for path in registry.asked), within_s=60)
        assert half, "it has not begun"
        process.send_signal(number)
        # Before tools/fetch would give up by itself.
        said, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        registry.stops.set()
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    left = [path for path in (cache / "programs").rglob("*") if path.is_file()]
    assert [path.name for path in left] == [".lock"]


# --- a registry that is not there is asked once ---


def two(home: Checkout) -> str:
    """Get two programs, each with an empty cache; return what was said."""
    _, first = locate(home)
    shutil.rmtree(Path(os.environ["STACKPROOF_CACHE"]))
    _, second = locate(home)
    assert "from source instead" not in second, "it was said already"
    return first


@contextmanager
def silent() -> Iterator[str]:
    """An address that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_registry_that_is_not_there(home: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as address:
        pass  # closed again
    monkeypatch.setenv("STACKPROOF_MIRROR", address)
    said = two(home).splitlines()
    assert said[0] == (
        f"the registry {address} cannot be reached (Connection refused): programs are built from "
        "source instead (about 2 minutes in all, once per machine)"
    )
    assert said[1].startswith("building hello ")


def test_a_registry_that_is_silent(home: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as address:
        monkeypatch.setenv("STACKPROOF_MIRROR", address)
        asked: list[str] = []
        probe = deployed._probe

        def count(registry: str) -> str:
            asked.append(registry)
            return probe(registry)

        monkeypatch.setattr(deployed, "_probe", count)
        said = two(home).splitlines()
    assert re.search(r"cannot be reached \((no answer within 3 s|timed out)\): ", said[0])
    assert asked == [address]


def test_a_registry_that_ends_in_the_middle(home: Checkout, registry: Registry) -> None:
    registry.dies = 100_000
    said = two(home).splitlines()
    assert said[0].startswith("getting hello 1.2.3 out of ")
    assert said[1].startswith(f"the registry {registry.address} cannot be used: ")
    assert "from source instead" in said[1]


def test_a_registry_that_wants_no_more(home: Checkout, registry: Registry) -> None:
    registry.limited, registry.retry_after = 99, "3600"
    said = two(home)
    assert f"the registry {registry.address} cannot be used: " in said
    assert "429" in said
    assert registry.limited == 98, "it was asked again"


def test_images_can_be_left_out(
    home: Checkout, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKPROOF_IMAGES", "off")
    assert not is_deployed(locate(home)[0])
    assert registry.asked == []
    monkeypatch.setenv("STACKPROOF_IMAGES", "no")
    with pytest.raises(StackproofError, match=r"STACKPROOF_IMAGES: is 'no'\. Say on or off"):
        locate(home)


@pytest.mark.parametrize("mirror", ["https://mirror.example", "mirror.example/a b", "/x", ":5000"])
def test_a_mirror_that_is_none(
    home: Checkout, monkeypatch: pytest.MonkeyPatch, mirror: str
) -> None:
    monkeypatch.setenv("STACKPROOF_MIRROR", mirror)
    with pytest.raises(StackproofError, match=r"^STACKPROOF_MIRROR: .* names no registry"):
        locate(home)


# --- over HTTPS, through a proxy ---


class Proxy:
    """Leads every tunnel to one address, whatever it is asked for."""

    def __init__(self, to: str) -> None:
        self.asked: list[str] = []
        self._to = to
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.asked.append(head.split()[1].decode())
            host, _, port = self._to.rpartition(":")
            server = socket.create_connection((host, int(port)))
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        with one, other, suppress(OSError):
            while content := one.recv(1 << 16):
                other.sendall(content)

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of registry.example that signs itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes a certificate, is not installed")
    made = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=registry.example", "-out", made[0]),
            *("-keyout", made[1], "-addext", "subjectAltName=DNS:registry.example"),
        ],
        check=True,
        capture_output=True,
    )
    return made


def test_it_comes_over_https_through_a_proxy(
    home: Checkout,
    monkeypatch: pytest.MonkeyPatch,
    hello: Callable[[str], bytes],
    certificate: tuple[Path, Path],
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    far = Registry()
    push(far, layer({"bin/hello": hello("1.2.3")}))
    with far.serving(tls):
        proxy = Proxy(far.address)
        monkeypatch.setenv("STACKPROOF_MIRROR", "registry.example")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        _, distrusts = locate(home)
        assert "certificate" in distrusts
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        monkeypatch.setattr(deployed, "_gone", {})
        shutil.rmtree(Path(os.environ["STACKPROOF_CACHE"]))
        assert is_deployed(locate(home)[0])
        proxy.close()
    assert set(proxy.asked) == {"registry.example:443"}


# --- Docker ---


@pytest.fixture
def docker_image(home: Checkout, hello: Callable[[str], bytes]) -> Iterator[Callable[[str], None]]:
    """Let Docker have an image with a program of that version, behind a link as in Debian's."""
    # Its own name: other tests run meanwhile.
    edit(home.versions_file, "example/hello", "example/docked")
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env(timeout=60)
    except docker.errors.DockerException:
        pytest.skip("no Docker daemon answers")

    def load(version: str) -> None:
        content = io.BytesIO(layer({"usr/bin/real": hello(version)}))
        with tarfile.open(fileobj=content, mode="a") as tar:
            entry = tarfile.TarInfo("bin/hello")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/usr/bin/real"
            tar.addfile(entry)
        # As released images do, it has something to start.
        changes = ['ENTRYPOINT ["/bin/hello"]']
        client.api.import_image_from_data(
            content.getvalue(), repository="example/docked", tag="v1.2.3", changes=changes
        )

    yield load
    client.images.remove("example/docked:v1.2.3", force=True)
    client.close()


def test_an_image_that_docker_has_is_not_asked_for(
    home: Checkout, registry: Registry, docker_image: Callable[[str], None]
) -> None:
    docker_image("1.2.3")
    found, said = locate(home)
    assert is_deployed(found)
    assert registry.asked == []
    assert said.startswith("got hello 1.2.3 in ")
    assert (
        json.loads((found.path or Path()).with_name("image.json").read_text())["from"] == "Docker"
    )


def test_what_docker_has_must_be_right_as_well(
    home: Checkout, registry: Registry, docker_image: Callable[[str], None]
) -> None:
    docker_image("1.2.4")
    found, said = locate(home)
    assert not is_deployed(found)
    assert "does not say that it is 1.2.3, but: hello, version 1.2.4" in said
    assert registry.asked == []
