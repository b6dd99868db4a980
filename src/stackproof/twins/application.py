"""Faults of what a tenant's application is told: who it obeys, and whom it sends keys to."""

from __future__ import annotations

from .base import Layer, Twin, edited, in_tenant, invalid

APPLICATION: tuple[Twin, ...] = (
    invalid(
        "reachable-without-an-administrator",
        "a tenant behind an Ingress has no administrator: the first stranger becomes it",
        r"/openWebui/admin/email': minLength",
        tenant={"openWebui": {"admin": {"email": ""}}},
    ),
    invalid(
        "key-of-another-company",
        "the token of Hugging Face is sent to OpenAI",
        r"/openaiApiBaseUrl': 'https://api\.openai\.com/v1' does not match .*huggingface",
        tenant={"openWebui": {"config": {"openaiApiBaseUrl": "https://api.openai.com/v1"}}},
    ),
    edited(
        "key-without-an-address",
        "the embeddings' key has no address of its own: the application chooses one",
        "invariants.credentials-name-their-host",
        r"gets RAG_OPENAI_API_KEY and no RAG_OPENAI_API_BASE_URL",
        in_tenant(
            "open-webui.yaml",
            "RAG_OPENAI_API_BASE_URL: {{ $config.ragOpenaiApiBaseUrl | quote }}",
            "",
        ),
    ),
    invalid(
        "secrets-are-frozen",
        "secrets are fetched only once: a rotated one never arrives",
        r"externalSecrets/refreshInterval.*does not match",
        tenant={"externalSecrets": {"refreshInterval": "0s"}},
    ),
    edited(
        "first-stranger-is-administrator",
        "the administrator is not made at the start: whoever signs up first becomes it",
        "arrival.its-administrator-is-there-first",
        r"a stranger signed up: 200, role admin",
        in_tenant("open-webui.yaml", "WEBUI_ADMIN_EMAIL: {{ . | quote }}", 'WEBUI_ADMIN_EMAIL: ""'),
        layer=Layer.LOCAL,
        deadline_s=5,
    ),
    edited(
        "ten-minutes-are-no-failure",
        "the application may take ten minutes to start, and its Deployment has failed by then: "
        "Flux rolls it back while it migrates",
        "invariants.slow-starts-are-no-failures",
        r"Deployment/open-webui.*: has failed after 600 s, and open-webui may take 600 s to start",
        in_tenant("_helpers.tpl", "progressDeadlineSeconds: 900\n", ""),
    ),
    edited(
        "rolls-by-default",
        "Alloy's Deployment rolls with defaults, which server-side apply cannot take away",
        "invariants.what-rolls-says-how",
        "Deployment/.*-alloy: could not become Recreate: say rollingUpdate",
        in_tenant("alloy.yaml", "\\n  rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}", ""),
        tenant={"alloy": {"podLogs": {"enabled": False}}},
    ),
)
