"""Writes the file of `prove --targets` from what was found of a deployment (`discovery`).

It holds no secret: passwords are to come from the environment. What could not be found out stands
in its comments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from stackproof.model import BACKEND_OF, TENANT_HEADER, Signal

from .discovery import Found, read_url, write_urls

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/:-]*[A-Za-z0-9]")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def text(found: Found, name: str, source: str, file: str) -> str:
    """Return the file."""
    variables = passwords(found)
    lines = [f"# Written by `stackproof targets init` from {_line(source)}. Look through it, then:"]
    if variables:
        lines.append(f"#   export {' '.join(f'{each}=…' for each in variables.values())}")
    lines.append(f"#   stackproof prove --targets {_line(file)}")
    if found.open:
        lines += ["#", "# Not found out:", *(f"# - {_line(each)}" for each in found.open)]
    lines += [f"name: {_word(name)}", *_read(found), *_write(found), *_tenants(found, variables)]
    lines += _admin(found)
    return "\n".join(lines) + "\n"


def missing(found: Found) -> list[str]:
    """Return what a proof cannot do without, each as what to add to the file."""
    gaps = []
    if len(found.tenants) < 2:
        gaps.append(f"tenants, of which two are needed at least (found: {len(found.tenants)})")
    if not any(BACKEND_OF[each] in found.reads for each in Signal):
        gaps.append("read, where telemetry is read")
    if not any(BACKEND_OF[each] in found.writes for each in Signal):
        gaps.append("write, where telemetry is written")
    return gaps


def passwords(found: Found) -> dict[str, str]:
    """Return the variable of each tenant's password; none where nothing asks for one."""
    variables: dict[str, str] = {}
    for name in found.tenants if found.basic_auth else ():
        plain = re.sub(r"[^A-Z0-9]", "_", name.upper())
        variable = f"{'TENANT_' if plain[:1].isdigit() else ''}{plain}_PASSWORD"
        while variable in variables.values():
            variable += "_"
        variables[name] = variable
    return variables


def _word(value: str) -> str:
    """Return a text as YAML has it, in quotes where it could be taken for something else."""
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if plain else json.dumps(value)


def _line(told: str) -> str:
    """Return a text as a comment has it: what somebody's objects hold must not end it."""
    return " ".join(told.split())


def _read(found: Found) -> Iterator[str]:
    yield "read:"
    for signal in Signal:
        backend = BACKEND_OF[signal]
        if backend in found.reads:
            of = found.reads[backend].service
            yield f"  {signal}: {_word(read_url(found, backend))} # Service {of}"


def _write(found: Found) -> Iterator[str]:
    yield "write:"
    for signal in Signal:
        backend = BACKEND_OF[signal]
        if backend in found.writes:
            yield f"  {signal}: # Service {found.writes[backend].service}"
            for way, url in write_urls(found, backend).items():
                yield f"    {way}: {_word(url)}"


def _tenants(found: Found, variables: dict[str, str]) -> Iterator[str]:
    yield "tenants:"
    if found.basic_auth:
        user = "makes the user the tenant" if found.by_user else "asks for user and password"
        yield f"  # {found.basic_auth} {user}. Is a user called as its tenant?"
    else:
        yield "  # Nothing was found that asks who it is: a proof will say that anybody may name"
        yield "  # any tenant. Where something does, say how: auth.basic, auth.bearer, tls."
    for name, where in found.tenants.items():
        yield f"  - name: {_word(name)} # {where}"
        yield "    auth:"
        if name in variables:
            yield f"      basic: {{user: {_word(name)}, password: {{env: {variables[name]}}}}}"
        if not found.by_user:
            yield f"      headers: {{{TENANT_HEADER}: {_word(name)}}}"
    if len(found.tenants) < 2:
        yield "  # - name: ANOTHER"


def _admin(found: Found) -> Sequence[str]:
    if not found.one_gateway:
        return ()
    return (
        "# Who reads all tenants at once, if its password may be used:",
        "# admin:",
        "#   auth: {basic: {user: admin, password: {env: ADMIN_PASSWORD}}}",
    )
