"""Ports of pods on this machine, as `kubectl port-forward` makes them.

The connection ends inside the pod, so no NetworkPolicy sees it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from stackproof.errors import StackproofError
from stackproof.kube.client import Kube

_BUFFER = 65536


class Forward:
    """A loopback port whose connections go to a port of a pod.

    Args:
        kube: The cluster.
        namespace: The pod's.
        port: The pod's port.
        pod: Names the pod; asked for each connection, so that a pod may be replaced meanwhile.
    """

    def __init__(self, kube: Kube, namespace: str, port: int, pod: Callable[[], str]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._port = port
        self._pod = pod
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.last_error = ""
        """Why the last connection failed, for messages."""
        threading.Thread(target=self._accept, name=self.where, daemon=True).start()

    @property
    def where(self) -> str:
        """What it leads to, for messages."""
        return f"port-forward {self._namespace}:{self._port}"

    @property
    def local_port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Take no more connections; those that there are end with their clients."""
        # close alone would leave the thread in accept
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                opened = self._open()
            except (StackproofError, OSError) as error:
                self.last_error = str(error)
                return  # the client sees that the connection ended
            remote = opened.socket(self._port)
            back = threading.Thread(target=_copy, args=[remote, client], daemon=True)
            back.start()
            _copy(client, remote)
            back.join()
            # Its own thread then closes the connection: two threads in OpenSSL end the process.
            remote.close()

    def _open(self) -> Any:
        from kubernetes.client.exceptions import ApiException
        from kubernetes.stream import ws_client

        pod = self._pod()
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod}/portforward"
        try:
            return ws_client.portforward_call(  # type: ignore[no-untyped-call]
                self._kube.configuration,
                "GET",
                f"{self._kube.configuration.host}{path}",
                headers=self._kube.headers(),
                query_params=[("ports", str(self._port))],
            )
        except ApiException as error:
            raise StackproofError(f"{error.reason}", where=self.where) from error


def _copy(source: Any, target: Any) -> None:
    """Copy until the source ends, then tell the target so, which may still have much to say."""
    with contextlib.suppress(OSError):
        while data := source.recv(_BUFFER):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
