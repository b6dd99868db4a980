"""Rules in CEL, evaluated by Google's implementation: who may ask for which secret, what is ready.

The API server evaluates a ValidatingAdmissionPolicy, Flux the `healthCheckExprs` of a step. A slip
in either shows nowhere else before a cluster: an expression is a string to every schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from cel_expr_python import cel

from stackproof.helm.manifests import Manifest, thaw
from stackproof.helm.references import matches

from .subject import FLUX, Subject, applied, at, of, own
from .tree import Applied, step_name

#: What an expression may name: of an admission policy, and of a health check.
_NAMES = ("object", "namespaceObject", "variables", "metadata", "spec", "status")
#: The operator's group. Its kinds have no status at first, and Flux takes that for healthy.
_SECRETS_GROUP = "external-secrets.io"


class CelError(ValueError):
    """An expression that is none, or cannot be evaluated for what it is given."""


@cache
def _compiled(expression: str) -> Any:
    environment = cel.NewEnv(variables=dict.fromkeys(_NAMES, cel.Type.DYN))
    try:
        return environment.compile(expression)
    except RuntimeError as error:
        raise CelError(str(error).splitlines()[0]) from None


def evaluate(expression: str, **given: object) -> Any:
    """Return the value of a CEL expression.

    Raises:
        CelError: It does not parse, or names what is not there.
    """
    value = _compiled(expression).eval(data=given)
    if value.type() == cel.Type.ERROR:
        raise CelError(str(value.value()))
    return value.plain_value()


# --- Admission ----------------------------------------------------------------------------------


def refusal(
    subject: Subject, asked: Mapping[str, Any], namespace: Mapping[str, Any], operation: str
) -> str | None:
    """Return why the tree's admission policies deny a request, None if they admit it.

    Args:
        subject: The tree.
        asked: The object of the request, as plain data.
        namespace: The Namespace that it is for, as plain data.
        operation: CREATE or UPDATE.
    """
    policies = {m.name: m for _, m in own(subject, "ValidatingAdmissionPolicy")}
    for _, binding in own(subject, "ValidatingAdmissionPolicyBinding"):
        spec = binding["spec"]
        policy = policies.get(spec.get("policyName", ""))
        where = (spec.get("matchResources") or {}).get("namespaceSelector")
        if policy is None or "Deny" not in spec["validationActions"]:
            continue
        labels = namespace["metadata"].get("labels") or {}
        if matches(where, labels) and _concerns(policy, asked, operation):
            message = _denied(policy["spec"], asked, namespace)
            if message is not None:
                return message
    return None


def _concerns(policy: Manifest, asked: Mapping[str, Any], operation: str) -> bool:
    group, _, version = str(asked["apiVersion"]).rpartition("/")
    of_it = {
        "apiGroups": group,
        "apiVersions": version,
        "operations": operation,
        "resources": f"{asked['kind'].lower()}s",
    }
    rules = policy["spec"]["matchConstraints"]["resourceRules"]
    return any(
        all({value, "*"} & set(rule.get(key) or ()) for key, value in of_it.items())
        for rule in rules
    )


def _denied(
    spec: Mapping[str, Any], asked: Mapping[str, Any], namespace: Mapping[str, Any]
) -> str | None:
    variables: dict[str, object] = {}
    given = {"object": asked, "namespaceObject": namespace, "variables": variables}
    try:
        for one in spec.get("variables") or ():
            variables[one["name"]] = evaluate(one["expression"], **given)
        for one in spec["validations"]:
            if evaluate(one["expression"], **given) is not True:
                message = one.get("messageExpression")
                return str(evaluate(message, **given) if message else one.get("message", ""))
    except CelError as error:
        return None if spec.get("failurePolicy") == "Ignore" else f"cannot be decided: {error}"
    return None


@FLUX.register
def tenants_ask_for_their_own_secrets(subject: Subject) -> Iterator[str]:
    """A tenant's namespace may ask the store for its own keys, and for no other in any way."""
    asked = [one for one, m in applied(subject, "ExternalSecret") if m["spec"].get("data")]
    homes = {tenant.namespace: tenant for tenant in subject.registry}
    for one in asked:
        space = subject.tree.find("Namespace", None, one.manifest.namespace or "")
        for operation in ("CREATE", "UPDATE") if space else ():
            plain, within = thaw(one.manifest.content), thaw(space.content)  # type: ignore[union-attr]
            why = refusal(subject, plain, within, operation)
            if why is not None:
                yield f"{at(one)}: a {operation} of it is refused: {why}"
            if one.manifest.namespace in homes:
                prefix = homes[one.manifest.namespace or ""].secret_prefix
                for how, wrong, where in _hostile(one, asked, within, prefix):
                    why = refusal(subject, wrong, where, operation)
                    if why is None:
                        yield f"{at(one)}: a {operation} of it passes, though it {how}"
                    elif not why or (how == _FOREIGN and prefix not in why):
                        yield f"{at(one)}: the refusal {why!r} does not name the prefix {prefix}"


