"""The tenants of observability/tenants.yaml: read, checked, added and removed.

The file is a values file of `charts/lgtm`, so the schema of an entry has one home: `$defs.tenants`
in that chart's values.schema.json. What a schema cannot say (no two tenants may share a name, a
namespace or a credential) is checked here. All problems are told at once, each with its line.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import yaml

from stackproof.errors import StackproofError, UsageError
from stackproof.helmyaml import Loader, reading

from .checkout import Checkout
from .document import Document, FileError, FileProblem

OBSERVABILITY_NAMESPACE = "observability"
"""Where the backends run: no tenant's namespace."""

_UNQUOTED = ("name", "namespace", "secretPrefix")
"""What Flux puts into YAML without quotes: another tenant may have none of it."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One entry of the list.

    Args:
        name: The user at the gateway, and the X-Scope-OrgID.
        namespace: Where the tenant's open-webui and Alloy run.
        secret_prefix: Its keys in the secret store are `PREFIX-gateway-password` and so on.
        retention: How long its data is kept; None for the chart's default.
        limits: What it may send, as in the file; what is not given is the chart's default.
    """

    name: str
    namespace: str
    secret_prefix: str
    retention: timedelta | None
    limits: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Registry:
    """The list of tenants, in the file's order."""

    checkout: Checkout
    tenants: tuple[Tenant, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The tenants' names."""
        return tuple(tenant.name for tenant in self.tenants)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self.tenants)

    def __len__(self) -> int:
        return len(self.tenants)

    def get(self, name: str) -> Tenant:
        """Return the tenant called `name`.

        Raises:
            UsageError: There is none; the message names those there are.
        """
        for tenant in self.tenants:
            if tenant.name == name:
                return tenant
        near = difflib.get_close_matches(name, self.names, n=1)
        raise UsageError(
            f"no tenant {name!r} (there are: {', '.join(self.names) or 'none'})",
            where=self.checkout.show(self.checkout.tenants_file),
            todo=f"Did you mean {near[0]!r}?" if near else None,
        )

    def values(self) -> dict[str, Any]:
        """Return the list as values of `charts/lgtm`: `{"tenants": [...]}`."""
        return {"tenants": [_entry(tenant) for tenant in self.tenants]}

    def with_synthetic(self, count: int) -> Registry:
        """Return the list with `count` made-up tenants after its own; no file is changed.

        Raises:
            StackproofError: `count` is negative, or a tenant of the list has such a name.
        """
        if count < 0:
            raise StackproofError(f"there cannot be {count} synthetic tenants")
        width = max(4, len(str(count)))
        names = [f"synthetic-{number:0{width}}" for number in range(1, count + 1)]
        if taken := sorted(set(names) & set(self.names)):
            raise StackproofError(
                f"{taken[0]} is the name of a real tenant",
                where=self.checkout.show(self.checkout.tenants_file),
                todo="Rename it: synthetic tenants are made for a run.",
            )
        made = (Tenant(name, name, name, None, {}) for name in names)
        return replace(self, tenants=(*self.tenants, *made))

    def add(
        self, name: str, namespace: str | None = None, secret_prefix: str | None = None
    ) -> Registry:
        """Append an entry to the file, whose comments and layout stay, and return the new registry.

        Args:
            name: The tenant.
            namespace: Where it runs; its name if not given.
            secret_prefix: Prefix of its keys in the secret store; its name if not given.

        Raises:
            StackproofError: The entry would not be valid. The file is as it was.
        """
        lines, found = self._read()
        blocks = found.blocks
        indent = " " * (blocks[-1].indent if blocks else 2)
        entry = [
            f"{indent}- name: {_scalar(name)}",
            f"{indent}  namespace: {_scalar(namespace or name)}",
            f"{indent}  secretPrefix: {_scalar(secret_prefix or name)}",
        ]
        if blocks:
            lines[blocks[-1].end : blocks[-1].end] = ["", *entry]
        else:
            lines[found.start : found.end] = [f"{_LIST}:", *entry]
        return self._write(lines, f"cannot add tenant {name!r}")

    def remove(self, name: str) -> Registry:
        """Remove an entry and the comment above it from the file, and return the new registry.

        Raises:
            StackproofError: There is no such tenant.
        """
        gone = self.names.index(self.get(name).name)
        lines, found = self._read()
        blocks = found.blocks
        start = blocks[gone].start
        if gone + 1 < len(blocks):
            del lines[start : blocks[gone + 1].start]
        else:
            del lines[start : blocks[gone].end]
            while start and not lines[start - 1].strip():  # the blank line that parted them
                start -= 1
                del lines[start]
        if len(blocks) == 1:
            lines[found.start] = lines[found.start].replace(":", ": []", 1)
        return self._write(lines, f"cannot remove tenant {name!r}")

    def _read(self) -> tuple[list[str], _List]:
        """Return the file's lines, and which of them the list and each entry takes."""
        lines = self.checkout.tenants_file.read_text(encoding="utf-8").splitlines()
        return lines, _list(lines, self.checkout.show(self.checkout.tenants_file))

    def _write(self, lines: Sequence[str], failed: str) -> Registry:
        """Write `lines` to the file if they are a good list, else raise and leave it alone."""
        path = self.checkout.tenants_file
        text = "\n".join(lines) + "\n"
        try:
            new = Registry(self.checkout, _parse(self.checkout, text))
        except FileError as error:
            reasons = "; ".join(problem.reason for problem in error.problems)
            raise UsageError(
                f"{failed}: {reasons}", where=self.checkout.show(path), todo="Nothing was changed."
            ) from error
        beside = path.with_name(f".{path.name}.new")
        try:
            ends = "\r\n" if b"\r\n" in path.read_bytes() else "\n"
            beside.write_text(text, encoding="utf-8", newline=ends)
            beside.chmod(path.stat().st_mode)
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise StackproofError(f"{failed}: {error.strerror}", where=str(path)) from error
        return new


