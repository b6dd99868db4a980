"""The read APIs of Mimir, Loki and Tempo, as data, and the client that asks them."""

from __future__ import annotations

from .base import Answer, Client, Question, ReadApi, poll
from .loki import LOKI
from .mimir import MIMIR
from .tempo import TEMPO

#: Every read API that the gateway lets through; rows with a reason in `excluded` prove nothing.
READ_APIS: tuple[ReadApi, ...] = (*MIMIR, *LOKI, *TEMPO)

#: Those that can show a token, and so can be proven.
PROVABLE: tuple[ReadApi, ...] = tuple(api for api in READ_APIS if not api.excluded)

#: For many tenants: one API of each backend, whose answer holds everything that a reader can see.
ESSENTIAL: tuple[ReadApi, ...] = tuple(
    api for api in PROVABLE if api.id in {"mimir.query", "loki.query-range", "tempo.search-traceql"}
)

__all__ = ["ESSENTIAL", "PROVABLE", "READ_APIS", "Answer", "Client", "Question", "ReadApi", "poll"]
