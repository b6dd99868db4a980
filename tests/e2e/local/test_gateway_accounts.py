"""Whatever one tenant's name or secret holds, the others get in; and a bad one is told why.

The Secrets are made by the templates that the chart gives to External Secrets, and the real Caddy
starts from, and reloads, what becomes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stackproof.backends.base import poll
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import Release, containers
from stackproof.otlp import senders
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE
from stackproof.stack.pod import Pod
from stackproof.stack.ports import PortLeases
from stackproof.stack.process import Process
from stackproof.stack.secrets import SecretStore, materialize
from stackproof.toolchain import programs

pytestmark = pytest.mark.xdist_group("fuzz")

CHECKOUT = Checkout.find()
#: What External Secrets makes of a password that nobody can use.
TOO_LONG = "password length exceeds 72 bytes"
EMPTY = "the password is empty"
GOOD = "a good one: 32 random bytes"
WRITES = ("/otlp/v1/metrics", "/otlp/v1/logs", "/otlp/v1/traces", "/api/v1/push")
READ = "/prometheus/api/v1/query?query=1"
#: No backend runs: who gets in is answered that.
IN = 502


def _render(names: tuple[str, ...], overlay: Mapping[str, str] | None = None) -> Release:
    tenants = [{"name": name, "namespace": name, "secretPrefix": name} for name in names]
    return renderer.render(
        CHECKOUT.charts / "lgtm",
        [{"tenants": tenants, "externalSecrets": {"enabled": True}}],
        release="lgtm",
        namespace=OBSERVABILITY_NAMESPACE,
        overlay=overlay,
    )


def _store(passwords: Mapping[str, str | None]) -> SecretStore:
    store = SecretStore()
    for name, password in passwords.items():
        store.write(f"{name}-gateway-password", password)
    return store


class Gateway:
    """The real gateway of a render, with no backend behind it."""

    def __init__(self, release: Release, folder: Path, port: int) -> None:
        workload = release.get("Deployment", "gateway")
        self.release, self.port = release, port
        self.failed: dict[str, str] = {}
        self.pod = Pod("gateway", release, workload, containers(workload)[0], folder)
        self.pod.ports["HTTP_PORT"] = port
        self.secrets: dict[str, dict[str, str]] = {}
        self.pool = urllib3.PoolManager(retries=False)
        env = self.pod.environment({}, {})
        argv = [str(programs.find("caddy")), *self.pod.arguments(env)]
        self.process = Process("gateway", argv, env, folder, folder / "gateway.log")

    def sync(self, store: SecretStore) -> None:
        """Make the Secrets as External Secrets does, and mount them as the kubelet does."""
        self.failed = {}
        self.secrets |= materialize(self.release, store, self.failed)
        self.pod.mount(self.secrets)

    def status(self, user: str, password: str, path: str, method: str = "POST") -> int:
        """Return what the gateway answers; it may hang up while it reads its users again."""
        headers = {**senders.basic_auth((user, password)), "Connection": "close"}
        url = f"http://127.0.0.1:{self.port}{path}"
        # The answer itself is wanted: a 503 says to come again later, and urllib3 would wait.
        again = urllib3.Retry(3, allowed_methods=None, respect_retry_after_header=False)
        answer = self.pool.request(method, url, headers=headers, timeout=20, retries=again)
        return int(answer.status)

    def answers(self) -> bool | None:
        """Tell whether it runs and is ready; None while it may yet be."""
        if ended := self.process.ended():
            raise StackproofError(f"{ended}\n{self.process.tail()}", where="gateway")
        try:
            url = f"http://127.0.0.1:{self.port}/-/ready"
            return self.pool.request("GET", url, timeout=5).status == 200 or None
        except urllib3.exceptions.HTTPError:
            return None


@contextmanager
def _gateway(release: Release, store: SecretStore, folder: Path) -> Iterator[Gateway]:
    leases = PortLeases()
    gateway = Gateway(release, folder, leases.lease())
    try:
        gateway.sync(store)
        gateway.process.start()
        poll(lambda: (gateway.answers(), gateway.process.tail()), 30, "the gateway")
        yield gateway
    finally:
        gateway.process.kill()
        leases.release()


#: Passwords as people store them: with the newline of `echo`, too long, empty, of any language, and
#: with what has a meaning to Caddy, to Go's templates and to shells.
_PASSWORDS = st.one_of(
    st.none(),
    st.just(""),
    st.just(" \n"),
    st.just("x" * 72),
    st.just("x" * 73),
    st.just("ü" * 37),
    st.sampled_from(
        (
            *("{env.HOME}", "{$HOME}", "{{ fail }}", "a b", "a\nimport /etc/passwd", "}\n"),
            *("$2a$10$x", "`", '"', "#", "\\", "pass\n", "\x00", "a:b", "%0a", "admin", "-", "~x"),
        )
    ),
    st.text(max_size=80),
)
_NAMES = st.lists(
    st.one_of(
        st.sampled_from(("a", "soev", "admins", "imports", "defaults", "index-1", "x" * 34, "1a")),
        st.from_regex(r"[a-z][a-z0-9]{0,12}(-[a-z0-9]{1,8})?", fullmatch=True),
    ),
    min_size=2,
    max_size=4,
    unique=True,
).map(tuple)


def _valid(names: tuple[str, ...]) -> bool:
    reserved = {"admin", "anonymous", "fake", "observability", "default", "import", "index"}
    words = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
    apart = not any(one.startswith(f"{other}-") for one in names for other in names)
    return not (reserved | words) & set(names) and apart


def _usable(password: str | None) -> str | None:
    """Return what both sides take for the password; None where there is none that works."""
    text = (password or "").strip(_SPACE)
    return text if 0 < len(text.encode("utf-8")) <= 72 else None


#: What Go takes for white space (unicode.IsSpace), at which both sides cut.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


@settings(max_examples=30)
@given(_NAMES.filter(_valid), st.lists(_PASSWORDS, min_size=4, max_size=4))
@example(("soev", "enterprise"), ["x" * 73, GOOD, GOOD, GOOD])
@example(("soev", "enterprise"), [None, GOOD, GOOD, GOOD])
@example(("soev", "enterprise"), ["", GOOD, GOOD, GOOD])
def test_one_tenants_secret_keeps_nobody_else_out(
    tmp_path_factory: pytest.TempPathFactory, names: tuple[str, ...], stored: list[str | None]
) -> None:
    passwords = {**dict(zip(names, stored, strict=False)), names[-1]: GOOD}
    folder = tmp_path_factory.mktemp("gateway")
    with _gateway(_render(names), _store(passwords), folder) as gateway:
        for name, password in passwords.items():
            usable = _usable(password)
            assert (f"gateway-user-{name}" in gateway.failed) == (usable is None)
            assert gateway.status(name, "", WRITES[0]) == 503, "an empty password is nobody's"
            if usable is not None:
                assert gateway.status(name, usable, WRITES[0]) == IN, (name, password)
            else:
                # It waits until there is a password, and reads nothing meanwhile.
                assert gateway.status(name, password or "x", WRITES[0]) == 503
                assert gateway.status(name, password or "x", READ, "GET") == 401
        assert gateway.status("nobody", GOOD, WRITES[0]) == 401


def test_a_secret_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    release = _render(("long", "empty", "gone", "good"))
    store = _store({"long": "x" * 73, "empty": "\n", "gone": None, "good": GOOD})
    with _gateway(release, store, tmp_path) as gateway:
        assert TOO_LONG in gateway.failed["gateway-user-long"]
        assert EMPTY in gateway.failed["gateway-user-empty"]
        assert "could not get secret gone-gateway-password" in gateway.failed["gateway-user-gone"]
        assert gateway.failed.keys() == {f"gateway-user-{n}" for n in ("long", "empty", "gone")}


def test_a_bad_rotation_leaves_what_was_there(tmp_path: Path) -> None:
    """The running gateway: what a rotation breaks is its owner's, and mended without a restart."""
    store = _store({"a": "first", "b": GOOD})
    with _gateway(_render(("a", "b")), store, tmp_path) as gateway:
        for password, works in (("x" * 73, "first"), ("second", "second")):
            store.write("a-gateway-password", password)
            gateway.sync(store)

            def seen(works: str = works) -> tuple[bool | None, str]:
                status = gateway.status("a", works, WRITES[0])
                return status == IN or None, f"{status}\n{gateway.process.tail()}"

            poll(seen, 30, f"{works} is in force")
            assert gateway.status("b", GOOD, WRITES[0]) == IN
        assert gateway.status("a", "first", WRITES[0]) == 503, "the old one is over"
        assert gateway.process.ended() is None