def load_registry(checkout: Checkout) -> Registry:
    """Read the list of tenants of a checkout.

    Raises:
        FileError: It is not what it should be; the message has a line for each problem.
    """
    with reading(checkout.show(checkout.tenants_file)):
        text = checkout.tenants_file.read_text(encoding="utf-8")
    return Registry(checkout, _parse(checkout, text))


# --- reading ---

_LIST = "tenants"
#: https://pkg.go.dev/time#ParseDuration
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
}
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?")


def _parse(checkout: Checkout, text: str) -> tuple[Tenant, ...]:
    """Return the entries of a file's text, or raise with all that is wrong in it."""
    document = Document(text)
    if not document.problems:
        _check_top(document)
    if not document.problems:
        _check_schema(document, checkout)
        _check_shared(document)
    document.refuse_problems(checkout.show(checkout.tenants_file))
    return tuple(_tenant(entry) for entry in document.data[_LIST])


def _check_top(document: Document) -> None:
    """Complain unless the file is a mapping with the one key `tenants`."""
    data = document.data
    if not isinstance(data, dict) or _LIST not in data:
        document.problems.append(FileProblem(1, 1, f"has no list `{_LIST}:`"))
        return
    for key in data.keys() - {_LIST}:
        document.add_problem(
            (key,), f"unknown key {key!r}: only `{_LIST}:` stands in this file", key=True
        )


def _check_schema(document: Document, checkout: Checkout) -> None:
    """Complain of whatever the chart's schema does not allow."""
    path = checkout.charts / "lgtm" / "values.schema.json"
    try:
        definitions = json.loads(path.read_bytes())["$defs"]
    except (OSError, ValueError, KeyError) as error:
        raise StackproofError(
            f"has no readable $defs, which hold the schema of a tenant: {error}",
            where=checkout.show(path),
        ) from error
    schema = {"$ref": f"#/$defs/{_LIST}", "$defs": definitions}
    document.check(schema, (_LIST,), _UNQUOTED)


