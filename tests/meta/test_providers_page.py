"""The tables of docs/providers.md say what the providers of this project declare."""

from __future__ import annotations

import re
from typing import Final

import attrs

from tests.meta.tree import DOCS, ROOT, table_rows
from voxengine.audio.format import AudioFormat
from voxengine.capabilities import ROWS, Capabilities, Capability, Support
from voxengine.providers.base import effective_capabilities
from voxengine.providers.registry import available_providers, get_provider

PAGE: Final = DOCS / "providers.md"
GUIDE: Final = ROOT / "tests/data/provider-system.md"
FIRST_PARTY: Final = {"openai": "OpenAI", "azure": "Azure", "mock": "Mock"}
"""Titles of the columns, in the order in which they are shown; a provider that is not installed has none."""
COMPARED: Final = {
    "Real-time streaming": ("streaming",),
    "Server VAD": ("server_turn_detection",),
    "Multiple voices": ("multiple_voices",),
    "Function calling": ("session_tools",),
    "Emotion detection": ("emotion",),
    "Custom vocabulary": ("vocabulary_at_connect", "vocabulary_live"),
}
"""Rows of the comparison, and what has to be declared for a tick: any of these."""
MARKS: Final = {
    Support.FULL: "✅",
    Support.PARTIAL: "◐",
    Support.PLANNED: "planned",
    Support.UNSUPPORTED: "❌",
    Support.UNKNOWN: "?",
}
BEST_FIRST: Final = (Support.FULL, Support.PARTIAL, Support.PLANNED, Support.UNKNOWN, Support.UNSUPPORTED)
CUSTOM: Final = "depends on the class"


def columns() -> dict[str, Capabilities]:
    """Capabilities by title: one column for each provider of ours, or for each of its services."""
    found = {}
    installed = {info.name for info in available_providers()}
    for name, title in FIRST_PARTY.items():
        if name not in installed:
            continue
        cls = get_provider(name)
        for service in cls.services or ("",):
            metadata = {"service": service} if service else {}
            found[f"{title} {service}".strip()] = effective_capabilities(
                cls, {"api_key": None, "metadata": metadata}
            )
    return found


def cost(usd: float | None) -> str:
    if usd is None:
        return "?"
    return f"about ${usd:g}" if usd else "free"


def compared(capabilities: Capabilities, rows: tuple[str, ...]) -> str:
    return MARKS[min((capabilities.support(row).support for row in rows), key=BEST_FIRST.index)]


def in_full(cell: Capability) -> str:
    return f"{MARKS[cell.support]} {cell.why}".strip().replace("|", "\\|")


def fact(value: object) -> str:
    if isinstance(value, tuple):
        value = ", ".join(item.describe() if isinstance(item, AudioFormat) else str(item) for item in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def table(*rows: list[str]) -> str:
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)) + "\n"


def comparison(held: dict[str, Capabilities]) -> str:
    rows = [[name, *(compared(c, cells) for c in held.values()), CUSTOM] for name, cells in COMPARED.items()]
    last = ["Cost per minute", *(cost(c.cost_per_minute_usd) for c in held.values()), CUSTOM]
    return table(["Feature", *held, "Custom"], *rows, last)


def everything(held: dict[str, Capabilities]) -> str:
    facts = [field.name for field in attrs.fields(Capabilities) if field.name not in ROWS]
    rows = [[f"`{row}`", *(in_full(c.support(row)) for c in held.values())] for row in ROWS]
    rows += [[f"`{name}`", *(fact(getattr(c, name)) for c in held.values())] for name in facts]
    return table(["Capability", *held], *rows)


def generated(name: str) -> str:
    """What the page holds between the comments of a generated part."""
    text = PAGE.read_text("utf-8")
    found = re.search(rf"<!-- generated: {name} -->\n(.*?)<!-- end of {name} -->\n", text, re.DOTALL)
    assert found, f"docs/providers.md has no part between the comments of {name!r}"
    return found[1]


def check(name: str, expected: str) -> None:
    assert generated(name) == expected, (
        f"docs/providers.md does not say what is declared. Paste this as {name!r}:\n\n{expected}"
    )


def test_comparison_is_what_the_providers_declare() -> None:
    check("comparison", comparison(columns()))


def test_table_of_capabilities_is_what_the_providers_declare() -> None:
    check("capabilities", everything(columns()))


def test_comparison_has_the_rows_of_the_provider_guide() -> None:
    rows = table_rows(GUIDE)
    start = next(number for number, row in enumerate(rows) if row[0] == "Feature")

    asked = [row[0] for row in rows[start + 1 : start + 8]]

    assert asked == [*COMPARED, "Cost per minute"]


def test_better_of_two_rows_counts_and_words_are_told_apart() -> None:
    capabilities = Capabilities(
        emotion=Support.PLANNED,
        vocabulary_at_connect=Support.UNSUPPORTED,
        vocabulary_live=Capability(Support.PARTIAL, "fifty words | no more"),
        cost_per_minute_usd=0.06,
    )

    shown = comparison({"Acme": capabilities}).splitlines()

    assert shown[0] == "| Feature | Acme | Custom |"
    assert f"| Real-time streaming | ? | {CUSTOM} |" in shown
    assert f"| Emotion detection | planned | {CUSTOM} |" in shown
    assert f"| Custom vocabulary | ◐ | {CUSTOM} |" in shown
    assert f"| Cost per minute | about $0.06 | {CUSTOM} |" in shown
    assert "| `vocabulary_live` | ◐ fifty words \\| no more |" in everything({"Acme": capabilities})
