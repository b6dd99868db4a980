"""The registry of read APIs, how they are asked, and Grafana's data sources."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cramjam
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from stackproof.backends import PROVABLE, READ_APIS, grafana, mimir, poll
from stackproof.backends.base import Answer, Question, ReadApi, Request
from stackproof.errors import StackproofError
from stackproof.model import TENANT_HEADER, Access, Backend, Signal
from stackproof.otlp import protobuf
from stackproof.repo.checkout import Checkout
from stackproof.stack import provisioning

GATEWAY = "http://127.0.0.1:8080"
URLS = {
    Backend.MIMIR: f"{GATEWAY}/prometheus",
    Backend.LOKI: GATEWAY,
    Backend.TEMPO: f"{GATEWAY}/tempo",
}
SOEV = Access("soev", URLS, ("soev", "s3cret"))
QUESTION = Question("0123456789abcdef", 1_795_000_000_123456789, 1_795_000_060_000000001, "ab" * 16)


def ids(api: ReadApi) -> str:
    return api.id


# --- the registry ---------------------------------------------------------------------------------


def test_every_api_is_proven_or_says_why_not() -> None:
    assert len({api.id for api in READ_APIS}) == len(READ_APIS)
    for api in READ_APIS:
        assert bool(api.shows) != bool(api.excluded), api.id
    assert {api.signal for api in PROVABLE} == set(Signal)


@pytest.mark.parametrize("api", READ_APIS, ids=ids)
def test_a_request_has_no_placeholder_and_no_password(api: ReadApi) -> None:
    request = api.request(SOEV, QUESTION)
    assert request.url.startswith(("http://", "ws://"))
    assert "$" not in request.url
    assert "Authorization" not in request.headers
    assert "s3cret" not in request.line() + request.curl() + repr(SOEV)
    # A question asks for a run, or for a trace by its id; it never holds a token itself.
    assert "sp0" not in request.line()


@pytest.mark.parametrize("api", PROVABLE, ids=ids)
def test_the_command_that_reproduces_it_is_one_for_a_shell(api: ReadApi) -> None:
    request = api.request(SOEV, QUESTION)
    words = shlex.split(request.curl())
    assert words[-1] == request.url
    assert words[words.index("--user") + 1] == "soev:$PASSWORD"
    assert ("--data-binary" in words) == (request.body is not None)


def _routes(checkout: Checkout) -> list[dict[str, Any]]:
    text = (checkout.charts / "lgtm" / "files" / "gateway-routes.yaml").read_text(encoding="utf-8")
    return [route for route in yaml.safe_load(text) if not route.get("write")]


def _alternatives(pattern: str) -> Iterator[str]:
    """Every way through the groups of a route's pattern; a name stands as `*`."""
    pattern = re.sub(r"(\[[.]\]\?)?(\[[^]]*\])+[+*]?", "*", pattern)
    group = re.search(r"\(([^()]*)\)(\??)", pattern)
    if group is None:
        yield from pattern.split("|")
        return
    for each in [*group[1].split("|"), *([""] if group[2] else [])]:
        yield from _alternatives(pattern[: group.start()] + each + pattern[group.end() :])


def _inside(pattern: str) -> Iterator[str]:
    """The alternatives of the outer group, whose own groups are optional prefixes."""
    head, _, rest = pattern.partition("(")
    body = rest[: rest.rindex(")")]
    depth, part = 0, ""
    for sign in body + "|":
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and depth == 0:
            yield from _alternatives(head + part)
            part = ""
        else:
            part += sign


def test_every_read_that_the_gateway_lets_through_is_in_the_registry(checkout: Checkout) -> None:
    prefixes = {Backend.MIMIR: "/prometheus", Backend.LOKI: "", Backend.TEMPO: "/tempo"}
    known = {
        re.sub(
            r"(?<=/)(stackproof_token|__name__|service_instance_id|(span[.])?stackproof[.]token"
            r"|[$]trace_id)",
            "*",
            prefixes[api.backend] + api.path,
        )
        for api in READ_APIS
    }
    passed = {path for route in _routes(checkout) for path in _inside(route["path"])}
    assert len(passed) > 25
    assert passed - known == set()


