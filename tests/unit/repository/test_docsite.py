"""The site that `make docs` builds: what must be found is found, and it can be read anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests import chromium
from tools import docsite, reference

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout

ROOT = Checkout.find().root
PROGRAM = chromium.find()
needs_browser = pytest.mark.skipif(
    PROGRAM is None, reason="there is no Chromium here: apt-get install chromium"
)
pytestmark = pytest.mark.xdist_group("docsite")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("docs") / "docs"
    done = docsite.build(ROOT, output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def test_pages_that_are_made_from_the_code_are_up_to_date() -> None:
    for path, text in reference.pages(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make reference`"


def test_every_result_file_is_explained() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    written = reference.result_files()
    assert "isolation.json" in written
    assert [file for file in sorted(written) if f"`{file}`" not in text] == []


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _leaves(each)


def test_every_page_is_in_the_navigation() -> None:
    nav = list(_leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_bytes())["nav"]))
    places = {str(p) for p in docsite.pages(ROOT).values() if p.suffix == ".md"}
    assert sorted(places - set(nav)) == [], "add it to the nav of mkdocs.yml"
    assert sorted(set(nav) - places) == []
    assert len(nav) == len(set(nav))


@pytest.mark.parametrize(
    ("source", "link", "becomes"),
    [
        ("docs/ci.md", "prove.md#a-cluster", "prove.md#a-cluster"),
        ("docs/faq.md", "../flux/README.md", "deployment/flux.md"),
        ("docs/faq.md", "../flux", "deployment/flux.md"),
        ("flux/README.md", "../docs/security.md", "../security.md"),
        ("docs/faq.md", "../Makefile", f"{docsite.REPOSITORY}/blob/main/Makefile"),
        ("docs/faq.md", "../tests/unit", f"{docsite.REPOSITORY}/tree/main/tests/unit"),
        ("docs/faq.md", "https://example.com/a", "https://example.com/a"),
        ("docs/faq.md", "#here", "#here"),
    ],
)
def test_links_are_right_from_where_a_page_is(source: str, link: str, becomes: str) -> None:
    text = docsite.rewrite(f"[a]({link})", Path(source), docsite.pages(ROOT), ROOT)
    assert text == f"[a]({becomes})"


def test_a_link_to_nothing_is_an_error() -> None:
    with pytest.raises(StackproofError, match=r"docs/faq.md: a link leads to nothing: gone.md"):
        docsite.rewrite("[a](gone.md)", Path("docs/faq.md"), docsite.pages(ROOT), ROOT)


def test_a_link_to_a_heading_that_is_not_there_fails_the_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = docsite.rewrite
    monkeypatch.setattr(docsite, "rewrite", lambda *of: right(*of).replace("#images", "#gone"))
    done = docsite.build(ROOT, tmp_path / "docs")
    assert done.returncode != 0
    assert "anchor does not exist" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    assert PROGRAM is not None
    with chromium.page(PROGRAM, tmp_path_factory.mktemp("profile")) as page:
        yield page


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", "twins", "reference/commands", "deployment/lgtm"])
def test_it_can_be_read(
    name: str, scheme: str, width: int, browser: chromium.Page, built: Path
) -> None:
    browser.media(scheme=scheme)
    browser.open(built / "site" / f"{name}.html", width=width)
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not browser.run(wide), "the page scrolls sideways"
    shown = browser.run("document.body.getAttribute('data-md-color-scheme')")
    assert shown == {"light": "default", "dark": "slate"}[scheme]
    broken = "[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
    assert browser.run(broken) == []
