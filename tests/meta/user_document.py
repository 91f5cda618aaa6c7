"""The provider guide in ``tests/data`` as a program: its blocks, and what had to be changed to run them.

The file is kept as its author wrote it. Every block is known here by the digest of its text; what stands
in for something that the guide leaves open is listed with its reason.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

GUIDE = Path(__file__).resolve().parents[1] / "data" / "provider-system.md"


@attrs.frozen
class Block:
    """A fenced block of the guide."""

    number: int
    language: str
    code: str = attrs.field(repr=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.code.encode()).hexdigest()[:12]


@attrs.frozen
class Substitution:
    """A change to a block before it runs: ``old`` stands there exactly once. An empty ``old`` appends."""

    reason: str
    old: str
    new: str

    def apply(self, code: str) -> str:
        if not self.old:
            return code.rstrip("\n") + "\n" + self.new
        if code.count(self.old) != 1:
            raise ValueError(f"the block does not hold once: {self.old!r}")
        return code.replace(self.old, self.new)


@attrs.frozen
class Plan:
    """How a block is run. ``prelude`` says in words what it finds in its namespace."""

    title: str
    prelude: str = "nothing"
    substitutions: tuple[Substitution, ...] = ()


def read_blocks(text: str) -> list[Block]:
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```[ ]*$", text, re.DOTALL | re.MULTILINE)
    return [Block(number, match[1].strip(), match[2]) for number, match in enumerate(found)]


def _comment_only(after: str, *comments: str) -> Substitution:
    """A body of nothing but comments is no Python: it gets ``pass``."""
    indent = re.match(r" *", comments[-1])
    assert indent is not None
    old = "\n".join([after, *comments])
    return Substitution("a body of comments alone is no Python", old, f"{old}\n{indent[0]}pass")


AZURE_METHODS = """
    async def disconnect(self):
        await self.connection.close()

    async def interrupt(self):
        await self.connection.send(json.dumps({'type': 'interrupt'}))

    async def configure_session(self, config: Dict[str, Any]):
        await self.connection.send(json.dumps({'type': 'session', **config}))
"""
AZURE_HELPERS = """
    async def _configure_azure_session(self):
        await self.connection.send(json.dumps({'type': 'session', 'region': self.region}))

    def _start_response_handler(self):
        async def handle_responses():
            async for raw in self.connection:
                message = json.loads(raw)
                if message['type'] == 'transcription':
                    self.emit_event(EventType.TEXT_OUTPUT, {
                        'text': message['text'],
                        'is_partial': message.get('partial', False)
                    })
                elif message['type'] == 'audio':
                    self.emit_event(EventType.AUDIO_OUTPUT_CHUNK, {
                        'audio_data': bytes.fromhex(message['audio']),
                        'sample_rate': 24000
                    })

        self.start_task(handle_responses())
