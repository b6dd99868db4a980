"""Render charts as `helm template` does, thousands of times in seconds.

The work is done by `tools/render`, a program on Helm's own packages that lives as long as this
process (docs/adr/0002-renderer.md). Results are cached by content (chart, values, release,
Kubernetes version) and frozen, so they can be shared.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.toolchain import programs
from stackproof.toolchain.conversation import Conversation, EndedError

from .manifests import FrozenDict, Manifest, Release, freeze, thaw

Values = Path | Mapping[str, Any]
"""A values file, which Helm itself reads (YAML 1.1), or values as Python data."""


@cache
def newest_kubernetes() -> str:
    """Return the newest Kubernetes version that the charts support."""
    return Versions.load(Checkout.own()).kubernetes.newest


@dataclass(frozen=True, kw_only=True)
class Render:
    """What to render: the arguments of `helm template`."""

    chart: Path
    values: Sequence[Values] = ()
    release: str
    namespace: str
    kube_version: str = field(default_factory=newest_kubernetes)
    api_versions: Sequence[str] = ()
    overlay: Mapping[str, str | None] = field(default_factory=dict)
    """Files laid over the chart: path in the chart to text; None removes the file."""
    is_upgrade: bool = False
    include_crds: bool = False
    coverage: bool = False
    """Also tell which branches of the templates were entered (`Release.branches`)."""


@dataclass(frozen=True)
class Refused:
    """A part of the values that the chart's schema refuses."""

    path: str
    """Dotted path of the value, "" for the top."""
    reason: str


@dataclass(frozen=True)
class Branch:
    """A part of a template that some renders run and others do not."""

    id: str
    template: str
    line: int
    """Of the tag that opens the branch, from 1, as are `column` and `end_line`."""
    column: int
    end_line: int
    kind: str
    """if, else, with, with-else, range, range-else (nothing to range over), define."""
    text: str
    implicit: bool
    """An else that nobody wrote: the condition was false."""


@dataclass(frozen=True)
class ValueUse:
    """A place in a template that reads from `.Values`."""

    path: tuple[str, ...]
    """Keys below `.Values`; "*" stands for the elements of a list or map."""
    how: str
    """`read`: the value goes on from there, with all that is below it; `test`: a condition."""
    template: str
    line: int


class HelmError(StackproofError):
    """A chart that does not render. Its text ends with a command that shows the same."""

    def __init__(
        self, asked: Render, failure: Mapping[str, Any], entered: Iterable[str] = ()
    ) -> None:
        self.asked = asked
        self.branches = frozenset(entered)
        """Ids of the template branches that were entered before, if asked for coverage."""
        self.kind: str = failure["kind"]
        """schema, template, yaml, load or usage."""
        self.message: str = failure["message"].rstrip()
        self.template: str | None = failure.get("template")
        self.line: int | None = failure.get("line")
        """The line in the template (kind `template`; in YAML errors see the message)."""
        self.refused: tuple[Refused, ...] = tuple(
            Refused(".".join(part["path"] or ()), part["message"])
            for part in failure.get("values") or ()
        )
        where = str(asked.chart)
        if self.template:
            where = f"{self.template}:{self.line}" if self.line else self.template
        super().__init__(self.message, where=where)

    def __str__(self) -> str:
        # The files that the command needs are written when somebody reads it, not before:
        # a suite may raise thousands of these and print none.
        return f"{self.where}: {self.message}\nSee it with: {self.command()}"

    def command(self) -> str:
        """Return the `helm template` command that shows the error, and write the files it needs.

        They stay, in a folder under the system's temporary one, named by their content.
        """
        asked = self.asked
        chart = _kept_chart(asked.chart, asked.overlay) if asked.overlay else asked.chart
        words = ["helm", "template", asked.release, str(chart), "--namespace", asked.namespace]
        words += ["--kube-version", asked.kube_version]
        words += [word for api in asked.api_versions for word in ("--api-versions", api)]
        for values in asked.values:
            path = values if isinstance(values, Path) else _kept_values(values)
            words += ["--values", str(path)]
        words += ["--is-upgrade"] if asked.is_upgrade else []
        words += ["--include-crds"] if asked.include_crds else []
        return shlex.join(words)


def _kept_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"stackproof-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _kept_values(values: Mapping[str, Any]) -> Path:
    text = json.dumps(thaw(values), indent=2, sort_keys=True)
    path = _kept_folder() / f"values-{_digest(text.encode())}.yaml"
    path.write_text(text + "\n")
    return path


def _kept_chart(chart: Path, overlay: Mapping[str, str | None]) -> Path:
    digest = _digest(json.dumps([chart_digest(chart), dict(overlay)], sort_keys=True).encode())
    copy = _kept_folder() / f"chart-{digest}" / chart.resolve().name
    shutil.copytree(chart, copy, dirs_exist_ok=True)
    for name, text in overlay.items():
        path = copy / name
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return copy


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


