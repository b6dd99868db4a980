"""A deployment in a Kubernetes cluster that somebody else made: found, asked, and left as it was.

What it consists of is read from the cluster: the observability release by its labels, the tenants
by their Alloys. Ports are forwarded unless addresses are given. Nothing is created or changed but
the proof's own telemetry, which stays until it is older than the tenant's retention.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from stackproof.errors import StackproofError
from stackproof.kube.client import ApiError, Kube, Object, is_ready, why_not
from stackproof.model import READS, Backend
from stackproof.repo.versions import image_version

from . import provisioning, remote
from .base import FromCharts, FromOutside, last_errors
from .forward import Forward

#: The labels that our charts give; see the templates' selectorLabels.
_NAME = "app.kubernetes.io/name"
_COMPONENT = "app.kubernetes.io/component"
_LGTM = f"{_NAME}=lgtm"
_ALLOYS = f"{_NAME}=open-webui-stack,{_COMPONENT}=alloy"
#: The pods that the proof rests on.
_PROVEN = f"{_COMPONENT} in (alloy,gateway,mimir,loki,tempo)"

_GRPC, _HTTP = 4317, 4318
_GATEWAY_PORT = 8080

_HEALTH_S = 1.0
"""Health is asked several times a second, and is this old at most."""

#: An address as a pod names it, in Grafana's data sources.
_SERVICE = re.compile(r"http://([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.cluster\.local)?:(\d+)")


@dataclass(frozen=True, slots=True)
class Collector:
    """A tenant's Alloy, as it was found."""

    tenant: str
    namespace: str
    service: str
    workload: Object