def _check_shared(document: Document) -> None:
    """Complain where two tenants share what must be one tenant's own."""
    entries = document.data[_LIST]
    if not isinstance(entries, list):
        return
    for key in _UNQUOTED:
        first: dict[str, int] = {}
        for number, entry in enumerate(entries):
            value = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(value, str):
                continue
            if value in first:
                line = document.line((_LIST, first[value], key))
                document.add_problem(
                    (_LIST, number, key), f"{key} {value!r} is already taken in line {line}"
                )
            first.setdefault(value, number)
    # `first` now has the prefixes: a tenant may ask for all keys that begin with its own.
    for one, number in first.items():
        for other in first:
            if one.startswith(f"{other}-"):
                line = document.line((_LIST, first[other], key))
                document.add_problem(
                    (_LIST, number, key),
                    f"{key} {one!r} begins with {other!r} of line {line}, "
                    "whose tenant could read this one's secrets",
                )


def _tenant(entry: Mapping[str, Any]) -> Tenant:
    retention = entry.get("retention")
    return Tenant(
        name=entry["name"],
        namespace=entry["namespace"],
        secret_prefix=entry["secretPrefix"],
        retention=parse_duration(retention) if retention else None,
        limits=entry.get("limits", {}),
    )


def _entry(tenant: Tenant) -> dict[str, Any]:
    """Return a tenant as the file has it."""
    entry: dict[str, Any] = {
        "name": tenant.name,
        "namespace": tenant.namespace,
        "secretPrefix": tenant.secret_prefix,
    }
    if tenant.retention is not None:
        entry["retention"] = format_duration(tenant.retention)
    if tenant.limits:
        entry["limits"] = {signal: dict(limits) for signal, limits in tenant.limits.items()}
    return entry


def parse_duration(text: str) -> timedelta:
    """Return a Go duration in hours and minutes (`744h`, `36h30m`)."""
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise StackproofError(f"{text!r} is not a duration in hours and minutes, such as 744h")
    hours, minutes = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes)


def go_duration(text: str) -> timedelta:
    """Return a Go duration in any of the units from ms to h: 500ms, 30s, 1h30m, 1.5h."""
    parts = re.findall(r"([\d.]+)(ms|s|m|h)", text)
    return sum((float(number) * _UNITS[unit] for number, unit in parts), timedelta())


def format_duration(duration: timedelta) -> str:
    """Return a duration as Go writes it, in hours and minutes."""
    hours, minutes = divmod(int(duration.total_seconds()) // 60, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")


# --- editing ---


@dataclass(frozen=True, slots=True)
class _Block:
    """The lines of one entry, its comment included: `start` to before `end`; its indent."""

    start: int
    end: int
    indent: int


@dataclass(frozen=True, slots=True)
class _List:
    """The lines of the list, its key included: `start` to before `end`; those of its entries."""

    start: int
    end: int
    blocks: list[_Block]


def _list(lines: Sequence[str], where: str) -> _List:
    """Return the lines that the list and each of its entries take."""
    document = yaml.compose("\n".join(lines), Loader=Loader)
    assert isinstance(document, yaml.MappingNode)
    ((key, entries),) = document.value
    if document.flow_style or (entries.flow_style and entries.value):
        raise StackproofError(
            "the list is written in brackets, [ … ]", where=where, todo="Edit it by hand."
        )
    blocks = [_block(lines, item) for item in entries.value]
    return _List(key.start_mark.line, _last_line(entries) + 1, blocks)


def _block(lines: Sequence[str], item: yaml.Node) -> _Block:
    start = item.start_mark.line
    while not lines[start].lstrip().startswith("- ") and lines[start].strip() != "-":
        start -= 1
    indent = len(lines[start]) - len(lines[start].lstrip())
    while lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return _Block(start, _last_line(item) + 1, indent)


def _last_line(node: yaml.Node) -> int:
    """Return the last line that holds something of `node`; its own mark may lie in a later one."""
    if isinstance(node, yaml.MappingNode) and node.value:
        return _last_line(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and node.value:
        return _last_line(node.value[-1])
    mark = node.end_mark
    return int(
        mark.line - 1 if mark.column == 0 and mark.line > node.start_mark.line else mark.line
    )


def _scalar(text: str) -> str:
    """Return a string as YAML that reads as that string."""
    try:
        plain = yaml.load(f"- {text}", Loader=Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError):
        plain = None
    return text if plain == [text] else json.dumps(text)
