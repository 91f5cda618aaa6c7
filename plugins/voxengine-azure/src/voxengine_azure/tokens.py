"""Tokens from the application: asked for when there is none, and when the service refuses the one there was."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from voxengine.errors import AuthenticationFailed

__all__ = ["new_token", "refused_token"]


async def new_token(renew: Callable[[], Any], service: str) -> str:
    """Return a token of ``metadata["token_provider"]``, a function or a coroutine function.

    Raises:
        AuthenticationFailed: It raised, or returned no text.
    """
    token: Any = None
    try:
        # A plain function may ask over the network and block.
        is_async = inspect.iscoroutinefunction(renew)
        token = renew() if is_async else await asyncio.to_thread(renew)
        if inspect.isawaitable(token):
            token = await token
    except Exception as error:
        # Its own words may hold the secret with which it asked.
        raise AuthenticationFailed(
            f"metadata['token_provider'] failed with {type(error).__name__}; there is no token for {service}.",
            provider="azure",
        ) from None
    # Credentials of Azure's own packages return an object that holds it.
    token = getattr(token, "token", token)
    if not isinstance(token, str) or not token.strip():
        raise AuthenticationFailed(
            f"metadata['token_provider'] returned {type(token).__name__}; it returns a token as a text.",
            provider="azure",
        )
    return token.strip()


def refused_token(error: AuthenticationFailed, service: str, *, is_provided: bool) -> AuthenticationFailed:
    """Return the error for a token that the service refused.

    Args:
        error: The refusal at the hand-shake.
        service: For the sentence.
        is_provided: The latest token came from ``metadata["token_provider"]``.
    """
    if is_provided:
        advice = (
            "The one that metadata['token_provider'] returned was refused too. Check the scope that it asks for and "
            "that it belongs to this resource."
        )
    else:
        advice = (
            "It may have expired, since tokens last minutes or an hour: give metadata['token_provider'], which is "
            "asked for a new one."
        )
    return AuthenticationFailed(
        f"{service} refused the token. {advice}",
        provider="azure",
        vendor_code=error.vendor_code,
    )
