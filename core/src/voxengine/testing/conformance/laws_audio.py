"""Laws of audio input."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any, Final

from voxengine.audio.format import AudioFormat
from voxengine.config import TurnDetection
from voxengine.errors import AudioFormatError
from voxengine.events import EventType
from voxengine.testing.conformance.law import Law, LawBroken, LawSkipped, Skip, law
from voxengine.testing.conformance.probe import DEFAULT_FORMAT, ENDINGS, OUTPUT, Live, Probe, tell

__all__ = ["LAWS", "require_input"]

LAWS: Final[list[Law]] = []

_MANUAL: Final = TurnDetection("manual")
_ASKED: Final = (*OUTPUT, *ENDINGS, EventType.RESPONSE_STARTED, EventType.FUNCTION_CALL_INVOKED)


def require_input(probe: Probe) -> None:
    """LawSkipped for a class that only speaks."""
    if not probe.can("dialogue") and not probe.can("recognition"):
        probe.lacking("dialogue")
        probe.lacking("recognition")


@law("audio", into=LAWS, essential=True)
async def audio_is_taken_in_every_declared_format(probe: Probe) -> None:
    """Speech in each of the declared input formats is taken without an error."""
    require_input(probe)
    for form in probe.capabilities.input_formats or (DEFAULT_FORMAT,):
        changes: dict[str, Any] = {"input_format": form} if probe.capabilities.input_formats else {}
        async with probe.open(**changes) as live:
            since = live.now
            await live.send(probe.speech_in(form), form)
            await live.quiet()
            live.no_errors(since, f"Speech in {form.describe()}")


@law("audio", into=LAWS)
async def odd_byte_count_is_refused_clearly(probe: Probe) -> None:
    """Half a sample is an AudioFormatError, or is left to the engine, which refuses it; the session goes on."""
    require_input(probe)
    async with probe.open() as live:
        form = probe.input_format(live.provider)
        if form.frame_bytes == 1:
            raise LawSkipped(Skip.VENDOR, "a frame of the input format is one byte")
        # Also for a class that can write at once: both ways in have the same rules.
        try:
            live.provider.try_send_audio(bytes(form.n_bytes(20) + 1))
            await live.call("send_audio", bytes(form.n_bytes(20) + 1))
        except AudioFormatError:
            pass
        except LawBroken:
            raise
        except Exception as error:
            raise LawBroken(
                f"send_audio() with an odd number of bytes raised {tell(error)}; it is an AudioFormatError."
            ) from error
        else:
            return  # Left to the engine: what a peer makes of half a sample is not the provider's fault.
        since = live.now
        await live.works("send_audio", bytes(form.n_bytes(20)), when="after a refused chunk")
        live.no_errors(since, "A whole chunk after a refused one")


@law("audio", into=LAWS)
async def empty_audio_is_harmless(probe: Probe) -> None:
    """A chunk without samples does nothing, and the session goes on."""
    require_input(probe)
    async with probe.open() as live:
        since = live.now

        await live.works("send_audio", b"", when="with no samples")
        await live.quiet()

        live.no_errors(since, "An empty chunk")
        await live.goes_on("an empty chunk")


@law("audio", into=LAWS)
async def size_of_a_chunk_does_not_matter(probe: Probe) -> None:
    """Chunks of one frame and a chunk of ten seconds are taken, and the session goes on."""
    require_input(probe)
    async with probe.open() as live:
        form = probe.input_format(live.provider)
        since = live.now
        quiet = b"\x00" if form.width == 2 else b"\xff"
        smallest = max(form.frame_bytes, form.n_bytes(probe.capabilities.min_chunk_ms or 0))

        for _ in range(50):
            await live.works("send_audio", quiet * smallest, when="with the smallest chunk")
        if probe.capabilities.replay_speed is None:
            await live.works("send_audio", quiet * form.n_bytes(10_000), when="with 10 s at once")
        await live.quiet()

        live.no_errors(since, "A very small or very large chunk")
        await live.goes_on("very small and very large chunks")


@law("audio", into=LAWS, needs=("dialogue",), declared=("server_turn_detection",))
async def speech_is_answered(probe: Probe) -> None:
    """Under the vendor's turn detection, speech followed by silence gets an answer."""
    for quick in probe.ways("try_send_audio"):
        await _speech_answered(probe, quick=quick)


