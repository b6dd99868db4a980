"""The file of `prove --targets`: what is wrong in it is told with its line, and never a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackproof.backends import PROVABLE, Client
from stackproof.errors import StackproofError
from stackproof.model import Backend, EntryPoint, Signal
from stackproof.otlp import senders
from stackproof.repo.document import FileError
from stackproof.stack.targets import Targets, TargetsStack

GOOD = """\
name: staging
read:
  metrics: https://lgtm.example/prometheus/
  logs: https://lgtm.example
write:
  otlpHttp: https://lgtm.example/otlp
tenants:
  - name: acme
    auth:
      basic:
        user: acme
        password: {env: ACME}
  - name: globex
    read: {traces: "https://lgtm.example/tempo"}
    auth:
      bearer: {file: token}
      headers: {X-Team: globex, X-Api-Key: {env: ACME}}
admin:
  auth:
    bearer: {env: ACME}
without:
  mimir.exemplars: they are off
"""
ENVIRONMENT = {"ACME": "hunter2", "LINES": "hunter2\n", "BYTES": "hunter2\udcff"}


def _load(folder: Path, text: str) -> Targets:
    (folder / "token").write_text("a-token\n")
    (folder / "targets.yaml").write_text(text)
    return Targets.load(folder / "targets.yaml", ENVIRONMENT)


def test_what_a_tenant_has_of_its_own_wins(tmp_path: Path) -> None:
    targets = _load(tmp_path, GOOD)
    acme, globex = (each.access for each in targets.tenants)
    assert acme.auth == ("acme", "hunter2")
    assert (
        acme.urls[Backend.MIMIR] == globex.urls[Backend.MIMIR] == "https://lgtm.example/prometheus"
    )
    assert Backend.TEMPO not in acme.urls and Backend.TEMPO in globex.urls
    assert globex.secrets == {"Authorization": "Bearer a-token", "X-Api-Key": "hunter2"}
    assert globex.headers == {"X-Team": "globex"}
    assert targets.admin is not None
    assert targets.admin.headers == {"X-Scope-OrgID": "acme|globex"}
    assert targets.tenants[0].ways[Signal.LOGS] == {"otlpHttp": "https://lgtm.example/otlp/v1/logs"}


def test_secrets_are_nowhere_to_be_read(tmp_path: Path) -> None:
    for target in _load(tmp_path, GOOD).tenants:
        shown = f"{target} {target.access.curl()}"
        assert "hunter2" not in shown and "a-token" not in shown
    assert '--header "Authorization: Bearer $TOKEN" --header "X-Api-Key: $X_API_KEY"' in shown


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    stack = TargetsStack(_load(tmp_path, GOOD))
    assert stack.signals == (Signal.METRICS, Signal.LOGS)
    reasons = {api.id: stack.not_compared(api) for api in PROVABLE}
    assert reasons["tempo.trace"] == "not every tenant both writes and reads traces"
    assert reasons["mimir.exemplars"] == "they are off"
    assert "write.logs.lokiPush" in reasons["loki.labels"]
    assert reasons["mimir.query"] == reasons["loki.label-values"] == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{env: ACME}\n  - name", "hunter2\n  - name", "12:19: password must be {env: NAME} or"),
        ("X-Api-Key: {env: ACME}", "X-Api-Key: hunter2", "17:44: X-Api-Key must be {env: NAME}"),
        ("{env: ACME}\n  - name", "{env: ABSENT}\n  - name", "12:25: ABSENT is not set"),
        ("{file: token}", "{file: nowhere}", "16:22: nowhere: No such file or directory"),
        ("{file: token}", "{file: targets.yaml, env: X}", "16:15: bearer must be {env: NAME}"),
        ("https://lgtm.example\n", "https://acme:hunter2@lgtm.example\n", "4:9: logs must be http"),
        ("otlpHttp:", "otlphttp:", "6:3: unknown key 'otlphttp' (did you mean 'otlpHttp'?)"),
        ("name: globex", "name: acme", "13:11: is there twice"),
        ("mimir.exemplars", "mimir.exemplar", "22:3: no read API 'mimir.exemplar' (did you"),
        ("name: acme", "name: acme|globex", "8:11: name 'acme|globex' does not match"),
        ("name: staging", "tls: {ca: nowhere.pem}", "1:11: there is no file "),
        ("name: staging", "tls: {key: token}", "1:6: tls has no 'cert'"),
        ("name: staging", "name: [", "3:10: is not valid YAML"),
        ("name: staging", "name: !text x", "1:7: 'x' cannot be read: could not determine"),
        ("name: staging", "? [a]\n: b", "1:3: a key must be text"),
        ("https://lgtm.example\n", "'http://[::1'\n", "4:9: is no URL: Invalid IPv6 URL"),
        ("https://lgtm.example/otlp", "https://lgtm.example:65536", "6:13: is no URL: Port out of"),
        ("otlpHttp", "otlpGrpc", "6:13: otlpGrpc must be http:// or https:// and host, without a"),
        ("X-Team: globex", "X-Team: glöbex", "17:25: has a character that no header can have"),
        ("X-Team: globex", '"X Team": globex', "17:16: headers: "),
        ("{file: token}", "{env: LINES}", "16:15: has a character that no header can have"),
        ("{env: ACME}\n  - name", "{env: BYTES}\n  - name", "12:25: BYTES is not UTF-8"),
        ("{file: token}", '{file: "a\\0"}', "16:22: a\0: embedded null byte"),
        ("name: staging", "tls: {ca: token}", "1:11: holds no certificate in PEM"),
        ("name: staging", "tls: {cert: token}", "1:13: holds no certificate with a key that"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    assert old in GOOD
    with pytest.raises(FileError) as raised:
        _load(tmp_path, GOOD.replace(old, new, 1))
    assert f"targets.yaml:{told}" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_where_grpc_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To the port of the scheme if none is named; and IPv6 has its brackets."""
    sent: list[tuple[object, ...]] = []
    monkeypatch.setattr(senders, "GrpcSender", lambda *told: sent.append(told))
    for url in ("http://h", "https://h/", "http://[::1]", "https://[::1]:4317"):
        text = GOOD.replace("otlpHttp: https://lgtm.example/otlp", f"otlpGrpc: '{url}'")
        stack = TargetsStack(_load(tmp_path, text.replace("X-Team", "X-Team-Bin")))
        stack.sender("globex", EntryPoint.TARGETS, Client())
    # One for each signal.
    assert [address for address, *_ in sent[::3]] == ["h:80", "h:443", "[::1]:80", "[::1]:4317"]
    assert ("x-team-bin", b"globex") in sent[0][1]  # type: ignore[operator]


@pytest.mark.parametrize("text", ["", "tenants: []", "tenants: [{name: a}]", "- a"])
def test_two_tenants_are_needed(text: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"targets\.yaml:1:\d+: "):
        _load(tmp_path, text)


def test_something_must_be_written_and_read(tmp_path: Path) -> None:
    targets = _load(tmp_path, "tenants: [{name: a}, {name: b}]")
    with pytest.raises(StackproofError, match="no signal that every tenant both writes and reads"):
        TargetsStack(targets)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StackproofError, match="nowhere: cannot be read: No such file"):
        Targets.load(tmp_path / "nowhere")
