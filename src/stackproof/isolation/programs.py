"""What ran: the backends as they say themselves, the other programs as the stack knows them."""

from __future__ import annotations

import json

from stackproof.backends import READ_APIS
from stackproof.repo.versions import RunningProgram, Versions

from .observer import Observer

_BUILD_INFO = tuple(api for api in READ_APIS if api.path.endswith("status/buildinfo"))


def running(observer: Observer, pins: Versions | None) -> tuple[RunningProgram, ...]:
    """Return the programs that ran, each beside what is deployed of it."""
    versions = {**observer.stack.versions, **_said(observer)}
    compare = pins.compare if pins else RunningProgram
    return tuple(compare(name, ran) for name, ran in sorted(versions.items()))


def _said(observer: Observer) -> dict[str, str]:
    """Return the version that each backend says it is, where it answers."""
    said: dict[str, str] = {}
    owner = observer.tenants[0]
    for api in _BUILD_INFO:
        if observer.cut_short:
            break
        if api.backend not in observer.readers[owner].urls:
            continue
        answer = observer.ask(api, observer.readers[owner], owner)
        if version := _version(answer.body):
            said[api.backend.value] = version
    return said


def _version(body: bytes) -> str:
    """Return the version in an answer: Mimir's holds it in `data`, as Prometheus' does."""
    try:
        told = json.loads(body)
        version = told.get("data", told).get("version")
    except (ValueError, AttributeError):
        return ""
    return version.removeprefix("v") if isinstance(version, str) else ""
