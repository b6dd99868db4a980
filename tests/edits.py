"""Changes of objects in plain data: one place by its path."""

from __future__ import annotations

from typing import Any

DELETE = object()


def edit(data: Any, path: str, value: Any) -> None:
    """Set what stands at `key|0|key`, or delete it; at `key|+` append to a list.

    A function as the value makes the new one of what stands there.
    """
    *way, last = path.split("|")
    for key in way:
        data = data[int(key) if isinstance(data, list) else key]
    if last == "+":
        data.append(value)
        return
    place: Any = int(last) if isinstance(data, list) else last
    if value is DELETE:
        del data[place]
    else:
        data[place] = value(data[place]) if callable(value) else value