@pytest.mark.parametrize("api", PROVABLE, ids=ids)
def test_what_is_proven_is_let_through_by_the_gateway(api: ReadApi, checkout: Checkout) -> None:
    request = api.request(SOEV, QUESTION)
    path = re.sub(r"^(http|ws)://[^/]+", "", request.url).partition("?")[0]
    through = [
        route["name"]
        for route in _routes(checkout)
        if request.method in route["methods"] and re.fullmatch(route["path"], path)
    ]
    assert len(through) == 1


def test_times() -> None:
    values = QUESTION.values()
    assert (values["start_s"], values["end_s"]) == ("1795000000", "1795000061")
    assert values["end_ns"] == "1795000060000000001"


# --- remote read ----------------------------------------------------------------------------------


def _prompb() -> type[Any]:
    """ReadRequest as prometheus/prompb has it, built independently of the encoder under test."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    for message, fields in {
        "ReadRequest": [("queries", 1, kinds.TYPE_MESSAGE, ".t.Query", True)],
        "Query": [
            ("start_timestamp_ms", 1, kinds.TYPE_INT64, "", False),
            ("end_timestamp_ms", 2, kinds.TYPE_INT64, "", False),
            ("matchers", 3, kinds.TYPE_MESSAGE, ".t.LabelMatcher", True),
        ],
        "LabelMatcher": [
            ("type", 1, kinds.TYPE_INT32, "", False),
            ("name", 2, kinds.TYPE_STRING, "", False),
            ("value", 3, kinds.TYPE_STRING, "", False),
        ],
    }.items():
        described = file.message_type.add(name=message)
        for name, number, kind, type_name, repeated in fields:
            described.field.add(
                name=name,
                number=number,
                type=kind,
                type_name=type_name or None,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ReadRequest"))


def test_remote_read_is_valid_protobuf() -> None:
    body = bytes(cramjam.snappy.decompress_raw(mimir.remote_read_request(QUESTION)))
    (query,) = _prompb().FromString(body).queries
    assert query.start_timestamp_ms == 1_795_000_000_123
    assert query.end_timestamp_ms == 1_795_000_060_000
    (matcher,) = query.matchers
    assert (matcher.type, matcher.name, matcher.value) == (0, "stackproof_run", QUESTION.run)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 1_795_000_000_123])
def test_varint(number: int) -> None:
    decoded = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(protobuf.varint(number)))
    assert decoded == number


def test_what_is_no_snappy_is_an_error_and_not_an_empty_answer() -> None:
    assert mimir.decode_snappy(bytes(cramjam.snappy.compress_raw(b"sp"))) == b"sp"
    with pytest.raises(ValueError, match="no snappy block"):
        mimir.decode_snappy(b"<html>")


# --- asking ---------------------------------------------------------------------------------------


def test_an_answer_is_described_in_a_line() -> None:
    request = Request("GET", "http://x")
    assert Answer(request, 404, b"not here\n", "", 1.0).describe() == "HTTP 404: not here"
    assert Answer(request, 200, b"", "", 1.0).describe() == "HTTP 200: empty body"
    assert Answer(request, None, b"", "refused", 1.0).describe() == "refused"
    assert Answer(request, 200, b"x" * 900, "", 1.0).describe(5) == "HTTP 200: xxxxx … (900 bytes)"


def test_poll_gives_the_result_and_asks_at_least_once() -> None:
    answers = iter([(None, "nothing"), (7, "seven")])
    assert poll(lambda: next(answers), 1.0, "seven", interval_s=0.0) == 7
    assert poll(lambda: (0, "zero is a result too"), 0.0, "zero") == 0


def test_poll_quotes_the_last_observation() -> None:
    seen = iter(["HTTP 503", "HTTP 200: {}", "HTTP 200: []", "x", "x", "x", "x", "x"])
    last = ""

    def look() -> tuple[None, str]:
        nonlocal last
        last = next(seen)
        return None, last

    with pytest.raises(StackproofError) as caught:
        poll(look, 0.05, "mimir.query as soev", interval_s=0.02)
    assert str(caught.value) == (
        f"mimir.query as soev: not seen within 0.05 s; last observation: {last}"
    )


# --- Grafana --------------------------------------------------------------------------------------

ENVIRONMENT = {"URL": GATEWAY, "PASSWORD": "p", "DOLLAR": "a$URL", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$URL/prometheus", f"{GATEWAY}/prometheus"),
        ("${URL}/tempo", f"{GATEWAY}/tempo"),
        ("$__env{URL}", GATEWAY),
        ("$NOBODY-${NOBODY}-$EMPTY", "--"),
        ("soev|enterprise-a", "soev|enterprise-a"),
        ("$$URL", "$URL"),
        ('{a="$${__span.tags}"}', '{a="${__span.tags}"}'),
        ("$$$$", "$$"),
        ("100$ and 5 $ more", "100$ and 5 $ more"),
        ("${URL", "URL"),
        ("${}x", "x"),
        ("$1x", "x"),
        # Plain: expanded once. In braces: what came in is expanded again, which mangles it.
        ("$DOLLAR", "a$URL"),
        ("${DOLLAR}", f"a{GATEWAY}"),
    ],
)
def test_variables_are_expanded_as_grafana_does(text: str, expected: str) -> None:
    assert provisioning.expand(text, ENVIRONMENT) == expected


def test_a_file_is_read_as_grafana_does(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from-file\n")
    assert provisioning.expand(f"$__file{{{tmp_path}/password}}", {}) == "from-file"
    with pytest.raises(StackproofError, match=r"cannot read the file of \$__file"):
        provisioning.expand("$__file{/nowhere}", {})


PROVISIONED = """
apiVersion: 1
datasources:
  - name: Mimir (all tenants)
    uid: mimir
    type: prometheus
    url: $URL/prometheus/
    basicAuth: true
    basicAuthUser: admin
    jsonData: {httpHeaderName1: X-Scope-OrgID, httpHeaderName2: X-Other, timeInterval: 10}
    secureJsonData:
      basicAuthPassword: $PASSWORD
      httpHeaderValue1: "soev|enterprise-a"
      httpHeaderValue2: other
  - {name: Loki, uid: loki-soev, type: loki, url: "${URL}",
     jsonData: {httpHeaderName1: X-Scope-OrgID}, secureJsonData: {httpHeaderValue1: soev}}
  - {name: elsewhere, uid: x, type: postgres, url: db}
