"""versions.yaml and its loader."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes_validate.utils import all_versions

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions, image_version, version_key

GOOD = """
kubernetes:
  oldest: 1.32.0
  newest: 1.37.0
  kindNode: kindest/node:v1.37.0@sha256:{digest}
images:
  tempo:
    repository: grafana/tempo
    tag: 2.10.8
    atLeast: 2.10.2
charts:
  external-secrets:
    repository: https://charts.example.org
    version: 2.9.0
differences:
  tempo:
    runs: 2.9.0-dev+87c2dc380cec
    because: no later one is a module
""".format(digest="0" * 64)


def load(tmp_path: Path, text: str) -> Versions:
    (tmp_path / "versions.yaml").write_text(text)
    return Versions.load(Checkout(tmp_path))


def test_the_repositorys_pins_load(checkout: Checkout) -> None:
    versions = Versions.load(checkout)
    assert {"mimir", "loki", "tempo", "alloy", "grafana", "gateway", "open-webui"} <= set(
        versions.images
    )


def test_schemas_exist_for_both_ends_of_kubernetes(checkout: Checkout) -> None:
    versions = Versions.load(checkout)
    known = {version_key(version)[:2] for version in all_versions()}
    assert version_key(versions.kubernetes.oldest)[:2] in known
    assert version_key(versions.kubernetes.newest)[:2] == max(known)


def test_a_good_file(tmp_path: Path) -> None:
    versions = load(tmp_path, GOOD)
    assert str(versions.image("tempo")) == "grafana/tempo:2.10.8"
    assert versions.kubernetes.oldest == "1.32.0"
    assert versions.charts["external-secrets"].version == "2.9.0"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("tag: 2.10.8", "tag: 2.9.0", "images.tempo.tag: 2.9.0 is below 2.10.2"),
        ("tag: 2.10.8", "tag: latest", 'images.tempo.tag: "latest" does not match'),
        ("tag: 2.10.8", "tag: 2.10", "images.tempo.tag: 2.1 is not of type .* Put it in quotes"),
        (
            "tag: 2.10.8",
            "tag: 2.10.8@sha256:0",
            'images.tempo.tag: "2.10.8@sha256:0" does not match',
        ),
        ("tag: 2.10.8", "digest: x", "images.tempo: .*'digest' was unexpected"),
        ("    tag: 2.10.8\n", "", 'images.tempo: "tag" is a required property'),
        ("tag: 2.10.8", "tag: 2.10.8\n    pull: x", "images.tempo: .*'pull' was unexpected"),
        ("oldest: 1.32.0", "oldest: 1.38.0", r"oldest \(1.38.0\) is above newest"),
        ("@sha256:" + "0" * 64, "", "kubernetes.kindNode"),
        ("images:", "pictures:", "the file: .*'pictures' was unexpected"),
        ("version: 2.9.0", "version: ~2.9", 'charts.external-secrets.version: "~2.9" does not'),
        ("https://charts", "charts", "charts.external-secrets.repository"),
        ("runs: 2.9.0-dev", "runs: dev", 'differences.tempo.runs: "dev.*" does not match'),
        ("because: no later one is a module", "because: ''", 'differences.tempo.because: ""'),
        ("because: no", "why: x\n    because: no", "differences.tempo: .*'why' was unexpected"),
        ("kubernetes:", "kubernetes: [", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in GOOD
    with pytest.raises(StackproofError, match=f"^versions.yaml: .*{reason}"):
        load(tmp_path, GOOD.replace(old, new))


def test_a_digest_beside_the_tag(tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    versions = load(tmp_path, GOOD.replace("tag: 2.10.8", f"tag: 2.10.8@{digest}"))
    image = versions.image("tempo")
    assert (image.version, image.digest) == ("2.10.8", digest)
    assert str(image) == f"grafana/tempo:2.10.8@{digest}"
    assert not versions.compare("tempo", "2.10.8").differs


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StackproofError, match=r"^versions.yaml: cannot be read: No such file"):
        Versions.load(Checkout(tmp_path))


def test_an_unknown_image_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(StackproofError, match=r"no image of 'loki' \(there are: tempo\)"):
        load(tmp_path, GOOD).image("loki")


@pytest.mark.parametrize(
    ("name", "ran", "differs", "shown"),
    [
        ("tempo", "2.10.8", False, "tempo 2.10.8"),
        ("tempo", "v2.10.8", False, "tempo v2.10.8"),
        ("tempo", "2.10.80", True, "tempo 2.10.80 (deployed: 2.10.8)"),
        ("tempo", "stand-in", True, "tempo stand-in (deployed: 2.10.8)"),
        ("caddy", "2.11.9", False, "caddy 2.11.9"),
        ("caddy", "2.11.8", True, "caddy 2.11.8 (deployed: 2.11.9-alpine)"),
        ("external-secrets", "0.18.2", True, "external-secrets 0.18.2 (deployed: 2.9.0)"),
        ("monitor", "1.0", False, "monitor 1.0"),
    ],
)
def test_what_ran_is_compared_with_what_is_deployed(
    tmp_path: Path, name: str, ran: str, differs: bool, shown: str
) -> None:
    gateway = "images:\n  gateway:\n    repository: caddy\n    tag: 2.11.9-alpine"
    found = load(tmp_path, GOOD.replace("images:", gateway)).compare(name, ran)
    assert (found.differs, str(found)) == (differs, shown)


@pytest.mark.parametrize(
    ("ran", "reason"),
    [
        ("2.9.0-dev+87c2dc380cec", "no later one is a module"),
        ("2.9.0-dev-87c2dc380cec", "no later one is a module"),  # as an image's tag has it
        ("2.9.0", "for no reason that versions.yaml knows"),
    ],
)
def test_a_reason_is_one_for_the_very_version(tmp_path: Path, ran: str, reason: str) -> None:
    found = load(tmp_path, GOOD).compare("tempo", ran)
    assert found.explained == f"tempo {ran} (deployed: 2.10.8): {reason}"


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("docker.io/grafana/tempo:2.10.8", "2.10.8"),
        ("grafana/alloy:v1.19.0@sha256:abc", "1.19.0"),
        ("registry:5000/grafana/tempo@sha256:abc", "sha256:abc"),
        ("registry:5000/grafana/tempo", "unknown"),
        ("stackproof.local/stand-in-for-grafana:source-abc", "stand-in"),
    ],
)
def test_an_images_name_says_its_version(reference: str, version: str) -> None:
    assert image_version(reference) == version


def test_versions_compare_by_number() -> None:
    assert version_key("v2.10.8-rc1") == (2, 10, 8) > version_key("2.9.9") > version_key("x")
