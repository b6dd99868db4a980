"""A credential goes to the host that it was given for, and to no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from stackproof.helm.manifests import EnvVar, Release, containers

#: Which variables name the hosts that a key of the application is sent to. Where one is not set,
#: the application falls back to another provider's, or to https://api.openai.com/v1 (its config.py,
#: 0.6.43 to 0.12.4: RAG_OPENAI_API_BASE_URL = getenv(..., OPENAI_API_BASE_URL) and so on).
SENT_TO: Mapping[str, tuple[str, ...]] = {
    "OPENAI_API_KEY": ("OPENAI_API_BASE_URL",),
    "OPENAI_API_KEYS": ("OPENAI_API_BASE_URLS",),
    "GEMINI_API_KEY": ("GEMINI_API_BASE_URL",),
    **{
        f"{use}_API_KEY": (f"{use}_API_BASE_URL",)
        for use in (
            *("RAG_OPENAI", "IMAGES_OPENAI", "IMAGES_EDIT_OPENAI", "AUDIO_STT_OPENAI"),
            *("AUDIO_TTS_OPENAI", "IMAGES_GEMINI", "IMAGES_EDIT_GEMINI", "MISTRAL_OCR"),
            *("FIRECRAWL", "JINA", "TAVILY"),
        )
    },
    "RAG_AZURE_OPENAI_API_KEY": ("RAG_AZURE_OPENAI_BASE_URL",),
    "RAG_OLLAMA_API_KEY": ("RAG_OLLAMA_BASE_URL",),
    "RAG_EXTERNAL_RERANKER_API_KEY": ("RAG_EXTERNAL_RERANKER_URL",),
    "EXTERNAL_DOCUMENT_LOADER_API_KEY": ("EXTERNAL_DOCUMENT_LOADER_URL",),
    "EXTERNAL_WEB_LOADER_API_KEY": ("EXTERNAL_WEB_LOADER_URL",),
    "EXTERNAL_WEB_SEARCH_API_KEY": ("EXTERNAL_WEB_SEARCH_URL",),
}


#: The key that is sent to any of these hosts for which there is none of its own.
_FALLBACK = "OPENAI_API_KEY"


def homeless(release: Release) -> Iterator[str]:
    """Yield each host that would get another host's key, and each key whose host is not named."""
    for workload in release.workloads():
        for container in containers(workload):
            given = release.env(container)
            for host in sorted(_strangers(given)):
                yield (
                    f"{workload.ref}: {container['name']} gets {host} and no key for it: "
                    f"it would send {_FALLBACK} there"
                )
            for key in sorted(SENT_TO.keys() & given.keys()):
                for host in SENT_TO[key]:
                    if host not in given or given[host].value == "":
                        yield (
                            f"{workload.ref}: {container['name']} gets {key} and no {host}: "
                            "it would send the key to whomever it falls back to"
                        )


def _strangers(given: Mapping[str, EnvVar]) -> Iterator[str]:
    """Yield the variables of hosts that would get the key of another, for want of one of theirs."""
    if _FALLBACK not in given:
        return
    known = given.get(SENT_TO[_FALLBACK][0])
    issuer = _host((known.value if known else None) or "")
    for key, (host, *_) in SENT_TO.items():
        if "OPENAI_API_KEY" in key and key not in given and host in given:
            urls = (given[host].value or "").split(";")
            if any(_host(url) != issuer for url in urls):
                yield host


def _host(url: str) -> str:
    return urlsplit(url.strip()).netloc
