"""A Kubernetes cluster: the few requests that the suite makes, and waits with a deadline.

Objects are plain dicts, as in their YAML. What a kubeconfig says about servers and credentials is
the `kubernetes` package's to understand; kubectl is not needed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
import yaml

from stackproof import waiting
from stackproof.errors import StackproofError, UsageError

Object = Mapping[str, Any]
T = TypeVar("T")

#: Who owns the fields that we apply.
MANAGER = "stackproof"

_REQUEST_S = 30.0
_POLL_S = 0.5


class ApiError(StackproofError):
    """The API server refused a request."""

    def __init__(self, status: int, reason: str, where: str) -> None:
        super().__init__(f"HTTP {status}: {reason}", where=where)
        self.status = status
        self.reason = reason


def _refuse_missing(kubeconfig: Path | None) -> None:
    """Say where a kubeconfig was looked for: the client calls a missing one invalid."""
    usual = os.environ.get("KUBECONFIG") or "~/.kube/config"
    looked = [str(kubeconfig)] if kubeconfig else usual.split(os.pathsep)
    if not any(_is_file(each) for each in looked if each):
        raise StackproofError(
            "there is no kubeconfig",
            where=", ".join(looked),
            todo="Name another: --kubeconfig FILE, or the variable KUBECONFIG.",
        )


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except RuntimeError:  # there is no home directory
        return False


class Kube:
    """One context of a kubeconfig.

    Args:
        context: Its name; None for the current one.
        kubeconfig: The file; None for $KUBECONFIG or the usual place.
        in_cluster: This runs in a pod, whose ServiceAccount is used instead.

    Raises:
        StackproofError: There is no such file, or it cannot be used.
        UsageError: There is no such context.
    """

    def __init__(
        self,
        context: str | None = None,
        kubeconfig: Path | None = None,
        *,
        in_cluster: bool = False,
    ) -> None:
        from kubernetes import client as api
        from kubernetes import config  # half a second

        self.context = context or ("this one" if in_cluster else "the current context")
        self.where = f"cluster {self.context}"
        try:
            if in_cluster:
                configuration = api.Configuration()
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
                client = api.ApiClient(configuration)
            else:
                _refuse_missing(kubeconfig)
                client = config.new_client_from_config(  # type: ignore[no-untyped-call]
                    config_file=str(kubeconfig) if kubeconfig else None, context=context
                )
        except (config.ConfigException, OSError, yaml.YAMLError) as error:
            if context and str(error).endswith("/contexts list"):
                raise UsageError(
                    f"there is no context {context!r}",
                    where=str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"),
                    todo="`kubectl config get-contexts` shows what there is.",
                ) from error
            raise StackproofError(
                f"cannot be used: {error}",
                where=self.where,
                todo="`kubectl config get-contexts` shows what there is.",
            ) from error
        self.configuration = client.configuration
        self._client = client
        self._pool: urllib3.PoolManager = client.rest_client.pool_manager
        self._kinds: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Close idle connections; it can be used again."""
        self._pool.clear()

    # --- requests ---

    def headers(self) -> dict[str, str]:
        """Return the credentials of a request; a token is renewed where it has to be."""
        found: dict[str, str] = {}
        self._client.update_params_for_auth(found, [], ["BearerToken"], "", "", None)
        return found

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Any:
        """Ask the API server, return the JSON of its answer.

        Raises:
            ApiError: It refused.
            StackproofError: It cannot be reached.
        """
        text = self.text(method, path, body, query=query, content=content)
        return json.loads(text) if text else None

    def text(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> str:
        """As `request`, with the answer as it is: a log."""
        url = f"{self.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers={**self.headers(), "Content-Type": content},
                timeout=_REQUEST_S,
                retries=urllib3.Retry(connect=1, read=0, other=0, redirect=False),
            )
        except urllib3.exceptions.HTTPError as error:
            raise StackproofError(
                f"the API server at {self.configuration.host} cannot be reached: {error}",
                where=self.where,
                todo="Is the cluster up, and is this the right context?",
            ) from error
        said = answer.data.decode(errors="replace")
        if answer.status >= 400:
            with contextlib.suppress(ValueError):
                said = json.loads(said).get("message", said)
            raise ApiError(answer.status, said, f"{method} {path}")
        return said

    def path(self, api_version: str, kind: str, namespace: str | None = None) -> str:
        """Return the path under which the objects of a kind are.

        Raises:
            ApiError: The cluster has no such kind (404).
        """
        known = self._kinds.get(api_version, {})
        if kind not in known:
            known = {each["kind"]: each for each in self.kinds(api_version)}
            self._kinds[api_version] = known
        root = _root(api_version)
        if kind not in known:
            raise ApiError(404, f'no matches for kind "{kind}" in version "{api_version}"', root)
        found = known[kind]
        inside = f"/namespaces/{namespace}" if found["namespaced"] and namespace else ""
        return f"{root}{inside}/{found['name']}"

    def kinds(self, api_version: str) -> list[dict[str, Any]]:
        """Return the kinds of a version, each as the API describes it."""
        resources = self.request("GET", _root(api_version))["resources"]
        return [each for each in resources if "/" not in each["name"]]

    def path_of(self, found: Object) -> str:
        """Return the path of one object."""
        metadata = found["metadata"]
        path = self.path(found["apiVersion"], found["kind"], metadata.get("namespace", "default"))
        return f"{path}/{metadata['name']}"

    # --- objects ---

    def apply(self, wanted: Object) -> dict[str, Any]:
        """Make an object as it is wanted, or change it (server-side apply)."""
        done: dict[str, Any] = self.request(
            "PATCH",
            self.path_of(wanted),
            wanted,
            query={"fieldManager": MANAGER, "force": "true"},
            content="application/apply-patch+yaml",
        )
        return done

    def apply_all(self, wanted: Iterable[Object]) -> None:
        """Apply objects in order; a kind or a namespace that is not there yet is waited for."""
        for each in wanted:
            self.until(
                lambda each=each: self.apply(each) or True,  # type: ignore[misc]
                within_s=30,
                what=f"{each['kind']} {each['metadata']['name']} is taken",
                # A kind that was just defined, and a namespace that was just made, take a moment.
                retry=lambda error: error.status in {404, 409, 429, 500, 503},
            )

    def find(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> dict[str, Any] | None:
        """Return an object, None where there is none."""
        with _unless_missing():
            path = self.path(api_version, kind, namespace)
            found: dict[str, Any] = self.request("GET", f"{path}/{name}")
            return found
        return None

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> dict[str, Any]:
        """Return an object.

        Raises:
            StackproofError: There is none.
        """
        found = self.find(api_version, kind, name, namespace)
        if found is None:
            inside = f" in namespace {namespace}" if namespace else ""
            raise StackproofError(f"there is no {kind} {name}{inside}", where=self.where)
        return found

    def listed(
        self, api_version: str, kind: str, namespace: str | None = None, labels: str = ""
    ) -> list[dict[str, Any]]:
        """Return the objects of a kind; none where the cluster does not know the kind."""
        query = {"labelSelector": labels} if labels else None
        with _unless_missing():
            found = self.request("GET", self.path(api_version, kind, namespace), query=query)
            # A list leaves out what its members have in common.
            return [{"apiVersion": api_version, "kind": kind, **each} for each in found["items"]]
        return []

    def patch(self, found: Object, change: Object) -> dict[str, Any]:
        """Merge `change` into an object (JSON merge patch)."""
        done: dict[str, Any] = self.request(
            "PATCH", self.path_of(found), change, content="application/merge-patch+json"
        )
        return done

    def delete(
        self, found: Object, *, grace_s: int | None = None, propagation: str = "Background"
    ) -> None:
        """Delete an object; nothing happens where it is gone.

        Args:
            found: The object.
            grace_s: How long its pods may take to end [s]; None is what they say.
            propagation: What becomes of what it owns: Background, Foreground or Orphan.
        """
        query = {} if grace_s is None else {"gracePeriodSeconds": str(grace_s)}
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        with _unless_missing():
            self.request("DELETE", self.path_of(found), body, query=query)

    def secret(self, name: str, namespace: str) -> dict[str, str]:
        """Return the values of a Secret.

        Raises:
            StackproofError: There is none, or it may not be read.
        """
        data = self.get("v1", "Secret", name, namespace).get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    # --- pods ---

    def pods(self, namespace: str, labels: str = "") -> list[dict[str, Any]]:
        """Return the pods that are not being deleted."""
        return [
            pod
            for pod in self.listed("v1", "Pod", namespace, labels)
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def logs(
        self, pod: str, namespace: str, container: str, *, previous: bool = False, lines: int = 2000
    ) -> str:
        """Return the end of a container's log."""
        query = {"container": container, "tailLines": str(lines)}
        if previous:
            query["previous"] = "true"
        return self.text("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log", query=query)

    def execute(
        self,
        pod: str,
        namespace: str,
        container: str,
        argv: Sequence[str],
        *,
        may_fail: bool = False,
    ) -> str:
        """Run a program in a container, return what it printed.

        Raises:
            StackproofError: It does not start, does not end, or ends with another code than 0.
        """
        from kubernetes.stream import ws_client

        client = self._opened(pod, namespace, container, argv)
        try:
            client.run_forever(timeout=_REQUEST_S)
            # Before the rest is read, which forgets it.
            ended = json.loads(client.read_channel(ws_client.ERROR_CHANNEL) or "{}")
            said = str(client.read_all())
        finally:
            client.sock.shutdown()  # close() does nothing where the server was first
        is_code = ended.get("reason") == "NonZeroExitCode"
        if ended.get("status") != "Success" and not (may_fail and is_code):
            told = ended.get("message") or f"did not end within {_REQUEST_S:g} s"
            where = f"{argv[0]} in {namespace}/{pod}"
            raise StackproofError("\n".join(filter(None, [told, said])), where=where)
        return said

    def _opened(self, pod: str, namespace: str, container: str, argv: Sequence[str]) -> Any:
        """Return the websocket of a program that runs in a container."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.stream import ws_client

        query = [
            ("container", container),
            ("stdout", "true"),
            ("stderr", "true"),
            *(("command", word) for word in argv),
        ]
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        try:
            return ws_client.websocket_call(  # type: ignore[no-untyped-call]
                self.configuration,
                "GET",
                f"{self.configuration.host}{path}",
                headers=self.headers(),
                query_params=query,
                _preload_content=False,
            )
        except ApiException as error:
            raise StackproofError(f"exec failed: {error.reason}", where=path) from error

    # --- waiting ---

    def until(
        self,
        look: Callable[[], T | None],
        *,
        within_s: float,
        what: str,
        seen: Callable[[], str] = str,
        retry: Callable[[ApiError], bool] = lambda _: False,
    ) -> T:
        """Ask again and again until there is an answer.

        Args:
            look: Returns the answer, or something false while it is not there.
            within_s: Deadline [s].
            what: What is waited for, as a sentence: "the pods are ready".
            seen: Says what was seen last, for the message.
            retry: Says which refusals of the API server may pass.

        Raises:
            StackproofError: The deadline passed.
        """
        refused = ""

        def once() -> T | None:
            nonlocal refused
            try:
                return look()
            except ApiError as error:
                if not retry(error):
                    raise
                refused = str(error)
                return None

        found = waiting.until(once, within_s=within_s, every_s=_POLL_S)
        if found:
            return found
        last = seen() or refused
        raise StackproofError(
            f"{what}: not within {within_s:.0f} s" + (f"\n{last}" if last else ""), where=self.where
        )

    def rolled_out(self, namespaces: Iterable[str], *, within_s: float) -> None:
        """Wait until every Deployment, StatefulSet and DaemonSet has all of its pods ready.

        Raises:
            StackproofError: The deadline passed; it says what waits, and why.
        """
        namespaces = list(namespaces)
        self.until(
            lambda: not self.waiting(namespaces),
            within_s=within_s,
            what=f"all pods of {', '.join(namespaces)} are ready",
            seen=lambda: "\n".join(self.waiting(namespaces)),
        )

    def waiting(self, namespaces: Iterable[str]) -> list[str]:
        """Return a line for each workload that is not wholly rolled out, with its pods' reasons."""
        return [
            f"{namespace}/{workload['kind']}/{workload['metadata']['name']}: {problem}"
            for namespace in namespaces
            for kind in ("Deployment", "StatefulSet", "DaemonSet")
            for workload in self.listed("apps/v1", kind, namespace)
            if (problem := self._problem(workload))
        ]

    def _problem(self, workload: Object) -> str:
        if _is_rolled_out(workload):
            return ""
        metadata = workload["metadata"]
        selector = workload["spec"]["selector"]["matchLabels"]
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        reasons = [why for pod in self.pods(metadata["namespace"], labels) for why in why_not(pod)]
        return "; ".join(reasons) or "no pod yet"


def decoded(text: str) -> dict[str, Any]:
    """Return Helm's record of a release: JSON, gzipped, in base64 twice (Kubernetes' and its).

    Raises:
        StackproofError: It is something else.
    """
    try:
        packed = base64.b64decode(base64.b64decode(text))
        found: dict[str, Any] = json.loads(gzip.decompress(packed))
    except (binascii.Error, OSError, ValueError) as error:
        raise StackproofError(f"Helm's record of the release cannot be read: {error}") from None
    return found


@contextlib.contextmanager
def _unless_missing() -> Iterator[None]:
    """Leave the block where there is no such object or kind (404)."""
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def is_ready(pod: Object) -> bool:
    """Tell whether a pod is ready, as its Services see it."""
    conditions: Any = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _is_rolled_out(workload: Object) -> bool:
    """Tell whether the newest template runs, ready, in as many pods as are wanted, and no other."""
    status = workload.get("status") or {}
    if status.get("observedGeneration", 0) < workload["metadata"]["generation"]:
        return False
    if workload["kind"] == "DaemonSet":
        counted = ("desiredNumberScheduled", "numberReady", "updatedNumberScheduled")
        return len({status.get(count, 0) for count in counted}) == 1
    wanted = workload["spec"].get("replicas", 1)
    if wanted == 0:
        return bool(status.get("replicas", 0) == 0)
    counts = (status.get("readyReplicas"), status.get("updatedReplicas"), status.get("replicas"))
    if workload["kind"] == "StatefulSet":
        return set(counts) == {wanted} and status["currentRevision"] == status["updateRevision"]
    return set(counts) == {wanted}


def container_statuses(pod: Object) -> list[dict[str, Any]]:
    """Return what is known of a pod's containers, init containers first."""
    status = pod["status"]
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def why_not(pod: Object) -> Iterator[str]:
    """Say why a pod is not ready: what its containers wait for, else its conditions."""
    name = pod["metadata"]["name"]
    told = False
    for status in container_statuses(pod):
        for how in ("waiting", "terminated"):
            state = status["state"].get(how)
            if state and not (how == "terminated" and state.get("exitCode") == 0):
                told = True
                yield f"{name}: {state.get('reason', how)} {state.get('message', '')}".strip()
    for condition in pod["status"].get("conditions") or ():
        if condition["status"] == "False" and condition.get("message") and not told:
            yield f"{name}: {condition['message']}"
