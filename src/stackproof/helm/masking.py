"""Hides the secrets in what people are shown: a digest stands for each, so that a change shows."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from typing import Any

_SECRET = (
    r"passw(?:or)?d|passphrase|pwd(?![a-z])|token|secret|credential|authorization(?![\w-])"
    r"|(?:api|private|access|encryption).?key"
)
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
_SECRET_END = re.compile(rf"(?:{_SECRET})$", re.IGNORECASE)
_HARMLESS_NAME = re.compile(
    r"(ref|name|path|file|prefix|namespace|reload)s?$|^secret(key|s)$"
    r"|^(existing|external|imagepull|tls).*secrets?$",
    re.IGNORECASE,
)
"""Fields that say where a secret is, and hold none; `secretKey` is External Secrets' own."""
_MANY = re.compile(r"(passwords|tokens|credentials|api.?keys)$", re.IGNORECASE)
"""Fields below which every text is a secret."""
_ELSEWHERE = re.compile(
    r"(true|false)\b|\$[({]|\$__|\$[A-Za-z_]\w*$|\{[{$%]|\{\w+\.|sys\.env|(/[\w.-]+){2,}/?[\"']?$"
)
"""How a value begins that holds no secret: a switch, or a variable, a template or a path to one."""

#: Bounded, as no name is longer: a text of one long word is searched in no time.
_NAME = rf"(?P<name>[\w.-]{{0,60}}(?:{_SECRET})[\w.-]{{0,60}})"
#: Where a secret stands in a text, such as a file of a ConfigMap.
_IN_TEXT = (
    # password: |, and lines that are further in
    rf"^(?P<indent> *)(?:- )?[\"']?{_NAME}[\"']?: *[|>][-+\d]* *\n"
    r"(?P<value>(?:(?P=indent) +[^\n]*(?:\n|\Z)|[ \t]*\n)+)",
    # {name: PASSWORD, value: …} of a container, {path: /data/password, value: …} of a patch
    rf"[\"']?(?:name|path)[\"']?:[ \t]*[\"']?(?:[\w./~-]{{0,80}}/)?{_NAME}[\"']?[ \t]*[,\n]\s*"
    r"[\"']?value[\"']?:[ \t]*(?P<value>[^\s|>][^\n]*)",
    # password: …, "password": "…", --password=…
    rf"(?<![\w./:@-]){_NAME}(?:[\"']?[ \t]*:[ \t]+|[\"']:|[ \t]*=[ \t]*)"
    r"(?P<quote>[\"'])?(?P<value>(?(quote)(?:\\.|(?!(?P=quote))[^\\\n])+|[^\s\"'|>][^\n]*))",
    # at '/password': '…' does not match: what Helm says of a value
    rf"at '/(?:[\w./-]{{0,200}}/)?{_NAME}': (?P<value>'[^'\n]*')",
    # https://user:password@host
    r"://[^/\s:@\"']{0,80}:(?P<value>[^/\s@\"']+)@",
    # What is a key or a hash whatever it is called.
    r"(?P<value>-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*-----|\Z))",
    r"(?P<value>\b(?:sk|gh[pousr]|glpat|xox[abp])[-_][\w-]{16,}|\bAKIA[0-9A-Z]{16}\b"
    r"|\$2[aby]\$\d\d\$\S{53}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)",
)
_PATTERNS = tuple(re.compile(each, re.IGNORECASE | re.MULTILINE) for each in _IN_TEXT)


def mask(value: object) -> str:
    """Return what is shown of a secret."""
    digest = hashlib.sha256(str(value).encode()).hexdigest()[:8]
    return f"*** (sha256 {digest})"


def hide(value: Any, name: str = "") -> Any:
    """Mask the secrets in a value that stands under `name`."""
    if isinstance(value, dict):
        below = f"{name}." if _MANY.search(name) else ""
        return {key: hide(part, below + _named(value, str(key))) for key, part in value.items()}
    if isinstance(value, list):
        pairs = pairwise([None, *value])
        return [hide(part, _flag(before, part) or name) for before, part in pairs]
    if isinstance(value, str):
        whole = _is_secret(name, value) and ("\n" not in value or _SECRET_END.search(name))
        return mask(value) if whole else _hidden_in(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return mask(value) if is_number and _SECRET_END.search(name) else value


def _named(among: dict[Any, Any], key: str) -> str:
    """Return what a part of an object is called: the `value` of a variable as the variable is."""
    called = among.get("name") or among.get("path") if key == "value" else None
    return called.rpartition("/")[2] if isinstance(called, str) else key


def is_secret_name(name: str) -> bool:
    """Tell whether what is called so holds a secret."""
    return bool(_SECRET_NAME.search(name) and not _HARMLESS_NAME.search(name))


def _flag(before: Any, value: Any) -> str:
    """Return the flag whose value a text is: --password, and then the password."""
    flags = [isinstance(each, str) and each.startswith("-") for each in (before, value)]
    return str(before) if flags == [True, False] else ""


def _is_secret(name: str, value: str) -> bool:
    return bool(is_secret_name(name) and value and not _ELSEWHERE.match(value))


def _hidden_in(text: str) -> str:
    for pattern in _PATTERNS:
        text = pattern.sub(_hidden, text)
    return text


def _hidden(found: re.Match[str]) -> str:
    start, end = (place - found.start() for place in found.span("value"))
    value, parts = found["value"], found.groupdict()
    if _ELSEWHERE.match(value):
        rest = value
    elif "name" in parts and not _is_secret(parts["name"], value):
        # Further on in its line there may be another.
        rest = found.re.sub(_hidden, value)
    elif "\n" in value:
        rest = f"{parts.get('indent') or ''}  {mask(value)}\n"
    else:
        rest = mask(value)
    return found[0][:start] + rest + found[0][end:]
