"""The reference lists what the kit holds."""

from __future__ import annotations

import attrs
import pytest

from tests.meta.tree import DOCS, table_rows
from voxengine.testing import LAWS, Law, ProviderConformance, Settings

PAGE = DOCS / "reference/conformance.md"
TABLE = [[cell.replace("`", "") for cell in row] for row in table_rows(PAGE)]
ROWS = {row[0].removesuffix(" **!**"): row for row in TABLE}


@pytest.mark.parametrize("law", LAWS, ids=[law.name for law in LAWS])
def test_reference_says_what_the_law_says(law: Law) -> None:
    needs = [*law.needs, *(f"{row} declared" for row in law.declared)]

    shown = ROWS[law.name]

    mark = " **!**" if law.is_essential else ""
    assert shown == [f"{law.name}{mark}", law.sentence, ", ".join(needs)]


@pytest.mark.parametrize("field", attrs.fields(Settings), ids=lambda field: field.name)
def test_setting_is_an_attribute_of_the_class_and_in_the_reference(field: attrs.Attribute[object]) -> None:
    assert getattr(ProviderConformance, field.name) == field.default
    assert len(ROWS[field.name]) == 3
