"""The report as people meet it: in a real Chromium, light and dark, by keyboard, on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import chromium
from tests.recorded import OF, PROOFS, recorded

from stackproof import report
from stackproof.report import Extras

PROGRAM = chromium.find()
pytestmark = [
    pytest.mark.xdist_group("chromium"),
    pytest.mark.skipif(
        PROGRAM is None, reason="there is no Chromium here: apt-get install chromium"
    ),
]

EXTRAS = Extras(
    attacks=[
        {
            "name": "forged-header",
            "entry_point": "gateway",
            "does": "names another",
            "refused": True,
        }
        | {"expected": "refused", "answer": "HTTP 403", "ok": True, "seconds": 0.01},
        {
            "name": "dotted-path",
            "entry_point": "gateway",
            "does": "asks /otlp/../config",
            "ok": False,
        }
        | {"expected": "refused", "harmed": "reads /config", "answer": "HTTP 200", "seconds": 0.1},
    ],
    twins=[
        {"name": "fixed-tenant", "fault": "everybody is soev", "caught_by": "isolation"}
        | {"layer": "local", "reason": "leak: x", "seconds": 2.0}
    ],
    mutants={
        "killed": 41,
        "survived": 1,
        "equivalent": 2,
        "survivors": [
            {"file": "charts/lgtm/values.yaml", "line": 3, "operator": "number", "diff": "- 1\n+ 2"}
        ],
    },
    coverage={"charts": {"lgtm": {"branches": 8, "covered": 8}}},
    upgrade={
        "since": "main",
        "verdict": "leaking",
        "parts": {"before": "isolated", "during": "leaking", "after": "isolated"},
        "rolled": ["gateway"],
        "events": [
            {"at_s": 0.5, "component": "gateway", "what": "new one started"},
            {"at_s": 6.1, "component": "gateway", "what": "old one ended"},
        ],
        "availability": [
            {"name": "reads of loki", "polls": 90, "unanswered_s": 1.5, "apart_s": 0.2}
            | {"gaps_s": [[2.0, 3.5]]}
        ],
        "delivered": [
            {"signal": "logs", "acknowledged": 90, "lost": 1, "known": 2, "twice": 0}
            | {"misplaced": 0}
        ],
        "seen": [{"leaking": True, "times": 4, "first_s": 1.0, "last_s": 3.0}],
        "reasons": ["during: not refused"],
    },
    stale={"coverage": "commit 0123456789ab, of 2026-01-01"},
)

# Each text's contrast with the first ground behind it that is not transparent, by WCAG 2.
_FAINT = """
(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255)
      .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const ground = element => {
    for (let each = element; each; each = each.parentElement) {
      const color = parts(getComputedStyle(each).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = Array.from(element.childNodes).some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest("script, datalist")) continue;
    const style = getComputedStyle(element);
    const color = parts(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(color), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    const text = element.textContent.trim().slice(0, 40);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.tagName} ${text}`);
  }
  return found;
})()
"""
_SIGNS = """
Array.from(document.querySelectorAll(".panel svg use, .legend svg use"), use => {
  const style = getComputedStyle(use);
  return [use.getAttribute("href"), style.color, use.closest("svg").getBoundingClientRect().width];
})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page for each recorded proof."""
    made = tmp_path_factory.mktemp("pages")
    for name in PROOFS:
        (made / f"{name}.html").write_text(
            report.page(recorded(name), EXTRAS, OF), encoding="utf-8"
        )
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    assert PROGRAM is not None
    with chromium.page(PROGRAM, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PROOFS)
def test_it_works_alone_and_can_be_read(
    name: str, scheme: str, browser: chromium.Page, folder: Path
) -> None:
    browser.media(scheme=scheme)
    path = folder / f"{name}.html"
    browser.open(path)
    assert browser.problems == []
    assert browser.requests == [path.as_uri()], "a page of its own asks for nothing else"
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 384) is (scheme == "light")
    assert browser.run(_FAINT) == []


@pytest.mark.parametrize(
    ("right", "wrong", "shows"),
    [
        ("--soft: #58606e", "--soft: #b8c0ce", "faint"),
        ("</body>", "<img src='http://example.invalid/x.png' alt=''></body>", "requests"),
        ("</body>", "<script>undefined.x</script></body>", "problems"),
        ("</body>", "<p style='width: 5000px'>wide</p></body>", "width"),
    ],
)
def test_what_is_wrong_with_a_page_is_noticed(
    right: str, wrong: str, shows: str, browser: chromium.Page, folder: Path, tmp_path: Path
) -> None:
    text = (folder / "leaking.html").read_text(encoding="utf-8")
    assert right in text
    path = tmp_path / "spoilt.html"
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    browser.media()
    browser.open(path)
    noticed = {
        "faint": bool(browser.run(_FAINT)),
        "requests": browser.requests != [path.as_uri()],
        "problems": bool(browser.problems),
        "width": browser.run("document.documentElement.scrollWidth") > 1280,
    }
    assert noticed[shows]


@pytest.mark.parametrize("width", [320, 768, 1920])
@pytest.mark.parametrize("name", ["leaking", "leaking-1000"])
def test_no_width_is_too_small(name: str, width: int, browser: chromium.Page, folder: Path) -> None:
    browser.open(folder / f"{name}.html", width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_the_verdict_is_on_the_first_screen_and_what_else_failed_too(
    browser: chromium.Page, folder: Path
) -> None:
    browser.open(folder / "leaking.html")
    box = "document.querySelector('.verdict').getBoundingClientRect().bottom"
    assert browser.run(box) < 300
    said = browser.run("document.querySelector('.verdict').innerText")
    assert said.lower().startswith("leaking")
    assert "1 attack not as it must be" in said


def test_the_matrix_is_walked_by_keyboard_to_the_evidence(
    browser: chromium.Page, folder: Path
) -> None:
    browser.open(folder / "leaking.html")
    focused = (
        "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
    )
    browser.press("Tab")
    assert browser.run(focused) == "To the matrix"
    for _ in range(30):
        browser.press("Tab")
        if "reading" in (browser.run(focused) or ""):
            break
    assert browser.run(focused).startswith("soev reading soev's traces: sees its own")
    # The third matrix is two stops away; its leak is one row down.
    browser.press("Tab", "Tab", "ArrowDown")
    assert browser.run(focused).startswith("enterprise-a reading soev's logs: LEAK")
    assert browser.run("document.getElementById('cell').textContent") == browser.run(focused)
    width = "getComputedStyle(document.activeElement).outlineWidth"
    assert float(browser.run(width).removesuffix("px")) >= 2, "the focus is seen"
    browser.press("Enter")
    assert browser.run("location.hash") == "#violation-1"
    shown = browser.run("document.querySelector(location.hash).innerText")
    for part in ("loki.query-range", "came back", "curl --silent"):
        assert part in shown
    top = browser.run("document.querySelector(location.hash).getBoundingClientRect().top")
    assert 0 <= round(top) < 900


def test_states_differ_in_shape_not_only_in_colour(browser: chromium.Page, folder: Path) -> None:
    colours: dict[str, set[str]] = {}
    for name in ("leaking", "incomplete"):
        browser.open(folder / f"{name}.html")
        for shape, colour, width in browser.run(_SIGNS):
            colours.setdefault(colour, set()).add(shape)
            assert width >= 12
    shapes = set().union(*colours.values())
    # Two that are both "not proven" share a colour: the shape tells them apart.
    assert shapes == {f"#sign-{each}" for each in ("own", "hidden", "leak", "missing", "unknown")}
    assert {"#sign-leak"} in colours.values()
    assert {"#sign-own"} in colours.values()


@pytest.mark.parametrize(
    "deficiency", ["deuteranopia", "protanopia", "tritanopia", "achromatopsia"]
)
def test_a_leak_looks_other_than_the_rest_to_everyone(
    deficiency: str, browser: chromium.Page, folder: Path, tmp_path: Path
) -> None:
    browser.open(folder / "leaking.html")
    browser.call("Emulation.setEmulatedVisionDeficiency", type=deficiency)
    try:
        pictures = {}
        for state in ("leak", "own", "hidden"):
            place = browser.run(
                f"(r => ({{x: r.x, y: r.y, width: 24, height: 24}}))"
                f"(document.querySelector('td.{state} svg').getBoundingClientRect())"
            )
            browser.picture(tmp_path / state, clip={**place, "scale": 1})
            pictures[(tmp_path / state).read_bytes()] = state
        assert len(pictures) == 3
    finally:
        browser.call("Emulation.setEmulatedVisionDeficiency", type="none")


def test_on_paper_everything_is_there(browser: chromium.Page, folder: Path) -> None:
    browser.open(folder / "leaking.html")
    browser.media(scheme="dark", kind="print")
    try:
        assert (
            browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert browser.run(_FAINT) == []
    finally:
        browser.media()
    printed = browser.paper()
    assert printed.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 6
