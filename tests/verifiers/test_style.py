"""Why this matters: "the aha moment" is read off these counts. Exercised: phrases of both languages by hand, shares by
hand, and that thoughts of reasoning models score far above worked solutions that people wrote.

Not exercised: whether a reflection changed anything.
"""

from __future__ import annotations

from statistics import mean

import pytest

from r1kit.verifiers.style import reflection_counts, style_statistics

from .data_rows import data_rows


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Wait, that is not 12.", "doubt"),
        ("Hmm. Let us see.", "doubt"),
        ("等等，这里有问题。", "doubt"),
        ("不对，应该是 5。", "doubt"),
        ("Let me double-check this.", "check"),
        ("I should verify the sum.", "check"),
        ("我们来验证一下。", "check"),
        ("Alternatively, use the other root.", "retry"),
        ("Let's try another approach.", "retry"),
        ("换一种方法。", "retry"),
        ("重新计算。", "retry"),
    ],
)
def test_reflections(text: str, kind: str) -> None:
    assert {name for name, count in reflection_counts(text).items() if count} == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "The waiter brought 3 plates.",
        "He paid by check.",
        "`wait()` and $check$",
        "```\nwait, hmm\n```",
        "所以答案是 5。",
    ],
)
def test_no_reflections(text: str) -> None:
    assert not any(reflection_counts(text).values())


def test_shares_by_hand() -> None:
    found = style_statistics("Wait, no. `abcd` $xy$ ok", language="en")
    assert found["code_share"] == pytest.approx(6 / 24)
    assert found["formula_share"] == pytest.approx(4 / 24)
    assert found["words"] == 3
    assert found["reflection_rate"] == found["doubt_rate"] == pytest.approx(1000 / 3)
    assert found["language_share"] == 1
    assert style_statistics("等等，这里不对。", language="en")["language_share"] == 0
    assert style_statistics("  ") == {}
    assert "reflection_rate" not in style_statistics("$1+1=2$")


def test_thoughts_of_r1_reflect_and_worked_solutions_do_not() -> None:
    thoughts = [row["thinking"] for row in data_rows("cot_r1distill_math/traces.jsonl.gz")]
    solutions = [row["answer"] for row in data_rows("gsm8k/test.jsonl.gz")[:200]]

    def rate(texts: list[str]) -> float:
        return mean(style_statistics(text).get("reflection_rate", 0.0) for text in texts if text)

    assert rate(thoughts) > 10  # per thousand words
    assert rate(solutions) < 1
