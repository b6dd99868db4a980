"""What users have put into a release, and whether it is still there: rows, files, vectors."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import urllib3

from stackproof.errors import StackproofError

ADMIN = "anna@example.org"
USER = "ben@example.org"
CHATS = [f"Chat {number}" for number in range(8)]

#: Of the vector store: a collection and how many objects it has.
_CLASS = "Document"
_VECTORS = 20

#: What the application changes by itself, without losing anything.
_VOLATILE = {"last_active_at", "updated_at"}
#: Records of migrations, and settings, which production resets at each start.
_NOT_DATA = {"alembic_version", "migratehistory", "config"}


@dataclass(frozen=True)
class Snapshot:
    """All that users have put there."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    """Table to its rows."""
    files: Mapping[str, str]
    """Path on the uploads' volume to SHA-256."""
    vectors: Mapping[str, str]
    """Name in the vector store to SHA-256 of the object and of what its neighbours are."""

    def __str__(self) -> str:
        rows = sum(map(len, self.rows.values()))
        return (
            f"{rows} rows in {len([t for t in self.rows.values() if t])} tables, "
            f"{len(self.files)} files, {len(self.vectors)} objects of the vector store"
        )

    def lost(self, now: Snapshot) -> Iterator[str]:
        """Yield what is not there any more, or is not the same.

        A newer application may add columns, and drop those that it has moved elsewhere: what both
        have must be equal.
        """
        for table, rows in self.rows.items():
            if rows and table not in now.rows:
                yield f"table {table}"
                continue
            known = {column for row in now.rows.get(table, ()) for column in row} - _VOLATILE
            there = [{k: row.get(k) for k in known} for row in now.rows.get(table, ())]
            for row in rows:
                wanted = {key: value for key, value in row.items() if key in known}
                if not any(wanted.items() <= other.items() for other in there):
                    yield f"a row of {table}: {wanted}"
        for what in ("files", "vectors"):
            mine, theirs = getattr(self, what), getattr(now, what)
            for name, digest in mine.items():
                if theirs.get(name) != digest:
                    yield f"{what}: {name} is {theirs.get(name, 'gone')}"


class Asker:
    """Sends requests to the application.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(timeout=60, retries=False)

    def __call__(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """Send JSON, return the JSON of the answer.

        Raises:
            StackproofError: It is refused, or nobody answers.
        """
        return json.loads(self.text(method, path, body, token))

    def text(self, method: str, path: str, body: Any = None, token: str = "") -> str:
        """Send JSON, return the answer as it is.

        Raises:
            StackproofError: It is refused, or nobody answers.
        """
        return self._sent(method, path, token, json=body)

    def upload(self, path: str, name: str, content: bytes, token: str) -> Any:
        """Send a file, as a form does."""
        return json.loads(
            self._sent("POST", path, token, fields={"file": (name, content, "text/plain")})
        )

    def _sent(self, method: str, path: str, token: str, **what: Any) -> str:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = self._pool.request(method, f"{self._url}{path}", headers=headers, **what)
        except urllib3.exceptions.HTTPError as error:
            raise StackproofError(str(error), where=path) from error
        if answer.status >= 400:
            raise StackproofError(f"HTTP {answer.status}: {answer.data[:300]!r}", where=path)
        return answer.data.decode(errors="replace")


class Users(ABC):
    """The users of one release, wherever it runs."""

    password: str

    @abstractmethod
    def execute(self, component: str, argv: Sequence[str]) -> str:
        """Run a program in a component's container, return what it printed."""

    @abstractmethod
    def application(self) -> AbstractContextManager[Asker]:
        """The application, as a user's browser reaches it."""

    @abstractmethod
    def vectors(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the vector store, in JSON.

        Raises:
            StackproofError: It refuses, or does not answer.
        """

    def fill(self) -> None:
        """Do what users do, in the old application, and more of it past the application."""
        with self.application() as ask:
            admin = {"name": "Anna", "email": ADMIN, "password": self.password}
            token = ask("POST", "/api/v1/auths/signup", admin)["token"]
            user = {"name": "Ben", "email": USER, "password": self.password}
            ask("POST", "/api/v1/auths/add", {**user, "role": "user"}, token)
            for number, title in enumerate(CHATS):
                message = {"id": "m", "role": "user", "content": f"Question {number}: é € 中"}
                history = {"currentId": "m", "messages": {"m": message}}
                chat = {"title": title, "history": history, "messages": [message]}
                ask("POST", "/api/v1/chats/new", {"chat": chat}, token)
            for number, size in enumerate((10, 100_000, 3_000_000)):
                content = secrets.token_bytes(size)
                ask.upload("/api/v1/files/?process=false", f"document-{number}.txt", content, token)
        much = "SELECT i AS id, md5(i::text) AS text FROM generate_series(1, 2000) AS i"
        self.sql(f"CREATE TABLE much AS {much}")
        self.vectors("POST", "/v1/schema", {"class": _CLASS, "vectorizer": "none"})
        for number in range(_VECTORS):
            chunk = {"text": f"Chunk {number}: é € 中"}
            vector = [math.cos(number * place) for place in range(64)]
            one = {"class": _CLASS, "id": _id(number), "properties": chunk, "vector": vector}
            self.vectors("POST", "/v1/objects", one)

    def snapshot(self) -> Snapshot:
        """Read all of it back."""
        tables = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").split()
        rows = {
            table: json.loads(self.sql(f"SELECT coalesce(json_agg(t), '[]') FROM \"{table}\" t"))  # noqa: S608
            for table in sorted(set(tables) - _NOT_DATA)
        }
        find = "cd /app/backend/data && find uploads -type f -exec sha256sum {} +"
        said = self.execute("open-webui", ["sh", "-c", find])
        lines = (line.split(maxsplit=1) for line in said.splitlines())
        files = {name: digest for digest, name in lines}
        vectors = {_id(number): self._vector(_id(number)) for number in range(_VECTORS)}
        return Snapshot(rows, files, vectors)

    def _vector(self, name: str) -> str:
        """Return a digest of an object, of its vector, and of what a search for that finds."""
        try:
            one = self.vectors("GET", f"/v1/objects/{_CLASS}/{name}?include=vector")
            search = f"nearVector: {{vector: {json.dumps(one['vector'])}}}, limit: 1"
            query = f"{{Get {{{_CLASS}({search}) {{_additional {{id}}}}}}}}"
            found = self.vectors("POST", "/v1/graphql", {"query": query})
        except StackproofError as error:
            return f"gone: {error}"
        told = [one["properties"], one["vector"], found]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def sql(self, statement: str) -> str:
        """Run a statement in the database's own pod."""
        psql = ["psql", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "openwebui", "-AtXq"]
        return self.execute("postgres", [*psql, "-c", statement, "openwebui"]).strip()

    def chats_of(self, email: str) -> list[str]:
        """Log a user in, with the password of before, and return the titles of the user's chats."""
        with self.application() as ask:
            credentials = {"email": email, "password": self.password}
            token = ask("POST", "/api/v1/auths/signin", credentials)["token"]
            return sorted(chat["title"] for chat in ask("GET", "/api/v1/chats/", None, token))


def _id(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
