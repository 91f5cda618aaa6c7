"""What only a socket can do wrong: the hand-shake, TLS, framing, silence and the end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from tests.core.transport.ends import (
    answering,
    bare_server,
    fill,
    frame,
    port_of,
    read_request,
    saying,
    upgrade,
)
from voxengine.codec import Wire
from voxengine.errors import (
    AuthenticationFailed,
    ConfigError,
    ConnectionLost,
    ErrorCode,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)
from voxengine.testing import leak_check, run_virtual, virtual
from voxengine.transport import (
    Transport,
    WebSocketTransport,
    check_headers,
    connect_websocket,
    framed,
    handshake_response,
    websocket,
)

DATA = Path(__file__).with_name("data")
SECRET = "sk-0123456789abcdef"


CLIENTS = ("websockets", "picows")
client = ""
"""Which client carries the sessions of these tests."""


@pytest.fixture(scope="module", params=CLIENTS, autouse=True)
def chosen_client(request: pytest.FixtureRequest) -> None:
    global client
    client = request.param


async def connect(url: str, **options: Any) -> WebSocketTransport:
    return await connect_websocket(url, provider="acme", transport=client, **options)  # type: ignore[arg-type]


async def dial(port: int, **options: Any) -> WebSocketTransport:
    url = f"ws://user:{SECRET}@127.0.0.1:{port}/v1/live?api-key={SECRET}"
    return await connect(url, headers={"X-Key": SECRET}, **options)


async def refusal(port: int, **options: Any) -> Any:
    """The error of a connect that fails; it must show no secret, nor must what it was raised from."""
    with pytest.raises(Exception) as caught:
        await dial(port, **options)
    error = caught.value
    assert SECRET not in f"{error} {error!r} {caught.getrepr(style='long', showlocals=False)}"
    return error


async def drain(transport: Transport) -> tuple[list[Wire], ProviderError]:
    """Everything until the loss, and the loss."""
    got: list[Wire] = []
    try:
        while True:
            got.append(await transport.recv())
    except ProviderError as exc:
        return got, exc


# Hand-shake


@pytest.mark.parametrize(
    ("response", "kind", "code", "recoverable"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\n", AuthenticationFailed, ErrorCode.AUTHENTICATION, False),
        (b"HTTP/1.1 403 Forbidden\r\n", ProviderError, ErrorCode.PERMISSION, False),
        (b"HTTP/1.1 404 Not Found\r\n", ProviderError, ErrorCode.NOT_FOUND, False),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 4\r\n", RateLimited, ErrorCode.RATE_LIMIT, True),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 4\r\n", ProviderError, ErrorCode.UNAVAILABLE, True),
        (b"HTTP/1.1 200 OK\r\n", RemoteProtocolError, ErrorCode.PROTOCOL, False),
    ],
)
@virtual
async def test_refused_hand_shake_is_mapped_and_its_body_kept(
    response: bytes, kind: type[ProviderError], code: ErrorCode, recoverable: bool
) -> None:
    body = b'{"error":{"code":"their_code","message":"about ' + SECRET.encode() + b'"}}'
    head = response + b"Content-Length: %d\r\n\r\n" % len(body)

    async with leak_check(), answering(head + body) as port:
        error = await refusal(port)

    assert type(error) is kind
    assert (error.code, error.recoverable, error.vendor_code) == (code, recoverable, "their_code")
    assert error.retry_after_s == (4.0 if b"Retry" in response else None)
    kept = handshake_response(error)
    assert kept is not None
    assert kept.body == body


@pytest.mark.parametrize(
    ("response", "kind", "code", "recoverable"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", RemoteProtocolError, ErrorCode.PROTOCOL, False),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", RemoteProtocolError, ErrorCode.PROTOCOL, False),
        (b"", ProviderError, ErrorCode.UNAVAILABLE, True),
        (b"HTTP/1.1 101 Swi", ProviderError, ErrorCode.UNAVAILABLE, True),
    ],
)
@virtual
async def test_answer_that_is_no_hand_shake(
    response: bytes, kind: type[ProviderError], code: ErrorCode, recoverable: bool
) -> None:
    async with leak_check(), answering(response) as port:
        error = await refusal(port)

    assert type(error) is kind
    assert (error.code, error.recoverable) == (code, recoverable)


@pytest.mark.parametrize("place", ["/elsewhere", "ws://127.0.0.1:{port}/elsewhere", "ws://localhost:1/"])
@virtual
async def test_redirects_are_refused_before_a_second_request(place: str) -> None:
    n_requests = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_requests
        await read_request(reader)
        n_requests += 1
        location = place.format(port=writer.get_extra_info("sockname")[1])
        head = f"HTTP/1.1 307 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())

    async with bare_server(talk) as port:
        error = await refusal(port)

    assert (error.code, error.recoverable) == (ErrorCode.INVALID_REQUEST, False)
    assert "Redirects are not followed" in str(error)
    assert n_requests == 1


@pytest.mark.parametrize("is_plain", [False, True])
@virtual
async def test_server_that_accepts_and_never_speaks_meets_the_deadline(
    is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "_HAS_CALLBACKS", not is_plain)
    loop = asyncio.get_running_loop()

    async with leak_check():
        async with bare_server(lambda reader, _: reader.read()) as port:
            before = loop.time()
            error = await refusal(port, handshake_s=7)

            assert loop.time() - before == pytest.approx(7)

    assert (error.code, error.recoverable) == (ErrorCode.TIMEOUT, True)


@virtual
async def test_nobody_listening_is_unavailable_and_recoverable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        error = await refusal(port)

    assert (type(error), error.code, error.recoverable) == (ProviderError, ErrorCode.UNAVAILABLE, True)


@virtual
async def test_unknown_host_is_unavailable_and_recoverable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    with pytest.raises(ProviderError, match="Name or service") as caught:
        await connect(f"wss://nowhere.invalid/?k={SECRET}", proxy=None)

    assert (caught.value.code, caught.value.recoverable) == (ErrorCode.UNAVAILABLE, True)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("n_rounds", range(14))
@virtual
async def test_cancelled_connect_leaves_no_task_and_no_socket(n_rounds: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade(await read_request(reader)))
        await reader.read()

    async with leak_check():
        async with bare_server(talk) as port:
            connecting = asyncio.ensure_future(dial(port))
            for _ in range(n_rounds):
                await asyncio.sleep(0)

            was_cancelled = connecting.cancel()
            (result,) = await asyncio.gather(connecting, return_exceptions=True)

            if isinstance(result, WebSocketTransport):
                assert not was_cancelled
                await result.close()
            else:
                assert isinstance(result, asyncio.CancelledError)


@virtual
async def test_headers_subprotocol_and_user_agent_are_sent_and_the_answer_kept() -> None:
    requests: list[dict[str, str]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        answer = upgrade(requests[0])[:-2] + b"Sec-WebSocket-Protocol: live.2\r\n\r\n"
        writer.write(answer)
        await reader.read()

    async with bare_server(talk) as port:
        transport = await dial(port, subprotocols=["live.1", "live.2"], user_agent="me/1")
        await transport.close()

    (request,) = requests
    assert request["x-key"] == SECRET
    assert request["user-agent"] == "me/1"
    assert request["sec-websocket-protocol"] == "live.1, live.2"
    assert "sec-websocket-extensions" not in request
    assert transport.subprotocol == "live.2"
    assert transport.response_headers["x-request-id"] == "r-1"


# What is never dialled


@pytest.mark.parametrize("host", ["api.acme.example", "10.0.0.1", "localhost.example", "[2001:db8::1]"])
async def test_plain_connection_to_another_machine_is_refused_naming_the_host_only(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await connect(f"ws://u:{SECRET}@{host}/p?k={SECRET}")

    assert host.strip("[]") in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "/p" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "[::1]", "localhost", "emulator.localhost"])
async def test_plain_connection_to_this_machine_is_allowed(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[dict[str, Any]] = []

    async def refuse(url: str, **options: Any) -> None:
        dialled.append(options)
        raise ConnectionRefusedError

    monkeypatch.setattr(websocket, "connect", refuse)

    with pytest.raises(ProviderError):
        await connect_websocket(f"ws://{host}/", provider="acme", transport="websockets")

    assert dialled[0]["proxy"] is None


@pytest.mark.parametrize(
    "url", ["", "api.acme.example", "https://h.example/", "wss:///p", "wss://h:99999999/"]
)
async def test_url_of_another_shape_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="wss://"):
        await connect(url and f"{url}?k={SECRET}")


async def test_url_that_the_library_refuses_is_in_no_traceback() -> None:
    with pytest.raises(ConfigError) as caught:
        await connect(f"wss://h.example/?k={SECRET}#fragment")

    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_header_with_a_line_break_is_refused_without_its_value() -> None:
    with pytest.raises(ConfigError, match="Authorization") as caught:
        await connect("ws://localhost/", headers={"Authorization": f"Bearer {SECRET}\n"})

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("header", ["X-Trace id", "X-Trace:", "X-Trace\r\nY", "X-Tracé", "", "(x)"])
async def test_header_with_a_name_that_none_may_have_is_refused_without_what_follows_it(header: str) -> None:
    shown = "X-Trac" if header.startswith("X") else "name of a header"

    with pytest.raises(ConfigError, match=shown) as caught:
        await connect("ws://localhost/", headers={f"{header}{SECRET if header else ''}": "x"})

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", ["a\x00b", "a\x1bb", "a\x7f"])
async def test_header_with_a_control_character_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="X-Trace"):
        await connect("ws://localhost/", headers={"X-Trace": value})


def test_every_name_that_the_standard_allows_is_taken() -> None:
    check_headers({"!#$%&'*+-.^_`|~09azAZ": "a value,\twith anything: é"})


@pytest.mark.parametrize(("proxy", "expected"), [("auto", True), (None, None), ("http://p:1", "http://p:1")])
async def test_proxy_settings_apply_to_other_machines(
    proxy: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[dict[str, Any]] = []

    async def refuse(url: str, **options: Any) -> None:
        dialled.append(options)
        raise ConnectionRefusedError

    monkeypatch.setattr(websocket, "connect", refuse)

    with pytest.raises(ProviderError):
        await connect_websocket(
            "wss://api.acme.example/", provider="acme", proxy=proxy, transport="websockets"
        )

    assert dialled[0]["proxy"] == expected


# TLS


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "server.pem")
    return context


@virtual
async def test_messages_travel_over_tls() -> None:
    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    trusted = ssl.create_default_context(cafile=DATA / "authority.pem")

    async with leak_check():
        async with serve(echo, "127.0.0.1", 0, ssl=server_tls()) as server:
            url = f"wss://localhost:{port_of(server)}/"
            transport = await connect(url, ssl=trusted)
            assert transport.send_nowait("x" * 100_000)
            assert await transport.recv() == "x" * 100_000
            await transport.close()


@virtual
async def test_untrusted_certificate_is_final_and_explained() -> None:
    async with leak_check():
        async with serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0, ssl=server_tls()) as server:
            with pytest.raises(ProviderError, match="TLS failed.*certificate") as caught:
                await connect(f"wss://localhost:{port_of(server)}/?k={SECRET}")

    assert (caught.value.code, caught.value.recoverable) == (ErrorCode.UNAVAILABLE, False)
    assert SECRET not in str(caught.value)


@virtual
async def test_service_without_tls_behind_a_wss_address_is_final() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with leak_check(), bare_server(talk) as port:
        with pytest.raises(ProviderError, match="TLS failed") as caught:
            await connect(f"wss://localhost:{port}/")

    assert (caught.value.code, caught.value.recoverable) == (ErrorCode.UNAVAILABLE, False)


# Framing


def masked(data: bytes) -> bytes:
    return bytes((data[0], data[1] | 0x80)) + b"\0\0\0\0" + data[2:]


@given(
    messages=st.lists(
        st.one_of(
            st.text(max_size=200),
            st.binary(max_size=200),
            st.sampled_from(["a" * 125, "b" * 126, b"c" * 65535, "d" * 65536, "é" * 40_000]),
        ),
        max_size=6,
    ),
    cuts=st.lists(st.integers(0, 140_000), max_size=12),
    n_fragments=st.integers(1, 3),
)
@settings(max_examples=60)
def test_messages_are_the_same_wherever_the_stream_is_cut(
    messages: list[Wire], cuts: list[int], n_fragments: int
) -> None:
    stream = b""
    for message in messages:
        payload = message.encode() if isinstance(message, str) else message
        opcode = 1 if isinstance(message, str) else 2
        step = len(payload) // n_fragments + 1
        parts = [payload[i : i + step] for i in range(0, max(len(payload), 1), step)]
        for i, part in enumerate(parts):
            is_last = i == len(parts) - 1
            stream += frame((opcode if i == 0 else 0) | (0x80 if is_last else 0), part)
            stream += frame(0x89, b"ping")
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]

    async def run() -> list[Wire]:
        async with saying(*chunks) as port:
            transport = await dial(port)
            got = [await transport.recv() for _ in messages]
            await transport.close()
            return got

    assert run_virtual(run()) == messages


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("size", [5, 300, 70_000])
@virtual
async def test_frame_may_be_cut_inside_its_header(size: int, at: int) -> None:
    whole = frame(0x82, b"x" * size) + frame(0x81, b"next")

    async with saying(b"", frame(0x81, b"first"), whole[:at], whole[at:]) as port:
        transport = await dial(port)
        got = [await transport.recv() for _ in range(3)]
        await transport.close()

    assert got == ["first", b"x" * size, "next"]


@pytest.mark.parametrize(
    ("stream", "close_code"),
    [
        (frame(0x81, b"\xff"), 1007),
        (frame(0x01, b"\xc3") + frame(0x80, b"\x28"), 1007),
        (masked(frame(0x81, b"hi")), 1002),
        (masked(frame(0x81, b"h" * 200)), 1002),
        (frame(0xC1, b"hi"), 1002),
        (frame(0x83, b"hi"), 1002),
        (frame(0x80, b"hi"), 1002),
        (frame(0x01, b"hi") + frame(0x81, b"hi"), 1002),
        (frame(0x89, b"p" * 126), 1002),
        (frame(0x82, b"x" * 1001), 1009),
        (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),
        (frame(0x02, b"x" * 600) + frame(0x80, b"x" * 600), 1009),
        (frame(0x02, b"") + frame(0x00, b"") * 5000, 1009),
    ],
)
@pytest.mark.parametrize("is_split", [False, True])
@virtual
async def test_violation_of_the_protocol_ends_the_session_as_the_services_fault(
    stream: bytes, close_code: int, is_split: bool
) -> None:
    whole = frame(0x81, b"before") + stream + frame(0x81, b"after")
    chunks = (whole[:9], whole[9:]) if is_split else (whole,)

    async with leak_check(), saying(*chunks) as port:
        transport = await dial(port, max_message_bytes=1000)
        got, error = await drain(transport)
        await transport.close()

    assert got == ["before"]
    assert type(error) is RemoteProtocolError
    assert (error.close_code, error.recoverable, transport.close_code) == (close_code, False, close_code)


@virtual
async def test_messages_in_the_packet_of_the_hand_shake_are_not_lost() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = upgrade(await read_request(reader))
        writer.write(answer + frame(0x81, b"early") + frame(0x82, b"half")[:3])
        await asyncio.sleep(1)
        writer.write(b"lf!"[:0] + frame(0x82, b"half")[3:] + frame(0x88, b"\x03\xe8"))
        await reader.read()

    async with bare_server(talk) as port:
        transport = await dial(port)
        got, error = await drain(transport)
        await transport.close()

    assert got == ["early", b"half"]
    assert error.close_code == 1000


@virtual
async def test_close_without_a_code_is_1005() -> None:
    async with saying(frame(0x88, b"")) as port:
        _, error = await drain(await dial(port))

    assert (error.close_code, error.recoverable) == (1005, True)


@virtual
async def test_every_message_is_masked_with_another_key() -> None:
    keys: list[bytes] = []
    n = 600  # More than the pool of keys holds.

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade(await read_request(reader)))
        for _ in range(n):
            assert await reader.readexactly(2) == b"\x82\x88"
            keys.append(await reader.readexactly(4))
            masked_payload = await reader.readexactly(8)
            assert bytes(a ^ b for a, b in zip(masked_payload, keys[-1] * 2, strict=True)) == b"12345678"
        writer.close()

    async with bare_server(talk) as port:
        transport = await dial(port)
        for _ in range(n):
            await transport.send(b"12345678")
        await drain(transport)

    assert len(set(keys)) > n - 5


@virtual
async def test_without_the_compiled_part_messages_still_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed, "apply_mask", framed._masked)
    got: list[Wire] = []

    async def keep(ws: ServerConnection) -> None:
        got.extend([await ws.recv(), await ws.recv()])

    async with serve(keep, "127.0.0.1", 0) as server:
        transport = await dial(port_of(server))
        await transport.send("text")
        await transport.send(b"binary")
        await drain(transport)

    assert got == ["text", b"binary"]


# Silence and the end


@virtual
async def test_peer_that_answers_no_ping_is_lost_after_interval_and_timeout() -> None:
    loop = asyncio.get_running_loop()
    async with leak_check(), saying() as port:
        transport = await dial(port, ping_interval_s=5, ping_timeout_s=4)
        before = loop.time()

        _, error = await drain(transport)

        assert loop.time() - before == pytest.approx(9)
    assert type(error) is ConnectionLost
    assert (error.close_code, error.recoverable) == (1006, True)
    assert "stopped answering: nothing arrived for 9 s" in str(error)


@virtual
async def test_silence_is_noticed_behind_a_full_write_buffer() -> None:
    loop = asyncio.get_running_loop()
    async with leak_check(), bare_server(deaf) as port:
        transport = await dial(port)
        await fill(transport)
        before = loop.time()

        with pytest.raises(ConnectionLost, match="stopped answering"):
            await transport.send("x")

        assert loop.time() - before == pytest.approx(10)


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Opens the WebSocket and reads nothing more."""
    writer.write(upgrade(await read_request(reader)))
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


