"""The harness: HTTP, WebSocket and TLS on one port, what it refuses and what it survives."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.plugins.mock.emulators import BEARER, EchoEmulator, ask, echoing, raw, until_left, upgrade
from voxengine.errors import ConfigError
from voxengine.testing import leak_check
from voxengine.testing.emulator import EmulatorSession, HttpRequest, SessionHandler, find_emulator
from voxengine_mock.emulator import MockEmulator
from voxengine_mock.harness import script_of, serve
from voxengine_mock.script import ScriptRun

KEY = {"Authorization": "Bearer sk-drive"}


def dial(url: str, **options: Any) -> connect:
    return connect(url, **{"additional_headers": KEY, "proxy": None, "compression": None, **options})


# -- plain requests -----------------------------------------------------------------------------


async def test_a_post_with_a_body_is_answered_on_the_port_of_the_sessions() -> None:
    async with leak_check(), echoing() as (server, _):
        body = json.dumps({"expires_after": 600}).encode()
        request = f"POST /v1/client_secrets HTTP/1.1\r\n{BEARER}Content-Length: {len(body)}\r\n\r\n".encode()
        status, headers, answer = await ask(server, request + body)
        async with dial(server.url) as ws:
            await ws.send("and a session")
            echoed = await ws.recv()

    assert (status, headers["x-request-id"]) == (200, "r-1")
    assert json.loads(answer) == {"got": {"expires_after": 600}, "n": len(body)}
    assert echoed == "and a session"


async def test_a_body_that_waits_to_be_asked_for_is_asked_for() -> None:
    async with echoing() as (server, _), raw(server) as (reader, writer):
        head = (
            f"POST /v1/client_secrets HTTP/1.1\r\n{BEARER}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        writer.write(head.encode())
        interim = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"{}")
        final = await reader.read()

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert final.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_request_may_come_byte_by_byte() -> None:
    async with echoing() as (server, _), raw(server) as (reader, writer):
        for byte in b"GET /open?a=1&a=2&b HTTP/1.1\r\nHost: x\r\n\r\n":
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        answer = await reader.read()

    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"query": {"a": "2", "b": ""}}


REFUSED: list[tuple[bytes, int]] = [
    (b"GET /nowhere HTTP/1.1\r\n\r\n", 404),
    (b"GET /echo HTTP/1.1\r\n\r\n", 426),
    (b"DELETE /open HTTP/1.1\r\n\r\n", 405),
    (b"POST /v1/client_secrets HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 401),
    (b"POST /v1/client_secrets HTTP/1.1\r\nAuthorization: Basic sk-drive\r\n\r\n", 401),
    (b"GET /open HTTP/2.0\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"get /open HTTP/1.1\r\n\r\n", 400),
    (b"GET /open\r\n\r\n", 400),
    (b"GET /op en HTTP/1.1\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"\r\n\r\n", 400),
    (b"GET /open HTTP/1.1\r\nno colon\r\n\r\n", 400),
    (b"GET /open HTTP/1.1\r\n folded: x\r\n\r\n", 400),
    (b"GET /open HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
    (b"GET /open HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /open HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
    (b"GET /open HTTP/1.1\r\nA: " + b"x" * 20_000, 431),
    (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n", 400),
    (b"POST /open HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
    (b"POST /open HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /open HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 5_000, 413),
    (upgrade("/nowhere"), 404),
    (upgrade(more=""), 401),
    (upgrade(more="Authorization: Bearer sk-other\r\n"), 401),
    (upgrade().replace(b"Sec-WebSocket-Key", b"Sec-WebSocket-Keg"), 400),
    (upgrade().replace(b"Version: 13", b"Version: 8"), 400),
]  # fmt: skip


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED, ids=lambda x: str(x)[:40])
async def test_what_is_wrong_gets_its_status_and_nothing_stays(request_bytes: bytes, status: int) -> None:
    async with leak_check(), echoing() as (server, _):
        found, _, body = await ask(server, request_bytes)
        await until_left(server)

        assert found == status
        assert b"sk-other" not in body
        assert (await ask(server, b"GET /open HTTP/1.1\r\n\r\n"))[0] == 200


async def test_a_bug_in_a_handler_costs_one_request(caplog: pytest.LogCaptureFixture) -> None:
    async with leak_check(), echoing() as (server, _):
        broken, _, body = await ask(server, b"GET /broken HTTP/1.1\r\n\r\n")
        fine, _, _ = await ask(server, b"GET /open HTTP/1.1\r\n\r\n")

    assert (broken, fine) == (500, 200)
    assert b"a bug" not in body
    assert caplog.messages == ["The emulator 'echo' failed to answer a request."]


async def test_every_emulator_says_without_a_key_how_it_is() -> None:
    async with leak_check(), echoing() as (server, _):
        status, _, body = await ask(server, b"GET /health HTTP/1.1\r\n\r\n")

    assert (status, json.loads(body)) == (200, {"emulator": "echo", "status": "ready"})


async def test_what_arrived_is_read_to_its_end_although_the_client_has_left() -> None:
    read: list[object] = []

    class Answering(EchoEmulator):
        def websocket_routes(self) -> Mapping[str, SessionHandler]:
            return {"/echo": self._answer}

        async def _answer(self, session: EmulatorSession) -> None:
            while True:
                read.append(await session.recv())
                await session.send("nobody listens any more")

    sent = [f"message {n}" for n in range(20)]
    async with leak_check(), serve(Answering()) as server:
        ws = await dial(server.url)
        for text in sent:
            await ws.send(text)
        await ws.close()
        await until_left(server)

    assert read == sent


async def test_a_head_request_has_no_body() -> None:
    async with echoing() as (server, _):
        status, headers, body = await ask(server, b"HEAD /open HTTP/1.1\r\n\r\n")

    assert (status, body) == (405, b"")
    assert int(headers["content-length"]) > 0


# -- sessions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(["realtime"], "realtime"), (["other", "v1.acme"], "v1.acme"), (["other"], None), (None, None)],
)
async def test_a_subprotocol_is_agreed_on_where_there_is_a_common_one(
    offered: list[str] | None, agreed: str | None
) -> None:
    async with echoing() as (server, emulator):
        async with dial(server.url, subprotocols=offered) as ws:
            found = ws.subprotocol
        await until_left(server)

    assert found == agreed
    assert emulator.ended == [(1, agreed, 1000)]


async def test_messages_of_every_kind_and_size_come_back() -> None:
    messages: list[Any] = ["", "é" * 100, b"", bytes(range(256)), "x" * 100_000, b"y" * 3_000_000]

    async with leak_check(), echoing() as (server, _), dial(server.url, max_size=None) as ws:
        for message in messages:
            await ws.send(message)
        found = [await ws.recv() for _ in messages]
        await ws.send(["in ", "frag", "ments"])

        assert found == messages
        assert await ws.recv() == "in fragments"


async def test_messages_sent_with_the_request_are_not_lost() -> None:
    async with echoing() as (server, _), raw(server) as (reader, writer):
        writer.write(upgrade() + b"\x81\x82\0\0\0\0hi")
        await reader.readuntil(b"\r\n\r\n")

        assert await reader.readexactly(4) == b"\x81\x02hi"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02hi", 1002),  # Not masked.
        (b"\xf1\x80\0\0\0\0", 1002),  # Reserved bits.
        (b"\x83\x80\0\0\0\0", 1002),  # An opcode that nobody has.
        (b"\x80\x80\0\0\0\0", 1002),  # A continuation of nothing.
        (b"\x81\x81\0\0\0\0\xff", 1007),  # No UTF-8.
        (b"\x82\xff" + struct.pack("!Q", 2**40) + b"\0\0\0\0", 1009),  # Far too big.
        (b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5000, 1009),  # Thousands of fragments.
    ],
)
async def test_a_client_that_breaks_the_protocol_is_told_and_left(frame: bytes, code: int) -> None:
    async with leak_check(), echoing() as (server, emulator):
        async with raw(server) as (reader, writer):
            writer.write(upgrade())
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame)
            answer = await reader.readexactly(4)
        await until_left(server)

    assert answer[0] == 0x88
    assert int.from_bytes(answer[2:4], "big") == code
    assert [ended[2] for ended in emulator.ended] == [code]


async def test_a_session_that_a_bug_ends_closes_with_1011_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with leak_check(), echoing() as (server, _), dial(server.url) as other:
        async with dial(server.url) as ws:
            await ws.send("boom")
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
        await other.send("still here")

        assert await other.recv() == "still here"

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1011
    assert caplog.messages == ["A session of the emulator 'echo' failed and ends."]


async def test_a_handler_that_returns_closes_normally() -> None:
    async with echoing() as (server, _), dial(server.url) as ws:
        await ws.send("bye")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()

    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1000


async def test_a_client_that_vanishes_leaves_nothing() -> None:
    async with leak_check(), echoing() as (server, emulator):
        async with raw(server) as (reader, writer):
            writer.write(upgrade())
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
        await until_left(server)

    assert [ended[2] for ended in emulator.ended] == [1006]


async def test_a_client_that_does_not_read_holds_up_its_own_session_alone() -> None:
    async with leak_check(), echoing() as (server, _):
        async with raw(server) as (reader, writer):
            writer.write(upgrade())
            await reader.readuntil(b"\r\n\r\n")
            payload = b"\x82\xff" + struct.pack("!Q", 2**20) + b"\0\0\0\0" + bytes(2**20)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(40):
                writer.write(payload)
            async with dial(server.url) as ws:
                await ws.send("quick")
                assert await ws.recv() == "quick"
            (busy,) = [front.socket for front in server._fronts if front.socket is not None]

            # Neither what waits to be sent nor what waits to be handled grows without end.
            assert busy.n_buffered_bytes < 4 * 2**20
            assert busy._inbox_size < 8 * 2**20
            writer.transport.abort()
        await until_left(server)


async def test_the_end_of_the_emulator_closes_every_session_with_1001() -> None:
    async with leak_check():
        async with echoing() as (server, _):
            sockets = [await dial(server.url) for _ in range(20)]
            async with raw(server) as (_, writer):
                writer.write(b"GET /half")
                await server.close()
        for ws in sockets:
            await ws.wait_closed()

    assert {ws.close_code for ws in sockets} == {1001}


async def test_a_client_that_ignores_the_close_cannot_hold_up_the_end() -> None:
    async with leak_check():
        async with echoing() as (server, _), raw(server) as (reader, writer):
            writer.write(upgrade())
            await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(20):
                await server.close()


# -- bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"", b"G", b"GET /open HTTP/1.1\r\nHost: ", upgrade()[:-2]])
async def test_half_a_request_runs_into_the_deadline(start: bytes) -> None:
    async with leak_check(), echoing(handshake_s=0.2) as (server, _), raw(server) as (reader, writer):
        writer.write(start)

        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_does_not_come_runs_into_the_deadline() -> None:
    async with leak_check(), echoing(handshake_s=0.2) as (server, _):
        status, _, _ = await ask(server, b"POST /open HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")

    assert status == 408


async def test_connections_beyond_the_limit_are_refused_until_others_leave() -> None:
    async with leak_check(), echoing(max_connections=3) as (server, _):
        sockets = [await dial(server.url) for _ in range(3)]
        with pytest.raises(InvalidStatus) as caught:
            await dial(server.url)
        await sockets.pop().close()
        await until_left(server, 2)
        sockets.append(await dial(server.url))
        for ws in sockets:
            await ws.close()

    assert caught.value.response.status_code == 503
    assert caught.value.response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("target", "status"),
    [(b"//[", 400), (b"//[::1", 400), (b"http://[x]/", 400), (b"/nowhere", 404), (b"/%ff%00", 404)],
)
async def test_a_request_for_no_address_is_refused_and_logged(
    target: bytes, status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "received.jsonl"
    async with echoing(log=log) as (server, _), raw(server) as (reader, writer):
        writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: [\r\nUpgrade: websocket\r\n\r\n")
        answer = await reader.read()

    (entry,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert int(answer.split()[1]) == status
    assert (entry["event"], entry["status"]) == ("refused", status)
    assert caplog.records == []


async def test_a_connection_beyond_the_limit_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "received.jsonl"
    async with echoing(max_connections=1, log=log) as (server, _), raw(server):
        async with raw(server) as (reader, _):
            answer = await reader.read()

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert [(entry["event"], entry["status"]) for entry in entries] == [("refused", 503)]


async def test_a_client_that_talks_on_before_it_is_answered_is_cut() -> None:
    fault = {"do": "stall", "at": "handshake"}
    async with leak_check(), echoing(faults=[fault]) as (server, _), raw(server) as (reader, writer):
        writer.write(upgrade() + bytes(100_000))

        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
        assert answer == b""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.sampled_from(REFUSED).flatmap(
        lambda case: st.tuples(st.integers(0, len(case[0])), st.binary(max_size=3)).map(
            lambda cut: case[0][: cut[0]] + cut[1] + case[0][cut[0] :]
        )
    )
    | st.binary(max_size=100).map(lambda junk: upgrade() + junk)
)
def test_no_bytes_whatever_harm_the_server(junk: bytes) -> None:
    async def talk() -> int:
        async with leak_check(), echoing(handshake_s=5) as (server, _):
            async with raw(server) as (_, writer):
                writer.write(junk)
                await writer.drain()
            status, _, _ = await ask(server, b"GET /open HTTP/1.1\r\n\r\n")
            await until_left(server)
            return status

    assert asyncio.run(talk()) == 200


# -- listening ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
async def test_a_host_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"could be reached by other machines"):
        async with echoing(host=host):
            pass


async def test_a_host_that_others_can_reach_is_taken_when_allowed() -> None:
    async with echoing(host="0.0.0.0", allow_remote=True) as (server, _):
        assert (await ask(server, b"GET /open HTTP/1.1\r\n\r\n"))[0] == 200


@pytest.mark.parametrize(
    ("host", "shown"), [("localhost", "localhost"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")]
)
async def test_the_url_names_the_host_it_was_given(host: str, shown: str) -> None:
    async with echoing(host=host) as (server, _):
        assert server.url == f"ws://{shown}:{server.port}/echo"
        async with dial(server.url) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def test_a_port_in_use_is_one_sentence() -> None:
    async with leak_check(), echoing() as (server, _):
        with pytest.raises(ConfigError) as caught:
            async with echoing(port=server.port):
                pass

    assert str(caught.value) == (
        f"Port {server.port} of 127.0.0.1 is in use. Give another one, or 0 for any that is free."
    )


@pytest.mark.parametrize("port", [-1, 65_536])
async def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"{port} is no port"):
        async with echoing(port=port):
            pass


# -- TLS ----------------------------------------------------------------------------------------


def trusting(path: Path | None, *alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=path)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


async def test_tls_is_trusted_by_who_has_the_authority_and_by_nobody_else(tmp_path: Path) -> None:
    async with leak_check(), echoing(tls_ca=tmp_path / "ca.pem") as (server, _):
        async with dial(server.url, ssl=trusting(tmp_path / "ca.pem")) as ws:
            await ws.send("private")
            assert await ws.recv() == "private"
        with pytest.raises(ssl.SSLCertVerificationError):
            await dial(server.url, ssl=trusting(None))

        assert server.url.startswith("wss://127.0.0.1:")
        assert b"PRIVATE" not in (tmp_path / "ca.pem").read_bytes()


async def test_a_certificate_without_a_place_is_temporary() -> None:
    async with echoing(tls=True) as (server, _):
        path = server.ca_file
        assert path is not None
        assert path.is_file()

    assert not path.exists()


async def test_another_protocol_agreed_on_by_alpn_is_handed_its_connection() -> None:
    async with leak_check(), echoing(tls=True) as (server, _):
        async with raw(server, ssl=trusting(server.ca_file, "x-shout")) as (reader, writer):
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"HELLO"
        async with raw(server, ssl=trusting(server.ca_file, "http/1.1")) as (reader, writer):
            writer.write(b"GET /open HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")


async def test_plain_bytes_to_a_tls_port_and_half_a_tls_handshake_leave_nothing() -> None:
    async with leak_check(), echoing(tls=True, handshake_s=0.3) as (server, _):
        async with raw(server) as (reader, writer):
            writer.write(b"GET /open HTTP/1.1\r\n\r\n")
            try:
                plain = await reader.read()
            except ConnectionError:
                plain = b""
        async with raw(server) as (reader, writer):
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
            half = await reader.read()

    assert b"HTTP" not in plain + half


async def test_tls_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trustme", None)

    with pytest.raises(ConfigError, match=r"pip install 'voxengine-mock\[tls\]'"):
        async with echoing(tls=True):
            pass


# -- emulators ----------------------------------------------------------------------------------


def test_a_script_wins_over_the_emulators_own(tmp_path: Path) -> None:
    path = tmp_path / "talk.toml"
    path.write_text('[responses]\nhi = "from the file"\nho = "from the file"\n')

    scripts = [
        script_of(EchoEmulator(**given))
        for given in ({}, {"script": path}, {"script": {"pace": 2}, "speed": 3})
    ]

    said = [run.find("hi")[0].say for run in map(ScriptRun, scripts)]  # type: ignore[index]
    assert said == ["from the default", "from the file", "from the default"]
    assert [script.pace for script in scripts] == [7, 7, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"script": "nowhere.toml"}, r"The script 'nowhere\.toml' cannot be read"),
        ({"script": {"pase": 1}}, r"script: pase is not a key of a script\. Did you mean 'pace'"),
        ({"speed": 0}, r"emulator: speed is 0; it takes a number"),
        ({"faults": ["nonsense at=ready"]}, r"--fault: do is 'nonsense'"),
    ],
)
async def test_a_wrong_option_is_refused_before_anything_listens(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        async with echoing(**options):
            pass


def test_the_mocks_emulator_is_found_by_its_name() -> None:
    assert find_emulator("mock") is MockEmulator


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", r"^No emulator named 'nope'\. Installed: .*mock.*\.$"),
        ("azure", r"^No emulator named 'azure'\. .* Try: pip install 'voxengine-azure\[emulator\]'$"),
    ],
)
def test_an_unknown_emulator_is_named_with_those_that_there_are(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_emulator(name)


async def test_a_running_emulator_is_its_url_and_answers_when_asked_how_it_is() -> None:
    async with MockEmulator().running() as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"emulator": "mock", "status": "ready"}


def test_a_request_knows_its_parts() -> None:
    request = HttpRequest(
        method="GET",
        target="/v1/real%20time?model=a%2Bb&key=k",
        headers={"sec-websocket-protocol": "realtime, openai-insecure-api-key.sk-drive"},
        body=b"{",
    )

    assert request.path == "/v1/real time"
    assert request.query == {"model": "a+b", "key": "k"}
    assert request.subprotocols == ("realtime", "openai-insecure-api-key.sk-drive")
    assert request.json() is None
    assert "sk-drive" not in repr(request)


async def test_a_server_that_could_not_start_leaves_nothing(tmp_path: Path) -> None:
    async with leak_check():
        with pytest.raises(ConfigError, match="cannot be written"):
            async with serve(EchoEmulator(), tls=True, log=tmp_path / "no" / "log.jsonl"):
                pass