_FOREIGN = "names another's key"


def _hostile(
    one: Applied, asked: list[Applied], namespace: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any]]]:
    """Yield what is wrong with it, an ExternalSecret that must be refused, and the namespace."""

    def named(*keys: str, **more: object) -> dict[str, Any]:
        made: dict[str, Any] = thaw(one.manifest.content)
        made["spec"] |= {"data": [{"secretKey": k, "remoteRef": {"key": k}} for k in keys], **more}
        return made

    mine = one.manifest["spec"]["data"][0]["remoteRef"]["key"]
    foreign = {other.manifest.namespace: other.manifest["spec"]["data"][0] for other in asked}
    for where, entry in foreign.items():
        if where != one.manifest.namespace:
            yield _FOREIGN, named(mine, entry["remoteRef"]["key"]), namespace
    yield "names a key of a longer prefix", named(f"{prefix}x-webui-secret-key"), namespace
    by_pattern = [{"find": {"name": {"regexp": ".*"}}}]
    yield "names keys by pattern", named(mine, dataFrom=by_pattern), namespace
    nobody = {**namespace, "metadata": {"name": "x", "labels": {"tenant": "x"}}}
    yield "is in a namespace without a prefix", named(mine), nobody


# --- Health -------------------------------------------------------------------------------------


@FLUX.register
def readiness_is_what_the_operator_says(subject: Subject) -> Iterator[str]:
    """A step is done when what it fetches from the store is there, and fails when that failed."""
    made: dict[str, set[str]] = {}
    for step, manifest in own(subject):
        group, _, _ = manifest.api_version.rpartition("/")
        if group == _SECRETS_GROUP:
            made.setdefault(step.name, set()).add(f"{manifest.api_version} {manifest.kind}")
    for step, manifest in own(subject, "Kustomization"):
        expressions = {
            f"{one['apiVersion']} {one['kind']}": one
            for one in manifest["spec"].get("healthCheckExprs") or ()
        }
        there = made.get(step_name(manifest.name, manifest.namespace), set())
        for kind in sorted(there - expressions.keys()):
            yield f"{of(step, manifest)}: a {kind} without a status passes for healthy"
        for kind in sorted(expressions.keys() - there):
            yield f"{of(step, manifest)}: the step makes no {kind}, whose health it asks for"
        for kind, one in expressions.items():
            for problem in _misjudged(one):
                yield f"{of(step, manifest)}: the health of {kind}: {problem}"


def _misjudged(one: Mapping[str, str]) -> Iterator[str]:
    for status, healthy in (("True", "current"), ("False", "failed"), ("Unknown", None)):
        conditions = [{"type": "Other", "status": "True"}, {"type": "Ready", "status": status}]
        for verdict in ("current", "failed"):
            try:
                found = evaluate(one.get(verdict, "false"), status={"conditions": conditions})
            except CelError as error:
                yield f"{verdict}: {error}"
                continue
            if found is not (verdict == healthy):
                yield f"{verdict} is {found} where Ready is {status}"
