"""MCP servers as a session declares them. None is ever asked: what they have and answer is made up here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from voxengine_mock.happenings import Called
from voxengine_mock.settings import Tool

__all__ = ["McpCall", "McpServers", "is_reachable", "listed"]

_DEFAULT_TOOLS: Final = ("lookup",)
_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"query": {"type": "string"}},
    "required": ["query"],
}


@attrs.frozen
class McpCall:
    """One call of an MCP tool."""

    server_label: str
    name: str
    arguments: str = attrs.field(repr=False)
    call_id: str
    output: str = ""
    approval_id: str = ""
    """Of the request for it; empty when it needed none."""


def is_reachable(server: Mapping[str, Any]) -> bool:
    """Return whether listing the tools of a server works. It fails for hosts under ``.invalid``."""
    host = urlsplit(server.get("server_url") or "").hostname or ""
    return not host.endswith(".invalid")


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        value = value.get("tool_names")
    return tuple(value) if isinstance(value, list) else ()


def listed(server: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tools of a server as their list shows them: the allowed ones, or one called ``lookup``."""
    names = _names(server.get("allowed_tools")) or _DEFAULT_TOOLS
    return [{"name": name, "description": "", "input_schema": dict(_SCHEMA)} for name in names]


def _needs_approval(server: Mapping[str, Any], name: str) -> bool:
    rule = server.get("require_approval") or "always"
    if isinstance(rule, str):
        return rule == "always"
    if name in _names(rule.get("never")):
        return False
    always = _names(rule.get("always"))
    return not always or name in always


class McpServers:
    """The servers of one session and their tools, by name."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._waiting: dict[str, McpCall] = {}
        self.call_ids: dict[str, str] = {}
        """Of the calls that had to be allowed, by the id of the request for it."""
        self.listed: set[str] = set()
        """Labels of the servers whose tools were listed."""

    def tools(self, server: Mapping[str, Any]) -> tuple[Tool, ...]:
        """Return what the agent may call of a server."""
        if not is_reachable(server):
            return ()
        found = listed(server)
        for tool in found:
            self._labels[tool["name"]] = server["server_label"]
        return tuple(
            Tool(
                tool["name"],
                tool["input_schema"],
                is_remote=True,
                needs_approval=_needs_approval(server, tool["name"]),
            )
            for tool in found
        )

    def call_of(self, called: Called, tool: Tool) -> McpCall:
        """Return a call of the agent as one of an MCP tool."""
        arguments = json.dumps(called.arguments)
        return McpCall(self._labels[tool.name], tool.name, arguments, called.call_id, called.result or "")

    def wait(self, call: McpCall, approval_id: str) -> McpCall:
        """Keep a call until the client allows it."""
        self.call_ids[approval_id] = call.call_id
        waiting = self._waiting[approval_id] = attrs.evolve(call, approval_id=approval_id)
        return waiting

    def answered(self, approval_id: str) -> McpCall | None:
        """Take back a call that waited; None when none did under that id."""
        return self._waiting.pop(approval_id, None)
