"""What the meta-tests print at the end of a run."""

from __future__ import annotations

import pytest

from tests.meta.user_document import substitution_table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was changed in the provider guide before its blocks ran."""
    ran = any(
        getattr(report, "nodeid", "").startswith("tests/meta/test_user_document.py")
        for reports in terminalreporter.stats.values()
        for report in reports
    )
    if ran:
        terminalreporter.section("provider guide: preludes and substitutions")
        for line in substitution_table():
            terminalreporter.line(line)
