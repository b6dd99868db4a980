"""The pins in versions.yaml: Kubernetes, container images, and charts from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import jsonschema_rs
import yaml

from stackproof.errors import StackproofError
from stackproof.helmyaml import reading

from .checkout import Checkout

_NUMBER = r"v?\d+(\.\d+)+([-.+][0-9A-Za-z]+)*"
_VERSION = {"type": "string", "pattern": rf"^{_NUMBER}$"}
_TAG = {"type": "string", "pattern": rf"^{_NUMBER}(@sha256:[0-9a-f]{{64}})?$"}
_KUBERNETES = {"type": "string", "pattern": r"^1\.\d+\.\d+$"}
_KIND_NODE = {"type": "string", "pattern": r"^[\w./-]+:v1\.\d+\.\d+@sha256:[0-9a-f]{64}$"}
_REPOSITORY = {"type": "string", "pattern": r"^[a-z0-9]+([._/-][a-z0-9]+)*$"}
_CHART_REPOSITORY = {"type": "string", "pattern": r"^(https|oci)://[^\s/]+(/[^\s/]+)*$"}
_SENTENCE = {"type": "string", "pattern": r"^\S"}


def _mapping(required: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def _each(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": schema}


_SCHEMA = jsonschema_rs.validator_for(
    _mapping(
        {
            "kubernetes": _mapping(
                {"oldest": _KUBERNETES, "newest": _KUBERNETES, "kindNode": _KIND_NODE}
            ),
            "images": _each(_mapping({"repository": _REPOSITORY, "tag": _TAG}, atLeast=_VERSION)),
        },
        charts=_each(_mapping({"repository": _CHART_REPOSITORY, "version": _VERSION})),
        differences=_each(_mapping({"runs": _VERSION, "because": _SENTENCE})),
    )
)


#: The component whose image a program is deployed in, where it is not called as the program.
_IMAGE_OF = {"caddy": "gateway", "open-webui": "open-webui-soev"}

#: What a stand-in's image has in its name.
_STAND_IN = "/stand-in-for-"


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers that a version starts with, for comparing: `v2.10.8-rc1` -> (2, 10, 8)."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in match[1].split(".")) if match else ()


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """The Kubernetes versions that the deployment supports.

    Args:
        oldest: Lowest version that rendered objects are validated for, `1.N.P`.
        newest: Highest one; also the version that charts are rendered for unless asked otherwise.
        kind_node: Node image of a cluster that kind makes, with its digest.
    """

    oldest: str
    newest: str
    kind_node: str


@dataclass(frozen=True, slots=True)
class Image:
    """A container image, pinned by version.

    Args:
        repository: Registry and name, as a chart's `image.repository`.
        tag: Version, as a chart's `image.tag`: with `@` and the digest where that is pinned.
        at_least: Version that the tag must never be below, else None.
    """

    repository: str
    tag: str
    at_least: str | None = None

    @property
    def version(self) -> str:
        """The tag itself."""
        return self.tag.partition("@")[0]

    @property
    def digest(self) -> str:
        """The digest beside the tag, "" where there is none."""
        return self.tag.partition("@")[2]

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart from elsewhere, which Flux installs."""

    repository: str
    version: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Why a program that runs in the tests is not the one that is deployed.

    Args:
        runs: Its version; where a commit is pinned, the commit follows a `+`.
        because: The reason.
    """

    runs: str
    because: str


@dataclass(frozen=True, slots=True)
class RunningProgram:
    """The version of a program that ran, beside the deployed one.

    Args:
        name: The program, or the component of a cluster.
        ran: The version that ran.
        deployed: The version that is deployed; None where nothing pins one.
        reason: Why the two differ, as versions.yaml says; "" where it says nothing.
    """

    name: str
    ran: str
    deployed: str | None = None
    reason: str = ""

    @property
    def differs(self) -> bool:
        """Whether something else is deployed than what ran."""
        return self.deployed is not None and plain(self.ran) != plain(self.deployed)

    @property
    def version(self) -> str:
        """What ran, and in brackets what is deployed where that is something else."""
        return f"{self.ran} (deployed: {self.deployed})" if self.differs else self.ran

    @property
    def explained(self) -> str:
        """What ran and what is deployed, and why the two differ."""
        return f"{self}: {self.reason or 'for no reason that versions.yaml knows'}"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def plain(version: str) -> str:
    """Return a version without what tells no two programs apart: the v, and the image's system."""
    return version.removeprefix("v").removesuffix("-alpine")


