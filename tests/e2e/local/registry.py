"""A registry on loopback: what a remote one answers, and each way in which one fails.

It serves the pull side of the OCI distribution API for images that a test makes of files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import ssl
import struct
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_TOKEN = "let-me-in"


def layer(files: Mapping[str, bytes | Path], *, zipped: bool = False) -> bytes:
    """Return a layer with those files, all of which can be run."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(made.getvalue(), compresslevel=1) if zipped else made.getvalue()


@dataclass
class Registry:
    """What the registry has, and what is wrong with it.

    Args:
        token: Nobody gets an answer without a token of its own.
        shut: Nobody gets an answer at all: 401.
        limited: So many questions are answered by 429 before one is answered.
        retry_after: How long the 429 asks to wait.
        truncated: Blobs end after half, as a broken connection does.
        corrupt: A byte of each blob is another.
        dies: After so many bytes of blobs, the registry is gone.
        stops: Nothing comes after half of a blob, until this is set.
    """

    token: bool = False
    shut: bool = False
    limited: int = 0
    retry_after: str = "1"
    truncated: bool = False
    corrupt: bool = False
    dies: int | None = None
    stops: threading.Event | None = None
    asked: list[str] = field(default_factory=list)
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _tags: dict[str, str] = field(default_factory=dict)
    _types: dict[str, str] = field(default_factory=dict)
    _server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        assert self._server
        return f"127.0.0.1:{self._server.server_address[1]}"

    def push(self, name: str, tag: str, platforms: Mapping[str, Sequence[bytes]]) -> str:
        """Take an image: an index if it is for several platforms; return its digest."""
        manifests = [
            self._manifest(platform, layers) | {"platform": _platform(platform)}
            for platform, layers in platforms.items()
        ]
        if len(manifests) == 1:
            digest = str(manifests[0]["digest"])
        else:
            index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
            digest = self._keep(json.dumps(index).encode(), _INDEX)
        self._tags[f"{name}:{tag}"] = digest
        return digest

    def _manifest(self, platform: str, layers: Sequence[bytes]) -> dict[str, Any]:
        config = json.dumps({**_platform(platform), "rootfs": {"type": "layers"}}).encode()
        made = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._descriptor(_CONFIG, config),
            "layers": [
                self._descriptor(_LAYER + ("+gzip" if one[:2] == b"\x1f\x8b" else ""), one)
                for one in layers
            ],
        }
        return self._descriptor(_MANIFEST, json.dumps(made).encode())

    def _descriptor(self, media_type: str, content: bytes) -> dict[str, Any]:
        return {
            "mediaType": media_type,
            "digest": self._keep(content, media_type),
            "size": len(content),
        }

    def _keep(self, content: bytes, media_type: str) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._blobs[digest], self._types[digest] = content, media_type
        return digest

    @contextmanager
    def serving(self, tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
        """Answer for as long as the block runs."""
        handler = type("Handler", (_Handler,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def end(self) -> None:
        """Take no more connections."""
        assert self._server
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        registry = self.registry
        registry.asked.append(self.path)
        has_token = self.headers.get("Authorization") == f"Bearer {_TOKEN}"
        if self.path.startswith("/token"):
            self._answer(200, json.dumps({"token": _TOKEN}).encode(), "application/json")
        elif registry.shut or (registry.token and not has_token):
            realm = f'Bearer realm="http://{registry.address}/token",service="here"'
            headers = {} if registry.shut else {"WWW-Authenticate": realm}
            self._answer(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}', "", headers)
        elif self.path.rstrip("/") == "/v2":
            self._answer(200, b"{}", "application/json")
        elif registry.limited > 0:
            registry.limited -= 1
            self._answer(429, b"", "", {"Retry-After": registry.retry_after})
        else:
            self._content()

    def do_HEAD(self) -> None:
        self.do_GET()

    def _content(self) -> None:
        registry = self.registry
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.+)", self.path)
        name, kind, reference = found.groups() if found else ("", "", "")
        digest = registry._tags.get(f"{name}:{reference}", reference)
        content = registry._blobs.get(digest)
        if content is None:
            self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', "")
            return
        if kind == "blobs" and registry.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {"Docker-Content-Digest": digest}
        self._answer(200, content, registry._types[digest], headers, blob=kind == "blobs")

    def _answer(
        self,
        status: int,
        content: bytes,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        *,
        blob: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": media_type, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        registry = self.registry
        if blob and registry.dies is not None and len(content) > registry.dies:
            self.wfile.write(content[: registry.dies])
            # As a cable that is pulled: no end of the stream, and nobody is there any more.
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            registry.end()
        elif blob and registry.stops:
            self.wfile.write(content[: len(content) // 2])
            registry.stops.wait()
            self.close_connection = True
        elif blob and registry.truncated:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            if blob and registry.dies is not None:
                registry.dies -= len(content)
            self.wfile.write(content)


def _platform(name: str) -> dict[str, str]:
    system, _, processor = name.partition("/")
    return {"os": system, "architecture": processor}
