"""The cache: whole entries or none, made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stackproof.errors import StackproofError
from stackproof.toolchain.cache import Entry, cache_root


def nobody(text: str) -> None:
    raise AssertionError(text)


def fill(into: Path, lock: int) -> None:  # noqa: ARG001
    (into / "program").write_bytes(b"#!/bin/true\n")
    (into / "program").chmod(0o755)


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return Entry(tmp_path / "programs", "key", "program")


@pytest.fixture
def made(entry: Entry) -> Entry:
    entry.make(fill, nobody)
    assert entry.ready()
    return entry


def test_it_is_made_once(made: Entry) -> None:
    made.make(lambda into, _: nobody(str(into)), nobody)
    assert made.path == made.folder / "key" / "program"
    assert sorted(path.name for path in made.folder.rglob("*")) == [
        ".lock",
        "key",
        "program",
        "record.json",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        lambda path: path.unlink(),
        lambda path: path.chmod(0o644),
        lambda path: path.with_name("record.json").write_text("{"),
        lambda path: path.with_name("record.json").write_text("[]"),
        lambda path: path.with_name("record.json").unlink(),
    ],
    ids=["empty", "half", "changed", "gone", "not executable", "no JSON", "no record", "none"],
)
def test_a_damaged_entry_is_made_again(made: Entry, damage: Callable[[Path], object]) -> None:
    damage(made.path)
    assert not made.ready()
    made.make(fill, nobody)
    assert made.ready()


def test_a_half_with_the_time_of_the_whole_is_damaged(made: Entry) -> None:
    when = made.path.stat().st_mtime_ns
    os.truncate(made.path, 5)
    os.utime(made.path, ns=(when, when))
    assert not made.ready()


def test_a_copy_with_other_times_is_good(made: Entry) -> None:
    os.utime(made.path, ns=(1, 1))
    assert made.ready()


def test_what_a_killed_process_left_is_removed(entry: Entry) -> None:
    left = entry.folder / ".making" / "program"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    entry.make(fill, nobody)
    assert not left.parent.exists()


def test_a_maker_that_fails_leaves_nothing(entry: Entry) -> None:
    def fail(into: Path, lock: int) -> None:
        fill(into, lock)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        entry.make(fail, nobody)
    assert not entry.ready()
    assert [path.name for path in entry.folder.iterdir()] == [".lock"]


def test_the_lock_says_who_holds_it(entry: Entry) -> None:
    def look(into: Path, lock: int) -> None:
        fill(into, lock)
        assert (entry.folder / ".lock").read_text() == str(os.getpid())

    entry.make(look, nobody)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StackproofError, match=r"cannot be written: Not a directory. Set STACKPROOF_"
    ):
        Entry(tmp_path / "file" / "programs", "key", "program").make(fill, nobody)


def test_a_full_disk(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StackproofError, match=r"No space left on device. Free some space"):
        entry.make(fill, nobody)
    assert not entry.ready()


def test_it_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKPROOF_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_root() == Path("/a")
    monkeypatch.delenv("STACKPROOF_CACHE")
    assert cache_root() == Path("/b/stackproof")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "stackproof"
