"""How a thought is written: words of reflection, code, formulas, language, loops. Measurements, not rewards.

The words of reflection are those reproductions of R1 count to watch the "aha moment": they say that the writer stops,
doubts, checks or tries another way. A rate says how often per thousand words, so long and short thoughts compare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from r1kit.verifiers.language import count_words, share_of
from r1kit.verifiers.prose import split_parts
from r1kit.verifiers.repetition import find_loop, ngram_repetition, units

# Kind of reflection -> pattern; English and Chinese side by side, as thoughts mix them.
REFLECTION: Mapping[str, re.Pattern[str]] = {
    "doubt": re.compile(
        r"\b(?:wait|hold on|hmm+|hm|oops|not sure|that(?:'s| is| isn't| does ?n't)[^.\n]{0,20}(?:wrong|right\?|odd"
        r"|strange))\b|等等|等一下|且慢|不对|不太对|糟糕|奇怪|嗯",
        re.IGNORECASE,
    ),
    "check": re.compile(
        r"\b(?:(?:let me|let's|i(?:'ll| should| need to| will)?|to) (?:just )?(?:double[- ]?check|re-?check|check"
        r"|verify|confirm|make sure)|double[- ]?check(?:ing)?|sanity check|recheck(?:ing)?|verif(?:y|ying)"
        r"|re-?examin\w+)\b"
        r"|检查|验证|核对|验算|复核|确认一下|再看一遍|回顾",
        re.IGNORECASE,
    ),
    "retry": re.compile(
        r"\b(?:alternatively|another (?:way|approach|method|idea)|try (?:again|another|a different)|start over"
        r"|go back|backtrack\w*|instead,|re-?think\w*|re-?consider\w*|re-?evaluat\w*|on second thought"
        r"|made (?:a|an) (?:mistake|error))\b|换一种|另一种|换个思路|重新|再试|或者可以|回过头|反过来想|搞错|算错|弄错",
        re.IGNORECASE,
    ),
}


def reflection_counts(text: str) -> dict[str, int]:
    """How often each kind of reflection occurs in the prose of `text`."""
    prose = "\n".join(part.text for part in split_parts(text) if part.kind == "prose")
    return {kind: len(pattern.findall(prose)) for kind, pattern in REFLECTION.items()}


def style_statistics(text: str, *, language: str | None = None) -> dict[str, float]:
    """Statistics of one thought; a key is absent where there is nothing to measure.

    words               words of prose (scripts without spaces: see `scripts`)
    reflection_rate     words of reflection per 1,000 words; also by kind: doubt_rate, check_rate, retry_rate
    code_share          characters in code over all characters
    formula_share       characters in formulas over all characters
    language_share      share of words in `language`; without it, in the language most words are in
    repetition          share of repeated trigrams
    loop                1 where the text ends in a loop, else 0
    """
    found: dict[str, float] = {}
    if not text.strip():
        return found
    parts = split_parts(text)
    for kind in ("code", "formula"):
        found[f"{kind}_share"] = sum(len(part.text) for part in parts if part.kind == kind) / len(text)
    items = units(text)
    found["repetition"] = ngram_repetition(items)
    found["loop"] = float(find_loop(items) is not None)
    by_language = count_words(text)
    words = sum(by_language.values())
    if words:
        counts = reflection_counts(text)
        found["words"] = words
        found["reflection_rate"] = 1000 * sum(counts.values()) / words
        found |= {f"{kind}_rate": 1000 * count / words for kind, count in counts.items()}
        found["language_share"] = share_of(by_language, language) if language else max(by_language.values()) / words
    return found
