"""The 25 instruction kinds of IFEval (arXiv 2311.07911), each a plain function of the response.

The meaning of each kind is the benchmark's, so that scores compare. Where its checker is known to be loose or to
misread, ours is strict in the reader's favour: two options at once are no constrained answer, a rule `---` is no
bullet, an empty pair of brackets is no placeholder, a postscript says something.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from r1kit.verifiers.instructions import counting
from r1kit.verifiers.language import count_words as words_by_language
from r1kit.verifiers.language import language_share, main_language
from r1kit.verifiers.scripts import SCRIPTS_OF

RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "less than": lambda count, limit: count < limit,
    "at least": lambda count, limit: count >= limit,
}
CONSTRAINED = ("my answer is yes.", "my answer is no.", "my answer is maybe.")
_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*(?:```)?\s*\Z", re.DOTALL | re.IGNORECASE)
_QUOTES = (('"', '"'), ("“", "”"), ("„", "“"), ("«", "»"))


class InstructionError(ValueError):
    """An instruction that cannot be checked: an unknown kind, a missing or senseless argument."""


def _compare(relation: str, count: int, limit: int) -> bool:
    if relation not in RELATIONS:
        raise InstructionError(f"relation is {relation!r}: expected one of {', '.join(RELATIONS)}")
    return RELATIONS[relation](count, limit)


# Keywords are looked for anywhere, as the benchmark does ("grow" is in "growing"); forbidden words only whole.
def existence(text: str, *, keywords: Sequence[str]) -> bool:
    lowered = text.lower()
    return all(keyword.lower() in lowered for keyword in keywords)


def frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return _compare(relation, text.lower().count(keyword.lower()), frequency)


def forbidden_words(text: str, *, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.I) for word in forbidden_words)


def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    if len(letter) != 1:
        raise InstructionError(f"letter is {letter!r}: expected one character")
    return _compare(let_relation, text.lower().count(letter.lower()), let_frequency)


def response_language(text: str, *, language: str) -> bool:
    code = language.lower().split("-")[0]
    if code not in SCRIPTS_OF:
        raise InstructionError(f"language is {language!r}: expected one of {', '.join(sorted(SCRIPTS_OF))}")
    return main_language(text) == code


def number_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    return _compare(relation, counting.count_sentences(text), num_sentences)


def number_words(text: str, *, num_words: int, relation: str) -> bool:
    return _compare(relation, counting.count_words(text), num_words)


def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Paragraphs are separated by `***` here; an empty one is allowed at either end only."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    found = counting.paragraphs(text)
    if len(found) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    start = found[nth_paragraph - 1].split(maxsplit=1)[0].lstrip("'\"“‘*_#(")
    return re.split(r"[.,?!:;'\"”’*_)]", start, maxsplit=1)[0].lower() == first_word.lower()


def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    return counting.count_placeholders(text) >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    letters = re.findall(r"\w", postscript_marker)
    # "P.P.S" may stand without its last point, "P.S." may not; a blank may follow each point.
    points = r"\.\s?".join(map(re.escape, letters)) + (r"\." if postscript_marker.endswith(".") else r"\.?")
    return re.search(rf"(?<!\w){points}:?\s*\w", text, re.IGNORECASE) is not None


def number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    return counting.count_bullets(text) == num_bullets


def constrained_response(text: str) -> bool:
    return sum(option in text.lower() for option in CONSTRAINED) == 1


def number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    return counting.count_highlights(text) >= num_highlights


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"(?<!\w){re.escape(section_spliter)}\s?\d+", text)) >= num_sections


def json_format(text: str) -> bool:
    fenced = _FENCE.match(text.strip())
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    return any(inside.strip(" <>") for inside in re.findall(r"<<([^\n]+?)>>", text))


def two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    found = [part for part in parts if part]
    return all(parts[1:-1]) and len(found) == 2 and found[0] != found[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    stripped = text.strip()
    return any(len(stripped) > 2 and stripped.startswith(start) and stripped.endswith(end) for start, end in _QUOTES)


def capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    return _compare(capital_relation, counting.capital_words(text), capital_frequency)


def _english(text: str) -> bool:
    """True where nothing says that the words are of another language."""
    counts = words_by_language(text)
    share = language_share(text, "en")
    return share is not None and share > 0.5 and max(counts, key=lambda name: counts[name]) in ("en", "und-latin")


def english_capital(text: str) -> bool:
    return text.isupper() and _english(text)


def english_lowercase(text: str) -> bool:
    return text.islower() and _english(text)


def no_comma(text: str) -> bool:
    return "," not in text


CHECKS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": existence,
    "keywords:frequency": frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_words": number_words,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}
