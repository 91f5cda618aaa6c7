"""Runs an emulator: listens on loopback, checks keys, does the hand-shakes and acts out what fails there.

``voxengine emulate`` is this in a process of its own; tests use :func:`serve` or
:meth:`voxengine.testing.emulator.Emulator.running`.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import ipaddress
import logging
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from voxengine.errors import ConfigError, ErrorCode
from voxengine.testing.emulator import (
    Emulator,
    HttpRequest,
    HttpResponse,
    HttpRoute,
    SessionHandler,
)
from voxengine_mock.faults import Fault
from voxengine_mock.front import Front
from voxengine_mock.misbehaving import CLOSED, FaultPlan, Refusal, refusal
from voxengine_mock.reading import Source, number
from voxengine_mock.reception import ReceptionFile, SessionLog
from voxengine_mock.script import Script, ScriptRun
from voxengine_mock.script_reading import read_file, read_mapping
from voxengine_mock.server_socket import ServerSocket
from voxengine_mock.tls import Authority, make_authority

__all__ = ["ServeOptions", "Server", "running", "script_of", "serve"]

_STOP_S: Final = 3.0
_BACKLOG: Final = 1024
_logger = logging.getLogger("voxengine_mock.harness")
_Route = TypeVar("_Route")


@attrs.frozen(kw_only=True)
class ServeOptions:
    """How a server listens."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any that is free."""
    allow_remote: bool = False
    """Listen also where other machines can reach it."""
    tls_ca: str | Path | None = None
    """Where the authority's certificate is written; None: a temporary file, if at all."""
    tls: bool = attrs.field()
    """Speak TLS; by default where ``tls_ca`` is given."""
    log: str | Path | None = None
    """The reception log; WAV files go beside it."""
    handshake_s: float = 10.0
    """For a whole request to arrive, and for the hand-shake of TLS before it."""
    max_connections: int = 2000
    max_message_bytes: int | None = None
    """None: as many as the emulator takes."""

    @tls.default
    def _tls(self) -> bool:
        return self.tls_ca is not None


def script_of(emulator: Emulator) -> Script:
    """Return the script that an emulator was given, over its default one. Raises ConfigError."""
    base = read_mapping(f"the default script of {emulator.name}", emulator.default_script)
    given: dict[str, Any] = {}
    if isinstance(emulator.script, str | Path):
        given = read_file(emulator.script)
    elif emulator.script is not None:
        given = read_mapping("script", emulator.script)
    if emulator.speed is not None:
        given["pace"] = number(0.1, 1000, "times real time")(Source("emulator"), ("speed",), emulator.speed)
    both = {key: given.get(key, ()) + base.get(key, ()) for key in ("rules", "faults")}
    return Script(**{**base, **given, **both}).with_faults(emulator.faults)


@asynccontextmanager
async def serve(emulator: Emulator, **options: Any) -> AsyncIterator[Server]:
    """Listen within the block; ``options`` are the fields of :class:`ServeOptions`.

    Raises:
        ConfigError: An option or the script is wrong, or the address cannot be listened on.
    """
    server = Server(emulator, ServeOptions(**options))
    try:
        await server.start()
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def running(emulator: Emulator, **options: Any) -> AsyncIterator[str]:
    """The same, with the URL alone."""
    async with serve(emulator, **options) as server:
        yield server.url


