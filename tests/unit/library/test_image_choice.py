"""Which image a component gets, and what is in one that is made here."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
from tests.ran import ran

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.toolchain import images, programs
from stackproof.toolchain.images import How, Images, _pack


class _Docker:
    """Docker's answers: which images there are, and what was pulled."""

    def __init__(self, *there: str) -> None:
        self.there = set(there)
        self.pulled: list[str] = []
        self.images = SimpleNamespace(get=self._get, pull=self._pull)

    def _get(self, name: str) -> Any:
        if name not in self.there:
            raise docker.errors.ImageNotFound(name)
        return SimpleNamespace(tag=lambda *names: self.there.add(":".join(names)))

    def _pull(self, name: str) -> None:
        self.pulled.append(name)
        self.there.add(name)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made instead of pulled; nothing is built for it."""
    found: list[str] = []
    monkeypatch.setattr(
        programs,
        "locate",
        lambda name, _: SimpleNamespace(name=name, version="1.2.3+x", path=Path("/bin/sh")),
    )

    def note(_: Images, reference: str, *_args: object, **_more: object) -> None:
        found.append(reference)

    monkeypatch.setattr(Images, "_make", note)
    return found


def _images(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, docker: _Docker, **environment: str
) -> Images:
    monkeypatch.setattr(images, "connect", lambda: docker)
    return Images(checkout, environment)


def test_what_is_given_wins(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    docker = _Docker("local/tempo:dev")
    chosen = _images(
        checkout, monkeypatch, docker, IMAGE_TEMPO="local/tempo:dev", IMAGES="pinned"
    ).choose("tempo")
    assert (chosen.reference, chosen.how) == ("local/tempo:dev", How.GIVEN)
    assert (docker.pulled, made) == ([], [])


def test_pinned_images_are_pulled(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    docker = _Docker()
    chosen = _images(checkout, monkeypatch, docker, IMAGES="pinned").choose("tempo")
    pin = Versions.load(checkout).image("tempo")
    tagged = f"{pin.repository}:{pin.version}"
    assert (chosen.reference, chosen.how) == (tagged, How.PINNED)
    assert tagged in docker.there
    assert made == []


def test_a_pinned_digest_is_pulled_and_has_its_tag(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, made: list[str], tmp_path: Path
) -> None:
    pins = checkout.versions_file.read_text()
    pin = Versions.load(checkout).image("tempo")
    digest = "sha256:" + "0" * 64
    (tmp_path / "versions.yaml").write_text(
        pins.replace(f"tag: {pin.tag}\n", f"tag: {pin.version}@{digest}\n")
    )
    docker = _Docker()
    chosen = _images(Checkout(tmp_path), monkeypatch, docker, IMAGES="pinned").choose("tempo")
    assert docker.pulled == [f"grafana/tempo@{digest}"]
    assert chosen.reference == f"grafana/tempo:{pin.version}"
    assert chosen.reference in docker.there
    assert made == []


def test_else_they_are_made_and_nothing_is_pulled(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    postgres = str(Versions.load(checkout).image("postgres"))
    docker = _Docker(postgres)
    found = _images(checkout, monkeypatch, docker)
    chosen = {name: found.choose(name) for name in ("mimir", "gateway", "grafana", "postgres")}
    assert {name: each.how for name, each in chosen.items()} == {
        "mimir": How.BUILT,
        "gateway": How.BUILT,
        "grafana": How.STAND_IN,
        "postgres": How.PINNED,
    }
    assert chosen["gateway"].reference == "stackproof.local/caddy:1.2.3-x"
    assert "stand-in-for-grafana" in chosen["grafana"].reference
    assert docker.pulled == []
    assert made == [chosen[name].reference for name in ("mimir", "gateway", "grafana")]


def test_a_wrong_setting_is_an_error(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StackproofError, match="IMAGES: is 'both'"):
        _images(checkout, monkeypatch, _Docker(), IMAGES="both")
    with pytest.raises(StackproofError, match="IMAGE_MIMIR: 'mimir' has no tag"):
        _images(checkout, monkeypatch, _Docker(), IMAGE_MIMIR="mimir").choose("mimir")


def test_an_image_holds_the_program_and_its_links(tmp_path: Path) -> None:
    program = tmp_path / "built"
    program.write_bytes(b"ELF")
    program.chmod(0o755)
    packed = io.BytesIO()
    _pack(packed, program, "standin", ["pg_isready"])
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        binary = tar.getmember("usr/local/bin/standin")
        assert (binary.size, binary.mode) == (3, 0o755)
        assert tar.getmember("usr/local/bin/pg_isready").linkname == "standin"
        assert tar.getmember("tmp").mode == 0o1777


def test_an_image_holds_what_its_program_loads() -> None:
    """One that came out of an image may be linked against libraries."""
    program = Path(shutil.which("env") or "").resolve()
    loads = ran(["ldd", program]).stdout
    if "libc" not in loads:
        pytest.skip("this machine's programs load nothing")
    packed = io.BytesIO()
    _pack(packed, program, "env", [])
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        assert any(name.startswith("usr/lib") and "libc" in name for name in tar.getnames())
