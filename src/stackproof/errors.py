"""The one error that a user sees: what is wrong, where, and what to do about it."""

from __future__ import annotations


class StackproofError(Exception):
    """A problem that its reader can act on: shown as one message, without a traceback.

    Args:
        what: What was found, as a sentence without its full stop.
        where: The file (with line and column), the endpoint or the program that it was found in.
        todo: What to do about it, as a sentence.
    """

    def __init__(self, what: str, where: str | None = None, todo: str | None = None) -> None:
        super().__init__(what, where, todo)
        self.what = what
        self.where = where
        self.todo = todo

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if not self.todo:
            return text
        # What is a block of lines, or a sentence already, keeps its own end.
        end = "\n" if "\n" in text else " " if text.endswith((".", "!", "?")) else ". "
        return f"{text}{end}{self.todo}"
