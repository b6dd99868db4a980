"""Chains of limits with a link that does not hold: what is acknowledged never arrives."""

from __future__ import annotations

from typing import Any

from .base import Edit, Twin, edited, in_lgtm, in_tenant, invalid

_BATCH = "min_size      = 184320\n  \t\t\tmax_size      = 368640\n  \t\t\tsizer         = "


def _link(name: str, fault: str, reason: str, *edits: Edit, **values: Any) -> Twin:
    return edited(name, fault, "deployment.limits-form-a-chain", reason, *edits, **values)


def _range(name: str, fault: str, reason: str, *edits: Edit, **values: Any) -> Twin:
    check = "deployment.all-that-is-kept-can-be-read"
    return edited(name, fault, check, reason, *edits, **values)


LIMITS: tuple[Twin, ...] = (
    _link(
        "batches-counted-in-items",
        "Alloy makes batches of up to 3000 items, of whatever size",
        r"a batch can be [\d,]+ bytes, the gateway's maxBodySize is 16,777,216",
        in_tenant(
            "alloy.yaml",
            f'{_BATCH}"bytes"',
            'min_size      = 2000\n  \t\t\tmax_size      = 3000\n  \t\t\tsizer         = "items"',
        ),
    ),
    _link(
        "batch-larger-than-the-burst",
        "a batch of small lines is more than the tenant may send at once: 429 for ever",
        r"a batch of logs can be [\d,]+ bytes, soev's burst at Loki is 8,388,608",
        in_tenant("alloy.yaml", "max_size      = 368640", "max_size      = 4194304"),
    ),
    _link(
        "lines-of-any-length",
        "Alloy cuts no line: one that fits no batch is dropped, with everything beside it",
        r"one log record can be inf bytes, max_size of",
        in_tenant(
            "alloy.yaml",
            '\t"set(body.string, Substring(body.string, 0, 262144, utf8_safe = true)) '
            'where Len(body.string) > 262144",\n',
            "\n",
        ),
    ),
    _link(
        "lines-of-more-attributes-than-loki-takes",
        "Loki takes 128 attributes of a line, its default: Alloy lets one pass that has more",
        r"one line can be 273 attributes, Loki's max_structured_metadata_entries_count is 128",
        in_lgtm("loki.yaml", "  max_structured_metadata_entries_count: 300\n", ""),
    ),
    _link(
        "maps-count-as-one-attribute",
        "Alloy lets a library have a map of any size: Loki refuses each line of that library",
        r"one line can be inf attributes, Loki's max_structured_metadata_entries_count is 300",
        in_tenant(
            "alloy.yaml",
            '  \t\t\t{{- else }}\n  \t\t\t"stringify_all(attributes)",\n  \t\t\t{{- end }}\n',
            "  \t\t\t{{- end }}\n",
        ),
    ),
    _link(
        "points-of-any-size",
        "Alloy lets a point have attributes of any size: one that fits no batch is dropped",
        r"one point can be inf bytes, max_size of",
        in_tenant("alloy.yaml", '  \t\t\t"limit(attributes, 64, [])",\n', ""),
    ),
    _link(
        "spans-of-any-size",
        "Alloy lets a span have attributes of any size: one that fits no batch is dropped",
        r"one span can be inf bytes, max_size of",
        in_tenant(
            "alloy.yaml",
            '`delete_matching_keys(attributes, ".*") where Len(String(attributes)) > 131072`,\n',
            "\n",
        ),
    ),
    _link(
        "exports-larger-than-the-receiver",
        "the application exports 512 lines at once, whatever their length: refused, and gone",
        r"an export \(OTEL_BLRP_\w+\) can be 134,217,728 bytes, Alloy's grpc\.\w+ is 16,777,216",
        in_tenant("_otel.tpl", 'OTEL_BLRP_MAX_EXPORT_BATCH_SIZE: "32"\n', ""),
    ),
    _link(
        "receiver-larger-than-the-queue",
        "Alloy receives what its queue can never hold",
        r"a request \(grpc\.max_recv_msg_size\) can be 134,217,728 bytes, queue_size",
        in_tenant("alloy.yaml", 'max_recv_msg_size = "16MiB"', 'max_recv_msg_size = "128MiB"'),
    ),
    _link(
        "gateway-smaller-than-a-batch",
        "the gateway takes less than a batch",
        r"a batch can be 368,640 bytes, the gateway's maxBodySize is 262,144",
        in_lgtm("gateway.yaml", "max_size {{ .Values.gateway.maxBodySize }}", "max_size 256KiB"),
    ),
    _link(
        "loki-inside-smaller-than-a-batch",
        "Loki's parts pass on 4 MiB, its default: it answers 500 to what its receiver takes",
        r"a batch of logs can be [\d,]+ bytes, Loki's grpc_server_max_recv_msg_size is 4,194,304",
        in_lgtm(
            "loki.yaml",
            '  grpc_server_max_recv_msg_size: {{ include "lgtm.loki.burst" (list . 5) }}\n',
            "",
        ),
    ),
    _link(
        "loki-unpacks-what-it-cannot-pass-on",
        "a push may be unpacked to 5 GB, Loki's default: more than its memory",
        r"a push can be [\d,]+ bytes, Loki's grpc_server_max_recv_msg_size",
        in_lgtm(
            "loki.yaml", '  max_decompressed_size: {{ include "lgtm.largestRequest" . }}\n', ""
        ),
    ),
    _link(
        "mimir-unpacks-whatever-comes",
        "Mimir unpacks 100 MB, its default: of empty series, packed to 5 MB, it makes 58 GB",
        r"what Mimir makes of an export can be 62,914,560,000 bytes, its memory limit",
        in_lgtm("mimir.yaml", '  max_recv_msg_size: {{ include "lgtm.largestRequest" . }}\n', ""),
    ),
    _link(
        "tempo-unpacks-whatever-comes",
        "Tempo unpacks 20 MiB, its default: 20 KB of packed empty spans become 2 GB",
        r"what Tempo makes of an export can be 12,582,912,000 bytes, its memory limit",
        in_lgtm(
            "tempo.yaml",
            '          max_request_body_size: {{ include "lgtm.largestRequest" . }}\n',
            "",
        ),
    ),
    _link(
        "generator-writes-more-than-mimir-unpacks",
        "Tempo writes so many series at once that Mimir refuses them where names of spans are long",
        r"what Tempo writes at once can be 1,280,000 bytes, Mimir's max_recv_msg_size is 1,048,576",
        in_lgtm("tempo.yaml", "max_samples_per_send: 250", "max_samples_per_send: 500"),
    ),
    _link(
        "monitor-writes-more-than-mimir-unpacks",
        "the monitor writes 2,000 samples at once, its default: Mimir refuses them now and then",
        r"what the monitor writes at once can be 2,048,000 bytes, Mimir's max_recv_msg_size",
        in_lgtm("monitor.yaml", "\t\t\tmax_samples_per_send = 500\n", ""),
    ),
    _link(
        "monitor-pushes-more-than-loki-unpacks",
        "the monitor pushes 1 MiB of lines at once, its default: Loki refuses short ones",
        r"a batch of pod logs can be 1,835,008 bytes, Loki's max_decompressed_size is 1,048,576",
        in_lgtm("monitor.yaml", '\t\tbatch_size = "360KiB"\n', ""),
    ),
    _link(
        "stream-limits-are-lokis-own",
        "one stream may send less than its tenant, and an application has one stream",
        r"all of soev's logs can be 52,428,800 bytes, its per_stream_rate_limit is 3,145,728",
        in_lgtm(
            "loki.yaml",
            "per_stream_rate_limit: {{ mulf .limits.logs.megabytesPerSecond 1048576 "
            "| ceil | int64 }}\n",
            "",
        ),
        lgtm={"defaults": {"limits": {"logs": {"megabytesPerSecond": 50, "megabytesBurst": 100}}}},
    ),
    _link(
        "tempo-inside-smaller-than-the-burst",
        "Tempo's parts pass on 16 MiB, its default, and a tenant may send 20 MB at once",
        r"soev's burst at Tempo can be 20,000,000 bytes, Tempo's grpc_\w+ is 16,777,216",
        in_lgtm("tempo.yaml", "  grpc_server_max_recv_msg_size: {{ $inside }}\n", ""),
    ),
    _link(
        "resource-of-any-size-with-each-trace",
        "Tempo stores the resource with each trace, and Alloy lets it have any size",
        r"a batch of spans can be inf bytes, Tempo's grpc_server_max_recv_msg_size",
        in_tenant("alloy.yaml", " where Len(String(attributes)) > 2048`", "`"),
    ),
    _link(
        "resource-of-any-size-in-each-series",
        "Mimir makes labels of the resource in each series, and Alloy lets them have any length",
        r"a batch of metrics can be inf bytes, Mimir's grpc_server_max_recv_msg_size",
        in_tenant(
            "alloy.yaml",
            '"truncate_all(attributes, 256)",\n  \t\t\t`keep_keys(attributes, '
            '{{ include "open-webui-stack.alloy.identity" . }}) '
            "where Len(String(attributes)) > 16384`",
            '`keep_keys(attributes, {{ include "open-webui-stack.alloy.identity" . }}) '
            "where Len(String(attributes)) > 16384`",
        ),
    ),
    _link(
        "generator-sends-more-than-a-burst",
        "Tempo writes more samples at once than a tenant may send",
        r"a batch of metrics can be 300,000 samples, soev's burst at Mimir is 200,000",
        in_lgtm("tempo.yaml", "max_samples_per_send: 250", "max_samples_per_send: 300000"),
    ),
    _link(
        "pod-logs-give-up-first",
        "lines of pods are dropped after eight minutes, loki.write's default",
        r"an outage can be 3,600 seconds, the patience of loki\.write\.default is 512",
        in_tenant(
            "alloy.yaml", '  \t\tmax_backoff_period  = "15s"\n  \t\tmax_backoff_retries = 245\n', ""
        ),
    ),
    invalid(
        "burst-of-logs-smaller-than-a-batch",
        "a tenant may send less at once than Alloy does",
        r"megabytesBurst.*want 8",
        lgtm={"defaults": {"limits": {"logs": {"megabytesBurst": 4}}}},
    ),
    invalid(
        "burst-of-samples-smaller-than-a-batch",
        "a tenant may send less at once than Alloy does",
        r"samplesBurst.*want 40,000",
        lgtm={"defaults": {"limits": {"metrics": {"samplesBurst": 10_000}}}},
    ),
    invalid(
        "burst-of-spans-smaller-than-a-batch",
        "a tenant may send less at once than Alloy does",
        r"burstBytes.*want 400,000",
        lgtm={"defaults": {"limits": {"traces": {"burstBytes": 100_000}}}},
    ),
    _range(
        "lines-that-cannot-be-read",
        "Loki's default limit of a range, 721 h: 31 days of lines cannot be shown at once",
        r"loki: limits_config\.max_query_length is 721h, data is kept for 744h",
        in_lgtm("loki.yaml", "  max_query_length: 0s\n", ""),
    ),
    _range(
        "lines-that-are-silently-not-shown",
        "Loki cuts what is asked for to the shortest retention of all tenants",
        r"loki: limits_config\.max_query_lookback is 744h, data is kept for 1440h",
        in_lgtm("loki.yaml", 'include "lgtm.longestRetention" . }', ".Values.defaults.retention }"),
        lgtm={
            "tenants": [
                {"name": "soev", "namespace": "soev", "secretPrefix": "soev", "retention": "1440h"}
            ]
        },
    ),
    _range(
        "traces-that-cannot-be-found",
        "Tempo's default limit of a search, a week",
        r"tempo: query_frontend\.search\.max_duration is 168h, data is kept for 744h",
        in_lgtm(
            "tempo.yaml",
            "    # A query reads as far back as anything is kept.\n"
            '    max_duration: {{ include "lgtm.longestRetention" . }}\n',
            "",
        ),
    ),
    _range(
        "samples-that-are-silently-not-shown",
        "one tenant's lookback in Mimir is a week: what is older is cut off every answer",
        r"mimir: soev's max_query_lookback is 168h, data is kept for 744h",
        in_lgtm("mimir.yaml", ": {{ .retention }}", ": {{ .retention }}\nmax_query_lookback: 168h"),
    ),
)
