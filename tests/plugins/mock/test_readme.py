"""What the README shows, run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from tests.plugins.mock.support import session, tool
from voxengine.testing.clock import virtual
from voxengine_mock.faults import POINTS, fault_from_text
from voxengine_mock.script import SCRIPT_KEYS
from voxengine_mock.voice import VOICES

README_PATH = Path(__file__).parents[3] / "plugins" / "voxengine-mock" / "README.md"
README = README_PATH.read_text(encoding="utf-8")
KINDS = ("quota", "error", "close", "reset", "stall", "garbage", "oversized", "slow_reader", "expire")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def metadata_rows() -> list[str]:
    table = README.split("| key of `metadata` |")[1].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_every_key_of_a_script_is_documented_and_no_other() -> None:
    assert sorted(metadata_rows()) == sorted((*SCRIPT_KEYS, "script", "url", "ca_file"))


def test_every_voice_is_documented() -> None:
    assert [name for name in VOICES if f"`{name}`" not in README] == []


@virtual
async def test_the_example_script_does_what_the_text_says(tmp_path: Path) -> None:
    path = tmp_path / "talk.toml"
    path.write_text(blocks("toml")[0], encoding="utf-8")
    results = {"Lisbon": '{"sky": "sunny", "degrees": 25}', "Oslo": '{"sky": "cloudy"}'}
    texts = [
        "hello",
        "A joke!",
        "a joke",
        "my name is Ada",
        "nonsense",
        "what weather?",
        "compare the cities",
    ]

    async with session({"tools": [tool("get_weather")]}, script=str(path)) as (provider, seen):

        def call_back(event: Any) -> None:
            seen(event)
            if event.type == "function_call_invoked":
                result = results[event.data["arguments"]["city"]]
                provider.start_task(provider.send_tool_result(event.data["call_id"], result))

        provider.on_event = call_back
        for text in texts:
            await provider.send_text(text)
            n_done = len(seen.of("response_completed"))
            await seen.wait("response_completed", n_done + 1)
            if "weather" in text or "compare" in text:
                await seen.wait("response_completed", n_done + 2)

    assert tomllib.loads(blocks("toml")[0])["seed"] == 7
    assert seen.final_texts() == [
        "Hi there! How can I help?",
        "Why did the packet cross the network?",
        "I have no other joke.",
        "Nice to meet you, Ada.",
        "I have no answer to that.",
        "Let me look.",
        "It is sunny with 25 degrees.",
        "Lisbon: sunny. Oslo: cloudy.",
    ]


REFERENCE = (README_PATH.parents[2] / "docs" / "reference" / "script.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[str]:
    """The names in the first column of the table under a heading."""
    table = REFERENCE.split(heading, 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `\"?([\w:=]+)\"?`", table, re.MULTILINE)


def test_the_reference_has_every_key_point_and_fault_and_no_other() -> None:
    assert rows("| key | default | meaning |") == list(SCRIPT_KEYS)
    assert [name.split(":")[0] for name in rows("| `at` | when |")] == [
        name for name in POINTS for _ in range(2 if name == "response" else 1)
    ]
    assert set(rows("| `do` | what happens | further keys |")) == {"400", *KINDS}
    assert [fault_from_text(f"{kind} at=ready").do for kind in KINDS] == list(KINDS)