def test_the_twin_a_template_that_believes_bcrypt(tmp_path: Path) -> None:
    """Written as it comes, the text of bcrypt's error is more words than Caddy takes in a line."""
    template = {"files/gateway-user.tpl": "ACCOUNT {{ bcrypt .password }}\n"}
    store = _store({"a": "x" * 73, "b": GOOD})
    with (
        pytest.raises(StackproofError, match=r"too many outputs|rong argument count"),
        _gateway(_render(("a", "b"), template), store, tmp_path),
    ):
        pass


def test_guessing_costs_nothing_where_there_is_no_password_yet(tmp_path: Path) -> None:
    """Caddy compares what no account has with a hash of cost 14: a second of a core each."""
    release = _render(("a", "b"))
    with _gateway(release, _store({"a": None, "b": GOOD}), tmp_path) as gateway:
        assert gateway.status("b", GOOD, WRITES[0]) == IN
        before = gateway.process.cpu_s()
        for number in range(40):
            assert gateway.status("a", f"guess {number}", WRITES[0]) == 503
            assert gateway.status("nobody", f"guess {number}", WRITES[0]) == 401
        assert gateway.process.cpu_s() - before < 2, "less than two hashes"


@pytest.mark.parametrize("path", WRITES)
def test_a_password_on_its_way_is_answered_so_that_alloy_waits(path: str, tmp_path: Path) -> None:
    with _gateway(_render(("a",)), _store({"a": GOOD}), tmp_path) as gateway:
        url, auth = f"http://127.0.0.1:{gateway.port}{path}", senders.basic_auth(("a", "other"))
        answer = gateway.pool.request("POST", url, headers=auth, timeout=20)
        # opentelemetry-collector's exporter sends again: 429, 502, 503, 504.
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert "WWW-Authenticate" not in answer.headers
        assert gateway.status("a", "other", READ, "GET") == 401
        assert gateway.status("admin", "other", path) == 401


def test_the_deployment_names_its_accounts(tmp_path: Path) -> None:
    """The repository's own tenants get in with what their Alloys send."""
    deployment = Deployment.load(CHECKOUT)
    store = SecretStore()
    with _gateway(deployment.lgtm(), store, tmp_path) as gateway:
        for tenant in deployment.registry:
            password = store.read(f"{tenant.secret_prefix}-gateway-password")
            assert gateway.status(tenant.name, password, WRITES[0]) == IN
