"""What a shell completes after `stackproof`, asked of the shells themselves."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests import parsers
from tests.ran import ran

from stackproof import cli

COMPLETED = [
    ("twi", "twins"),
    ("flux di", "diff"),
    ("flux --cluster staging ch", "check"),
    ("flux diff HEAD --fail", "--fail-on"),
    ("prove --targets tar", "targets.yaml"),
    ("prove --junitxml tar", "targets.yaml"),
    ("migrate check --values targets.yaml --values tar", "targets.yaml"),
    ("lint char", "charts"),
    ("lint charts oth", "others"),
    ("--print-completion ba", "bash"),
    ("kind do", "down"),
    ("kind up --flux --re", "--reuse"),
]
NOTHING = "twins everybody"


def _printed(shell: str, folder: Path) -> Path:
    """Return the file with what the command prints for a shell, named as zsh wants it."""
    path = folder / "_stackproof"
    argv = [sys.executable, "-m", "stackproof.cli", "--print-completion", shell]
    path.write_bytes(subprocess.run(argv, check=True, capture_output=True).stdout)
    return path


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _printed("bash", tmp_path_factory.mktemp("bash"))


@pytest.fixture(scope="module")
def zsh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _printed("zsh", tmp_path_factory.mktemp("zsh"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to complete paths in."""
    (tmp_path / "targets.yaml").touch()
    for name in ("charts", "others"):
        (tmp_path / name).mkdir()
    return tmp_path


#: What bash does with Tab: the function that the script has registered gets the words so far.
_BASH = """\
source "$1"; shift
function=$(complete -p stackproof); function=${function##*-F }; function=${function%% *}
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
"$function" stackproof "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(("words", "completed"), [*COMPLETED, (NOTHING, "")])
def test_bash_completes(words: str, completed: str, bash: Path, folder: Path) -> None:
    argv = ["bash", "--norc", "-c", _BASH, "bash", str(bash), "stackproof", *words.split(" ")]
    done = ran(argv, cwd=folder)
    assert (done.stdout.strip(), done.stderr) == (completed, "")


#: What zsh does with Tab: completion works nowhere but in its line editor.
_ZSH = """\
PS1=
autoload -Uz compinit; compinit -u -D
{load}
zle-line-init() {{
  BUFFER=$WORDS; CURSOR=$#BUFFER
  zle complete-word
  print -r -- "$BUFFER" >$COMPLETED
  BUFFER=exit; zle accept-line
}}
zle -N zle-line-init
"""
#: The ways that a user may load it.
_EVAL = 'eval "$(<$SCRIPT)"'
_SOURCE = "source <(cat $SCRIPT)"
_FPATH = "fpath=(${SCRIPT:h} $fpath); compinit -u -D"

needs_zsh = pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")


def _zsh(words: str, script: Path, folder: Path, load: str) -> tuple[str, str]:
    """Return the line after Tab, and whatever zsh complains of."""
    home = Path(tempfile.mkdtemp(prefix="home-", dir=script.parent))
    (home / ".zshrc").write_text(_ZSH.format(load=load))
    line = home / "line"
    environment = {
        "PATH": os.environ["PATH"],
        "TERM": "dumb",
        "ZDOTDIR": str(home),
        "SCRIPT": str(script),
        "WORDS": f"stackproof {words}",
        "COMPLETED": str(line),
    }
    master, slave = os.openpty()
    with (home / "errors").open("wb") as errors:
        shell = subprocess.Popen(
            ["zsh", "-d", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=errors,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    os.close(slave)
    try:
        with contextlib.suppress(OSError):  # the end of a terminal that nobody has open
            while os.read(master, 4096):
                pass
        shell.wait(30)
    finally:
        shell.kill()
        os.close(master)
    return line.read_text().strip().removeprefix("stackproof "), (home / "errors").read_text()


@needs_zsh
@pytest.mark.parametrize(("words", "completed"), [*COMPLETED, (NOTHING, "everybody")])
def test_zsh_completes(words: str, completed: str, zsh: Path, folder: Path) -> None:
    line, errors = _zsh(words, zsh, folder, _EVAL)
    before, _, last = line.rpartition(" ")
    assert (before, last.rstrip("/"), errors) == (words.rpartition(" ")[0], completed, "")


@needs_zsh
@pytest.mark.parametrize("load", [_EVAL, _SOURCE, _FPATH], ids=["eval", "source", "fpath"])
def test_zsh_loads_it_in_each_way(load: str, zsh: Path, folder: Path) -> None:
    assert _zsh("kind do", zsh, folder, load) == ("kind down", "")


def test_the_text_for_zsh_has_every_option(zsh: Path) -> None:
    """Of each command, also where no zsh is."""
    text = zsh.read_text()
    seen = dict(
        re.findall(r"^_shtab_stackproof(\w*)_options=\(\n(.*?)^\)", text, re.MULTILINE | re.DOTALL)
    )
    for words, command in parsers.every(cli.parser()):
        listed = seen["".join(f"_{word}" for word in words).replace("-", "_")]
        for action in command._actions:
            for option in action.option_strings:
                assert re.search(rf"[\"{{,*)]{option}[\[,}}]", listed), f"{words}: {option}"