"""


def test_data_sources_are_asked_as_provisioned() -> None:
    all_tenants, soev = grafana.sources(provisioning.read(PROVISIONED, ENVIRONMENT))
    assert all_tenants.access == Access(
        "Grafana mimir",
        {Backend.MIMIR: f"{GATEWAY}/prometheus"},
        ("admin", "p"),
        {TENANT_HEADER: "soev|enterprise-a", "X-Other": "other"},
    )
    assert (soev.backend, soev.access.auth, soev.header) == (Backend.LOKI, None, "soev")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("soev", {"soev"}),
        ("soev|enterprise-a", {"soev", "enterprise-a"}),
        # Meant to be everybody, and no pattern: the view falls short of what is expected.
        ("soev|enterprise-.*", {"soev", "enterprise-a"}),
        ("", {"soev", "enterprise-a"}),
    ],
)
def test_what_a_data_source_has_to_show(header: str, expected: set[str]) -> None:
    access = Access("Grafana x", URLS, None, {TENANT_HEADER: header})
    source = grafana.DataSource("x", "x", Backend.LOKI, access)
    assert source.expected(("soev", "enterprise-a")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasources: {}", "no list of data sources"),
        ("- 1", "no list of data sources"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_file_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(StackproofError, match=message):
        provisioning.read(text, {})


def test_a_source_without_a_url_is_refused() -> None:
    with pytest.raises(StackproofError, match="has uid 'm', type 'loki' and url ''"):
        grafana.source({"name": "m", "uid": "m", "type": "loki"})
