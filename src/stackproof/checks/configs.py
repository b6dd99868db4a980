"""Every rendered configuration, as the program that will read it judges it.

Loki, Tempo, Alloy and Caddy have a check of their own. Mimir has none: `-modules` parses and
validates the configuration, builds all modules and ends before any of them starts.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stackproof.helm.manifests import Release
from stackproof.stack.pod import Pod, pods
from stackproof.stack.secrets import SecretStore, materialize
from stackproof.toolchain import programs

_SECONDS = 60.0


_FLAGS = {"mimir": "-modules", "loki": "-verify-config", "tempo": "-config.verify=true"}


def _checking(program: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with which a program checks its configuration and ends."""
    if program in _FLAGS:
        return [*arguments, _FLAGS[program]]
    command, *words = arguments
    # Any other command is left, and refused.
    command = "validate" if command == "run" else command
    if program == "alloy":
        # `alloy run [flags] PATH`: the flags are not those of `validate`, but for this one.
        path = next(word for word in words if not word.startswith("-"))
        words = [*(word for word in words if word.startswith("--stability.level=")), path]
    return [command, *(word for word in words if word != "--watch")]


def refused(release: Release) -> Iterator[str]:
    """Yield what the programs say of the configurations that they refuse."""
    with tempfile.TemporaryDirectory(prefix="stackproof-configs-") as folder:
        # Whatever is left to whoever installs is there: what is in it is no matter here.
        secrets: dict[str, dict[str, str]]
        secrets = defaultdict(lambda: defaultdict(lambda: "made-by-hand"))
        secrets |= materialize(release, SecretStore())
        for pod in pods(release, Path(folder)):
            pod.mount(secrets)
            environment = pod.environment({}, secrets)
            arguments = _checking(pod.program, pod.arguments(environment))
            message = _ask(pod, environment, arguments)
            if message:
                yield f"{pod.workload.source}: {pod.program} refuses its configuration: {message}"


#: What was answered, by a digest of all that was asked.
_answers: dict[str, str] = {}


def _ask(pod: Pod, environment: Mapping[str, str], arguments: Sequence[str]) -> str:
    """Return what the program objects to, "" if to nothing. The same bytes are asked once."""
    key = hashlib.sha256()
    for file in sorted(path for path in pod.directory.rglob("*") if path.is_file()):
        # None of the checks reads the overrides; the users are hashes of random passwords.
        if file.name not in {"overrides.yaml", "users"}:
            key.update(f"{file.name}\0{file.read_text(encoding='utf-8')}\0".encode())
    asked = [word.replace(str(pod.directory), "") for word in arguments]
    key.update(repr((pod.program, asked, sorted(_stable(pod, environment).items()))).encode())
    if key.hexdigest() not in _answers:
        _answers[key.hexdigest()] = _run(pod, environment, arguments)
    return _answers[key.hexdigest()]


def _stable(pod: Pod, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what is random: the directory and the passwords."""
    return {
        name: value.replace(str(pod.directory), "")
        for name, value in environment.items()
        if "PASSWORD" not in name
    }


def _run(pod: Pod, environment: Mapping[str, str], arguments: Sequence[str]) -> str:
    done = subprocess.run(
        [str(programs.find(pod.program)), *arguments],
        env={"TMPDIR": str(pod.directory), **environment},
        cwd=pod.directory,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode == 0:
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return "\n".join(lines[-12:]) or f"it exited with {done.returncode}"
