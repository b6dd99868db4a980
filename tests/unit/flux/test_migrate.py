"""What `stackproof migrate` says of a release of chart 0.1.0, and makes of its values."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from stackproof import cli
from stackproof.errors import StackproofError
from stackproof.flux import losses, steps
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import Manifest, thaw
from stackproof.kube.client import Kube, decoded
from stackproof.migrate import deployed, values
from stackproof.migrate.checks import MIGRATION, Change, Fate, fates, unproven
from stackproof.migrate.deployed import Deployed
from stackproof.migrate.images import read_migrations
from stackproof.repo.checkout import Checkout
from stackproof.twins.base import earlier

CHECKOUT = Checkout.find()
OLD = CHECKOUT.root / "tests" / "earlier" / "open-webui-0.1.0.yaml"
STORE = OLD.with_name("store.yaml")
PREFIX = "open-webui-open-webui-stack"


@pytest.fixture(scope="module")
def merge() -> Change:
    return earlier(CHECKOUT)


def problems(change: Change, name: str = "") -> list[str]:
    names = [name] if name else list(MIGRATION.names)
    return [text for one in names for text in MIGRATION[one].find(change)]


def test_the_merge_loses_nothing(merge: Change) -> None:
    assert problems(merge) == []


def test_all_claims_are_kept_and_the_secret_is_made_again(merge: Change) -> None:
    found = {f"{kind}/{name}": fate for (_, kind, _, name), fate in fates(merge).items()}
    for store in ("postgres", "weaviate"):
        assert found[f"PersistentVolumeClaim/data-{PREFIX}-{store}-0"] is Fate.KEPT
        assert found[f"StatefulSet/{PREFIX}-{store}"] is Fate.CHANGED
    assert found[f"PersistentVolumeClaim/{PREFIX}-open-webui-pvc"] is Fate.KEPT
    assert found[f"Deployment/{PREFIX}-open-webui"] is Fate.CHANGED
    assert found[f"Secret/{PREFIX}-secrets"] is Fate.MADE_AGAIN


def test_one_application_stops_before_the_next_starts(merge: Change) -> None:
    """It keeps its name, so that no second pod gets its volume and its database meanwhile."""
    was = merge.before["apps", "Deployment", "open-webui", f"{PREFIX}-open-webui"]
    now = merge.heir(was)
    assert now is not None
    assert (now.name, now["spec"]["strategy"]["type"]) == (was.name, "Recreate")


@pytest.mark.parametrize(
    ("apply", "was_server_side", "says"),
    [
        ("disabled", True, "nothing"),
        ("auto", False, "nothing"),
        ("auto", True, "refused"),
        ("enabled", False, "refused"),
        ("auto", None, "not compared"),
    ],
)
def test_the_application_becomes_recreate(
    merge: Change, apply: str, was_server_side: bool | None, says: str
) -> None:
    """Chart 0.1.0 left how it rolls to the defaults, which no server-side apply takes away."""
    old = replace(merge.old, server_side=was_server_side)
    change = replace(merge, old=old, apply=apply)
    assert bool(problems(change, "nothing-is-refused")) is (says == "refused")
    asked = [text for text in unproven(change) if "server-side apply" in text]
    assert bool(asked) is (says == "not compared")


# --- What is not told by a twin -----------------------------------------------------------------


def altered(merge: Change, kind: str, name: str, change: Mapping[str, Any]) -> Change:
    """The merge with one object of what is rendered changed by a JSON merge patch."""
    made = [patched(m, change) if (m.kind, m.name) == (kind, name) else m for m in merge.merged]
    assert made != list(merge.merged)
    return replace(merge, merged=tuple(made))


def patched(was: Manifest, change: Mapping[str, Any]) -> Manifest:
    def laid(content: Any, over: Any) -> Any:
        if not isinstance(over, Mapping):
            return over
        base = dict(content) if isinstance(content, Mapping) else {}
        return base | {key: laid(base.get(key), value) for key, value in over.items()}

    return Manifest.of(laid(thaw(was.content), change), was.source)


def without(merge: Change, kind: str, name: str) -> Change:
    return replace(merge, merged=tuple(m for m in merge.merged if (m.kind, m.name) != (kind, name)))


def test_a_store_that_is_off_is_told(merge: Change) -> None:
    (said,) = problems(without(merge, "StatefulSet", f"{PREFIX}-postgres"))
    assert f"data-{PREFIX}-postgres-0" in said
    assert "orphaned" in said


def test_a_secret_that_nobody_makes_again_is_told(merge: Change) -> None:
    said = problems(without(merge, "ExternalSecret", f"{PREFIX}-secrets"), "nothing-is-lost")
    assert any("postgres-password" in text and "nothing makes one" in text for text in said)


def test_a_smaller_claim_is_told(merge: Change) -> None:
    size = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    change = altered(merge, "PersistentVolumeClaim", f"{PREFIX}-open-webui-pvc", size)
    (said,) = problems(change)
    assert "spec.resources.requests.storage" in said


@pytest.mark.parametrize("status", ["pending-upgrade", "failed", "uninstalling"])
def test_a_release_that_does_not_rest_is_told(merge: Change, status: str) -> None:
    (said,) = problems(replace(merge, old=replace(merge.old, status=status)))
    assert status in said


@pytest.mark.parametrize(
    ("component", "before", "after", "said"),
    [
        ("weaviate", "1.28.4", "1.29.0", None),
        ("weaviate", "1.28.4", "1.30.0", "first 1.29,"),
        ("weaviate", "1.29.0", "1.28.4", "goes back"),
        ("weaviate", "1.35.2", "2.0.0", "the last minor version"),
        ("postgres", "16-alpine", "16.11-alpine", None),
        ("postgres", "16-alpine", "17.2-alpine", "dump and restore"),
        ("postgres", "17.2-alpine", "16.11-alpine", "goes back"),
        ("open-webui", "v0.11.3", "v0.10.0", "goes back"),
        ("open-webui", "main", "v0.11.3", None),
    ],
)
def test_versions(component: str, before: str, after: str, said: str | None) -> None:
    found = list(steps.jumps(component, f"x/{component}:{before}", f"x/{component}:{after}"))
    assert (said is None) is (not found), found
    assert said is None or said in found[0]


def test_a_migration_of_the_fork_is_told(merge: Change) -> None:
    old = replace(merge.old, revision="abc123")
    assert problems(replace(merge, old=old, known=frozenset({"abc123"}))) == []
    (said,) = problems(replace(merge, old=old, known=frozenset({"fed987"})))
    assert "does not know the migration abc123" in said


def test_what_cannot_be_compared_is_told(merge: Change) -> None:
    told = list(unproven(replace(merge, old=replace(merge.old, store=None))))
    assert any("open-webui-postgres-password" in text for text in told)


def test_a_key_that_the_store_lacks_is_told(merge: Change) -> None:
    store = dict(merge.old.store or {})
    del store["open-webui-searxng-secret-key"]
    (said,) = problems(replace(merge, old=replace(merge.old, store=store)))
    assert "open-webui-searxng-secret-key is not in the store" in said


def test_the_host_of_somebody_else_is_told(merge: Change) -> None:
    (own,) = (m for m in merge.old.manifests if m.kind == "Ingress")
    other = patched(own, {"metadata": {"name": "x", "namespace": "elsewhere"}})
    (said,) = problems(replace(merge, old=replace(merge.old, ingresses=(other,))))
    assert "Ingress/x in elsewhere" in said


def test_an_upgrade_to_itself_changes_nothing(merge: Change) -> None:
    """Chart 0.2.0 on chart 0.2.0, the secrets being the store's already."""
    old = replace(merge.old, manifests=merge.merged, store=None)
    again = replace(merge, old=old, level="restricted")
    assert problems(again) == []
    assert list(unproven(again)) == []
    assert set(fates(again).values()) == {Fate.KEPT}


