"""Addresses of Services that stay while pods come and go: what kube-proxy does, on loopback.

A connection goes to the pod that is behind the Service when it is opened, and stays with it until
one side closes it. Behind a Service without a pod nobody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

_LOOPBACK = "127.0.0.1"
_BUFFER = 2**16


class ServiceProxy:
    """The ports of all Services of a stack, served by one thread until `close`."""

    def __init__(self) -> None:
        self._targets: dict[int, int] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="services", daemon=True)
        self._thread.start()

    def lead(self, port: int, target: int | None) -> None:
        """Let new connections to a port go to another; None: let nobody listen.

        Raises:
            OSError: Another program has the port.
        """
        self._run(self._lead(port, target))

    def close(self) -> None:
        """End all connections, and listen nowhere."""
        if self._loop.is_closed():
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _lead(self, port: int, target: int | None) -> None:
        if target is None:
            self._targets.pop(port, None)
            if server := self._servers.pop(port, None):
                await self._stop(server)
            return
        self._targets[port] = target
        if port not in self._servers:

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = self._loop.create_task(self._connect(port, reader, writer))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
                # However it ends: it may be ended before it has begun.
                task.add_done_callback(lambda _: writer.transport.abort())

            self._servers[port] = await asyncio.start_server(accept, _LOOPBACK, port)

    async def _stop(self, server: asyncio.Server) -> None:
        """Listen no more; whoever is being accepted still is, which a closed server refuses."""
        for each in server.sockets:
            self._loop.remove_reader(each.fileno())
        await asyncio.sleep(0)
        server.close()

    async def _close(self) -> None:
        for server in self._servers.values():
            await self._stop(server)
        # asyncio's own tasks, which are accepting somebody, end by themselves, and become ours.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._connections:
                task.cancel()
            await asyncio.wait(others)
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # transports close in the loop's next turn

    async def _connect(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, KeyError):
            inner, outer = await asyncio.open_connection(_LOOPBACK, self._targets[port])
            try:
                await asyncio.gather(_pump(reader, outer), _pump(inner, writer))
            finally:
                outer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends, and that it has ended."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_BUFFER):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
        return
    writer.transport.abort()  # a reset is passed on as one