@lru_cache(maxsize=100_000)
def _settled_digest(path: str, _mtime_ns: int, _size: int, _inode: int) -> str:
    return _digest(Path(path).read_bytes())


_SETTLED_NS = 50_000_000
"""A file that changed less than this before it was read may change again within the same tick
of the file system's clock, so its time stamp proves nothing."""


def _file_digest(entry: os.DirEntry[str]) -> str:
    stat = entry.stat()
    if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
        return _settled_digest(entry.path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return _digest(Path(entry.path).read_bytes())


def chart_digest(chart: Path) -> str:
    """Return a digest of all files of a chart. Files that did not change are not read again."""
    root = str(chart.resolve())
    found: list[str] = []
    folders = [root]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.path)
                    else:
                        found.append(f"{entry.path[len(root) :]}\0{_file_digest(entry)}")
    except OSError as error:
        raise StackproofError(
            f"cannot read the chart: {error.strerror or error}", where=str(error.filename or chart)
        ) from None
    return _digest("\n".join(sorted(found)).encode())


@dataclass(frozen=True)
class _Request:
    """One question to the program.

    Args:
        content: What the answer depends on: members of a JSON object.
        places: Where that was read, which only messages name: members as well.
    """

    content: str
    places: str = ""

    @property
    def key(self) -> str:
        """The same for charts and values of the same content, wherever they lie."""
        return _digest(self.content.encode())

    def line(self, number: int) -> str:
        return f'{{"id": {number}, {self.places}{self.content}}}'


