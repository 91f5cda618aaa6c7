"""A request for an answer that met one of the service's own."""

from __future__ import annotations

from typing import Any

from tests.plugins.openai.peer import DialledProvider, Peer, session
from voxengine.testing import virtual
from voxengine_azure.voice_live.dialect import VOICE_LIVE
from voxengine_azure.voice_live.provider import VoiceLiveProvider

ACTIVE = {
    "type": "invalid_request_error",
    "code": "conversation_already_has_active_response",
    "message": "Conversation already has an active response in progress: resp_x.",
}


class DialledVoiceLive(VoiceLiveProvider):
    peer: Peer
    _dial = DialledProvider._dial


@virtual
async def test_text_whose_request_was_refused_is_told_once_and_asked_for_again() -> None:
    answers: list[Any] = [ACTIVE, None]
    peer = Peer(VOICE_LIVE)
    peer.refuses = lambda message: answers.pop(0) if message.name == "response.create" else None
    config = {"model": "m", "metadata": {"endpoint": "https://res.cognitiveservices.azure.com"}}
    async with session(kind=DialledVoiceLive, peer=peer, is_checked=False, **config) as held:
        provider, _, recorder = held
        await peer.begin()
        await recorder.wait("response_started")
        await provider.send_text("Hello")
        # An answer of the service's own begins while the request for the text is on its way.
        await peer.finish()
        await peer.wait("response.create")
        await peer.begin("resp_vad")
        await peer.finish("resp_vad")
        await peer.wait("response.create", 2)
        await provider.interrupt()

    assert len(peer.of("conversation.item.create")) == 1
    assert not recorder.of("error_general")
