"""A container's root file system out of this machine's own files: programs and what they load.

It stands in where no registry can be reached: what runs here, linked against this machine's
libraries, runs in such an image as well.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from stackproof.errors import StackproofError

_BIN = "usr/local/bin"

#: As on every system with a merged /usr.
_MERGED = ("bin", "sbin", "lib", "lib64")

_ELF = b"\x7fELF"
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


class RootFs:
    """Writes a root file system into a tar archive: each path once, the first one wins.

    Args:
        archive: Where it is written to.
        users: Name to number, of users who have a group of the same name and number.
    """

    def __init__(self, archive: IO[bytes], users: dict[str, int]) -> None:
        self._tar = tarfile.open(fileobj=archive, mode="w")  # noqa: SIM115
        self._there: set[str] = set()
        for name in _MERGED:
            self.link(name, f"usr/{name}")
        self.folder("tmp", 0o1777)
        known = {"root": 0, **users, "nobody": 65534}
        self.text("etc/passwd", "".join(f"{n}:x:{i}:{i}::/tmp:/bin/sh\n" for n, i in known.items()))
        self.text("etc/group", "".join(f"{n}:x:{i}:\n" for n, i in known.items()))
        self.text("etc/nsswitch.conf", "hosts: files dns\n")

    def close(self) -> None:
        """Write the archive's end."""
        self._tar.close()

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Make a folder, and those above it."""
        above, _, _ = path.rpartition("/")
        if above and above not in self._there:
            self.folder(above)
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self._add(entry)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        entry = self._entry(path)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._add(entry)

    def text(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file."""
        entry = self._entry(path)
        content = text.encode()
        entry.size, entry.mode = len(content), mode
        self._add(entry, io.BytesIO(content))

    def copy(self, source: Path, path: str = "") -> None:
        """Copy a file: to the place that it has here unless another is given."""
        entry = self._entry(path or _merged(source))
        stat = source.stat()
        entry.size, entry.mode = stat.st_size, 0o755 if stat.st_mode & 0o100 else 0o644
        if entry.name not in self._there:
            with source.open("rb") as file:
                self._add(entry, file)

    def tree(
        self, source: Path, path: str = "", *, but: Callable[[Path], bool] = lambda _: False
    ) -> None:
        """Copy a folder, and the libraries of all that is in it.

        Args:
            source: The folder.
            path: Where it is in the image; as here if not given.
            but: Says what is left out.
        """
        path = path or _merged(source)
        native = []
        for folder, names, files in os.walk(source):
            here = Path(folder)
            names[:] = [name for name in names if not but(here / name)]
            for name in (n for n in files if not but(here / n)):
                file = here / name
                into = f"{path}/{file.relative_to(source)}"
                if file.is_symlink() and not file.readlink().is_absolute():
                    self.link(into, str(file.readlink()))
                elif file.exists():
                    self.copy(file, into)
                    native += [file] if _is_native(file) else []
        self.libraries(native, inside=source)

    def libraries(self, files: Iterable[Path], *, inside: Path | None = None) -> None:
        """Copy the shared libraries that programs load, but those `inside` a folder."""
        names = [str(file) for file in files]
        if not names:
            return
        # It fails where one of the files is not linked dynamically, and still tells of the others.
        said = subprocess.run(["ldd", *names], capture_output=True, text=True, check=False).stdout
        for found in sorted(set(_LIBRARY.findall(said))):
            library = Path(os.path.normpath(found))
            if inside is None or inside not in library.parents:
                self.copy(library)

    def shell(self) -> None:
        """Copy busybox, under all of its names, as in Alpine.

        Raises:
            StackproofError: There is none here.
        """
        busybox = shutil.which("busybox")
        if not busybox:
            raise StackproofError(
                "an image needs a shell, and there is no busybox", where="PATH", todo="Install it."
            )
        self.copy(Path(busybox), f"{_BIN}/busybox")
        self.libraries([Path(busybox)])
        names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
        for name in names.stdout.split():
            self.link(f"{_BIN}/{name}", "busybox")
        self.link("usr/bin/env", "/usr/local/bin/env")
        self.link("usr/bin/sh", "/usr/local/bin/sh")

    def _entry(self, path: str) -> tarfile.TarInfo:
        above, _, _ = path.rpartition("/")
        if above and above not in self._there:
            self.folder(above)
        return tarfile.TarInfo(path)

    def _add(self, entry: tarfile.TarInfo, file: IO[bytes] | None = None) -> None:
        if entry.name not in self._there:
            self._there.add(entry.name)
            self._tar.addfile(entry, file)


def _merged(source: Path) -> str:
    """Return a path in an image in which /lib is /usr/lib, and so on."""
    path = str(source).lstrip("/")
    return f"usr/{path}" if path.split("/", 1)[0] in _MERGED else path


def _is_native(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == _ELF
