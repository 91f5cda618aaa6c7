"""Configuration that every test shares."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a red run is then the fault of a change, never of luck, and a slow
# machine is no failure. Search for new examples with: pytest --hypothesis-profile explore
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("repeatable")
