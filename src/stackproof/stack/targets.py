"""A deployment of anybody's making, told in a file: where each tenant writes and reads, as whom.

The file is checked against targets.schema.json, and each problem is told with its line. What stands
at its top holds for all tenants; what a tenant has of its own wins, key by key. Secrets are in the
environment or in files. Nothing is started or changed but the proof's own telemetry.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from google.protobuf.message import Message

from stackproof.backends import PROVABLE, Client, ReadApi
from stackproof.backends.grafana import DataSource
from stackproof.errors import StackproofError
from stackproof.model import BACKEND_OF, TENANT_HEADER, Access, Backend, EntryPoint, Signal, Tls
from stackproof.otlp import senders
from stackproof.otlp.pushes import LokiPushSender, RemoteWriteSender
from stackproof.repo.document import Document, Place

from .base import FromOutside
from .remote import preflight

_SCHEMA = Path(__file__).with_name("targets.schema.json")
#: What Python has in place of a byte of the environment that is no UTF-8.
_UNDECODED = re.compile("[\udc80-\udcff]")
Ways = Mapping[str, str]
"""How a signal is written: name of the format to URL."""


@dataclass(frozen=True, slots=True)
class Target:
    """One tenant of the file.

    Args:
        access: How it reads.
        ways: How it writes each signal that it can write.
    """

    access: Access
    ways: Mapping[Signal, Ways]

    @property
    def name(self) -> str:
        """The tenant."""
        return self.access.name

    @property
    def headers(self) -> dict[str, str]:
        """What every request of it carries."""
        access = self.access
        return {**access.headers, **senders.basic_auth(access.auth), **access.secrets}


@dataclass(frozen=True, slots=True)
class Targets:
    """What a file says.

    Args:
        name: Of the deployment.
        tenants: In the file's order.
        admin: Who reads all of them at once, if somebody does.
        without: Read APIs that are not there, and why.
    """

    name: str
    tenants: tuple[Target, ...]
    admin: Access | None
    without: Mapping[str, str]

    @classmethod
    def load(cls, file: Path, environment: Mapping[str, str] = os.environ) -> Targets:
        """Read and check a file.

        Raises:
            FileError: Something is wrong in it; the message has a line for each problem.
            StackproofError: It cannot be read.
        """
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StackproofError(f"cannot be read: {reason}", where=str(file)) from error
        document = Document(text)
        if not document.problems:
            document.check(json.loads(_SCHEMA.read_bytes()))
        document.refuse_problems(str(file))
        found = _Reader(document, file.parent, environment).targets(file)
        document.refuse_problems(str(file))
        return found


def _urls(value: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield what stands below any `read` and `write`, with its place."""
    if isinstance(value, str) and {"read", "write"} & set(place):
        yield place, value
    elif isinstance(value, list | dict):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _urls(inner, (*place, step))


