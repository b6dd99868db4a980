"""Root file systems out of this machine's own files."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from stackproof.errors import StackproofError
from stackproof.toolchain.rootfs import RootFs


@pytest.fixture
def written(tmp_path: Path) -> tarfile.TarFile:
    source = tmp_path / "tree"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "tool").write_text("a program")
    (source / "bin" / "tool").chmod(0o700)
    (source / "bin" / "alias").symlink_to("tool")
    (source / "left").mkdir()
    (source / "left" / "out").write_text("not this")
    archive = io.BytesIO()
    root = RootFs(archive, {"postgres": 70})
    root.text("opt/first", "the first")
    root.text("opt/first", "the second")
    root.tree(source, "opt/tree", but=lambda path: path.name == "left")
    root.libraries([Path(sys.executable)])
    root.close()
    archive.seek(0)
    return tarfile.open(fileobj=archive)


def test_a_path_is_written_once_below_its_folders(written: tarfile.TarFile) -> None:
    names = written.getnames()
    assert len(names) == len(set(names))
    content = written.extractfile("opt/first")
    assert content
    assert content.read() == b"the first"
    for name in names:
        above, _, _ = name.rpartition("/")
        assert not above or names.index(above) < names.index(name), name


def test_anybody_may_read_and_run_what_is_copied(written: tarfile.TarFile) -> None:
    """Pods do not run as the one who made the image."""
    tool = written.getmember("opt/tree/bin/tool")
    assert tool.mode == 0o755
    assert (tool.uid, tool.gid) == (0, 0)
    assert written.getmember("opt/tree/bin/alias").linkname == "tool"
    assert "opt/tree/left/out" not in written.getnames()
    passwd = written.extractfile("etc/passwd")
    assert passwd
    assert b"postgres:x:70:70:" in passwd.read()


def test_libraries_are_where_the_program_looks_for_them(written: tarfile.TarFile) -> None:
    """Of whatever this Python loads; /lib and /lib64 lead to /usr in the image."""
    said = subprocess.run(["ldd", sys.executable], capture_output=True, text=True, check=True)
    libraries = [part for line in said.stdout.splitlines() for part in line.split() if "/" in part]
    assert libraries
    for library in libraries:
        path = library.lstrip("/")
        path = f"usr/{path}" if path.startswith("lib") else path
        assert written.getmember(path).isfile(), library


def test_without_a_shell_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackproofError, match="busybox"):
        RootFs(io.BytesIO(), {}).shell()