class ClusterStack(FromCharts, FromOutside):
    """A `Stack` in an existing cluster. Entering it finds the deployment.

    Args:
        kube: The cluster.
        in_cluster: Services are called by their own names; else their ports are forwarded.
        gateway_url: The gateway, where it is reached otherwise.
    """

    provider = "cluster"

    def __init__(
        self, kube: Kube, *, in_cluster: bool = False, gateway_url: str | None = None
    ) -> None:
        self.kube = kube
        self._in_cluster = in_cluster
        self._gateway_url = gateway_url
        self.namespace = ""
        """Of the observability release."""
        self._collectors: dict[str, Collector] = {}
        self._gateway = True
        self._forwards: dict[tuple[str, str, int], Forward] = {}
        self._health: tuple[float, tuple[str, ...]] = (0.0, ())

    # --- life ---

    def __enter__(self) -> Self:
        try:
            self.find()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the forwarding of ports, and idle connections."""
        while self._forwards:
            self._forwards.popitem()[1].close()
        self.kube.close()

    def find(self) -> None:
        """Find the releases in the cluster.

        Raises:
            StackproofError: There is no observability release, or no tenant's Alloy.
        """
        services = self.kube.listed("v1", "Service", labels=_LGTM)
        spaces = sorted({each["metadata"]["namespace"] for each in services})
        if len(spaces) != 1:
            raise StackproofError(
                f"charts/lgtm is installed in {', '.join(spaces) or 'no namespace'}",
                where=self.kube.where,
                todo="Exactly one namespace must have Services with the label "
                "app.kubernetes.io/name=lgtm.",
            )
        self.namespace = spaces[0]
        self._gateway = any(each["metadata"]["name"] == "gateway" for each in services)
        found = [
            _collector(each) for each in self.kube.listed("apps/v1", "Deployment", None, _ALLOYS)
        ]
        if not found:
            raise StackproofError(
                "no tenant's Alloy runs here",
                where=self.kube.where,
                todo=f"It must be a Deployment with the labels {_ALLOYS}.",
            )
        self._collectors = {each.tenant: each for each in self.in_order(found)}

    def in_order(self, found: Sequence[Collector]) -> Sequence[Collector]:
        """Return the tenants' collectors in the order of `tenants`: by name."""
        return sorted(found, key=lambda each: each.tenant)

    # --- what the proof asks ---

    @property
    def name(self) -> str:
        """The context."""
        return self.kube.context

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants that have an Alloy."""
        return tuple(self._collectors)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where the releases are: the observability release first."""
        return self.namespace, *(each.namespace for each in self._collectors.values())

    def collector(self, tenant: str) -> Collector:
        """Return a tenant's Alloy.

        Raises:
            StackproofError: It has none.
        """
        if tenant not in self._collectors:
            raise StackproofError(
                f"tenant {tenant} has no Alloy",
                where=self.kube.where,
                todo=f"There are: {', '.join(self._collectors) or 'none'}.",
            )
        return self._collectors[tenant]

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of each component's image that runs."""
        found: dict[str, str] = {}
        for namespace in self.namespaces:
            for pod in self.kube.pods(namespace, _COMPONENT):
                for container in pod["spec"]["containers"]:
                    name = pod["metadata"]["labels"][_COMPONENT]
                    found.setdefault(name, image_version(container["image"]))
        return dict(sorted(found.items()))

    @property
    def gateway_url(self) -> str | None:
        """Base URL of the gateway, None where the deployment has none."""
        if not self._gateway:
            return None
        if self._gateway_url:
            return self._gateway_url.rstrip("/")
        return f"http://{self.address('gateway', self.namespace, _GATEWAY_PORT)}"

    def otlp_grpc(self, tenant: str) -> str:
        """`host:port` of the tenant's Alloy for OTLP over gRPC."""
        found = self.collector(tenant)
        return self.address(found.service, found.namespace, _GRPC)

    def otlp_http(self, tenant: str) -> str:
        """Base URL of the tenant's Alloy for OTLP over HTTP."""
        found = self.collector(tenant)
        return f"http://{self.address(found.service, found.namespace, _HTTP)}"

    def backend_url(self, backend: Backend) -> str:
        """Base URL of a backend, past the gateway; refused where the data is somebody else's."""
        if self.gateway_url is not None and not self.disposable:
            raise StackproofError(
                "no backend is asked past the gateway, since its data is somebody else's",
                where=self.kube.where,
                todo="Only a stack that is thrown away afterwards may be asked so.",
            )
        read = READS[backend]
        return f"http://{self.address(backend.value, self.namespace, read.port)}{read.direct}"

    def data_sources(self) -> Sequence[Mapping[str, object]]:
        """Grafana's data sources, with the variables of its pod and addresses that work here."""
        grafana = self.kube.find("apps/v1", "Deployment", "grafana", self.namespace)
        if grafana is None:
            return ()
        (container,) = grafana["spec"]["template"]["spec"]["containers"]
        environment = self._environment(container)
        text = self.kube.get("v1", "ConfigMap", "grafana-datasources", self.namespace)["data"]
        return provisioning.read(text["datasources.yaml"], environment)

    def health(self) -> Sequence[str]:
        """The pods of the releases that are not ready, and what does not answer at all."""
        asked, found = self._health
        if time.monotonic() - asked > _HEALTH_S:
            try:
                found = tuple(self._unhealthy())
            except StackproofError as error:
                found = (str(error),)
            self._health = (time.monotonic(), found)
        return found

    def log_errors(self) -> Sequence[str]:
        """The last errors in each component's log, and of the forwarded ports."""
        found = [
            f"{forward.where}: {forward.last_error}"
            for forward in self._forwards.values()
            if forward.last_error
        ]
        for namespace in self.namespaces:
            for pod in self.kube.pods(namespace, _PROVEN):
                found += self._bad_lines(pod)
        return found

    # --- how it is reached ---

    def address(self, service: str, namespace: str, port: int) -> str:
        """Return `host:port` under which a port of a Service is reached from here."""
        if self._in_cluster:
            return f"{service}.{namespace}.svc:{port}"
        key = (namespace, service, port)
        if key not in self._forwards:
            target = self._target(service, namespace, port)
            self._forwards[key] = Forward(
                self.kube, namespace, target, self._ready_pod(service, namespace)
            )
        return f"127.0.0.1:{self._forwards[key].local_port}"

    def _target(self, service: str, namespace: str, port: int) -> int:
        """Return the port of the pods behind a Service's port."""
        found = self.kube.get("v1", "Service", service, namespace)
        ports = {each["port"]: each.get("targetPort", port) for each in found["spec"]["ports"]}
        target = ports.get(port)
        if isinstance(target, int):
            return target
        for pod in self.kube.pods(namespace, _selector(found)):
            for container in pod["spec"]["containers"]:
                for each in container.get("ports") or ():
                    if each["name"] == target:
                        return int(each["containerPort"])
        raise StackproofError(
            f"port {port} of Service {service} leads to no pod", where=f"namespace {namespace}"
        )

    def _ready_pod(self, service: str, namespace: str) -> Callable[[], str]:
        selector = _selector(self.kube.get("v1", "Service", service, namespace))
        chosen = ""
        asked = 0.0

        def ready() -> str:
            # Not for each connection: a proof opens dozens.
            nonlocal chosen, asked
            if not chosen or time.monotonic() - asked > _HEALTH_S:
                pods = [p for p in self.kube.pods(namespace, selector) if is_ready(p)]
                if not pods:
                    raise StackproofError("no pod is ready", where=f"Service {namespace}/{service}")
                names = [str(pod["metadata"]["name"]) for pod in pods]
                chosen = chosen if chosen in names else names[0]
                asked = time.monotonic()
            return chosen

        return ready

    def password(self, user: str) -> str:
        """Return the administrator's password from its Secret, or a tenant's own.

        A tenant's is from the environment, else from its Alloy's Secret.
        """
        if user == "admin":
            return self.kube.secret("gateway-admin", self.namespace)["password"]
        variable = remote.variable(user)
        if given := os.environ.get(variable):
            return given
        found = self.collector(user)
        for volume in found.workload["spec"]["template"]["spec"]["volumes"]:
            for item in volume.get("secret", {}).get("items") or ():
                if item["path"] == "gateway-password":
                    name = volume["secret"]["secretName"]
                    return self._secret_value(name, found.namespace, item["key"], user, variable)
        raise StackproofError(
            f"the Alloy of {user} mounts no gateway-password",
            where=f"namespace {found.namespace}",
            todo=f"Put the tenant's password into the environment as {variable}.",
        )

    def _secret_value(self, name: str, namespace: str, key: str, tenant: str, variable: str) -> str:
        try:
            return self.kube.secret(name, namespace)[key].strip()
        except ApiError as error:
            raise StackproofError(
                f"the password of {tenant} may not be read: {error.reason}",
                where=f"Secret {namespace}/{name}",
                todo=f"Put it into the environment as {variable}.",
            ) from error

    def _environment(self, container: Object) -> dict[str, str]:
        """Return a container's environment, with addresses that work here."""
        found: dict[str, str] = {}
        for entry in container.get("env") or ():
            value = entry.get("value", "")
            if key := (entry.get("valueFrom") or {}).get("secretKeyRef"):
                value = self.kube.secret(key["name"], self.namespace).get(key["key"], "")
            found[entry["name"]] = _SERVICE.sub(self._reachable, value)
        return found

    def _reachable(self, found: re.Match[str]) -> str:
        service, namespace, port = found[1], found[2], int(found[3])
        if service == "gateway" and self.gateway_url:
            return self.gateway_url
        return f"http://{self.address(service, namespace, port)}"

    def _unhealthy(self) -> Iterator[str]:
        for namespace in self.namespaces:
            for pod in self.kube.pods(namespace, _PROVEN):
                if not is_ready(pod):
                    name = pod["metadata"]["labels"][_COMPONENT]
                    why = "; ".join(why_not(pod)) or "not ready"
                    yield f"{name} in {namespace}: {why}"

    def _bad_lines(self, pod: Object) -> list[str]:
        metadata = pod["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        container = pod["spec"]["containers"][0]["name"]
        try:
            text = self.kube.logs(name, namespace, container, lines=500)
        except StackproofError:
            return []
        return [f"{namespace}/{name}: {line}" for line in last_errors(text)]


def _collector(workload: Object) -> Collector:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    values = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    metadata = workload["metadata"]
    # The chart names the Deployment and its Service alike.
    return Collector(values["TENANT_ID"], metadata["namespace"], metadata["name"], workload)


def _selector(service: Object) -> str:
    return ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
