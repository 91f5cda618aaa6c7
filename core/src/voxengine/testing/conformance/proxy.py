"""A proxy on this machine that puts network faults between a provider and its service."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from voxengine.errors import ConfigError

__all__ = ["FaultProxy", "closed_port_url"]

_ROUNDS: Final = 4
"""Of the loop, within which it hands over a connection that it has taken. One whose server was closed meanwhile
it would leave open."""


class FaultProxy:
    """Carries bytes between clients and a service, until it is told not to. Use as an async context manager.

    Args:
        url: Address of the service, ``ws://`` or ``http://``: what is encrypted cannot be carried under
            another name.

    Raises:
        ConfigError: The address is none of these.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "http") or not parts.hostname:
            raise ConfigError("A FaultProxy takes an address that begins with ws:// or http://.")
        self._parts = parts
        self._target = (parts.hostname, parts.port or 80)
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._server: asyncio.Server | None = None
        self._is_over = False
        self._is_cut_off = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The address to give to the provider in place of the service's."""
        if self._server is None:
            raise ConfigError("The proxy does not listen; use it in `async with`.")
        port = self._server.sockets[0].getsockname()[1]
        return urlunsplit(self._parts._replace(netloc=f"127.0.0.1:{port}"))

    async def __aenter__(self) -> FaultProxy:
        listener = socket.socket()
        # Small, so that a client that writes on is held back soon.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        listener.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=8_192)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        try:
            for _round in range(_ROUNDS):
                await asyncio.sleep(0)
        finally:
            if self._server is not None:
                self._server.close()
            self.cut()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Read no more from clients; what the service sends still arrives."""
        self._may_read.clear()

    def cut(self) -> None:
        """Break every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()

    def cut_off(self) -> None:
        """Break every connection, and each that is made from now on."""
        self._is_cut_off = True
        self.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine function: the task that asyncio would make of it is known to us only at its first step,
        # and asyncio of Python 3.11 complains about one that was cancelled.
        if self._is_over or self._is_cut_off:
            writer.transport.abort()
            return
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="fault proxy")
        self._tasks.add(task)

        def on_end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._writers.discard(writer)
            if task.cancelled():  # Perhaps before its first step.
                writer.transport.abort()

        task.add_done_callback(on_end)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._join(reader, writer)
        except OSError:
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service_reader, service_writer = await asyncio.open_connection(*self._target)
        both = {writer, service_writer}
        self._writers |= both
        up = asyncio.ensure_future(self._carry(reader, service_writer, self._may_read))
        down = asyncio.ensure_future(self._carry(service_reader, writer, None))
        try:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            for each in both:
                each.close()
            self._writers -= both

    @staticmethod
    async def _carry(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may_read: asyncio.Event | None
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                if may_read is not None:
                    await may_read.wait()
                data = await reader.read(8_192)
                if not data:
                    return
                writer.write(data)
                await writer.drain()


def closed_port_url(url: str) -> str:
    """Return an address like this one on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return urlunsplit(urlsplit(url)._replace(netloc=f"127.0.0.1:{port}"))
