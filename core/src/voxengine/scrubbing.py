"""What is a secret in a configuration, and texts and values without any."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["MASK", "bare_urls", "environment_secrets", "is_secret_name", "secret_values", "without_secrets"]

MASK: Final = "…"
"""Stands in the place of a secret."""

_WORDS: Final = ("key", "token", "secret", "password", "auth", "credential", "header", "cookie")
_LEAST_CHARS: Final = 4
"""A shorter value would be found in every other word."""
_LEAST_CHARS_FOREIGN: Final = 12
"""The same for variables of the environment, whose names say less."""
_URL: Final = re.compile(r"(\b\w+://)([^\s/@'\"]*@)?([^\s?#'\"]*)([?#][^\s'\"]*)?")


def is_secret_name(name: str) -> bool:
    """Return whether a value of this name is taken for a secret."""
    name = name.lower()
    return any(word in name for word in _WORDS)


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


def _bare_url(match: re.Match[str]) -> str:
    scheme, user, rest, query = match.groups()
    return f"{scheme}{f'{MASK}@' if user else ''}{rest}{f'?{MASK}' if query else ''}"