def image_version(reference: str) -> str:
    """Return what an image's name says of the program in it: its tag, else its digest.

    A stand-in, which is no such program, is called so.
    """
    if _STAND_IN in reference:
        return "stand-in"
    name, _, digest = reference.partition("@")
    _, _, tag = name.rsplit("/", 1)[-1].partition(":")
    return tag.removeprefix("v") or digest or "unknown"


@dataclass(frozen=True, slots=True)
class Versions:
    """Everything that versions.yaml pins; images by component, charts and programs by name."""

    kubernetes: Kubernetes
    images: Mapping[str, Image]
    charts: Mapping[str, Chart]
    differences: Mapping[str, Difference]

    @classmethod
    def load(cls, checkout: Checkout) -> Self:
        """Read versions.yaml.

        Raises:
            StackproofError: It is not there, is not valid YAML, or holds something else than pins.
        """
        where = checkout.show(checkout.versions_file)
        with reading(where):
            data = yaml.load(checkout.versions_file.read_bytes(), Loader=yaml.CSafeLoader)
        if problems := list(_SCHEMA.iter_errors(data)):
            raise _refused(problems, where)
        given = data["kubernetes"]
        kubernetes = Kubernetes(given["oldest"], given["newest"], given["kindNode"])
        if version_key(kubernetes.oldest) > version_key(kubernetes.newest):
            raise StackproofError(
                f"kubernetes.oldest ({kubernetes.oldest}) is above newest ({kubernetes.newest})",
                where=where,
            )
        images = {
            name: Image(one["repository"], one["tag"], one.get("atLeast"))
            for name, one in data["images"].items()
        }
        for name, image in images.items():
            if image.at_least and version_key(image.tag) < version_key(image.at_least):
                raise StackproofError(
                    f"images.{name}.tag: {image.tag} is below {image.at_least}",
                    where=where,
                    todo="The comment at `atLeast` says why it must not be.",
                )
        charts = {name: Chart(**one) for name, one in data.get("charts", {}).items()}
        differences = {name: Difference(**one) for name, one in data.get("differences", {}).items()}
        return cls(kubernetes, images, charts, differences)

    def image(self, component: str) -> Image:
        """Return the image of a component, e.g. `mimir`.

        Raises:
            StackproofError: versions.yaml pins none.
        """
        if component not in self.images:
            raise StackproofError(
                f"no image of {component!r} (there are: {', '.join(self.images)})",
                where="versions.yaml",
            )
        return self.images[component]

    def deployed(self, name: str) -> str | None:
        """Return the version of a program that is deployed; None where nothing pins one."""
        image = self.image_of(name)
        chart = self.charts.get(name)
        # An operator's chart has the version of the operator.
        version = image.version if image else chart.version if chart else None
        return version.removeprefix("v") if version else None

    def image_of(self, name: str) -> Image | None:
        """Return the image that a program is deployed in; None where nothing pins one."""
        return self.images.get(_IMAGE_OF.get(name, name))

    def compare(self, name: str, ran: str) -> RunningProgram:
        """Return a program that ran, beside what is deployed of it."""
        known = self.differences.get(name)
        # An image's tag has no `+`.
        expected = known is not None and known.runs.replace("+", "-") == ran.replace("+", "-")
        reason = known.because if known and expected else ""
        return RunningProgram(name, ran, self.deployed(name), reason)


def _refused(problems: Sequence[jsonschema_rs.ValidationError], where: str) -> StackproofError:
    said = (
        f"{'.'.join(map(str, one.instance_path)) or 'the file'}: {one.message}" for one in problems
    )
    quotes = any(isinstance(one.instance, float) for one in problems)
    todo = "Put it in quotes: YAML reads it as a number." if quotes else None
    return StackproofError("; ".join(said), where=where, todo=todo)