class Renderer:
    """A client of one `tools/render` process, which it starts when needed. Safe for threads."""

    def __init__(self, program: Path) -> None:
        self._program = Conversation(program)
        self._objects: dict[str, FrozenDict] = {}
        self._manifests: dict[tuple[str, str, int, str], Manifest] = {}
        self._releases: dict[str, Release] = {}

    def render(self, asked: Render, *, fresh: bool = False) -> Release:
        """Render one release, or return what the same request gave before.

        Raises:
            HelmError: The chart does not render with these values.
        """
        (outcome,) = self.render_many([asked], fresh=fresh)
        if isinstance(outcome, HelmError):
            raise outcome
        return outcome

    def render_many(
        self, asked: Iterable[Render], *, fresh: bool = False
    ) -> list[Release | HelmError]:
        """Render many releases at once, on all cores; outcomes are in the order of requests."""
        wanted = list(asked)
        digests = {chart: chart_digest(chart) for chart in {one.chart for one in wanted}}
        requests = [self._request("render", one, digests[one.chart]) for one in wanted]
        keys = [request.key for request in requests]
        outcomes: dict[str, Release | HelmError] = {}
        open_keys = dict(zip(keys, range(len(keys)), strict=True))
        for key in () if fresh else self._releases.keys() & open_keys.keys():
            outcomes[key] = self._releases[key]
            del open_keys[key]
        answers = self._exchange([requests[i] for i in open_keys.values()])
        for (key, i), answer in zip(open_keys.items(), answers, strict=True):
            if "error" in answer:
                outcomes[key] = HelmError(wanted[i], answer["error"], answer.get("hits") or ())
            else:
                outcomes[key] = self._releases[key] = self._release(wanted[i], answer)
        return [outcomes[key] for key in keys]

    def branches(
        self, chart: Path, overlay: Mapping[str, str | None] | None = None
    ) -> tuple[Branch, ...]:
        """Return every branch of a chart's templates, its subcharts' too."""
        answer = self._ask("branches", chart, overlay)
        return tuple(Branch(**branch) for branch in answer.get("branches") or ())

    def values_used(self, chart: Path) -> tuple[ValueUse, ...]:
        """Return what the templates of a chart read from `.Values`, as far as parsing tells."""
        answer = self._ask("values_used", chart)
        return tuple(
            ValueUse(tuple(use["path"] or ()), use["how"], use["template"], use["line"])
            for use in answer.get("used") or ()
        )

    def text(self, asked: Render) -> dict[str, str]:
        """Return the rendered files as text, by template: for those who must see the bytes."""
        texts: dict[str, str] = self._one("render", asked, text=True)["texts"]
        return texts

    def secret(self, templates: Mapping[str, str], data: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return what the templates of an ExternalSecret make of what was fetched, by key.

        Args:
            templates: `spec.target.template.data`, for the operator's engine v2.
            data: Each `secretKey` with its value.

        Raises:
            StackproofError: A template fails, in its own words: the operator then makes no Secret.
        """
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        asked = {"op": "secret", "templates": dict(templates), "data": encoded}
        (answer,) = self._exchange([_Request(_members(asked))])
        if "error" in answer:
            raise StackproofError(str(answer["error"]["message"]))
        made: Mapping[str, str] = answer.get("data") or {}
        return {key: base64.b64decode(value) for key, value in made.items()}

    def close(self) -> None:
        """End the process. The next request starts another."""
        self._program.close()

    def _ask(
        self, op: str, chart: Path, overlay: Mapping[str, str | None] | None = None
    ) -> Mapping[str, Any]:
        asked = Render(chart=chart, overlay=overlay or {}, release="none", namespace="none")
        return self._one(op, asked)

    def _one(self, op: str, asked: Render, *, text: bool = False) -> Mapping[str, Any]:
        (answer,) = self._exchange([self._request(op, asked, text=text)])
        if "error" in answer:
            raise HelmError(asked, answer["error"])
        return answer

    def _request(self, op: str, asked: Render, digest: str = "", *, text: bool = False) -> _Request:
        content = {
            "op": op,
            "digest": digest or chart_digest(asked.chart),
            "files": dict(asked.overlay),
            "values": [_values_source(values) for values in asked.values],
            "release": {
                "name": asked.release,
                "namespace": asked.namespace,
                "is_upgrade": asked.is_upgrade,
            },
            "kube_version": asked.kube_version,
            "api_versions": list(asked.api_versions),
            "include_crds": asked.include_crds,
            "coverage": asked.coverage,
            "text": text,
        }
        places = {
            "chart": str(asked.chart.resolve()),
            "names": [str(values) if isinstance(values, Path) else "" for values in asked.values],
        }
        return _Request(_members(content), f"{_members(places)}, ")

    def _release(self, asked: Render, answer: Mapping[str, Any]) -> Release:
        return Release(
            name=asked.release,
            namespace=asked.namespace,
            kube_version=asked.kube_version,
            manifests=tuple(
                self._manifest(asked.namespace, part) for part in answer.get("manifests") or ()
            ),
            notes=answer.get("notes", ""),
            branches=frozenset(answer.get("hits") or ()),
        )

    def _manifest(self, namespace: str, part: Mapping[str, Any]) -> Manifest:
        key = (part["digest"], part["source"], part["index"], namespace)
        found = self._manifests.get(key)
        if found is None:
            found = Manifest(
                self._objects[part["digest"]],
                source=part["source"],
                index=part["index"],
                digest=part["digest"],
                release_namespace=namespace,
            )
            self._manifests[key] = found
        return found

    def _exchange(self, requests: Sequence[_Request]) -> list[Mapping[str, Any]]:
        if not requests:
            return []
        lines = [request.line(number) for number, request in enumerate(requests)]
        try:
            answers = self._program.ask(lines, self._answer)
        except EndedError as error:
            said = f", saying:\n{str(error)[-2000:]}" if str(error) else ""
            raise StackproofError(
                f"the render program died{said}", where=str(self._program.program)
            ) from None
        answers.sort(key=lambda answer: int(answer["id"]))
        return answers

    def _answer(self, line: bytes) -> Mapping[str, Any]:
        answer: dict[str, Any] = json.loads(line)
        for part in answer.get("manifests") or ():
            if "object" in part:  # absent where an earlier answer had it
                self._objects[part["digest"]] = freeze(part.pop("object"))
        return answer


def _members(content: Mapping[str, Any]) -> str:
    """Return the members of an object as JSON, without its braces."""
    return json.dumps(content, sort_keys=True)[1:-1]


def _values_source(values: Values) -> dict[str, Any]:
    if not isinstance(values, Path):
        return {"json": thaw(values)}
    try:
        return {"yaml": values.read_text(encoding="utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise StackproofError(f"cannot read the values file: {error}", where=str(values)) from None


@cache
def renderer() -> Renderer:
    """Return this process's renderer; its program is built if need be."""
    made = Renderer(programs.find("render"))
    atexit.register(made.close)
    return made


def render(
    chart: Path,
    values: Sequence[Values] = (),
    *,
    release: str,
    namespace: str,
    kube_version: str | None = None,
    overlay: Mapping[str, str | None] | None = None,
    include_crds: bool = False,
    fresh: bool = False,
) -> Release:
    """Render a chart as `helm template RELEASE CHART -f VALUES…` does; `Render` has more to ask.

    Args:
        chart: The chart's folder.
        values: Values files and values, each over those before it.
        release: Name of the release.
        namespace: Namespace of the release.
        kube_version: Kubernetes version that the chart sees; the newest supported by default.
        overlay: Files laid over the chart: path in the chart to text; None removes the file.
        include_crds: Also return the CRDs of the chart's folder `crds`.
        fresh: Render even if the same was rendered before.

    Raises:
        HelmError: The chart does not render with these values.
    """
    asked = Render(
        chart=chart,
        values=values,
        release=release,
        namespace=namespace,
        kube_version=kube_version or newest_kubernetes(),
        overlay=overlay or {},
        include_crds=include_crds,
    )
    return renderer().render(asked, fresh=fresh)


def render_many(asked: Iterable[Render], *, fresh: bool = False) -> list[Release | HelmError]:
    """Render many releases at once, on all cores; outcomes are in the order of requests."""
    return renderer().render_many(asked, fresh=fresh)