# --- A later change of the values ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("laid", "said"),
    [
        ({"postgres": {"database": "other"}}, "its database was openwebui on"),
        ({"postgres": {"user": "other"}}, "POSTGRES_USER was 'openwebui' and becomes 'other'"),
        ({"postgres": {"enabled": False}}, "stack-postgres-0 in open-webui: orphaned"),
        ({"weaviate": {"enabled": False}}, "becomes 'chroma'"),
        ({"openWebui": {"persistence": {"enabled": False}}}, "pvc in open-webui: orphaned"),
        ({"openWebui": {"persistence": {"existingClaim": "mine"}}}, "pvc in open-webui: orphaned"),
        ({"openWebui": {"extraEnv": {"DATA_DIR": "/srv"}}}, "looks for its uploads elsewhere"),
        ({"openWebui": {"extraEnv": {"STORAGE_PROVIDER": "gcs"}}}, "its uploads elsewhere"),
        (
            {"openWebui": {"config": {"ragEmbeddingModel": "other"}}},
            "the stored vectors are of the other model",
        ),
        ({"openWebui": {"config": {"enableSignup": True}}}, None),
        ({"searxng": {"enabled": False}}, None),
    ],
    ids=str,
)
def test_a_later_change(merge: Change, laid: Mapping[str, Any], said: str | None) -> None:
    changed = Deployment.load(CHECKOUT).with_values(tenant=[laid]).tenant("soev")
    found = [str(loss) for loss in losses.losses(losses.of(merge.merged), losses.of(changed))]
    assert (said is None) is (not found), found
    assert said is None or any(said in text for text in found), found


