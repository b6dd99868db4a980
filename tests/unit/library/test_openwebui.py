"""The pins of the real application, and what is said where it cannot be had."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.toolchain import openwebui


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A checkout that pins version 1.2.3, and an empty cache."""
    monkeypatch.setenv("STACKPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openwebui, "_OWN", "3.12")
    folder = tmp_path / "tools" / "open-webui"
    folder.mkdir(parents=True)
    (folder / "application.lock").write_text("# Made.\nopen-webui==1.2.3 \\\n    --hash=x\n")
    (folder / "requirements.lock").write_text("a==1\n")
    return Checkout(tmp_path)


def test_what_is_tested_is_what_is_deployed(checkout: Checkout) -> None:
    lock = checkout.tools / "open-webui" / "application.lock"
    deployed = Versions.load(checkout).image("open-webui").version
    assert f"v{openwebui.pinned(lock.read_text())}" == deployed, (
        "run: python tools/open-webui/lock.py"
    )


def test_every_requirement_is_locked(checkout: Checkout) -> None:
    folder = checkout.tools / "open-webui"
    wanted, locked = (
        set(re.findall(r"^[a-z][\w-]*", (folder / name).read_text(), re.MULTILINE))
        for name in ("requirements.in", "requirements.lock")
    )
    assert len(wanted) > 40
    assert wanted <= locked, "run: python tools/open-webui/lock.py"


def test_before_it_is_made(pins: Checkout) -> None:
    found = openwebui.locate(pins, build=False)
    assert (found.version, found.path, found.how) == ("1.2.3", None, "not built yet")


def test_another_pin_is_another_environment(pins: Checkout) -> None:
    """What was made of other pins is not taken for it."""
    entries = []
    for text in ("a==1\n", "a==2\n"):
        (pins.tools / "open-webui" / "requirements.lock").write_text(text)
        entries.append(openwebui.entry(pins))
    assert entries[0].path != entries[1].path


@pytest.mark.parametrize("missing", ["application.lock", "requirements.lock"])
def test_a_missing_pin(pins: Checkout, missing: str) -> None:
    (pins.tools / "open-webui" / missing).unlink()
    with pytest.raises(StackproofError, match=rf"^tools/open-webui/{missing}: cannot be read"):
        openwebui.locate(pins, build=False)


def test_a_pin_of_something_else(pins: Checkout) -> None:
    (pins.tools / "open-webui" / "application.lock").write_text("other==1\n")
    with pytest.raises(StackproofError, match=r"pins no open-webui. Run: .*lock.py"):
        openwebui.locate(pins, build=False)


def test_a_package_that_cannot_be_had(pins: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash is none, so pip refuses it before it asks anybody; nothing half made is left."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(StackproofError, match="environment of open-webui cannot be made"):
        openwebui.find(pins)
    assert openwebui.locate(pins, build=False).path is None
    assert [p.name for p in openwebui.entry(pins).folder.iterdir()] == [".lock"]


def test_a_python_that_is_too_new(
    pins: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fits is looked for on PATH."""
    monkeypatch.setattr(openwebui, "_OWN", "3.99")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackproofError, match=r"needs Python 3.12 or 3.11 on PATH, .* 3.99"):
        openwebui.locate(pins, build=False)
    assert "on PATH" in openwebui.unavailable()
    (tmp_path / "python3.11").symlink_to(sys.executable)
    assert not openwebui.unavailable()
    assert openwebui.locate(pins, build=False).how == "not built yet"


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("open_webui/main.py", False),
        ("open_webui/CHANGELOG.md", False),
        ("open_webui/frontend/static/favicon.png", False),
        ("open_webui/frontend/_app/x.js", True),
        ("open_webui/static/fonts/x.ttf", True),
        ("open_webui-0.11.3.dist-info/METADATA", False),
    ],
)
def test_what_is_unpacked(name: str, left_out: bool) -> None:
    assert bool(openwebui.LEFT_OUT.match(name)) == left_out
