"""Faults of what a tenant's application is told: who it obeys, and whom it sends keys to."""

from __future__ import annotations

from .base import Edit, Layer, Twin

_APPLICATION = "charts/open-webui-stack/templates/open-webui.yaml"

APPLICATION: tuple[Twin, ...] = (
    Twin(
        name="reachable-without-an-administrator",
        fault="a tenant behind an Ingress has no administrator: the first stranger becomes it",
        layer=Layer.SCHEMA,
        caught_by="render",
        reason=r"/openWebui/admin/email': minLength",
        tenant={"openWebui": {"admin": {"email": ""}}},
    ),
    Twin(
        name="key-of-another-company",
        fault="the token of Hugging Face is sent to OpenAI",
        layer=Layer.SCHEMA,
        caught_by="render",
        reason=r"/openaiApiBaseUrl': 'https://api\.openai\.com/v1' does not match .*huggingface",
        tenant={"openWebui": {"config": {"openaiApiBaseUrl": "https://api.openai.com/v1"}}},
    ),
    Twin(
        name="key-without-an-address",
        fault="the embeddings' key has no address of its own: the application chooses one",
        caught_by="invariants.credentials-name-their-host",
        reason=r"gets RAG_OPENAI_API_KEY and no RAG_OPENAI_API_BASE_URL",
        edits=[
            Edit(
                _APPLICATION,
                "RAG_OPENAI_API_BASE_URL: {{ $config.ragOpenaiApiBaseUrl | quote }}",
                "",
            )
        ],
    ),
    Twin(
        name="secrets-are-frozen",
        fault="secrets are fetched once: a rotated one never arrives",
        layer=Layer.SCHEMA,
        caught_by="render",
        reason=r"externalSecrets/refreshInterval.*does not match",
        tenant={"externalSecrets": {"refreshInterval": "0s"}},
    ),
    Twin(
        name="first-stranger-is-administrator",
        fault="the administrator is not made at the start: who signs up first is it",
        layer=Layer.LOCAL,
        caught_by="arrival.its-administrator-is-there-first",
        reason=r"a stranger signed up: 200, role admin",
        edits=[Edit(_APPLICATION, "WEBUI_ADMIN_EMAIL: {{ . | quote }}", 'WEBUI_ADMIN_EMAIL: ""')],
        deadline_s=5,
    ),
    Twin(
        name="rolls-by-default",
        fault="Alloy's Deployment rolls with defaults, which server-side apply cannot take away",
        caught_by="invariants.what-rolls-says-how",
        reason="Deployment/.*-alloy: could not become Recreate: say rollingUpdate",
        edits=[
            Edit(
                "charts/open-webui-stack/templates/alloy.yaml",
                r"\n  rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}",
                "",
            )
        ],
        tenant={"alloy": {"podLogs": {"enabled": False}}},
    ),
)