def test_a_database_of_its_own_is_left_behind(merge: Change) -> None:
    """From SQLite on the volume to PostgreSQL."""
    off = Deployment.load(CHECKOUT).with_values(tenant=[{"postgres": {"enabled": False}}])
    found = losses.losses(losses.of(off.tenant("soev")), losses.of(merge.merged))
    assert any("its database was a file on its volume" in str(loss) for loss in found)


# --- Losses of a change of the tree -------------------------------------------------------------


def test_a_namespace_that_goes_takes_all_with_it() -> None:
    space = Manifest.of({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}, "")
    (loss,) = losses.losses(losses.of([space]), {})
    assert "everything in it" in str(loss)
    kept = {"metadata": {"annotations": {"kustomize.toolkit.fluxcd.io/prune": "disabled"}}}
    assert losses.losses(losses.of([patched(space, kept)]), {}) == ()


# --- Reading ------------------------------------------------------------------------------------


def test_helms_record_is_read() -> None:
    record = {"manifest": "kind: x", "info": {"status": "deployed"}}
    once = base64.b64encode(gzip.compress(json.dumps(record).encode()))
    assert decoded(base64.b64encode(once).decode()) == record
    with pytest.raises(StackproofError, match="cannot be read"):
        decoded(once.decode())


class Answers:
    """What a cluster says of the release in tests/earlier, as its API does."""

    where = "cluster of a test"

    def __init__(self, *, objects: list[dict[str, Any]], says: str = "c440947495f3\n") -> None:
        self.objects, self.says = objects, says

    def listed(
        self, api_version: str, kind: str, namespace: str | None = None, labels: str = ""
    ) -> list[dict[str, Any]]:
        wanted = dict(one.split("=") for one in labels.split(",") if one)
        return [
            one
            for one in self.objects
            if (one["apiVersion"], one["kind"]) == (api_version, kind)
            and namespace in (None, one["metadata"].get("namespace"))
            and wanted.items() <= (one["metadata"].get("labels") or {}).items()
        ]

    def find(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> dict[str, Any] | None:
        found = self.listed(api_version, kind, namespace)
        return next((one for one in found if one["metadata"]["name"] == name), None)

    def get(self, *which: str) -> dict[str, Any]:
        return self.find(*which) or {"metadata": {}}

    def pods(self, namespace: str, labels: str) -> list[dict[str, Any]]:
        return self.listed("v1", "Pod", namespace, labels)

    def execute(self, *_: object) -> str:
        return self.says


def record(version: int, text: str, status: str = "deployed") -> dict[str, Any]:
    content = {"manifest": text, "info": {"status": status}, "config": {"a": 1}}
    packed = base64.b64encode(gzip.compress(json.dumps(content).encode()))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"sh.helm.release.v1.open-webui.v{version}",
            "namespace": "open-webui",
            "labels": {"owner": "helm", "name": "open-webui", "version": str(version)},
        },
        "data": {"release": base64.b64encode(packed).decode()},
    }


def live(objects: list[dict[str, Any]]) -> Deployed:
    kube = cast(Kube, Answers(objects=objects))
    return deployed.from_cluster(kube, release="open-webui", namespace="open-webui")


def secret(name: str, **values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "open-webui"},
        "data": data,
    }


