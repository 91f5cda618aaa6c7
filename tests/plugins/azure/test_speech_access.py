"""Where the Speech service is looked for, with which credentials, and what is said when something is missing."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from voxengine import VoiceEngine, VoiceEngineConfig
from voxengine.capabilities import ROWS, Support
from voxengine.errors import AuthenticationFailed, CapabilityMissing, ConfigError, ProviderError
from voxengine.testing.emulator import DEFAULT_KEY
from voxengine_azure import AzureProvider
from voxengine_azure.speech.access import Access
from voxengine_azure.speech.settings import SpeechSettings

VARIABLES = (
    "AZURE_SPEECH_KEY", "SPEECH_KEY", "AZURE_SPEECH_REGION", "SPEECH_REGION", "AZURE_VOICELIVE_ENDPOINT",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def access(**metadata: Any) -> Access:
    return Access.of({"api_key": "a-key", "metadata": metadata})


def recognition(place: Access, **metadata: Any) -> str:
    return place.recognition_url(SpeechSettings.of({"metadata": metadata}))


# --- Addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eastus", "eastus.stt.speech.microsoft.com"), ("chinaeast2", "chinaeast2.stt.speech.azure.cn"),
        ("usgovvirginia", "usgovvirginia.stt.speech.azure.us"),
    ],
)  # fmt: skip
def test_region_names_the_hosts(region: str, host: str) -> None:
    place = access(region=region)

    assert urlsplit(recognition(place)).hostname == host
    assert urlsplit(place.synthesis_url(SpeechSettings())).hostname == host.replace("stt", "tts")


def test_address_of_recognition_names_language_and_format_and_no_secret() -> None:
    url = urlsplit(recognition(access(region="eastus"), language="de-DE"))

    assert (url.scheme, url.path) == ("wss", "/speech/recognition/conversation/cognitiveservices/v1")
    query = parse_qs(url.query)
    assert (query["language"], query["format"]) == (["de-DE"], ["detailed"])
    assert "a-key" not in url.query


def test_languages_are_identified_at_the_universal_path() -> None:
    url = urlsplit(recognition(access(region="eastus"), languages=["de-DE", "en-US"]))

    assert url.path == "/speech/universal/v2"
    assert "language" not in parse_qs(url.query)


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_endpoint_of_a_resource_is_used_for_both_halves(scheme: str) -> None:
    place = access(endpoint=f"{scheme}://mine.cognitiveservices.azure.com/")

    start = "wss://mine.cognitiveservices.azure.com"
    assert recognition(place).startswith(f"{start}/stt/speech/recognition/conversation/")
    assert place.synthesis_url(SpeechSettings()) == f"{start}/tts/cognitiveservices/websocket/v1"
    assert place.replaced_path == ""


def test_endpoint_that_the_portal_shows_is_understood_as_its_region() -> None:
    place = access(endpoint="https://westus2.api.cognitive.microsoft.com/")

    assert place.region == "westus2"


def test_unknown_path_of_an_endpoint_is_replaced_and_remembered() -> None:
    place = access(endpoint="wss://speech.azure.com/realtime", region="westus2")

    assert place.replaced_path == "/realtime"
    assert place.synthesis_url(SpeechSettings()).endswith("azure.com/tts/cognitiveservices/websocket/v1")


def test_custom_voice_and_custom_model_have_their_places() -> None:
    settings = SpeechSettings.of({"metadata": {"custom_voice": "dep 1", "custom_model": "m1"}})
    place = access(region="eastus")

    assert place.synthesis_url(settings) == (
        "wss://eastus.voice.speech.microsoft.com/cognitiveservices/websocket/v1?deploymentId=dep+1"
    )
    assert parse_qs(urlsplit(place.recognition_url(settings)).query)["cid"] == ["m1"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"endpoint": "ftp://x.azure.com"}, "scheme 'ftp'"), ({"endpoint": "eastus"}, "scheme"),
        ({"endpoint": "http://x.azure.com"}, "in the clear. Write https"),
        ({"endpoint": 5}, "takes an address"), ({"endpoint": "wss://x.com?key=abcdefgh"}, "api_key"),
        ({"endpoint": "wss://u:pass1234@x.com"}, "api_key"), ({"endpoint": "wss://x.com:port"}, "no address"),
        ({"region": "East US"}, "small letters"), ({"region": "evil.com/#"}, "small letters"),
        ({"region": 5}, "small letters"), ({"region": "eastus", "token": ""}, "not empty"),
        ({"region": "eastus", "token_provider": "x"}, "function"),
    ],
)  # fmt: skip
def test_wrong_place_or_credential_is_named(metadata: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        access(**metadata)

    assert "abcdefgh" not in str(caught.value)
    assert "pass1234" not in str(caught.value)


def test_missing_region_says_what_to_type() -> None:
    with pytest.raises(ProviderError, match=r"metadata\['region'\].*AZURE_SPEECH_REGION") as caught:
        access()

    assert (caught.value.provider, caught.value.recoverable) == ("azure", False)


def test_missing_key_says_what_to_type() -> None:
    with pytest.raises(AuthenticationFailed, match=r"api_key.*AZURE_SPEECH_KEY.*token_provider"):
        Access.of({"metadata": {"region": "eastus"}})


async def test_emulator_on_this_machine_needs_no_key() -> None:
    headers = await Access.of({"metadata": {"endpoint": "ws://127.0.0.1:8765"}}).headers(is_renewal=False)

    assert headers == {"Ocp-Apim-Subscription-Key": DEFAULT_KEY}


def test_environment_fills_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECH_KEY", "from-the-environment")
    monkeypatch.setenv("AZURE_SPEECH_REGION", "northeurope")

    place = Access.of({})

    assert place.region == "northeurope"
    assert "from-the-environment" not in repr(place)


# --- The choice of a service ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "service"),
    [
        ({}, "speech"), ({"region": "eastus"}, "speech"),
        ({"endpoint": "https://x.services.ai.azure.com"}, "voice-live"),
        ({"endpoint": "https://x.com", "service": "speech"}, "speech"), ({"service": "openai"}, "openai"),
    ],
)  # fmt: skip
def test_service_follows_from_what_is_given(metadata: dict[str, Any], service: str) -> None:
    assert AzureProvider({"metadata": metadata}).service == service


def test_endpoint_of_the_environment_is_one_of_a_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_VOICELIVE_ENDPOINT", "https://x.services.ai.azure.com")

    assert AzureProvider({"metadata": {"region": "eastus"}}).service == "voice-live"
    assert AzureProvider({"metadata": {"region": "eastus", "service": "speech"}}).service == "speech"


def test_speech_has_no_dialogue_and_says_how_to_get_one() -> None:
    capabilities = AzureProvider.capabilities_for({"metadata": {"region": "eastus"}})

    assert capabilities.dialogue.support is Support.UNSUPPORTED
    assert "metadata['endpoint']" in capabilities.dialogue.why
    assert "AZURE_VOICELIVE_ENDPOINT" in capabilities.dialogue.why
    assert all(capabilities.support(row).support is not Support.UNKNOWN for row in ROWS)


def test_speech_that_was_asked_for_by_name_says_how_to_leave_it() -> None:
    metadata = {"service": "speech", "endpoint": "https://x.services.ai.azure.com"}

    capabilities = AzureProvider.capabilities_for({"metadata": metadata})

    assert capabilities.dialogue.support is Support.UNSUPPORTED
    assert "metadata['service']" in capabilities.dialogue.why
    assert "'voice-live'" in capabilities.dialogue.why


async def test_region_alone_cannot_replace_a_provider_that_converses() -> None:
    spoken_to = VoiceEngineConfig(provider="mock")
    region_only = VoiceEngineConfig(provider="azure", api_key="k", metadata={"region": "eastus"})

    async with VoiceEngine(spoken_to) as engine:
        with pytest.raises(CapabilityMissing) as caught:
            await engine.switch_provider("azure", region_only)

        assert caught.value.capability == "dialogue"
        assert engine.session is not None
        assert engine.session.name == "mock"


async def test_unknown_service_lists_the_known_ones() -> None:
    provider = AzureProvider({"metadata": {"service": "speach"}})

    with pytest.raises(ConfigError, match="'speach'.*voice-live, openai, speech"):
        await provider.connect()


# --- Settings ------------------------------------------------------------------------------------------


def test_context_asks_for_what_was_configured() -> None:
    settings = SpeechSettings.of(
        {
            "language": "de-DE",
            "vocabulary": ("VoxEngine",),
            "metadata": {"profanity": "raw", "session": {"context": {"phraseDetection": {"x": 1}, "new": 2}}},
        }
    )

    context = settings.context()

    assert context["dgi"]["groups"][0]["items"] == [{"text": "VoxEngine"}]
    assert context["phraseOutput"]["detailed"] == {"options": ["WordTimings", "WordConfidence"]}
    assert context["phraseDetection"]["language"] == "de-DE"
    assert context["phraseDetection"]["enrichment"] == {"profanity": "raw"}
    assert (context["phraseDetection"]["x"], context["new"]) == (1, 2)


@pytest.mark.parametrize(
    ("detection", "segmentation"),
    [
        ({"kind": "server"}, None), ({"kind": "semantic"}, {"mode": "Semantic"}),
        ({"kind": "server", "silence_ms": 300}, {"mode": "Custom", "segmentationSilenceTimeoutMs": 300}),
        ({"kind": "server", "silence_ms": 9000}, {"mode": "Custom", "segmentationSilenceTimeoutMs": 5000}),
        ({"kind": "manual"}, {"mode": "Custom", "segmentationSilenceTimeoutMs": 5000}),
    ],
)  # fmt: skip
def test_turn_detection_becomes_segmentation(detection: dict[str, Any], segmentation: object) -> None:
    from voxengine import TurnDetection

    context = SpeechSettings.of({"turn_detection": TurnDetection(**detection)}).context()

    assert context["phraseDetection"].get("conversation", {}).get("segmentation") == segmentation


def test_fast_mode_asks_for_less() -> None:
    settings = SpeechSettings.of({"mode": "fast"})

    assert settings.context()["phraseOutput"]["format"] == "Simple"
    assert settings.query() == {"language": "en-US", "format": "simple"}
    assert settings.synthesis()["synthesis"]["audio"]["metadataOptions"]["visemeEnabled"] is False


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"metadata": {"languages": "de-DE"}}, "list of texts"), ({"vocabulary": [""]}, "not empty"),
        ({"metadata": {"languages": ["a"] * 11}}, "at most 10"), ({"metadata": {"profanity": "x"}}, "raw"),
        ({"metadata": {"session": 5}}, "mapping"), ({"input_format": 16_000}, "input_format is int"),
        ({"metadata": {"language_mode": "x"}}, "continuous, at_start"),
    ],
)  # fmt: skip
def test_wrong_option_is_named(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SpeechSettings.of(config)


def test_format_that_the_service_does_not_take_is_refused_with_those_it_does() -> None:
    from voxengine.audio.format import AudioFormat

    with pytest.raises(ConfigError, match="44100 Hz stereo; azure speech takes 16000 Hz mono"):
        SpeechSettings.of({"input_format": AudioFormat(44_100, 2)})