class Server:
    """An emulator that listens. Made by :func:`serve`."""

    def __init__(self, emulator: Emulator, options: ServeOptions) -> None:
        self.emulator = emulator
        self.options = options
        self.handshake_s = options.handshake_s
        self.max_message_bytes = options.max_message_bytes or emulator.max_message_bytes
        self.subprotocols = emulator.subprotocols
        self.script = script_of(emulator)
        self.port = 0
        self.n_connections = 0
        """Accepted so far, of any kind."""
        self.ca_file: Path | None = None
        self._plan = FaultPlan(self.script)
        self._run = ScriptRun(self.script)
        self._sockets = emulator.websocket_routes()
        self._plain = {("GET", "/health"): HttpRoute(self._health, needs_key=False), **emulator.http_routes()}
        self._fronts: set[Front] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._log: ReceptionFile | None = None
        self._folder: str | None = None
        self._someone_left = asyncio.Event()
        self._is_closing = False

    @property
    def url(self) -> str:
        """Where a client connects to."""
        return f"{'wss' if self.options.tls else 'ws'}://{self.address}{self.emulator.url_path}"

    @property
    def http_url(self) -> str:
        """The same for plain requests, without a path."""
        return f"{'https' if self.options.tls else 'http'}://{self.address}"

    @property
    def address(self) -> str:
        """Host and port."""
        host = self.options.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def n_open(self) -> int:
        """Connections that are open now."""
        return len(self._fronts)

    @property
    def n_sessions(self) -> int:
        """Requests for a WebSocket so far, refused ones included."""
        return self._plan.n_sessions

    async def until_open(self, n_at_most: int) -> None:
        """Wait until no more than so many connections are open."""
        while len(self._fronts) > n_at_most:
            self._someone_left.clear()
            await self._someone_left.wait()

    # -- listening --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises ConfigError; then nothing is left open once :meth:`close` was called."""
        options = self.options
        _check_host(options.host, allow_remote=options.allow_remote)
        authority: Authority | None = None
        if options.tls:
            alpn = self.emulator.alpn
            authority = await asyncio.to_thread(make_authority, options.host, alpn)
            self.ca_file = self._write_certificate(authority.certificate)
        if options.log is not None:
            self._log = ReceptionFile(options.log)
        # A name may stand for several addresses, and each would get a port of its own.
        host = "127.0.0.1" if options.host == "localhost" else options.host
        tls: dict[str, Any] = {}
        if authority is not None:
            tls = {"ssl": authority.context, "ssl_handshake_timeout": options.handshake_s}
            tls["ssl_shutdown_timeout"] = 1.0
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                lambda: Front(self), host, options.port, backlog=_BACKLOG, **tls
            )
        except (OSError, OverflowError) as error:
            raise _cannot_listen(options.host, options.port, error) from None
        self.port = self._listener.sockets[0].getsockname()[1]

    def _write_certificate(self, certificate: bytes) -> Path:
        target = self.options.tls_ca
        if target is None:
            self._folder = tempfile.mkdtemp(prefix="voxengine-emulate-")
            target = Path(self._folder, "ca.pem")
        path = Path(target)
        try:
            path.write_bytes(certificate)
        except OSError as error:
            raise ConfigError(
                f"The certificate cannot be written to {str(target)!r}: {error.strerror}."
            ) from None
        return path.absolute()

    async def close(self) -> None:
        """Stop listening and end every session with 1001. Leaves nothing open."""
        self._is_closing = True
        if self._listener is not None:
            self._listener.close()
        sockets = [front.socket for front in self._fronts if front.socket is not None]
        for front in self._fronts:
            if front.socket is None:
                front.transport.abort()
        closing = (socket.close(1001, "the emulator stops") for socket in sockets)
        await asyncio.gather(*closing, return_exceptions=True)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_STOP_S):
                await self.until_open(0)
                if self._listener is not None:
                    await self._listener.wait_closed()
        except TimeoutError:
            for front in self._fronts:
                front.transport.abort()
        if self._log is not None:
            self._log.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- what connections share (see ``front.House``) ----------------------------------------------

    def arrived(self, front: Front) -> HttpResponse | None:
        """Count a connection; return an answer to refuse it with."""
        self._fronts.add(front)
        self.n_connections += 1
        if len(self._fronts) > self.options.max_connections or self._is_closing:
            if self._log is not None:
                self._log.write({"event": "refused", "status": 503})
            answer = self.emulator.refuse(503, ErrorCode.UNAVAILABLE.value, "Too many connections.")
            return _with_header(answer, "Retry-After", "1")
        return None

    def refused(self, status: int, request: HttpRequest | None) -> None:
        """Note that a request was refused; None when it could not be read."""
        if self._log is not None:
            entry = {} if request is None else {"path": request.path}
            self._log.write({"event": "refused", "status": status, **entry})

    def left(self, front: Front) -> None:
        """A connection is gone."""
        self._fronts.discard(front)
        self._someone_left.set()

    def other_protocol(self, alpn: str) -> asyncio.Protocol:
        """Return what serves a connection that is not HTTP/1.1."""
        return self.emulator.make_protocol(alpn)

    def start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a connection's task."""
        task = asyncio.get_running_loop().create_task(work, name=f"emulator {self.emulator.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def meet(self, front: Front, request: HttpRequest) -> None:
        """Serve a request. Never raises: what an emulator does wrong costs one connection."""
        try:
            if request.method == "GET" and "websocket" in request.headers.get("upgrade", "").lower():
                await self._meet_socket(front, request)
            else:
                front.respond(await self._meet_plain(request))
        except CLOSED:
            pass
        except Exception:
            _logger.exception("The emulator %r failed to answer a request.", self.emulator.name)
            self.refused(500, request)
            front.respond(self.emulator.refuse(500, ErrorCode.UNAVAILABLE.value, "Internal error."))

    # -- plain requests ----------------------------------------------------------------------------

    async def _meet_plain(self, request: HttpRequest) -> HttpResponse:
        methods = {method for method, _ in self._plain}
        route = _find({path: r for (m, path), r in self._plain.items() if m == request.method}, request.path)
        if route is None:
            if _find(self._sockets, request.path) is not None and request.method == "GET":
                answer = self._refuse(Refusal(426, ErrorCode.INVALID_REQUEST, "Ask for a WebSocket here."))
                return _with_header(answer, "Upgrade", "websocket")
            for method in methods - {request.method}:
                if _find({p: r for (m, p), r in self._plain.items() if m == method}, request.path):
                    text = "That method is not taken here."
                    return self._refuse(Refusal(405, ErrorCode.INVALID_REQUEST, text))
            return self._refuse(Refusal(404, ErrorCode.NOT_FOUND, "There is nothing at this path."))
        if route.needs_key and not self._is_key(request):
            return self._refuse(_WRONG_KEY)
        answer = await route.handler(request)
        if self._log is not None:
            entry = {"method": request.method, "path": request.path, "n_bytes": len(request.body)}
            self._log.write({"event": "request", **entry, "status": answer.status})
        return answer

    async def _health(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse.of_json({"emulator": self.emulator.name, "status": "ready"})

    def _is_key(self, request: HttpRequest) -> bool:
        key = self.emulator.key_of(request)
        return key is not None and hmac.compare_digest(key.encode(), self.emulator.key.encode())

    def _refuse(self, why: Refusal) -> HttpResponse:
        answer = self.emulator.refuse(why.status, why.code.value, why.message)
        if why.retry_after_s is not None:
            answer = _with_header(answer, "Retry-After", f"{why.retry_after_s:g}")
        return answer

    # -- sessions ----------------------------------------------------------------------------------

    async def _meet_socket(self, front: Front, request: HttpRequest) -> None:
        session_number = self._plan.next_session()
        handler = _find(self._sockets, request.path)
        await asyncio.sleep(self._run.wait_s(self.script.delays.handshake_ms))
        why: Refusal | None = None
        if handler is None:
            why = Refusal(404, ErrorCode.NOT_FOUND, "There is no session at this path.")
        else:
            fault = self._plan.at_handshake(session_number)
            if fault is not None:
                await asyncio.sleep(fault.at.after_ms / 1000)
                if fault.do in ("http", "quota"):
                    why = refusal(fault)
                elif not await self._fail_handshake(front, fault):
                    return
        if why is None and not self._is_key(request):
            why = _WRONG_KEY
        if why is not None or handler is None:
            assert why is not None
            front.respond(self._refuse(why))
            if self._log is not None:
                entry = {"session": session_number, "event": "refused", "status": why.status}
                self._log.write({**entry, "path": request.path})
            return
        await self._talk(front, request, session_number, handler)

    async def _fail_handshake(self, front: Front, fault: Fault) -> bool:
        """Do what goes wrong, and return whether the hand-shake goes on after it."""
        if fault.do == "stall":
            if fault.for_s is None:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(fault.for_s or 0.0)
            return True
        if fault.do == "garbage":
            noise = random.Random(self.script.seed).randbytes(256)
            front.write_and_close(noise.replace(b"\n", b" ") + b"\r\n\r\n")
        else:
            front.cut()
        return False

    async def _talk(
        self, front: Front, request: HttpRequest, session_number: int, handler: SessionHandler
    ) -> None:
        protocol = front.upgrade()
        if protocol is None:
            return
        log: SessionLog | None = None
        if self._log is not None:
            log = self._log.session(session_number, request)
        socket = ServerSocket(front.transport, protocol, request, self._plan, session_number, log)
        front.become(socket)
        code, reason = 1000, ""
        try:
            await handler(socket)
        except CLOSED:
            pass
        except Exception:
            _logger.exception("A session of the emulator %r failed and ends.", self.emulator.name)
            code, reason = 1011, "internal error"
        finally:
            await socket.close(code, reason)
            if log is not None:
                log.closed(socket.close_code, socket.close_reason)


_WRONG_KEY: Final = Refusal(401, ErrorCode.AUTHENTICATION, "The key is missing or wrong.")


def _find(routes: Mapping[str, _Route], path: str) -> _Route | None:
    if path in routes:
        return routes[path]
    matching = (p for p in routes if p.endswith("*") and path.startswith(p[:-1]))
    best = max(matching, key=len, default=None)
    return None if best is None else routes[best]


def _with_header(response: HttpResponse, name: str, value: str) -> HttpResponse:
    return attrs.evolve(response, headers={**response.headers, name: value})


def _check_host(host: str, *, allow_remote: bool) -> None:
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback and not allow_remote:
        raise ConfigError(
            f"An emulator on {host} could be reached by other machines, and its key is no secret. "
            "Use 127.0.0.1, or allow it: --allow-remote on the command line, allow_remote=True in Python."
        )


def _cannot_listen(host: str, port: int, error: Exception) -> ConfigError:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return ConfigError(f"Port {port} of {host} is in use. Give another one, or 0 for any that is free.")
    if code == errno.EACCES:
        return ConfigError(f"Port {port} of {host} may not be listened on by this user. Try one above 1023.")
    if isinstance(error, OverflowError):
        return ConfigError(f"{port} is no port. Ports go from 0 to 65535.")
    why = os.strerror(code) if isinstance(code, int) and code > 0 else "the name is not known"
    return ConfigError(f"{host}:{port} cannot be listened on: {why}.")
