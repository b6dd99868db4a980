"""Every rendered configuration, as the program that will read it judges it.

Loki, Tempo, Alloy and Caddy have a check of their own. Mimir has none: `-modules` parses and
validates the configuration, builds all modules and ends before any of them starts.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from stackproof.helm.manifests import Release
from stackproof.stack.pod import Pod, pods
from stackproof.stack.secrets import SecretStore, materialize
from stackproof.toolchain import programs

_SECONDS = 60.0


def _add(flag: str) -> Callable[[Sequence[str]], list[str]]:
    return lambda arguments: [*arguments, flag]


def _validate_alloy(arguments: Sequence[str]) -> list[str]:
    # `alloy run [flags] PATH`: the flags are not those of `validate`, but for this one.
    stability = [a for a in arguments[1:] if a.startswith("--stability.level=")]
    path = next(a for a in arguments[1:] if not a.startswith("-"))
    return [_instead(arguments[0]), *stability, path]


def _validate_caddy(arguments: Sequence[str]) -> list[str]:
    return [_instead(arguments[0]), *(a for a in arguments[1:] if a != "--watch")]


def _instead(command: str) -> str:
    """Return what is asked instead of `run`; any other command is left, and refused."""
    return "validate" if command == "run" else command


#: From the container's arguments to those that make the program check its configuration and end.
_CHECK: Mapping[str, Callable[[Sequence[str]], list[str]]] = {
    "mimir": _add("-modules"),
    "loki": _add("-verify-config"),
    "tempo": _add("-config.verify=true"),
    "alloy": _validate_alloy,
    "caddy": _validate_caddy,
}


def refused(release: Release) -> Iterator[str]:
    """Yield what the programs say of the configurations that they refuse."""
    with tempfile.TemporaryDirectory(prefix="stackproof-configs-") as folder:
        secrets = _with_any(materialize(release, SecretStore()))
        for pod in pods(release, Path(folder)):
            pod.mount(secrets)
            environment = pod.environment({}, secrets)
            arguments = _CHECK[pod.program](pod.arguments(environment))
            message = _ask(pod, environment, arguments)
            if message:
                yield f"{pod.workload.source}: {pod.program} refuses its configuration: {message}"


def _with_any(made: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Add every Secret that is left to whoever installs: what is in it is no matter here."""
    return defaultdict(lambda: defaultdict(lambda: "made-by-hand"), made)


def _ask(pod: Pod, environment: Mapping[str, str], arguments: Sequence[str]) -> str:
    """Return what the program objects to, "" if to nothing. The same bytes are asked once."""
    key = hashlib.sha256()
    for file in sorted(path for path in pod.directory.rglob("*") if path.is_file()):
        # None of the checks reads the overrides; the users are hashes of random passwords.
        if file.name not in {"overrides.yaml", "users"}:
            key.update(f"{file.name}\0{file.read_text(encoding='utf-8')}\0".encode())
    asked = [word.replace(str(pod.directory), "") for word in arguments]
    key.update(repr((pod.program, asked, sorted(_stable(pod, environment).items()))).encode())
    known = _answers()
    if key.hexdigest() not in known:
        known[key.hexdigest()] = _run(pod, environment, arguments)
    return known[key.hexdigest()]


def _stable(pod: Pod, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what is random: the directory and the passwords."""
    return {
        name: value.replace(str(pod.directory), "")
        for name, value in environment.items()
        if "PASSWORD" not in name
    }


@cache
def _answers() -> dict[str, str]:
    return {}


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
