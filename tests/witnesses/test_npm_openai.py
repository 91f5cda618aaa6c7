"""OpenAI's client for Node, which speaks nothing but TLS, holds a conversation with the emulator."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.plugins.mock.support import silence, voice_saying
from tests.witnesses.conftest import SESSION
from voxengine_mock.harness import serve
from voxengine_openai.emulator import OpenAIEmulator

NODE = shutil.which("node")
MODULES = os.environ.get("VOXENGINE_TEST_NODE_MODULES", "")
"""The folder into which the session put what npm/package-lock.json names."""
SCRIPT = {
    "delay_ms": 0,
    "hears": ["What is the weather in Lisbon?"],
    "responses": {
        "*weather*": {
            "tool": "get_weather",
            "arguments": {"city": "Lisbon"},
            "then": "It is {result.sky}.",
        }
    },
}


@pytest.mark.skipif(
    not (NODE and MODULES), reason=f"there is no node, or not the npm package openai: {SESSION}"
)
async def test_it_holds_a_conversation_over_tls(tmp_path: Path) -> None:
    authority, speech = tmp_path / "ca.pem", tmp_path / "speech.pcm"
    speech.write_bytes(await voice_saying("what is the weather in Lisbon") + silence(800))

    async with serve(OpenAIEmulator(script=SCRIPT, speed=20), tls_ca=str(authority)) as server:
        process = await asyncio.create_subprocess_exec(
            str(NODE),
            str(Path(__file__).parent / "npm" / "conversation.cjs"),
            f"{server.http_url}/v1",
            str(speech),
            env={**os.environ, "NODE_PATH": MODULES, "NODE_EXTRA_CA_CERTS": str(authority)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(60):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert err.decode() == ""
    told = json.loads(out)
    assert told["errors"] == []
    assert told["heard"] == "What is the weather in Lisbon?"
    assert told["calls"] == [["get_weather", {"city": "Lisbon"}]]
    assert told["said"][0] == "It is sunny."
    assert told["statuses"] == ["completed", "completed", "cancelled"]
    assert told["n_audio"] > 12_000
