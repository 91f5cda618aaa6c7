"""What goes wrong has a name, a way on, and exactly one event."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import pytest

from tests.plugins.openai.peer import SESSION, DialledProvider, Peer, Recorder, session
from voxengine.config import Deadlines
from voxengine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ErrorCode,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)
from voxengine.history import Item
from voxengine.testing import leak_check, virtual
from voxengine_openai.faults import service_error

KEY = "sk-test-0123456789"


def refusal(**error: Any) -> ProviderError:
    return service_error(
        error, provider="openai", doing="a response", scrub=lambda text: text.replace(KEY, "***")
    )


@pytest.mark.parametrize(
    ("error", "kind", "code", "recoverable"),
    [
        ({"code": "invalid_api_key"}, AuthenticationFailed, "authentication", False),
        ({"type": "authentication_error"}, AuthenticationFailed, "authentication", False),
        ({"code": "mismatched_project"}, ProviderError, "permission", False),
        ({"code": "model_not_found"}, ProviderError, "not_found", False),
        ({"code": "insufficient_quota"}, ProviderError, "quota", False),
        ({"code": "rate_limit_exceeded", "type": "tokens"}, RateLimited, "rate_limit", True),
        ({"code": "content_filter"}, ProviderError, "content_filter", False),
        ({"code": "session_expired"}, ProviderError, "session_expired", True),
        ({"code": None, "type": "server_error"}, ProviderError, "unavailable", True),
        (
            {"code": "unknown_parameter", "type": "invalid_request_error"},
            ProviderError,
            "invalid_request",
            False,
        ),
        ({"code": "something_new", "type": "something_else"}, ProviderError, "unknown", False),
        ({}, ProviderError, "unknown", False),
        ({"code": 7, "type": [], "message": {"x": 1}, "param": 3}, ProviderError, "unknown", False),
    ],
)
def test_error_of_the_service_has_its_place_in_the_tree(
    error: dict[str, Any], kind: type, code: str, recoverable: bool
) -> None:
    made = refusal(**error)

    assert type(made) is kind
    assert (made.code, made.recoverable, made.provider) == (code, recoverable, "openai")


@pytest.mark.parametrize(
    ("message", "wait_s"),
    [
        ("Please try again in 2.265s.", 2.265),
        ("Please try again in 20ms.", 0.02),
        ("Please try again in 1m30s.", 90.0),
        ("Please try again later.", None),
        ("Please try again in a while", None),
    ],
)
def test_wait_that_the_service_asks_for_is_read(message: str, wait_s: float | None) -> None:
    assert refusal(code="rate_limit_exceeded", message=message).retry_after_s == wait_s


def test_error_says_what_was_refused_and_shows_no_key() -> None:
    made = refusal(
        code="unknown_parameter",
        type="invalid_request_error",
        message=f"Unknown parameter, and your key is {KEY}.",
        param="session.foo",
    )

    assert "a response (unknown_parameter, session.foo)" in str(made)
    assert KEY not in str(made)
    assert made.vendor_code == "unknown_parameter"


def test_retired_protocol_says_what_to_type() -> None:
    assert "dialect" in str(refusal(code="beta_api_shape_disabled"))


# -- while it opens -------------------------------------------------------------------------------


async def connecting(peer: Peer, **config: Any) -> tuple[ProviderError, Recorder, DialledProvider]:
    """Return what connect raised; nothing may be left of it."""
    provider = DialledProvider({"api_key": KEY, **config})
    provider.peer = peer
    recorder = Recorder()
    provider.on_event = recorder
    serving = asyncio.create_task(peer.serve())
    with pytest.raises(ProviderError) as caught:
        await provider.connect()
    assert peer.pair.client.closed
    assert not provider.is_connected
    await provider.disconnect()
    await peer.connection.close()
    await serving
    return caught.value, recorder, provider


@virtual
async def test_connection_that_never_speaks_ends_in_time() -> None:
    async with leak_check():
        peer = Peer()
        peer.is_mute = True

        error, recorder, _ = await connecting(peer, deadlines=Deadlines(ready_s=3))

        assert (error.code, error.recoverable) == ("timeout", True)
        assert "never spoke" in str(error)
        assert recorder.events == []


@virtual
async def test_settings_that_nobody_confirms_end_in_time() -> None:
    peer = Peer()
    peer.take = lambda message: asyncio.sleep(0)  # type: ignore[method-assign]

    error, _, _ = await connecting(peer)

    assert "did not take the settings" in str(error)


@virtual
async def test_refused_setting_names_the_parameter() -> None:
    peer = Peer()
    peer.refuses = lambda message: {
        "type": "invalid_request_error",
        "code": "invalid_value",
        "message": "Invalid value: 'x'.",
        "param": "session.audio.output.voice",
    }

    error, recorder, _ = await connecting(peer, voice="x")

    assert error.code == "invalid_request"
    assert "session.audio.output.voice" in str(error)
    assert recorder.events == []


@virtual
async def test_key_refused_by_an_error_and_a_close_is_one_error() -> None:
    peer = Peer()

    async def serve() -> None:
        await peer.say(
            "error", error={"type": "invalid_request_error", "code": "invalid_api_key", "message": KEY}
        )
        await peer.connection.close(3000, "invalid_request_error.invalid_api_key")

    peer.serve = serve  # type: ignore[method-assign]

    error, recorder, _ = await connecting(peer)

    assert isinstance(error, AuthenticationFailed)
    assert not error.recoverable
    assert KEY not in str(error)
    assert recorder.events == []


@virtual
async def test_key_refused_by_a_close_alone_is_an_authentication_failure() -> None:
    peer = Peer()

    async def serve() -> None:
        await peer.connection.close(3000, "invalid_request_error.invalid_api_key")

    peer.serve = serve  # type: ignore[method-assign]

    error, _, _ = await connecting(peer)

    assert isinstance(error, AuthenticationFailed)
    assert error.close_code == 3000


@pytest.mark.parametrize("wire", ['{"type":"session.created"}', "no json", "[]"])
@virtual
async def test_first_word_that_cannot_be_read_is_the_error_of_connect(wire: str) -> None:
    peer = Peer()

    async def serve() -> None:
        await peer.connection.send(wire)

    peer.serve = serve  # type: ignore[method-assign]

    error, recorder, _ = await connecting(peer)

    assert isinstance(error, RemoteProtocolError)
    assert recorder.events == []


@virtual
async def test_cancelled_connect_leaves_nothing() -> None:
    async with leak_check():
        peer = Peer()
        peer.is_mute = True
        provider = DialledProvider({"api_key": KEY})
        provider.peer = peer
        connect = asyncio.ensure_future(provider.connect())
        await asyncio.sleep(0.5)
        connect.cancel()
        await asyncio.wait([connect])

        assert connect.cancelled()
        assert peer.pair.client.closed
        await provider.disconnect()
        await peer.connection.close()


# -- while it is open -----------------------------------------------------------------------------


@virtual
async def test_error_names_the_event_that_caused_it() -> None:
    async with session() as (provider, peer, recorder):
        event_id = await provider.send_event({"type": "conversation.item.delete", "item_id": "item_x"})
        await peer.say(
            "error",
            error={
                "type": "invalid_request_error",
                "code": "item_delete_invalid_item_id",
                "message": "No such item.",
                "param": "item_id",
                "event_id": event_id,
            },
        )
        event = await recorder.wait("error_general")

        assert (event.data["event"], event.data["event_id"]) == ("conversation.item.delete", event_id)
        assert event.data["param"] == "item_id"
        assert event.data["recoverable"] is True
        assert "conversation.item.delete" in str(event.data["error"])


@virtual
async def test_refused_item_is_its_callers_error_alone() -> None:
    async with session() as (provider, peer, recorder):
        peer.refuses = lambda message: {
            "type": "invalid_request_error",
            "code": "invalid_value",
            "message": "No.",
        }
        with pytest.raises(ProviderError, match=r"conversation\.item\.create"):
            await provider.send_item(Item("1", "user_text", "x"))
        with pytest.raises(ProviderError, match=r"response\.create"):
            await provider.ask_aside("x")

        assert not recorder.of("error_general")


@pytest.mark.parametrize(
    ("details", "status", "code", "recoverable"),
    [
        (
            {"type": "failed", "error": {"code": "rate_limit_exceeded", "message": "try again in 3s"}},
            "failed",
            "rate_limit",
            True,
        ),
        ({"type": "failed", "error": {"code": "insufficient_quota"}}, "failed", "quota", False),
        ({"type": "failed", "error": None}, "failed", "unavailable", True),
        ({"type": "incomplete", "reason": "content_filter"}, "incomplete", "content_filter", False),
        ({"type": "incomplete", "reason": "max_output_tokens"}, "incomplete", None, None),
        (None, "completed", None, None),
    ],
)
@virtual
async def test_response_that_did_not_work_is_an_error_and_one_ending(
    details: Any, status: str, code: str | None, recoverable: bool | None
) -> None:
    async with session() as (_, peer, recorder):
        await peer.begin()
        await peer.finish(status=status, status_details=details)
        event = await recorder.wait("response_completed")

        assert event.data["status"] == status
        errors = [error.data["error"] for error in recorder.of("error_general")]
        assert [error.code for error in errors] == ([code] if code else [])
        assert [error.recoverable for error in errors] == ([recoverable] if code else [])


@pytest.mark.parametrize(
    ("close_code", "reason", "code", "recoverable"),
    [
        (1000, "", "connection_lost", True),
        (1001, "", "connection_lost", True),
        (1001, "Your session hit the maximum duration of 60 minutes.", "session_expired", True),
        (1008, "", "permission", False),
        (1009, "", "invalid_request", False),
        (1011, "keepalive", "unavailable", True),
        (1012, "", "unavailable", True),
        (1013, "", "unavailable", True),
        (3000, "invalid_request_error.invalid_api_key", "authentication", False),
        (4000, "invalid_request_error.beta_api_shape_disabled", "invalid_request", False),
        (4000, "server_error.overloaded", "unavailable", True),
        (4008, "", "unknown", False),
    ],
)
@virtual
async def test_every_close_code_is_told_once(
    close_code: int, reason: str, code: str, recoverable: bool
) -> None:
    async with session() as (provider, peer, recorder):
        await peer.connection.close(close_code, reason)
        event = await recorder.wait("connection_lost")

        error = event.data["error"]
        assert isinstance(error, ConnectionLost)
        assert (error.code, error.recoverable, error.close_code) == (code, recoverable, close_code)
        assert f"recoverable={recoverable}:" in str(error)
        assert not provider.is_connected
        assert len(recorder.of("connection_lost")) == 1
        with pytest.raises(ConnectionLost):
            await provider.send_text("Hello?")


@pytest.mark.parametrize(
    ("method", "given"), [("send_text", ["Hello?"]), ("send_audio", [b"\0" * 4800]), ("discard_input", [])]
)
@virtual
async def test_sender_that_meets_the_end_first_says_what_the_service_said(
    method: str, given: list[Any]
) -> None:
    async with session() as (provider, peer, _):
        peer.pair.client._lose(4000, "invalid_request_error.session_expired")  # Not read yet.

        with pytest.raises(ConnectionLost) as caught:
            await getattr(provider, method)(*given)

        assert (caught.value.code, caught.value.recoverable) == ("session_expired", True)
        assert "recoverable=True:" in str(caught.value)


@virtual
async def test_expired_session_is_announced_and_ends_once() -> None:
    async with session() as (_, peer, recorder):
        text = "Your session hit the maximum duration of 60 minutes."
        await peer.say(
            "error", error={"type": "invalid_request_error", "code": "session_expired", "message": text}
        )
        await peer.connection.close(1001)
        event = await recorder.wait("connection_lost")

        assert event.data["error"].code is ErrorCode.SESSION_EXPIRED
        assert recorder.types()[-2:] == ["session_expiring", "connection_lost"]
        assert not recorder.of("error_general")


@pytest.mark.parametrize(
    ("expires_in_s", "notice_after_s", "left_s"),
    [(3600, 3540, 60), (100, 90, 10), (-5, 3540, 60), (1e9, 3540, 60)],
)
@virtual(max_virtual_s=4000)
async def test_end_of_a_session_is_announced_before_it_comes(
    expires_in_s: float, notice_after_s: float, left_s: float
) -> None:
    peer = Peer()
    peer.session = {**SESSION, "expires_at": int(time.time() + expires_in_s)}
    loop = asyncio.get_running_loop()
    async with session(peer=peer) as (_, _, recorder):
        event = await recorder.wait("session_expiring", timeout_s=4000)

        assert event.data["deadline_s"] == pytest.approx(left_s, abs=1)
        assert loop.time() == pytest.approx(notice_after_s, abs=2)


@virtual
async def test_waiting_caller_learns_of_the_loss() -> None:
    async with session() as (provider, peer, recorder):
        peer.take = lambda message: peer.connection.close(1011)  # type: ignore[method-assign]
        with pytest.raises(ConnectionLost):
            await provider.configure_session({"instructions": "x"})

        assert len(recorder.of("connection_lost")) == 1


@virtual
async def test_waiting_caller_learns_of_our_own_end() -> None:
    async with leak_check():
        async with session() as (provider, peer, _):
            peer.takes_items = False
            waiting = asyncio.ensure_future(provider.send_item(Item("1", "user_text", "x")))
            await peer.wait("conversation.item.create")
            await provider.disconnect()
            with pytest.raises(Exception, match="closed on this side"):
                await waiting


@pytest.mark.parametrize(
    "wire",
    [
        "not json",
        "[]",
        "{}",
        '{"type": 7}',
        '{"type":"response.created"}',
        '{"type":"response.created","response":7}',
        '{"type":"response.output_audio.delta","response_id":1,"item_id":"i","delta":"AAAA"}',
        '{"type":"error"}',
        '{"type":"session.updated","session":[]}',
        b"\xff\xfe",
    ],
)
@virtual
async def test_malformed_message_is_one_error_and_the_session_goes_on(wire: str | bytes) -> None:
    async with session() as (provider, peer, recorder):
        await peer.connection.send(wire)
        event = await recorder.wait("error_general")
        await provider.send_text("Still there?")
        await peer.wait("response.create")

        assert isinstance(event.data["error"], RemoteProtocolError)
        assert event.data["recoverable"] is True
        assert len(recorder.of("error_general")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"response": {}},
        {"response": {"id": None, "output": 7}},
        {
            "response": {
                "id": "resp_1",
                "output": [7, {"type": "function_call"}],
                "usage": {"input_tokens": "many"},
            }
        },
        {"response": {"id": "resp_1", "status_details": [], "usage": {"input_token_details": 5}}},
    ],
)
@virtual
async def test_nonsense_inside_an_answer_does_not_end_the_reader(fields: dict[str, Any]) -> None:
    async with session() as (provider, peer, recorder):
        await peer.say("response.done", **fields)
        await provider.send_text("Still there?")
        await peer.wait("response.create")

        assert not recorder.of("connection_lost")


@virtual
async def test_audio_that_is_no_base64_is_silence_and_said_once() -> None:
    async with session() as (_, peer, recorder):
        await peer.begin()
        for delta in ("AAAA", "!!!!", "?"):
            fields = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
            await peer.say("response.output_audio.delta", delta=delta, **fields)
        await recorder.wait("audio_output_chunk", 3)
        audio = [event.data["audio_data"] for event in recorder.of("audio_output_chunk")]

        assert audio[:2] == [bytes(3), bytes(3)]
        assert len(recorder.of("error_general")) == 1


@virtual
async def test_server_may_close_at_each_point_of_an_answer() -> None:
    item = {"response_id": "resp_1", "output_index": 0, "item": {"id": "item_1", "type": "message"}}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": {"id": "resp_1", "conversation_id": "c"}}),
        ("response.output_item.added", item),
        (
            "response.output_audio_transcript.delta",
            {"response_id": "resp_1", "item_id": "item_1", "delta": "Hi"},
        ),
        (
            "response.output_audio.delta",
            {"response_id": "resp_1", "item_id": "item_1", "delta": base64.b64encode(bytes(960)).decode()},
        ),
        ("response.output_item.done", item),
        ("response.done", {"response": {"id": "resp_1", "status": "completed"}}),
    ]
    for n_steps in range(len(steps) + 1):
        async with leak_check():
            async with session() as (provider, peer, recorder):
                await provider.send_text("Hello")
                for name, fields in steps[:n_steps]:
                    await peer.say(name, **fields)
                await peer.connection.close(1011)
                await recorder.wait("connection_lost")

                assert len(recorder.of("connection_lost")) == 1
                assert not recorder.of("error_general", "error_network")


def test_nothing_shows_the_key() -> None:
    provider = DialledProvider({"api_key": KEY, "metadata": {"headers": {"X-Key": KEY}}})

    assert KEY not in f"{provider!r} {provider}"