class _Reader:
    """Makes targets of a document that the schema allows; notes what else is wrong in it."""

    def __init__(self, document: Document, folder: Path, environment: Mapping[str, str]) -> None:
        self.document = document
        self.data: Mapping[str, Any] = document.data
        self.folder = folder
        self.environment = environment
        self.header = self.data.get("tenantHeader", TENANT_HEADER)

    def targets(self, file: Path) -> Targets:
        for number, entry in enumerate(self.data["tenants"]):
            earlier = [each["name"] for each in self.data["tenants"][:number]]
            if entry["name"] in earlier:
                self.document.add_problem(("tenants", number, "name"), "is there twice")
        for place, url in _urls(self.data):
            try:
                _ = urlsplit(url).port
            except ValueError as error:
                self.document.add_problem(place, f"is no URL: {error}")
        known = [api.id for api in PROVABLE]
        for name in self.data.get("without", {}).keys() - set(known):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            self.document.add_problem(("without", name), f"no read API {name!r}{hint}", key=True)
        return Targets(
            name=self.data.get("name", file.stem),
            tenants=tuple(
                Target(self._access(("tenants", number), entry["name"]), self._ways(entry))
                for number, entry in enumerate(self.data["tenants"])
            ),
            admin=self._admin() if "admin" in self.data else None,
            without=self.data.get("without", {}),
        )

    def _admin(self) -> Access:
        access = self._access(("admin",), "admin")
        everybody = "|".join(entry["name"] for entry in self.data["tenants"])
        return replace(access, headers={self.header: everybody, **access.headers})

    def _ways(self, entry: Mapping[str, Any]) -> dict[Signal, Ways]:
        found: dict[Signal, Ways] = {}
        given = {**self.data.get("write", {}), **entry.get("write", {})}
        for signal in Signal:
            # The base URL of all signals is told from the whole URL of one, as OTEL_EXPORTER_* do.
            general = {
                name: f"{url.rstrip('/')}/v1/{signal}" if name == "otlpHttp" else url
                for name, url in given.items()
                if isinstance(url, str)
            }
            if ways := given.get(signal, general):
                found[signal] = ways
        return found

    def _access(self, place: Place, name: str) -> Access:
        own: Any = self.data
        for step in place:
            own = own[step]
        urls = {**self.data.get("read", {}), **own.get("read", {})}
        # Each value keeps the place where it stands, for what is wrong with it.
        values = {
            (part, key): (value, (*where, part, key))
            for part in ("auth", "tls")
            for holder, where in ((self.data, ()), (own, place))
            for key, value in (holder.get(part) or {}).items()
        }
        basic, at = values.get(("auth", "basic"), (None, ()))
        bearer = values.get(("auth", "bearer"))
        headers, headers_at = values.get(("auth", "headers"), ({}, ()))
        secrets = {}
        if bearer is not None:
            secrets["Authorization"] = f"Bearer {self._header(*bearer)}"
        sent = {key: self._header(value, (*headers_at, key)) for key, value in headers.items()}
        secrets |= {key: sent[key] for key, value in headers.items() if isinstance(value, dict)}
        return Access(
            name,
            {BACKEND_OF[Signal(key)]: url.rstrip("/") for key, url in urls.items()},
            basic and (basic["user"], self._secret(basic["password"], (*at, "password"))),
            {key: value for key, value in sent.items() if key not in secrets},
            secrets,
            self._tls({key: value for (part, key), value in values.items() if part == "tls"}),
            self.header,
        )

    def _header(self, value: str | Mapping[str, str], place: Place) -> str:
        """Return what a header says, if it can: anything else would end the first request."""
        text = value if isinstance(value, str) else self._secret(value, place)
        if not re.fullmatch(r"[\x20-\x7e]*", text):
            self.document.add_problem(place, "has a character that no header can have")
        return text

    def _secret(self, source: Mapping[str, str], place: Place) -> str:
        if "env" in source:
            value = self.environment.get(source["env"], "")
            if not value:
                self.document.add_problem((*place, "env"), f"{source['env']} is not set")
            elif _UNDECODED.search(value):
                self.document.add_problem((*place, "env"), f"{source['env']} is not UTF-8")
            return value
        try:
            value = (self.folder / source["file"]).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            odd = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            reason = getattr(error, "strerror", None) or odd
            self.document.add_problem((*place, "file"), f"{source['file']}: {reason}")
            return ""
        if not value:
            self.document.add_problem((*place, "file"), f"{source['file']} is empty")
        return value

    def _tls(self, given: Mapping[str, tuple[str, Place]]) -> Tls:
        """Return the files, if a connection can be made with them."""
        tls = Tls(**{key: str(self.folder / name) for key, (name, _) in given.items()})
        missing = [key for key in given if not Path(getattr(tls, key)).is_file()]
        for key in missing:
            self.document.add_problem(given[key][1], f"there is no file {getattr(tls, key)}")
        if missing:
            return tls
        context = ssl.create_default_context()
        if tls.ca:
            with self._holding("certificate", given["ca"][1]):
                context.load_verify_locations(tls.ca)
        if tls.cert:
            with self._holding("certificate with a key that needs no password", given["cert"][1]):
                context.load_cert_chain(tls.cert, tls.key, password="")  # else it is asked for
        return tls

    @contextmanager
    def _holding(self, what: str, place: Place) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.document.add_problem(place, f"holds no {what} in PEM: {error}")