@virtual
async def test_peer_that_answers_pings_may_be_silent_for_hours() -> None:
    async with serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0, ping_interval=None) as server:
        transport = await dial(port_of(server))

        await asyncio.sleep(3600)

        assert not transport.closed
        await transport.close()


@virtual
async def test_our_own_slow_reader_is_not_taken_for_a_dead_peer() -> None:
    n = 250

    async def flood(ws: ServerConnection) -> None:
        for _ in range(n):
            await ws.send(b"x" * 2**17)
        await ws.wait_closed()

    async with serve(flood, "127.0.0.1", 0, ping_interval=None) as server:
        transport = await dial(port_of(server))
        await asyncio.sleep(100)

        got = [await transport.recv() for _ in range(n)]

        assert len(got) == n
        await transport.close()


@virtual
async def test_pings_can_be_turned_off() -> None:
    async with saying() as port:
        transport = await dial(port, ping_interval_s=None)

        await asyncio.sleep(3600)

        assert not transport.closed
        await transport.close()


@virtual
async def test_peer_that_never_answers_a_close_meets_the_deadline() -> None:
    loop = asyncio.get_running_loop()
    async with leak_check(), saying() as port:
        transport = await dial(port, close_s=3)
        before = loop.time()

        await transport.close()

        assert loop.time() - before == pytest.approx(3)


