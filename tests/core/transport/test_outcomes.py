"""The tables: which HTTP status, close code and body means what. No connection is made."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxengine.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ErrorCode,
    ProviderError,
    RateLimited,
    RemoteProtocolError,
)
from voxengine.transport import outcomes
from voxengine.transport.outcomes import Target, close_outcome, handshake_response, parse_retry_after

TARGET = Target("acme", "wss://api.acme.example/v1/live?api-key=sk-secret-value")


@pytest.mark.parametrize(
    ("status", "kind", "code", "recoverable"),
    [
        (200, RemoteProtocolError, ErrorCode.PROTOCOL, False),
        (204, RemoteProtocolError, ErrorCode.PROTOCOL, False),
        (301, ProviderError, ErrorCode.INVALID_REQUEST, False),
        (302, ProviderError, ErrorCode.INVALID_REQUEST, False),
        (308, ProviderError, ErrorCode.INVALID_REQUEST, False),
        (400, ProviderError, ErrorCode.INVALID_REQUEST, False),
        (401, AuthenticationFailed, ErrorCode.AUTHENTICATION, False),
        (402, ProviderError, ErrorCode.QUOTA, False),
        (403, ProviderError, ErrorCode.PERMISSION, False),
        (404, ProviderError, ErrorCode.NOT_FOUND, False),
        (405, ProviderError, ErrorCode.INVALID_REQUEST, False),
        (407, ProviderError, ErrorCode.PERMISSION, False),
        (408, ProviderError, ErrorCode.TIMEOUT, True),
        (410, ProviderError, ErrorCode.NOT_FOUND, False),
        (425, ProviderError, ErrorCode.UNAVAILABLE, True),
        (426, RemoteProtocolError, ErrorCode.PROTOCOL, False),
        (429, RateLimited, ErrorCode.RATE_LIMIT, True),
        (451, ProviderError, ErrorCode.PERMISSION, False),
        (500, ProviderError, ErrorCode.UNAVAILABLE, True),
        (502, ProviderError, ErrorCode.UNAVAILABLE, True),
        (503, ProviderError, ErrorCode.UNAVAILABLE, True),
        (504, ProviderError, ErrorCode.UNAVAILABLE, True),
        (529, ProviderError, ErrorCode.UNAVAILABLE, True),
    ],
)
def test_status_means(status: int, kind: type[ProviderError], code: ErrorCode, recoverable: bool) -> None:
    error = outcomes.rejected(TARGET, status, [], b"")

    assert type(error) is kind
    assert (error.code, error.recoverable, error.provider) == (code, recoverable, "acme")
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize(
    ("close_code", "code", "recoverable"),
    [
        (1000, ErrorCode.CONNECTION_LOST, True),
        (1001, ErrorCode.CONNECTION_LOST, True),
        (1002, ErrorCode.PROTOCOL, False),
        (1003, ErrorCode.INVALID_REQUEST, False),
        (1004, ErrorCode.PROTOCOL, False),
        (1005, ErrorCode.CONNECTION_LOST, True),
        (1006, ErrorCode.CONNECTION_LOST, True),
        (1007, ErrorCode.INVALID_REQUEST, False),
        (1008, ErrorCode.PERMISSION, False),
        (1009, ErrorCode.INVALID_REQUEST, False),
        (1010, ErrorCode.PROTOCOL, False),
        (1011, ErrorCode.UNAVAILABLE, True),
        (1012, ErrorCode.UNAVAILABLE, True),
        (1013, ErrorCode.UNAVAILABLE, True),
        (1014, ErrorCode.UNAVAILABLE, True),
        (1015, ErrorCode.UNAVAILABLE, False),
        (1016, ErrorCode.PROTOCOL, False),
        (2999, ErrorCode.PROTOCOL, False),
        (3000, ErrorCode.AUTHENTICATION, False),
        (3001, ErrorCode.UNKNOWN, False),
        (3003, ErrorCode.PERMISSION, False),
        (3008, ErrorCode.TIMEOUT, True),
        (3999, ErrorCode.UNKNOWN, False),
        (4000, ErrorCode.UNKNOWN, False),
        (4999, ErrorCode.UNKNOWN, False),
        (5000, ErrorCode.PROTOCOL, False),
    ],
)
def test_close_code_means(close_code: int, code: ErrorCode, recoverable: bool) -> None:
    error = outcomes.was_closed(TARGET, close_code, "", 3.04)

    assert close_outcome(close_code) == (code, recoverable)
    assert (error.code, error.recoverable, error.close_code) == (code, recoverable, close_code)
    assert error.vendor_code == (str(close_code) if close_code >= 3000 else None)
    assert "3.0 s into the session" in str(error)


@pytest.mark.parametrize(
    ("code", "recoverable", "advice"),
    [
        (ErrorCode.SESSION_EXPIRED, True, "keeps the history"),
        (ErrorCode.QUOTA, False, "no quota left"),
        (ErrorCode.UNKNOWN, False, "see the close code"),
    ],
)
def test_text_of_an_ending_follows_what_the_service_says_of_it(
    code: ErrorCode, recoverable: bool, advice: str
) -> None:
    error = outcomes.was_closed(TARGET, 4000, "recoverable=maybe", 3.04)

    recoded = outcomes.recoded(error, code, "its.word")

    assert (recoded.code, recoded.recoverable, recoded.vendor_code) == (code, recoverable, "its.word")
    assert recoded.close_code == 4000
    assert str(recoded).startswith('acme closed the connection (4000, "recoverable=maybe") 3.0 s into')
    assert f"session. recoverable={recoverable}: " in str(recoded)
    assert advice in str(recoded)


def test_text_of_an_ending_that_says_nothing_of_it_is_left() -> None:
    error = outcomes.recoded(ConnectionLost("gone", vendor_code="4000"), ErrorCode.QUOTA, None)

    assert (str(error), error.code, error.recoverable, error.vendor_code) == ("gone", "quota", False, "4000")


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1e99"}, 86_400.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "?", "retry-after": "9"}, 9.0),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], expected_s: float | None) -> None:
    now = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)

    wait_s = parse_retry_after(headers, now)

    assert wait_s == expected_s


def test_rate_limit_carries_the_wait() -> None:
    error = outcomes.rejected(TARGET, 429, [("Retry-After", "12")], b"")

    assert error.retry_after_s == 12.0
    assert "in 12 s" in str(error)


@pytest.mark.parametrize("word", ["insufficient_quota", "QuotaExceeded"])
def test_rate_limit_for_lack_of_money_is_quota_and_final(word: str) -> None:
    body = json.dumps({"error": {"code": word, "message": "You exceeded your quota"}}).encode()

    error = outcomes.rejected(TARGET, 429, [("retry-after", "1")], body)

    assert (error.code, error.recoverable, error.vendor_code) == (ErrorCode.QUOTA, False, word)


@pytest.mark.parametrize(
    ("body", "vendor_code"),
    [
        (b'{"error":{"code":"invalid_api_key","type":"x"}}', "invalid_api_key"),
        (b'{"error":{"code":null,"type":"invalid_request_error"}}', "invalid_request_error"),
        (b'{"code":4031}', "4031"),
        (b'{"error":"text"}', None),
        (b'{"error":{"code":true}}', None),
        (b"[1]", None),
        (b"<html>", None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
)
def test_vendor_code_is_found_where_services_put_it(body: bytes, vendor_code: str | None) -> None:
    error = outcomes.rejected(TARGET, 400, [], body)

    assert error.vendor_code == vendor_code


def test_body_is_kept_bounded_beside_the_message_and_not_in_it() -> None:
    body = b'{"error":{"message":"the words of the body"}}' + b" " * 10_000

    error = outcomes.rejected(TARGET, 400, [("X-Request-Id", "r-1")], body)

    response = handshake_response(error)
    assert response is not None
    assert response.body == body[:4096]
    assert response.headers == {"x-request-id": "r-1"}
    assert response.json() == {"error": {"message": "the words of the body"}}
    assert "words" not in str(error) + repr(error) + repr(response)


def test_other_errors_have_no_response() -> None:
    assert handshake_response(outcomes.refused_tcp(TARGET, "x")) is None
    assert handshake_response(ValueError()) is None


def test_what_a_peer_quotes_of_our_secrets_is_masked() -> None:
    target = Target(
        "acme",
        "wss://user:pass-word@h.example/p?api-key=sk-query-1&v=2",
        {"Authorization": "Bearer sk-header-2"},
    )

    text = str(
        outcomes.was_closed(target, 1008, "bad pass-word, sk-query-1 or sk-header-2\r\nBearer sk-header-2", 0)
    )

    assert "bad ***, *** or ***  ***" in text


@given(
    secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12),
    status=st.integers(300, 599),
)
def test_no_error_shows_the_urls_query_or_userinfo(secret: str, status: int) -> None:
    target = Target("acme", f"wss://u:{secret}q@h.example:8443/path?k={secret}")
    body = json.dumps({"code": f"bad {secret}"}).encode()

    errors = [
        outcomes.rejected(target, status, [], body),
        outcomes.refused_tcp(target, f"no route to {secret}"),
        outcomes.timed_out(target, 10),
        outcomes.was_closed(target, 1011, secret, 1),
        outcomes.stopped_answering(target, 10, 20),
        outcomes.was_violated(target, 1009, secret, 1),
    ]

    for error in errors:
        assert secret not in f"{error} {error!r} {error.vendor_code} {target!r}"
    assert target.text == "wss://h.example:8443/path"


def test_ipv6_hosts_are_printed_in_brackets() -> None:
    assert Target("acme", "ws://[::1]:8080/x?y=z").text == "ws://[::1]:8080/x"


def test_model_that_a_service_names_is_not_taken_for_a_secret() -> None:
    target = Target("acme", "wss://acme.example/v1?model=acme-voice-2&token=tok-12345678")

    assert target.scrub("no model acme-voice-2 for tok-12345678") == "no model acme-voice-2 for ***"
