"""A package of somebody else, installed as a wheel beside ours; and packages that are wrong beside both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.meta.test_imports import undocumented
from tests.strangers.broken import PACKAGES, write_package
from tests.strangers.conftest import MakeEnvironment
from tests.strangers.environment import STRANGERS, Environment, build_wheel

pytestmark = pytest.mark.slow

SWITCH = """\
import asyncio

from voxengine import EventType, VoiceEngine, VoiceEngineConfig

MOCK = VoiceEngineConfig(provider="mock", metadata={"responses": {"*": "From the mock."}, "seed": 1})
ACME = VoiceEngineConfig(provider="acme", instructions="From acme:")


async def main() -> None:
    async with VoiceEngine(MOCK) as engine:
        for text, there in (("one", ACME), ("two", MOCK), ("three", None)):
            await engine.send_text(text)
            await engine.wait_idle(timeout_s=30)
            if there is not None:
                await engine.switch_provider(there.provider, there)
        for item in engine.history.items:
            print(item.provider, item.role, item.text)
        switched = [event for event in engine.events.history if event.type == EventType.PROVIDER_SWITCHED]
        print([(event.from_provider, event.to_provider) for event in switched])


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def environment(make_environment: MakeEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Our wheels and the stranger's."""
    return make_environment(
        build_wheel(STRANGERS / "acme", tmp_path_factory.mktemp("acme")),
        needs=("voxengine[testing]", "voxengine-mock"),
    )


@pytest.fixture(scope="module")
def crowded(make_environment: MakeEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Our wheels, the stranger's and every wrong one."""
    folder = tmp_path_factory.mktemp("crowd")
    wrong = [build_wheel(write_package(folder, name), folder) for name in PACKAGES]
    return make_environment(build_wheel(STRANGERS / "acme", folder), *wrong)


def providers(environment: Environment) -> dict[str, Any]:
    done = environment.command("providers", "--json")
    assert done.returncode == 0, done.stderr
    return {provider["name"]: provider for provider in json.loads(done.stdout)["providers"]}


# --- The stranger ------------------------------------------------------------------------------------


def test_stranger_knows_the_documentation_alone() -> None:
    assert undocumented(STRANGERS / "acme" / "src" / "acme_voice" / "__init__.py", "acme_voice") == []


def test_nothing_of_the_working_tree_is_in_the_environment(environment: Environment) -> None:
    program = "import voxengine, voxengine_mock, acme_voice as a; print(voxengine.__file__, voxengine_mock.__file__, a.__file__)"

    done = environment.run("-c", program)

    assert all(str(environment.packages) in file for file in done.stdout.split()), done
    assert len(done.stdout.split()) == 3


def test_stranger_is_discovered_with_its_distribution(environment: Environment) -> None:
    found = providers(environment)

    assert set(found) == {"acme", "mock", "replay"}
    assert (found["acme"]["distribution"], found["acme"]["version"]) == ("acme-voice", "2.1.0")
    assert found["acme"]["error"] is None
    (service,) = found["acme"]["services"]
    assert service["capabilities"]["synthesis"] == {"support": "partial", "why": "a beep for each word"}


def test_stranger_talks(environment: Environment, tmp_path: Path) -> None:
    answer = tmp_path / "answer.wav"

    done = environment.command("talk", "--provider", "acme", "--text", "good morning", "--output", answer)

    assert done.returncode == 0, done.stderr
    assert "You said: good morning" in done.stdout
    assert answer.stat().st_size > 44


def test_stranger_hears_a_recording(environment: Environment) -> None:
    question = STRANGERS.parents[1] / "examples" / "data" / "question.wav"

    done = environment.command("talk", "--provider", "acme", "--input", question, "--fast")

    assert done.returncode == 0, done.stderr
    assert "I heard" in done.stdout


def test_stranger_passes_the_conformance_kit(environment: Environment) -> None:
    done = environment.command("check", "acme")

    assert done.returncode == 0, done.stdout + done.stderr


def test_conversation_moves_to_the_stranger_and_back(environment: Environment, tmp_path: Path) -> None:
    script = tmp_path / "switch.py"
    script.write_text(SWITCH, "utf-8")

    done = environment.run(script)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "mock user one",
        "mock agent From the mock.",
        "acme user two",
        "acme agent From acme: two",
        "mock user three",
        "mock agent From the mock.",
        "[('mock', 'acme'), ('acme', 'mock')]",
    ]


def test_removed_stranger_is_gone_and_the_mock_stays(
    make_environment: MakeEnvironment, tmp_path: Path
) -> None:
    environment = make_environment(build_wheel(STRANGERS / "acme", tmp_path))

    environment.uninstall("acme-voice")

    assert set(providers(environment)) == {"mock", "replay"}
    done = environment.command("talk", "--provider", "acme", "--text", "hello")
    assert done.returncode == 2
    assert (
        "No provider named 'acme'. Installed: mock (voxengine-mock 0.1.0), replay (voxengine 0.1.0)."
        in done.stderr
    )
    assert "pip install" not in done.stderr  # A stranger's name is never turned into a package to install.


# --- The wrong ones ----------------------------------------------------------------------------------

SENTENCES = {
    "wheelless": (
        "Provider 'wheelless' (voice-without-wheels 1.0) could not be imported: No module named "
        "'a_module_that_nobody_has'. The other 7 providers are unaffected."
    ),
    "exits": (
        "Provider 'exits' (voice-that-exits 1.0) could not be imported: SystemExit: I end the process. "
        "The other 7 providers are unaffected."
    ),
    "twin": (
        "2 distributions offer a provider named 'twin': twin-of-east 1.0 (twin_of_east:Provider) and "
        "twin-of-west 1.0 (twin_of_west:Provider). Uninstall one, or choose with "
        "register_provider('twin', TheClass)."
    ),
    "gain": (
        "Provider 'gain': Provider.send_audio(self, audio_data, gain) does not match the contract "
        "send_audio(self, audio_data). Give gain a default or read it from config. (from gain-voice 1.0)"
    ),
    "tomorrow": (
        "Provider 'tomorrow': Provider is written for version 2 of the provider contract; this voxengine has "
        "version 1. Upgrade voxengine. (from voice-of-tomorrow 1.0)"
    ),
}


def test_wrong_ones_are_listed_with_their_sentences_and_the_others_as_ever(crowded: Environment) -> None:
    found = providers(crowded)

    assert {name: found[name]["error"] for name in SENTENCES} == SENTENCES
    assert {name for name in found if found[name]["error"] is None} == {"acme", "mock", "replay"}
    assert all(found[name]["services"] for name in ("acme", "mock"))


@pytest.mark.parametrize("name", SENTENCES)
def test_who_asks_for_a_wrong_one_gets_its_sentence(crowded: Environment, name: str) -> None:
    done = crowded.command("talk", "--provider", name, "--text", "hello")

    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr == f"voxengine: {SENTENCES[name]}\n"


@pytest.mark.parametrize("name", ["acme", "mock"])
def test_good_ones_talk_among_the_wrong_ones(crowded: Environment, name: str) -> None:
    done = crowded.command("talk", "--provider", name, "--text", "hello")

    assert done.returncode == 0, done.stderr
    assert "agent" in done.stdout


def test_a_name_with_two_owners_is_settled_by_uninstalling_one(crowded: Environment) -> None:
    crowded.uninstall("twin-of-west")

    assert providers(crowded)["twin"]["error"] is None