@virtual
async def test_peer_that_announces_a_close_and_does_not_hang_up_is_cut_off() -> None:
    loop = asyncio.get_running_loop()
    async with leak_check(), saying(frame(0x88, b"\x03\xf3gone")) as port:
        transport = await dial(port, close_s=3)
        before = loop.time()

        _, error = await drain(transport)

        assert loop.time() - before <= 3.01
        assert error.close_code == 1011
        assert "gone" in str(error)


@virtual
async def test_abandoned_transport_of_a_lost_peer_needs_no_close() -> None:
    async with leak_check():
        async with saying(hang_up=True) as port:
            transport = await dial(port)
            await drain(transport)

        assert transport.closed


@virtual
async def test_debug_logging_shows_neither_keys_nor_messages(caplog: pytest.LogCaptureFixture) -> None:
    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.WARNING)
    with caplog.at_level(logging.DEBUG):
        async with serve(echo, "127.0.0.1", 0, logger=quiet) as server:
            transport = await dial(port_of(server))
            await transport.send("words of the user")
            await transport.recv()
            await transport.close()

    assert SECRET not in caplog.text
    assert "words" not in caplog.text


async def test_works_on_a_real_clock_too() -> None:
    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async with leak_check(), serve(echo, "127.0.0.1", 0) as server:
        transport = await dial(port_of(server))
        await transport.send("x")
        assert await transport.recv() == "x"
        await transport.close()


def test_importing_the_package_loads_no_websockets() -> None:
    code = (
        "import sys, voxengine.transport as t; assert 'websockets' not in sys.modules; "
        "t.memory_pair; assert 'websockets' not in sys.modules; "
        "t.connect_websocket; assert 'websockets' in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@virtual
async def test_messages_of_one_turn_share_a_write_and_the_first_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes: list[int] = []

    class Counted:
        """The socket, which notes what is written to it."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def write(self, data: bytes) -> None:
            writes.append(len(data))
            self._inner.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    async with saying() as port:
        transport = await dial(port)
        monkeypatch.setattr(transport, "_socket", Counted(transport._socket))
        for _ in range(10):
            await transport.send(b"x" * 100)
        n_at_once = len(writes)
        n_waiting = transport.n_buffered_bytes
        await asyncio.sleep(0.02)
        await transport.send(b"x" * 100)
        await transport.close()

    assert n_at_once == 1
    assert n_waiting >= 900
    assert writes[:3] == [106, 9 * 106, 106]