def test_a_cluster_says_what_runs(merge: Change) -> None:
    """The newest record counts, the live Secret, and not the values it was once made from."""
    external = {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": "early", "namespace": "open-webui"},
        "spec": {
            "data": [{"secretKey": "p", "remoteRef": {"key": "open-webui-postgres-password"}}]
        },
    }
    pod = {"name": "p-0", "namespace": "open-webui"}
    labels = {"app.kubernetes.io/component": "postgres"}
    space = {"name": "open-webui", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    found = live(
        [
            record(9, "kind: Nothing", "superseded"),
            record(10, OLD.read_text()),
            secret(f"{PREFIX}-secrets", **{"postgres-password": "changed since"}),
            external,
            secret("early", p="changed since"),
            {"apiVersion": "v1", "kind": "Pod", "metadata": {**pod, "labels": labels}},
            {"apiVersion": "v1", "kind": "Namespace", "metadata": space},
        ]
    )
    assert (found.status, found.level, found.revision) == ("deployed", "restricted", "c440947495f3")
    assert found.manifests == merge.old.manifests
    key = "", "Secret", "open-webui", f"{PREFIX}-secrets"
    assert found.secrets[key] == {"postgres-password": deployed.digest("changed since")}
    assert found.store == {"open-webui-postgres-password": deployed.digest("changed since")}
    said = problems(replace(merge, old=replace(found, store=merge.old.store)))
    assert any("open-webui-postgres-password in the store is not" in text for text in said)


def test_what_somebody_marked_as_kept_is_kept(merge: Change) -> None:
    claim = f"{PREFIX}-open-webui-pvc"
    (was,) = (thaw(m.content) for m in merge.old.manifests if m.name == claim)
    was["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    marked = replace(merge, old=live([record(1, OLD.read_text()), was]))
    plain = replace(merge, old=live([record(1, OLD.read_text())]))
    harms = {
        name: {loss.harm for loss in without(change, "PersistentVolumeClaim", claim).losses}
        for name, change in {"marked": marked, "plain": plain}.items()
    }
    assert harms == {"marked": set(), "plain": {losses.Harm.DELETED}}


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


@pytest.mark.parametrize(
    ("labels", "daemons", "told"),
    [
        ({"cloud.google.com/gke-nodepool": "a"}, {"kube-proxy": 2}, True),
        # Asked for, and the nodes not made anew yet.
        ({"cloud.google.com/gke-nodepool": "a"}, {"calico-node": 1}, True),
        ({"cloud.google.com/gke-nodepool": "a"}, {"calico-node": 2}, False),
        ({"cloud.google.com/gke-nodepool": "a"}, {"anetd": 2}, False),
        # Not GKE: what enforces there may have any name.
        ({}, {"kindnet": 2}, False),
    ],
)
def test_a_network_that_enforces_nothing_is_told(
    merge: Change, labels: dict[str, str], daemons: dict[str, int], told: bool
) -> None:
    """A Standard cluster of GKE takes NetworkPolicies and ignores them, unless asked."""
    made = [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": name, "namespace": "kube-system"},
            "status": {"desiredNumberScheduled": count},
        }
        for name, count in daemons.items()
    ]
    nodes = [node("a", **labels), node("b", **labels)]
    old = replace(merge.old, enforced=live([record(1, OLD.read_text()), *nodes, *made]).enforced)
    said = problems(replace(merge, old=old))
    assert bool(said) is told
    assert all("NetworkPolicies would close nothing" in text for text in said)


def test_no_release_is_told() -> None:
    with pytest.raises(StackproofError, match="no Helm release open-webui in namespace open-webui"):
        live([])


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "a: [\n"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(text)
    with pytest.raises(StackproofError):
        deployed.from_files(file, release="open-webui", namespace="open-webui")


def test_the_store_is_compared_by_digest(tmp_path: Path) -> None:
    file = tmp_path / "store.yaml"
    file.write_text(f"plain: text\nhashed: sha256:{deployed.digest('text')}\n")
    found = deployed.read_store(file)
    assert found["plain"] == found["hashed"]


def test_migrations_are_those_of_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "lib/python3.11/site-packages/open_webui/migrations/versions"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("revision: str = 'abc123'\ndown_revision = 'fed987'\n")
    (folder / "b.py").write_text('revision = "fed987"\n')
    assert read_migrations(tmp_path) == {"abc123", "fed987"}


def test_the_command_tells_by_its_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ["migrate", "check", "--old-manifest", str(OLD)]
    assert cli.main([*asked, "--store", str(STORE)]) == 0
    capsys.readouterr()
    assert cli.main(asked) == 2
    assert "not compared" in capsys.readouterr().out
    store = tmp_path / "store.yaml"
    store.write_text(STORE.read_text().replace("the present password", "a new one"))
    assert cli.main([*asked, "--store", str(store)]) == 1
    told = capsys.readouterr().out
    assert "the application cannot log in" in told
    assert "a new one" not in told
    assert "the present password" not in told


# --- Values -------------------------------------------------------------------------------------

#: Keys of chart 0.1.0 of every kind: with a value of their own here, fixed by the chart, neither.
CONFIG = {
    "defaultUserRole": "user",
    "enableSignup": "false",
    "openaiApiBaseUrl": "https://router.huggingface.co/v1",
    "ragEmbeddingModel": "text-embedding-3-small",
    "databaseName": "openwebui",
    "databaseHost": "postgres",
    "vectorDb": "weaviate",
    "corsAllowOrigin": "*",
    "ragTopKReranker": "10",
    "enableAdminChatAccess": "false",
    "queryGenerationPromptTemplate": '### Taak:\n"zoek" {{MESSAGES}}\n',
    "featureVoice": "False",
}
VALUES = {
    "global": {"storageClass": "standard-rwo", "imagePullSecrets": ["ghcr-secret"]},
    "openWebui": {
        "image": {"repository": "ghcr.io/gradient-ds/open-webui", "tag": "main"},
        "config": CONFIG,
    },
    "postgres": {"persistence": {"enabled": True, "size": "10Gi"}},
    "weaviate": {"config": {"clusterHostname": "node1"}, "image": {"tag": "1.28.4"}},
    "ingress": {
        "enabled": True,
        "hosts": [{"host": "voorbeeld.soev.ai", "paths": [{"path": "/"}]}],
        "tls": [{"secretName": "open-webui-tls", "hosts": ["voorbeeld.soev.ai"]}],
    },
    "secrets": {"postgresPassword": "hush"},
}


def convert(tmp_path: Path, old: Mapping[str, Any]) -> values.Converted:
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(old))
    return values.converted(
        CHECKOUT, file, release="open-webui", namespace="open-webui", tenant="soev"
    )


