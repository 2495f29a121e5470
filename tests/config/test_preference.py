"""Settings of a preference stage: what its presets fill, and how long a response may be.

Why this matters: a preset that leaves out the published length drops every long response, and nearly all are long.

Not exercised here: refusals and what the settings do (tests/training/test_preference.py).
"""

from __future__ import annotations

from typing import Any

import pytest

from r1kit.config.preference import PRESETS, PreferenceSettings


def settings(**changes: Any) -> PreferenceSettings:
    return PreferenceSettings.model_validate({"model": "base", "data": [{"path": "rows.jsonl"}], **changes})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole_and_says_what_it_says(name: str) -> None:
    made = settings(preset=name).model_dump(mode="json")
    for key, value in PRESETS[name].items():
        if isinstance(value, dict):
            assert {k: made[key][k] for k in value} == value
        else:
            assert made[key] == value


def test_light_r1s_length_is_the_published_one_and_the_budget_holds_it() -> None:
    made = settings(preset="light_r1_dpo")
    assert (made.max_tokens, made.token_budget, made.too_long) == (32768, 32768, "drop")
    short = settings(preset="light_r1_dpo", max_tokens=384)
    assert (short.max_tokens, short.token_budget) == (384, 8192)


def test_a_budget_that_is_named_is_kept() -> None:
    assert settings(max_tokens=384, token_budget=2560).token_budget == 2560
    assert settings(max_tokens=9000).token_budget == 9000
    with pytest.raises(ValueError, match="token_budget is 4000, smaller than one sequence of max_tokens 9000"):
        settings(max_tokens=9000, token_budget=4000)
