"""Record a run of `stackproof demo` as a picture: `make recording`.

The command runs for real, on a terminal of its own; what it has printed in the end is the picture.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stackproof.repo.checkout import Checkout

WIDTH = 104
_TITLE = "stackproof demo"
_ONE_UP, _ERASE = "\x1b[1A", "\x1b[2K"
#: The frame of rich's pictures, without its fonts, which a reader's browser would have to fetch.
_FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>A recorded run of stackproof demo</title>
<style>
svg {{ font-family: ui-monospace, Menlo, Consolas, monospace }}
.{unique_id}-matrix {{ font-size: {char_height}px; line-height: {line_height}px }}
.{unique_id}-title {{ font-size: 16px }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def run(command: list[str]) -> str:
    """Run a command on a terminal of `WIDTH` columns and return what it printed, colours too."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "LINES": "50", "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    ) as process:
        os.close(theirs)
        printed = b""
        try:
            while part := os.read(ours, 65536):
                printed += part
        except OSError:  # so a terminal ends on Linux
            pass
        os.close(ours)
    if process.returncode:
        sys.exit(f"recording: {' '.join(command)} ended with {process.returncode}")
    return printed.decode()


def remaining(printed: str) -> str:
    """Return the lines that are left on the terminal: a progress bar has been wiped away."""
    lines: list[str] = []
    for line in printed.replace("\r\n", "\n").split("\n"):
        # Its progress bar goes back to a line, erases it and writes it anew.
        if _ONE_UP in line:
            lines.pop()
        lines.append(line.rpartition(_ERASE)[2].rpartition("\r")[2])
    return "\n".join(lines)


def picture(text: str) -> str:
    """Return what a terminal shows, as SVG."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.strip("\n")), soft_wrap=False)
    return console.export_svg(title=_TITLE, code_format=_FRAME, unique_id="demo")


def main(target: Path) -> None:
    """Write the picture; paths of this machine are shown from the repository's root."""
    root = str(Checkout.find().root)
    shown = remaining(run([str(Path(sys.executable).parent / "stackproof"), "demo"]))
    target.write_text(picture(f"$ make demo\n{shown.replace(f'{root}/', '')}"), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
