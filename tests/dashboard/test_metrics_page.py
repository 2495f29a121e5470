"""Why this matters: the page is what a person reads when a number looks odd; one that lags behind the report misleads.

Not exercised: whether the words are true; that no number is without an entry (tests/training/test_metric_names.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from r1kit.config.alarms import AlarmSettings
from r1kit.dashboard.glossary import GLOSSARY, Entry, entry_of

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
# Of the token strip in the report, not of metrics.jsonl.
ELSEWHERE = ("log-prob", "advantage")


@pytest.mark.parametrize("entry", [e for e in GLOSSARY if e.name not in ELSEWHERE], ids=lambda e: e.name)
def test_the_page_has_every_entry_of_the_glossary(entry: Entry) -> None:
    keys = ", ".join(f"`{key}`" for key in entry.keys)
    assert f"| {entry.name} | {keys} | {entry.meaning} | {entry.healthy} | {entry.action} |\n" in PAGE


@pytest.mark.parametrize("name", AlarmSettings().by_name())
def test_every_alarm_has_its_place(name: str) -> None:
    found = entry_of(name)
    assert found is not None
    assert found.name == "alarms"
    assert name in (Path(__file__).parents[2] / "docs" / "alarms.md").read_text(encoding="utf-8")