"""

PLANS: dict[str, Plan] = {
    "db1bacdcab91": Plan("configuration of the default provider", "VoiceEngineConfig"),
    "c2a0568647a0": Plan("configuration of the mock provider", "VoiceEngineConfig"),
    "14900b029b6b": Plan("configuration of a custom provider", "VoiceEngineConfig"),
    "696fc7b7a310": Plan("the interface"),
    "c3cb725ebdf4": Plan(
        "the Azure example",
        substitutions=(
            Substitution(
                "the block uses Any and Dict, which an earlier one imports",
                "import websockets\nimport json\n",
                "import websockets\nimport json\nfrom typing import Any, Dict\n",
            ),
            Substitution("websockets calls it so since version 14", "extra_headers=", "additional_headers="),
            Substitution("three required methods are left out", "", AZURE_METHODS),
            Substitution("two helpers that it calls are left out", "", AZURE_HELPERS),
        ),
    ),
    "e22073ce88bf": Plan("registering", "VoiceEngineConfig, a module my_providers with the two classes"),
    "5f8bb3be8a50": Plan("metadata of three providers"),
    "8f2d977009c4": Plan("events", "BaseProvider, EventType"),
    "87e98e8120fa": Plan(
        "modes",
        "config",
        (
            _comment_only(
                'if config.mode == "fast":',
                "    # Use lightweight provider features",
                "    # Disable transcription, minimize processing",
            ),
            _comment_only(
                'elif config.mode == "big":',
                "    # Enable all provider capabilities",
                "    # Transcription, emotion detection, etc.",
            ),
            _comment_only('elif config.mode == "provider":', "    # Use provider-specific optimizations"),
        ),
    ),
    "6a2bd099f002": Plan("switching", "VoiceEngine, config, new_config, providers openai and azure"),
    "31ffcea2a0fc": Plan("provider-agnostic code", "engine (connected), audio_data, provider"),
    "17bce1c5848f": Plan("central configurations", "os, and its three environment variables"),
    "2608fb8282fb": Plan("errors", "engine, ProviderError, providers openai (refusing) and azure"),
    "f49563c02bf3": Plan("testing", "os, VoiceEngineConfig"),
    "4d62de5fa488": Plan("development, step 1", "BaseProvider"),
    "e1bcde1c870b": Plan(
        "development, step 2",
        substitutions=(
            _comment_only(
                "async def connect(self):",
                "    # 1. Establish connection",
                "    # 2. Authenticate",
                "    # 3. Configure session",
                "    # 4. Start event handlers",
                "    # 5. Emit CONNECTION_ESTABLISHED",
            ),
        ),
    ),
    "3a95a92ca51f": Plan(
        "development, step 3",
        substitutions=(
            _comment_only(
                "async def send_audio(self, audio_data: bytes):",
                "    # 1. Validate audio format",
                "    # 2. Apply any required transformations",
                "    # 3. Send to provider",
                "    # 4. Handle backpressure",
            ),
        ),
    ),
    "4c157862e936": Plan("development, step 4", "self, a connected provider"),
    "cb7470f2cb15": Plan("development, step 5", "MyProvider, test_config, test_audio, EventType"),
    "1128d45d7c32": Plan("migrating", "VoiceEngineConfig"),
}


def problems(text: str) -> list[str]:
    """What keeps a text from being covered: blocks without a plan, and plans without a block."""
    blocks = read_blocks(text)
    found = [
        f"block {block.number} ({block.digest}) is neither run nor listed: {block.code.splitlines()[0]!r}"
        for block in blocks
        if block.digest not in PLANS
    ]
    held = {block.digest for block in blocks}
    found += [
        f"no block has the digest {digest} ({plan.title})"
        for digest, plan in PLANS.items()
        if digest not in held
    ]
    found += [
        f"block {block.number} is {block.language!r}, not Python"
        for block in blocks
        if block.language != "python"
    ]
    return found


def statements(block: Block) -> list[ast.stmt]:
    """The top-level statements of a block after its substitutions."""
    code = block.code
    for substitution in PLANS[block.digest].substitutions:
        code = substitution.apply(code)
    return ast.parse(code, f"provider-system.md, block {block.number}").body


async def run(block: Block, namespace: dict[str, Any], only: Iterable[int] | None = None) -> dict[str, Any]:
    """Run a block, awaiting where it does, and return its namespace.

    Args:
        block: The block.
        namespace: What it finds.
        only: Numbers of its statements; None: all of them.
    """
    body = statements(block)
    chosen = body if only is None else [body[number] for number in only]
    module = ast.Module(chosen, [])
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(module, f"provider-system.md, block {block.number}", "exec", flags, dont_inherit=True)
    namespace.setdefault("__name__", "provider_system_guide")
    result = eval(code, namespace)  # noqa: S307 - the guide's own text
    if inspect.isawaitable(result):
        await result
    return namespace


def substitution_table() -> list[str]:
    """Every block with its prelude and its substitutions, one line each."""
    lines = []
    for block in read_blocks(GUIDE.read_text("utf-8")):
        plan = PLANS.get(block.digest)
        if plan is None:
            continue
        lines.append(f"block {block.number:2} {plan.title}: finds {plan.prelude}")
        for item in plan.substitutions:
            first = (item.old or item.new).strip().splitlines()[0]
            verb = "changes" if item.old else "appends"
            lines.append(f"         {verb} {first!r}: {item.reason}")
    return lines
