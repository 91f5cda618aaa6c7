"""What the services of OpenAI can do."""

from __future__ import annotations

from typing import Final

from voxengine.capabilities import FULL, UNSUPPORTED, Capabilities, Capability, Support, partial
from voxengine_openai.link import SESSION_LIMIT_S
from voxengine_openai.models import DEFAULT_MODEL, history_chars
from voxengine_openai.session_settings import FORMATS
from voxengine_openai.voices import REALTIME_VOICES

__all__ = ["LIVE_TRANSCRIPTION", "REALTIME", "SILENCE_MS", "TRANSCRIPTION"]

SILENCE_MS: Final = 500
"""After so much silence the service ends a turn, unless it is told otherwise."""
_NO_DIALOGUE: Final = (
    "a transcription session gives words and no answers; leave metadata['service'] out for a dialogue"
)

REALTIME: Final = Capabilities(
    streaming=FULL,
    dialogue=FULL,
    recognition=FULL,
    synthesis=FULL,
    text_turn=FULL,
    speak=partial("the model is told to say the text word for word; it can deviate"),
    server_turn_detection=FULL,
    semantic_turn_detection=FULL,
    client_turn_detection=FULL,
    discard_input=FULL,
    session_tools=FULL,
    live_configuration=partial("the voice is fixed from the first audio on, the model for the session"),
    cancel=FULL,
    heard_text=partial("estimated from the played proportion; the service gives no alignment"),
    resume=UNSUPPORTED,
    items=FULL,
    context_text=FULL,
    context_audio=FULL,
    context_tools=FULL,
    replay=FULL,
    response_boundaries=FULL,
    multiple_voices=FULL,
    vocabulary_at_connect=partial("as hints for the transcription of the user's speech"),
    vocabulary_live=partial("as hints for the transcription of the user's speech"),
    word_timings=UNSUPPORTED,
    emotion=UNSUPPORTED,
    usage=FULL,
    cost=partial("from a dated price table; unknown for a model that is not in it"),
    voices=REALTIME_VOICES,
    input_formats=FORMATS,
    output_formats=FORMATS,
    preferred_chunk_ms=20,
    max_history_chars=history_chars(DEFAULT_MODEL),
    endpointing_silence_ms=SILENCE_MS,
    session_limit_s=SESSION_LIMIT_S,
    cost_per_minute_usd=0.06,
)
"""A conversation."""

TRANSCRIPTION: Final = Capabilities(
    streaming=partial("audio in, text out"),
    dialogue=Capability(Support.UNSUPPORTED, _NO_DIALOGUE),
    recognition=FULL,
    synthesis=UNSUPPORTED,
    text_turn=UNSUPPORTED,
    speak=UNSUPPORTED,
    server_turn_detection=FULL,
    semantic_turn_detection=FULL,
    client_turn_detection=FULL,
    discard_input=FULL,
    session_tools=UNSUPPORTED,
    live_configuration=FULL,
    cancel=UNSUPPORTED,
    heard_text=UNSUPPORTED,
    resume=UNSUPPORTED,
    items=UNSUPPORTED,
    context_text=UNSUPPORTED,
    context_audio=UNSUPPORTED,
    context_tools=UNSUPPORTED,
    replay=FULL,
    response_boundaries=UNSUPPORTED,
    multiple_voices=UNSUPPORTED,
    vocabulary_at_connect=partial("not with every transcription model"),
    vocabulary_live=partial("not with every transcription model"),
    word_timings=UNSUPPORTED,
    emotion=UNSUPPORTED,
    usage=FULL,
    cost=partial("from a dated price table; unknown for a model that is not in it"),
    input_formats=FORMATS,
    preferred_chunk_ms=20,
    endpointing_silence_ms=SILENCE_MS,
    session_limit_s=SESSION_LIMIT_S,
    cost_per_minute_usd=0.0045,
)
"""A session that writes down what the user says (``metadata["service"] = "transcription"``)."""

LIVE_TRANSCRIPTION: Final = TRANSCRIPTION.evolve(
    server_turn_detection=UNSUPPORTED, semantic_turn_detection=UNSUPPORTED, cost_per_minute_usd=0.017
)
"""The same with a model that writes while it hears."""
