"""What differs between the two clients, and which of them is used."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.core.transport.ends import answering, bare_server, port_of, read_request, upgrade
from voxengine.errors import AuthenticationFailed, ConfigError, ProviderError, RemoteProtocolError
from voxengine.testing import leak_check, virtual
from voxengine.transport import (
    WebSocketTransport,
    connect,
    connect_websocket,
    handshake_response,
    websocket,
)
from voxengine.transport.fast import PicowsTransport
from voxengine.transport.websocket import LibraryTransport

DATA = Path(__file__).with_name("data")


async def dial(port: int, **options: Any) -> WebSocketTransport:
    options = {"transport": "picows", **options}
    return await connect_websocket(f"ws://127.0.0.1:{port}/v1", provider="acme", **options)


# Which client


@pytest.mark.parametrize(
    ("transport", "kind"),
    [("auto", PicowsTransport), ("picows", PicowsTransport), ("websockets", LibraryTransport)],
)
@virtual
async def test_client_is_chosen_by_name_and_the_faster_by_itself(
    transport: str, kind: type[WebSocketTransport]
) -> None:
    async with serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0) as server:
        opened = await dial(port_of(server), transport=transport)
        await opened.close()

    assert type(opened) is kind


@pytest.mark.parametrize(("version", "said"), [("", "is not installed"), ("2.4.0", "is 2.4.0 here")])
@virtual
async def test_without_a_picows_that_was_tried_auto_takes_the_other_and_picows_says_what_to_install(
    version: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_picows_version", lambda: version)

    async with serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0) as server:
        opened = await dial(port_of(server), transport="auto")
        await opened.close()
        with pytest.raises(ConfigError, match=rf"{said}.*voxengine\[fast\]"):
            await dial(port_of(server))

    assert type(opened) is LibraryTransport


@virtual
async def test_auto_stays_with_websockets_where_picows_is_untried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0) as server:
        monkeypatch.setattr(sys, "platform", "win32")
        opened = await dial(port_of(server), transport="auto")
        monkeypatch.undo()
        await opened.close()

    assert type(opened) is LibraryTransport


@pytest.mark.parametrize(
    ("url", "proxy", "environment", "is_left"),
    [
        ("wss://api.acme.example/", "http://proxy.example:1", {}, True),
        ("wss://api.acme.example/", "auto", {"https_proxy": "http://proxy.example:1"}, True),
        (
            "wss://api.acme.example/",
            "auto",
            {"https_proxy": "http://proxy.example:1", "no_proxy": "acme.example"},
            False,
        ),
        ("wss://api.acme.example/", "auto", {}, False),
        ("wss://api.acme.example/", None, {"https_proxy": "http://proxy.example:1"}, False),
        ("ws://localhost/", "auto", {"https_proxy": "http://proxy.example:1"}, False),
        ("wss://api.acme.example/ü", "auto", {}, True),
    ],
)
async def test_what_only_websockets_can_dial_is_left_to_it(
    url: str, proxy: str, environment: dict[str, str], is_left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    async def note(name: str) -> None:
        used.append(name)
        raise ConnectionRefusedError

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(websocket, "connect", lambda *_, **__: note("websockets"))
    monkeypatch.setattr("aiofastnet.create_connection", lambda *_, **__: note("picows"))

    with pytest.raises(ProviderError):
        await connect_websocket(url, provider="acme", proxy=proxy, transport="picows")

    assert used == ["websockets" if is_left else "picows"]


# The hand-shake


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 43\r\n", [b'{"error":{"code":', b'"no_such_key","type":"x"', b"}}"]),
        (b"Transfer-Encoding: chunked\r\n", [b'11\r\n{"error":{"code":', b'\r\n13\r\n"no_such_key"', b"    }}\r\n0\r\n\r\n"]),
        (b"", [b'{"error":{"code":', b'"no_such_key"}}']),
    ],
    ids=["length", "chunked", "until the end"],
)  # fmt: skip
@virtual
async def test_body_of_a_refusal_is_waited_for(head: bytes, body: list[bytes]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 401 Unauthorized\r\n" + head + b"\r\n")
        for part in body:
            await asyncio.sleep(0.5)
            writer.write(part)
        writer.close()

    async with leak_check(), bare_server(talk) as port:
        with pytest.raises(AuthenticationFailed, match="no_such_key") as caught:
            await dial(port)

    answer = handshake_response(caught.value)
    assert answer is not None
    assert answer.json()["error"]["code"] == "no_such_key"


@virtual
async def test_endless_body_of_a_refusal_is_cut() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 503 Busy\r\n\r\n")
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with leak_check(), bare_server(talk) as port:
        with pytest.raises(ProviderError, match="503") as caught:
            await dial(port)

    answer = handshake_response(caught.value)
    assert answer is not None
    assert answer.body == b"x" * 4096


@pytest.mark.parametrize(
    "answer",
    [
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
        b"Sec-WebSocket-Protocol: live.9\r\n",
    ],
)
@pytest.mark.parametrize("client", ["picows", "websockets"])
@virtual
async def test_what_was_not_offered_is_refused(client: str, answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade(await read_request(reader))[:-2] + answer + b"\r\n")
        await reader.read()

    async with leak_check(), bare_server(talk) as port:
        with pytest.raises(RemoteProtocolError, match="no WebSocket hand-shake"):
            await dial(port, transport=client, subprotocols=["live.1"])


@pytest.mark.parametrize("n_steps", range(20))
def test_dialling_that_is_cancelled_at_any_step_leaves_no_failure_unseen(n_steps: int) -> None:
    problems: list[str] = []

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(str(context)))
        async with bare_server(silent) as port:
            dialling = loop.create_task(dial(port))
            for _ in range(n_steps):
                await asyncio.sleep(0)
            dialling.cancel()
            await asyncio.wait([dialling])
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())

    assert problems == []


@virtual
async def test_head_without_end_is_refused() -> None:
    async with leak_check(), answering(b"HTTP/1.1 101 OK\r\nX: " + b"y" * 20_000) as port:
        with pytest.raises(RemoteProtocolError, match="no WebSocket hand-shake"):
            await dial(port)


@virtual
async def test_user_of_the_address_is_sent_unless_a_header_says_otherwise() -> None:
    seen: list[str | None] = []

    async def note(ws: ServerConnection) -> None:
        assert ws.request is not None
        seen.append(ws.request.headers.get("Authorization"))

    async with serve(note, "127.0.0.1", 0) as server:
        url = f"ws://me:p%40ss@127.0.0.1:{port_of(server)}/"
        for headers in ({}, {"authorization": "Bearer x"}):
            opened = await connect_websocket(url, provider="acme", headers=headers, transport="picows")
            with pytest.raises(ProviderError):
                await opened.recv()

    assert seen == ["Basic bWU6cEBzcw==", "Bearer x"]


@virtual
async def test_close_and_silence_over_tls_leave_nothing_behind() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "server.pem")
    trusted = ssl.create_default_context(cafile=DATA / "authority.pem")

    async with leak_check():
        async with serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0, ssl=context) as server:
            opened = await connect_websocket(
                f"wss://localhost:{port_of(server)}/", provider="acme", ssl=trusted, transport="picows"
            )
            await asyncio.sleep(60)
            assert not opened.closed
            await opened.close()


# The keep-alive


@pytest.mark.parametrize("client", ["picows", "websockets"])
@virtual
async def test_message_that_takes_long_to_arrive_is_a_sign_of_life(client: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade(await read_request(reader)) + b"\x82\x7f")
        writer.write((100_000).to_bytes(8, "big"))
        for _ in range(20):  # Answers no ping: it is in the middle of a frame.
            await asyncio.sleep(3)
            writer.write(b"x" * 5000)
        await reader.read()

    async with bare_server(talk) as port:
        opened = await dial(port, transport=client, ping_interval_s=5, ping_timeout_s=4)
        assert await opened.recv() == b"x" * 100_000
        await opened.close()
