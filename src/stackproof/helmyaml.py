"""YAML as Helm reads it: version 1.1 in the dialect of go.yaml.in/yaml/v2, resolve.go.

Words such as `on` and `y` are booleans, `1e3` and `0o17` are numbers, while dates and times, and
what PyYAML takes for numbers of base 60, are plain text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from stackproof.errors import StackproofError

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {
    **dict.fromkeys(("y", "yes", "on", "true"), True),
    **dict.fromkeys(("n", "no", "off", "false"), False),
}
_BOOLEAN = re.compile(
    r"(?:[yYnN]|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|true|True|TRUE|false|False|FALSE)$"
)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0[bB][01_]+)$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


class Loader(yaml.SafeLoader):
    """Gives nodes with their places in the text; `FastLoader` is ten times as fast."""


class FastLoader(yaml.CSafeLoader):
    """The same, by libyaml."""


def _integer(_loader: Any, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "").lower()
    digits = text.lstrip("-+")
    old_octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
    number = int(digits, 8 if old_octal else 0)
    return -number if text.startswith("-") else number


def _number(_loader: Any, node: yaml.ScalarNode) -> float:
    text = node.value.replace("_", "")
    number = math.nan if text.lstrip("-+.").isalpha() else float(text)
    if not math.isfinite(number):
        # As Helm, which makes JSON of values.
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.value} is not a number that JSON has", node.start_mark
        )
    return number


for _class in (Loader, FastLoader):
    _kept = {"null", "merge"}
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag.removeprefix(_TAG) in _kept]
        for first, found in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver(f"{_TAG}bool", _BOOLEAN, list("yYnNtTfFoO"))
    _class.add_implicit_resolver(f"{_TAG}int", _INTEGER, list("-+0123456789"))
    _class.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
    _class.add_constructor(f"{_TAG}bool", lambda _, node: _BOOLEANS[node.value.lower()])
    _class.add_constructor(f"{_TAG}int", _integer)
    _class.add_constructor(f"{_TAG}float", _number)


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Say in one message what is wrong with a YAML file that is read in the block.

    Raises:
        StackproofError: It cannot be read, is not UTF-8, or is not valid YAML.
    """
    try:
        yield
    except OSError as error:
        raise StackproofError(f"cannot be read: {error.strerror}", where=where) from error
    except UnicodeDecodeError as error:
        what = f"is not UTF-8: {error.reason} at byte {error.start}"
        raise StackproofError(what, where=where) from error
    except yaml.YAMLError as error:
        raise StackproofError(f"is not valid YAML: {error}", where=where) from error


def load(text: str) -> Any:
    """Return a document as data, None for an empty one.

    Raises:
        yaml.YAMLError: It is none, or holds NaN or infinity, which Helm refuses.
    """
    return yaml.load(text, Loader=FastLoader)  # noqa: S506  # a SafeLoader
