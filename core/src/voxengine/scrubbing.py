"""What is a secret in a configuration, and texts and values without any."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from voxengine.errors import ProviderError, VoxEngineError

__all__ = [
    "MASK",
    "bare_urls",
    "cleaned_error",
    "environment_secrets",
    "is_secret_name",
    "secret_values",
    "shows_secret",
    "without_secrets",
]

MASK: Final = "…"
"""Stands in the place of a secret."""

_WORDS: Final = ("key", "token", "secret", "password", "auth", "credential", "header", "cookie")
_PLAIN_ENDINGS: Final = ("_type", "_name")
"""``auth_type`` says how a secret is shown and ``auth_name`` where: neither is one."""
_LEAST_CHARS: Final = 4
"""A shorter value would be found in every other word."""
_LEAST_CHARS_FOREIGN: Final = 12
"""The same for variables of the environment, whose names say less."""
_URL: Final = re.compile(r"(\b\w+://)([^\s/@'\"]*@)?([^\s?#'\"]*)([?#][^\s'\"]*)?")


def is_secret_name(name: str) -> bool:
    """Return whether a value of this name is taken for a secret."""
    name = name.lower()
    return any(word in name for word in _WORDS) and not name.endswith(_PLAIN_ENDINGS)


def secret_values(config: Mapping[str, Any]) -> list[str]:
    """Return the secrets that a provider's configuration holds, longest first: its key, and what metadata calls one."""
    found: list[str] = []

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for inner, held in value.items():
                # Everything below a secret name is secret: headers have names of their own.
                walk(name if is_secret_name(name) else str(inner), held)
        elif isinstance(value, list | tuple):
            for held in value:
                walk(name, held)
        elif isinstance(value, str) and len(value) >= _LEAST_CHARS and is_secret_name(name):
            found.append(value)

    walk("api_key", config.get("api_key"))
    walk("", config.get("metadata", {}))
    return sorted(set(found), key=len, reverse=True)


def environment_secrets() -> list[str]:
    """Return the values of environment variables whose names call them secret, longest first."""
    values = {
        value
        for name, value in os.environ.items()
        if is_secret_name(name) and len(value) >= _LEAST_CHARS_FOREIGN
    }
    return sorted(values, key=len, reverse=True)


def bare_urls(text: str) -> str:
    """Return a text in which no URL has a user or a query."""
    return _URL.sub(_bare_url, text)


def without_secrets(value: Any, secrets: Iterable[str] = ()) -> Any:
    """Return plain values in which what has a secret's name is left out and what is left is free of ``secrets``."""
    if isinstance(value, Mapping):
        return {
            str(name): without_secrets(held, secrets)
            for name, held in value.items()
            if not (is_secret_name(str(name)) and isinstance(held, str | Mapping | list | tuple))
        }
    if isinstance(value, list | tuple):
        return [without_secrets(held, secrets) for held in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return bare_urls(value)
    return value


def shows_secret(error: BaseException, mask: Callable[[str], str]) -> bool:
    """Return whether a traceback of an error would print what ``mask`` takes out of a text."""
    left, seen = [error], set[int]()
    while left:
        link = left.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        if any(mask(text) != text for text in (str(link), repr(link), *_notes(link))):
            return True
        before = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        left += [before] if before is not None else []
        left += link.exceptions if isinstance(link, BaseExceptionGroup) else ()
    return False


def cleaned_error(error: BaseException, mask: Callable[[str], str]) -> BaseException:
    """Return an error whose traceback prints nothing that ``mask`` takes out of a text: the same one where it can be.

    Causes and notes that show a secret are dropped from it.
    """
    if not shows_secret(error, mask):
        return error
    text = str(error)
    if len(error.args) == 1 and error.args[0] == text:
        error.args = (mask(text),)
    error.__dict__.pop("__notes__", None)
    before = error.__cause__ or error.__context__
    if before is not None and shows_secret(before, mask):
        error.__cause__ = error.__context__ = None
    if not shows_secret(error, mask):
        return error
    # It makes its text itself, or is a group: one of ours says the same.
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == VoxEngineError.__module__)
    kind = next(kinds, ProviderError)
    if not issubclass(type(error), kind):
        return ProviderError(mask(text))
    clean: BaseException = BaseException.__new__(kind, mask(text))
    clean.__dict__.update(error.__dict__)
    return clean


def _notes(error: BaseException) -> list[str]:
    return [str(note) for note in getattr(error, "__notes__", ())]


def _bare_url(match: re.Match[str]) -> str:
    scheme, user, rest, query = match.groups()
    return f"{scheme}{f'{MASK}@' if user else ''}{rest}{f'?{MASK}' if query else ''}"
