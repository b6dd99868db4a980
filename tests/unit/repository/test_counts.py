"""Whatever is counted is told in correct English: "1 problem", not "1 problems"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from stackproof.repo.checkout import Checkout
from stackproof.wording import counted

SOURCE = Checkout.own().root / "src"
_TEMPLATES = {path: path.read_text() for path in SOURCE.rglob("*.jinja")}
_CODE = {path: ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}


def _nouns() -> Iterator[str]:
    """Yield the plural of whatever is counted somewhere."""
    for tree in _CODE.values():
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "counted":
                words = [str(a.value) for a in call.args[1:] if isinstance(a, ast.Constant)]
                yield counted(2, *words[:2]).partition(" ")[2]


#: What names do as well: said of a length only.
_VERBS = {"looks", "renders", "restarts"}
_PLURAL = re.compile(rf" (more |other )?({'|'.join(map(re.escape, sorted({*_nouns()})))})\b")


def _told(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of each value that a fixed plural follows."""
    for text in ast.walk(tree):
        if not isinstance(text, ast.JoinedStr):
            continue
        for value, after in zip(text.values, text.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant)):
                continue
            found = _PLURAL.match(str(after.value))
            expression = ast.unparse(value.value)
            if not found or "counted(" in expression or expression.isupper():
                continue
            if found[2] not in _VERBS or "len(" in expression:
                yield value.lineno, f"{{{expression}}}{found[0]}"


def test_no_plural_follows_a_number() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}: {text}"
        for path, tree in _CODE.items()
        for line, text in _told(tree)
    ]
    wrong += [
        f"{path.relative_to(SOURCE)}: {found[0]}"
        for path, text in _TEMPLATES.items()
        for found in re.finditer(r"[^{]*\}\}" + _PLURAL.pattern, text)
    ]
    assert not wrong, "say it with stackproof.wording.counted:\n" + "\n".join(wrong)


def test_a_plural_after_a_number_is_seen() -> None:
    seen = _told(ast.parse("""f"{len(found)} problems, {counted(3, 'check')}, {_MOST} faults" """))
    assert [text for _, text in seen] == ["{len(found)} problems"]
