"""The exception tree: who is to blame, whether to retry, and what a handler can tell them apart by."""

from __future__ import annotations

import inspect
import pickle

import pytest

from voxengine import errors
from voxengine.errors import (
    CapabilityMissing,
    ErrorCode,
    JournalFull,
    ProviderError,
    RateLimited,
    VoxEngineError,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, VoxEngineError)]
PROVIDER_CLASSES = [cls for cls in CLASSES if issubclass(cls, ProviderError)]


def make(cls: type[VoxEngineError]) -> VoxEngineError:
    return cls("No room.", capability="cancel") if cls is CapabilityMissing else cls("No room.")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_exception_is_exported_and_drawn_in_the_tree(cls: type[VoxEngineError]) -> None:
    tree = (errors.__doc__ or "").partition("The tree::")[2]

    assert cls.__name__ in errors.__all__
    assert cls.__name__ in tree.split()


@pytest.mark.parametrize("cls", CLASSES)
def test_message_is_what_str_gives(cls: type[VoxEngineError]) -> None:
    assert str(make(cls)) == "No room."


@pytest.mark.parametrize(
    ("cls", "parent"),
    [
        (errors.ConfigError, VoxEngineError),
        (errors.UsageError, VoxEngineError),
        (errors.WrongThread, errors.UsageError),
        (errors.NotConnected, errors.UsageError),
        (errors.AudioError, VoxEngineError),
        (errors.AudioFormatError, errors.AudioError),
        (errors.JournalFull, errors.AudioError),
        (errors.ProviderError, VoxEngineError),
        (errors.ProviderNotFound, ProviderError),
        (errors.AuthenticationFailed, ProviderError),
        (errors.RateLimited, ProviderError),
        (errors.ConnectionLost, ProviderError),
        (errors.CapabilityMissing, ProviderError),
        (errors.LocalProtocolError, ProviderError),
        (errors.RemoteProtocolError, ProviderError),
    ],
)
def test_handler_for_the_parent_catches_the_child(
    cls: type[VoxEngineError], parent: type[VoxEngineError]
) -> None:
    with pytest.raises(parent):
        raise make(cls)


def test_usage_and_provider_errors_are_told_apart() -> None:
    assert not issubclass(errors.UsageError, ProviderError)
    assert not issubclass(errors.ConfigError, errors.UsageError)


CODES: dict[type[ProviderError], str] = {
    errors.ProviderError: "unknown",
    errors.ProviderNotFound: "not_found",
    errors.AuthenticationFailed: "authentication",
    errors.RateLimited: "rate_limit",
    errors.ConnectionLost: "connection_lost",
    errors.CapabilityMissing: "capability_missing",
    errors.LocalProtocolError: "protocol",
    errors.RemoteProtocolError: "protocol",
}


@pytest.mark.parametrize("cls", PROVIDER_CLASSES)
def test_each_provider_error_has_its_own_code(cls: type[ProviderError]) -> None:
    error = make(cls)

    assert isinstance(error, ProviderError)
    assert error.code == CODES[cls]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_code_decides_whether_a_retry_can_help(code: ErrorCode) -> None:
    helps = {"rate_limit", "unavailable", "timeout", "connection_lost", "session_expired"}

    assert ProviderError("x", code=code).recoverable is (code in helps)


@pytest.mark.parametrize("recoverable", [True, False])
def test_provider_overrules_whether_a_retry_can_help(recoverable: bool) -> None:
    assert ProviderError("x", code="authentication", recoverable=recoverable).recoverable is recoverable
    assert RateLimited("x", recoverable=recoverable).recoverable is recoverable


def test_list_of_codes_is_closed() -> None:
    with pytest.raises(ValueError, match="too_sunny"):
        ProviderError("x", code="too_sunny")


def test_details_are_kept_as_given() -> None:
    error = RateLimited(
        "Slow down.", provider="acme", retry_after_s=2.5, vendor_code="429-burst", close_code=1013
    )

    assert (error.provider, error.code, error.retry_after_s) == ("acme", "rate_limit", 2.5)
    assert (error.vendor_code, error.close_code) == ("429-burst", 1013)


def test_missing_details_are_none_and_never_guessed() -> None:
    error = ProviderError("x")

    assert (error.provider, error.retry_after_s, error.vendor_code, error.close_code) == (
        "",
        None,
        None,
        None,
    )


def test_missing_capability_names_its_row_and_whether_it_is_planned() -> None:
    cannot = CapabilityMissing("x", capability="cancel", provider="acme")
    not_yet = CapabilityMissing("x", capability="resume", planned=True)

    assert (cannot.capability, cannot.planned, cannot.provider) == ("cancel", False, "acme")
    assert (not_yet.capability, not_yet.planned, not_yet.recoverable) == ("resume", True, False)


def test_full_journal_says_how_much_it_holds() -> None:
    assert JournalFull("x", held_s=60.0).held_s == 60.0


def test_wrong_audio_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="odd"):
        raise errors.AudioFormatError("odd")


@pytest.mark.parametrize(
    "cls", [errors.ConfigError, errors.NotConnected, errors.ConnectionLost, errors.JournalFull]
)
def test_exceptions_cross_a_process_boundary(cls: type[VoxEngineError]) -> None:
    copy = pickle.loads(pickle.dumps(make(cls)))  # noqa: S301 - our own object

    assert type(copy) is cls
    assert str(copy) == "No room."


def test_missing_capability_crosses_a_process_boundary_with_its_row() -> None:
    error = CapabilityMissing("x", capability="cancel", provider="acme", planned=True)

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own object

    assert (copy.capability, copy.provider, copy.planned) == ("cancel", "acme", True)