def test_values_keep_the_environment(tmp_path: Path) -> None:
    found = convert(tmp_path, VALUES)
    release = renderer.render(
        CHECKOUT.charts / "open-webui-stack",
        [yaml.safe_load(found.as_yaml())],
        release="open-webui",
        namespace="open-webui",
    )
    env = release.of_component("ConfigMap", "open-webui")["data"]
    for name, wanted in {
        "DEFAULT_USER_ROLE": "user",
        "ENABLE_SIGNUP": "false",
        "OPENAI_API_BASE_URL": "https://router.huggingface.co/v1",
        "RAG_TOP_K_RERANKER": "10",
        "ENABLE_ADMIN_CHAT_ACCESS": "false",
        "QUERY_GENERATION_PROMPT_TEMPLATE": CONFIG["queryGenerationPromptTemplate"],
        "FEATURE_VOICE": "False",
        "VECTOR_DB": "weaviate",
    }.items():
        assert env[name] == wanted, name
    assert release.of_kind("PersistentVolumeClaim")[0].name == f"{PREFIX}-open-webui-pvc"
    assert found.values["ingress"]["host"] == "voorbeeld.soev.ai"


def test_converted_values_lose_nothing(merge: Change, tmp_path: Path) -> None:
    """An upgrade by hand, with what the command prints."""
    release = renderer.render(
        CHECKOUT.charts / "open-webui-stack",
        [convert(tmp_path, VALUES).values],
        release="open-webui",
        namespace="open-webui",
    )
    assert problems(replace(merge, merged=tuple(release))) == []


def test_what_has_no_home_says_why(tmp_path: Path) -> None:
    found = convert(tmp_path, VALUES)
    assert set(found.homeless) >= {
        "openWebui.image",
        "openWebui.config.corsAllowOrigin",
        "openWebui.config.databaseHost",
        "postgres.persistence.enabled",
        "secrets.postgresPassword",
    }
    assert "hush" not in found.as_yaml()


def test_every_key_is_somewhere(tmp_path: Path) -> None:
    """Nothing of a values file is dropped in silence."""
    found = convert(tmp_path, {**VALUES, "surprise": {"key": 1}})
    assert found.homeless["surprise.key"] == "this chart has no such value"


def test_values_of_this_chart_stay(tmp_path: Path) -> None:
    old = yaml.safe_load(
        (CHECKOUT.charts / "open-webui-stack/ci/upgrade-from/0.2.0.yaml").read_text()
    )
    old["openWebui"]["config"]["enableSignup"] = True
    old["searxng"] = {"image": {"tag": "latest", "repository": "x", "pullPolicy": "Always"}}
    found = convert(tmp_path, old)
    assert found.values["openWebui"]["config"]["enableSignup"] is True
    assert "fullnameOverride" not in found.values
    assert list(found.homeless) == ["searxng.image"]