async def _speech_answered(probe: Probe, *, quick: bool) -> None:
    async with probe.open() as live:
        since = live.now

        await live.say(quick=quick)
        turn = await live.answer(since, "Speech and silence got no answer")

        if not turn.output:
            raise LawBroken(
                f"The answer to speech held neither text nor audio. What came: {live.seen(since)}."
            )


@law("audio", into=LAWS, needs=("dialogue",), declared=("semantic_turn_detection",))
async def speech_is_answered_under_semantic_detection(probe: Probe) -> None:
    """Under semantic turn detection speech gets an answer, and the settings in force name that detection."""
    async with probe.open(turn_detection=TurnDetection("semantic")) as live:
        since = live.now

        await live.say()

        await live.answer(since, "Speech and silence got no answer under semantic turn detection")
        live.check_in_force("turn_detection", "semantic")


@law("audio", into=LAWS, declared=("emotion",))
async def emotion_is_told(probe: Probe) -> None:
    """Speech brings an EMOTION with its label, where recognising it is declared."""
    async with probe.open(transcription=True) as live:
        since = live.now

        await live.say()
        if probe.answers:
            await live.answer(since)

        if not await live.until(
            lambda: bool(live.of(EventType.EMOTION, since=since)), probe.settings.settle_s
        ):
            raise LawSkipped(
                Skip.UNJUDGED,
                "emotion is declared and no EMOTION came; the speech may hold none: set speech to some that does",
            )
        for event in live.of(EventType.EMOTION, since=since):
            label = event.data.get("label")
            if not isinstance(label, str) or not label.strip():
                raise LawBroken("EMOTION has no 'label'.")


@law("audio", into=LAWS, declared=("recognition",))
async def speech_is_transcribed(probe: Probe) -> None:
    """Speech gives a final transcript that is not empty, and it comes once."""
    if not probe.declares("server_turn_detection") and not probe.can("client_turn_detection"):
        raise LawSkipped(Skip.UNDECLARED, "no way of ending a spoken turn is declared")
    # A recogniser may hand out what it heard as TEXT_OUTPUT.
    kinds = [EventType.INPUT_TRANSCRIPT]
    if not probe.can("dialogue"):
        kinds.append(EventType.TEXT_OUTPUT)
    for quick in probe.ways("try_send_audio"):
        await _speech_transcribed(probe, kinds, quick=quick)


async def _speech_transcribed(probe: Probe, kinds: list[EventType], *, quick: bool) -> None:
    async with probe.open(transcription=True) as live:
        since = live.now
        await live.say(quick=quick)

        def is_there() -> bool:
            return any(
                not event.data.get("is_partial") and str(event.data.get("text") or "").strip()
                for event in live.of(*kinds, since=since)
            )

        if not await live.until(is_there, probe.settings.answer_s):
            raise LawBroken(f"Speech gave no final transcript. What came: {live.seen(since)}.")
        await live.quiet()
        seen: set[tuple[object, object]] = set()
        for event in live.of(EventType.INPUT_TRANSCRIPT, since=since):
            final = (event.data.get("item_id"), event.data.get("text"))
            if event.data.get("is_partial") or final[0] is None:
                continue
            if final in seen:
                raise LawBroken("The final INPUT_TRANSCRIPT of one item came twice.")
            seen.add(final)