class TargetsStack(FromOutside):
    """A `Stack` that a file describes.

    Raises:
        StackproofError: There is no signal that every tenant both writes and reads.
    """

    provider = "targets"
    entry_points = (EntryPoint.TARGETS,)
    #: What does not ask who it is, is found to be so.
    unguarded = ""
    may_ignore_headers = True
    gateway_url: str | None = None
    versions: Mapping[str, str] = {}

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self._by_name = {each.name: each for each in targets.tenants}
        if not self.signals:
            raise StackproofError(
                "there is no signal that every tenant both writes and reads",
                where=self.name,
                todo="Give `write` and `read` for traces, metrics or logs.",
            )

    @property
    def name(self) -> str:
        """What the file calls it."""
        return self.targets.name

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants of the file."""
        return tuple(self._by_name)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What every tenant both writes and reads."""
        return tuple(
            signal
            for signal in Signal
            if all(
                signal in each.ways and BACKEND_OF[signal] in each.access.urls
                for each in self.targets.tenants
            )
        )

    def not_compared(self, api: ReadApi) -> str:
        """Return why an API is not asked, or an empty string."""
        if api.signal not in self.signals:
            return f"not every tenant both writes and reads {api.signal}"
        if reason := self.targets.without.get(api.id):
            return reason
        pushes = all("lokiPush" in each.ways[api.signal] for each in self.targets.tenants)
        if (api.backend, api.shows) == (Backend.LOKI, "label name") and not pushes:
            return "no OTLP makes a label with a name of its own: give write.logs.lokiPush"
        return ""

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the read APIs that are not asked."""
        return tuple(api.id for api in PROVABLE if self.not_compared(api))

    def sender(
        self,
        tenant: str,
        entry_point: EntryPoint,  # noqa: ARG002
        client: Client,
    ) -> senders.Sender:
        """Return what sends a tenant's telemetry, in every way that it has."""
        return _Sender(self._by_name[tenant], client)

    def otlp_grpc(self, tenant: str) -> str:
        """Refuse: see `sender`."""
        raise self._unknown(f"an Alloy of {tenant}")

    otlp_http = otlp_grpc

    def _unknown(self, what: str) -> StackproofError:
        return StackproofError(f"{what} is not in the file", where=self.name)

    def reader(self, tenant: str) -> Access:
        """The tenant, as the file says."""
        return self._by_name[tenant].access

    def admin_reader(self, tenants: Sequence[str]) -> Access:
        """The administrator, asking for these tenants by name.

        Raises:
            StackproofError: The file has none.
        """
        if self.targets.admin is None:
            raise self._unknown("an administrator")
        admin = self.targets.admin
        headers = {**admin.headers, admin.tenant_header: "|".join(tenants)}
        return replace(admin, headers=headers)

    def backend_url(self, backend: Backend) -> str:
        """Refuse: it holds somebody else's data."""
        raise self._unknown(f"{backend} itself")

    def views(self) -> tuple[DataSource, ...]:
        """The administrator's view of each backend, which shows all tenants."""
        admin = self.targets.admin
        if admin is None:
            return ()
        return tuple(DataSource("administrator", "", each, admin) for each in admin.urls)

    def __enter__(self) -> Self:
        """Look whether anybody is there, before anything is sent.

        Raises:
            StackproofError: Nothing answers at a URL that tenants read from.
        """
        # Of each address one URL, as one tenant: the others are the proof's to tell.
        first = {
            urlsplit(url).netloc: (url, each.access.tls)
            for each in self.targets.tenants
            for url in each.access.urls.values()
        }
        with Client() as client:
            for url, tls in first.values():
                preflight(url, client.pool_of(tls))
        return self


class _Sender(senders.Sender):
    """Sends each signal of a tenant in every way that the tenant writes it."""

    def __init__(self, target: Target, client: Client) -> None:
        self._ways = {
            signal: [_sender(way, signal, url, target, client) for way, url in ways.items()]
            for signal, ways in target.ways.items()
        }

    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:
        """See :meth:`Sender.send`."""
        for sender in self._ways[signal]:
            sender.send(signal, request, timeout_s=timeout_s)

    def close(self) -> None:
        """See :meth:`Sender.close`."""
        for sender in (each for ways in self._ways.values() for each in ways):
            sender.close()


def _grpc(url: str, target: Target) -> senders.GrpcSender:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    metadata = [
        (name, value.encode() if name.endswith("-bin") else value)  # as gRPC defines such names
        for name, value in ((name.lower(), value) for name, value in target.headers.items())
    ]
    port = "" if re.search(r":\d+$", parts.netloc) else ":443" if secure else ":80"
    address = f"{parts.netloc}{port}"
    return senders.GrpcSender(address, metadata, target.access.tls if secure else None)


def _sender(way: str, signal: Signal, url: str, target: Target, client: Client) -> senders.Sender:
    pool = client.pool_of(target.access.tls)
    match way:
        case "otlpGrpc":
            return _grpc(url, target)
        case "remoteWrite":
            return RemoteWriteSender(url, target.headers, pool)
        case "lokiPush":
            return LokiPushSender(url, target.headers, pool)
    return senders.HttpSender({signal: url}, headers=target.headers, pool=pool)
