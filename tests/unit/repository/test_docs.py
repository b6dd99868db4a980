"""What the documents refer to is there."""

from __future__ import annotations

import re
import subprocess
import tokenize
from pathlib import Path

import pytest
from tests.documented import PAGES, ROOT

#: A link to another file: not to a page elsewhere, and without the place in it.
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_no_merge_is_half_done() -> None:
    marks = re.compile(rb"^(?:<{7} |>{7} |\|{7} )", re.MULTILINE)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    files = [ROOT / name.decode() for name in tracked.stdout.split(b"\0") if name]
    assert [str(each) for each in files if each.is_file() and marks.search(each.read_bytes())] == []
    assert marks.search(b"a\n" + b"<" * 7 + b" HEAD\nb\n")


def test_each_decision_has_a_number_of_its_own() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(record.name[:4]) for record in records]
    assert numbers == list(range(1, len(records) + 1))
    for number, record in zip(numbers, records, strict=True):
        assert record.read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_decisions_are_cited_by_their_number() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for said, file in re.findall(r"\[ADR (\d+)\]\([^)]*?(\d{4})-[^)]*\)", text):
            assert int(said) == int(file), f"{page.relative_to(ROOT)}: ADR {said} is {file}"


#: Whatever is written for people: code, charts, values, pages.
TEXTS = sorted(
    path
    for folder in (".github", "charts", "docs", "flux", "observability", "src", "tests", "tools")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".go", ".jinja", ".md", ".mk", ".py", ".tpl", ".txt", ".yaml"}
) + [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "README.md")]
#: Files of the repository that a text can send its reader to: not of an example, nor of bootstrap.
_NAMED = re.compile(
    r"(?<![\w/.-])(?:charts|docs|flux|observability|schemas|src/stackproof|tests|tools|\.github)"
    r"/(?!sub/|\S*/acme/|\S*(?:NAME|GROUP)/|\S*/flux-system/kustomization)[\w/.-]+\.[a-z]+\b"
)
#: A test by its name alone.
_TEST = re.compile(r"(?<![\w/])test_\w+\.py\b")
#: Notes from which this was built and which a reader does not have.
_UNPUBLISHED = re.compile(
    r"\bthe plan(?:'s)?\b|\btenancy\.md|\(tenancy,|(?<![/\w-])open-webui\.md|\bfindings? #?\d+"
    r"|\bthe seed's\b|\bseed plan\b",
    re.IGNORECASE,
)
#: Words of a private language, and the field's.
_WORDS = {
    r"\bdoors?\b": "entry point",
    r"\bstray tenants?\b": "fallback tenant",
    r"\bcomplaints?\b": "log error",
    r"\bsurroundings\b": "external objects",
    r"\bnobody defines\b": "undefined",
    r"\blook like death\b": "livenessProbe",
}


def _said(path: Path) -> str:
    """Return a text; of Python, the comments and long strings."""
    if path.suffix != ".py":
        return path.read_text(encoding="utf-8")
    with path.open("rb") as source:
        tokens = list(tokenize.tokenize(source.readline))
    return "\n".join(each.string for each in tokens if each.string.startswith(("#", '"""')))


def missing_files(text: str) -> list[str]:
    """Return the files that a text names and that are not there."""
    gone = {name for name in _NAMED.findall(text) if not (ROOT / name).exists()}
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    return sorted(gone | set(_TEST.findall(text)) - tests)


def unpublished(text: str) -> list[str]:
    """Return the citations of texts that are not in the repository."""
    return [found[0] for found in _UNPUBLISHED.finditer(text)]


def odd_words(text: str) -> list[str]:
    """Return words that only this project would use, each with the field's."""
    return [
        f"{found[0]}: say {better}"
        for word, better in _WORDS.items()
        for found in re.finditer(word, text, re.IGNORECASE)
    ]


def test_what_a_text_sends_its_reader_to_is_there() -> None:
    """A reader who is sent to a text that has gone, or was never here, is worse off than before."""
    for path in TEXTS:
        if path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(ROOT)
        assert missing_files(_said(path)) == [], f"{where} names them"
        assert unpublished(text) == [], f"{where}: say it there, or in docs/facts.md"


def test_texts_use_the_words_of_the_field() -> None:
    for path in TEXTS:
        if path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            assert odd_words(text) == [], f"{path.relative_to(ROOT)} (docs/glossary.md)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as the plan has it", ["the plan"]),
        ("ready in 1 s (tenancy, finding 10)", ["(tenancy,", "finding 10"]),
        ("#: Ports (open-webui.md, section 3)", ["open-webui.md"]),
        ("[chart](../deployment/open-webui.md), the BackupPlan, multi-tenancy", []),
    ],
)
def test_a_citation_of_what_is_not_here_is_noticed(text: str, found: list[str]) -> None:
    assert unpublished(text) == found


def test_a_name_of_a_file_that_has_gone_is_noticed() -> None:
    text = "docs/phases.md, docs/facts.md, flux/docs/x.yaml, tools/NAME/go.mod, `test_gone.py`"
    assert missing_files(text) == ["docs/phases.md", "flux/docs/x.yaml", "test_gone.py"]


def test_an_odd_word_is_noticed() -> None:
    assert odd_words("the only door, indoors") == ["door: say entry point"]


#: What a release renders, changed by hand: Flux puts it back within the release's interval.
_BY_HAND = re.compile(
    r"kubectl (?:\S+ )*?(?:scale|patch|edit|set|delete) (?!job|pod|pvc|namespace)[a-z]+(?=[/ ])"
    r"|helm rollback [a-z]+"
)
_SUSPENDED = re.compile(r"flux suspend helmrelease \S")
_HEADING = re.compile(r"^#+ ", re.MULTILINE)


def undone(text: str) -> list[str]:
    """Return what a page has its reader change in a release that Flux goes on correcting."""
    return [
        change[0]
        for section in _HEADING.split(text)
        for change in _BY_HAND.finditer(section)
        if not _SUSPENDED.search(section, 0, change.start())
    ]


def test_what_is_changed_by_hand_is_not_undone() -> None:
    for page in PAGES:
        found = undone(page.read_text(encoding="utf-8"))
        assert found == [], f"{page.relative_to(ROOT)}: flux suspend helmrelease comes first"


def test_a_change_by_hand_that_flux_undoes_is_noticed() -> None:
    scale = "# Stop\n`kubectl scale deployment/gateway -n observability --replicas=0`\n"
    suspend = "`flux suspend helmrelease lgtm -n observability`\n"
    assert undone(scale) == ["kubectl scale deployment"]
    assert undone(f"# Before\n{suspend}{scale}") == ["kubectl scale deployment"]
    assert undone(scale.replace("\n", f"\n{suspend}", 1)) == []
    assert undone("$ helm rollback open-webui 3\n$ flux suspend helmrelease open-webui\n")
    assert undone("kubectl delete pod loki-0; kubectl -n x patch pvc data-mimir-0") == []