@law("audio", into=LAWS, needs=("dialogue", "client_turn_detection"))
async def end_turn_asks_for_an_answer(probe: Probe) -> None:
    """Under manual turn control, end_turn(True) after speech gets an answer, and nothing does before it."""
    async with probe.open(turn_detection=_MANUAL) as live:
        since = live.now
        await live.say(ends=False)
        await live.quiet()
        early = live.of(*_ASKED, since=since)
        if early:
            raise LawBroken(f"{early[0].type.name} came before end_turn().")

        await live.works("end_turn", True, when="after speech")

        turn = await live.answer(since, "end_turn(True) got no answer")
        if not turn.output:
            raise LawBroken(f"The answer held neither text nor audio. What came: {live.seen(since)}.")


@law("audio", into=LAWS, needs=("dialogue", "client_turn_detection"))
async def end_turn_without_respond_asks_for_nothing(probe: Probe) -> None:
    """end_turn(False) closes the user's turn and brings no answer."""
    async with probe.open(turn_detection=_MANUAL) as live:
        since = live.now
        await live.say(ends=False)

        await live.works("end_turn", False, when="after speech")
        await asyncio.sleep(max(probe.settings.quiet_s, 1.0))

        unasked = live.of(*_ASKED, since=since)
        if unasked:
            raise LawBroken(f"end_turn(False) was followed by {unasked[0].type.name}.")


@law("audio", into=LAWS, needs=("discard_input", "client_turn_detection"), declared=("recognition",))
async def discarded_input_is_forgotten(probe: Probe) -> None:
    """Speech that was discarded before the end of the turn is not transcribed at its end."""
    async with probe.open(turn_detection=_MANUAL, transcription=True) as live:
        await live.say(ends=False)
        await live.quiet()  # What was recognised while it was spoken may still arrive.
        await live.works("discard_input", when="after speech")
        await live.quiet()
        since = live.now

        await live.works("end_turn", False, when="after discard_input()")
        await asyncio.sleep(max(probe.settings.quiet_s, 1.0))

        words = [
            event
            for event in live.of(EventType.INPUT_TRANSCRIPT, since=since)
            if str(event.data.get("text") or "").strip()
        ]
        if words:
            raise LawBroken("Discarded speech was transcribed all the same.")


@law("audio", into=LAWS, essential=True)
async def send_audio_waits_for_a_slow_service(probe: Probe) -> None:
    """When the service stops reading, send_audio waits instead of buffering without bound."""
    require_input(probe)
    async with probe.open(await probe.peer("stalled")) as live:
        probe.strike()
        n_sent = await _fill(live, probe.input_format(live.provider))
        if n_sent is not None:
            raise LawBroken(
                f"send_audio() took {n_sent // 2**20} MiB although the service does not read: nothing slows the "
                "caller. Await the transport's send."
            )
        if live.provider.try_send_audio(bytes(960)):
            raise LawBroken("try_send_audio() says True although the service does not read.")


async def _fill(live: Live, form: AudioFormat) -> int | None:
    """Send until a call waits; None when one does, else how many bytes were taken."""
    settings = live.probe.settings
    chunk = random.Random(0).randbytes(form.n_bytes(1000))  # A transport may compress: noise stays as it is.
    n_bytes = 0
    while n_bytes < settings.stall_bytes:
        sending = asyncio.ensure_future(live.call("send_audio", chunk, limit_s=settings.law_s))
        done, _ = await asyncio.wait([sending], timeout=max(settings.quiet_s, 1.0))
        if not done:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            return None
        sending.result()
        n_bytes += len(chunk)
        await asyncio.sleep(0)
    return n_bytes


@law("audio", into=LAWS)
async def stalled_session_can_be_closed(probe: Probe) -> None:
    """Disconnect returns in time when the service has stopped reading."""
    require_input(probe)
    async with probe.open(await probe.peer("stalled")) as live:
        probe.strike()
        await _fill(live, probe.input_format(live.provider))

        try:
            await live.disconnect(probe.settings.stalled_close_s)
        except LawBroken:
            raise
        except Exception as error:
            raise LawBroken(f"disconnect() of a stalled session raised {tell(error)}") from error
