"""One HTTP request and its whole answer, within a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import urllib3

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Received:
    """What came back; `location` is where a redirection leads, which is not followed."""

    status: int
    body: bytes
    location: str = ""

    @property
    def line(self) -> str:
        """The status in short, and where it leads."""
        return status_line(self.status, self.location)


def status_line(status: int | None, location: str) -> str:
    """Say in short what came back, and where it leads."""
    return f"HTTP {status}{location and f' to {location}'}"


def exchange(
    pool: urllib3.PoolManager,
    method: str,
    url: str,
    *,
    timeout_s: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Received:
    """Send a request and read its answer to the end.

    Raises:
        HTTPError: There is none, or it was not whole within the time, however steadily it came.
    """
    ends = time.monotonic() + timeout_s
    answer = pool.request(
        method,
        url,
        body=body,
        headers=headers,
        timeout=timeout_s,
        retries=False,
        redirect=False,
        preload_content=False,
    )
    parts = []
    try:
        while part := answer.read1(_CHUNK):
            parts.append(part)
            if time.monotonic() > ends:
                raise urllib3.exceptions.TimeoutError(
                    f"the answer was not whole within {timeout_s:g} s"
                )
    except BaseException:
        answer.close()
        raise
    finally:
        answer.release_conn()
    location = answer.headers.get("Location", "") if 300 <= answer.status < 400 else ""
    return Received(answer.status, b"".join(parts), location)
