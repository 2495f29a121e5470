"""Multiple choice: options in a seeded order, the letter a response commits to, and whether it is the right one.

A response commits by `\\boxed{C}`, by "Answer: C" or "the answer is (C)", by "答案是C" or "选C", and only where it
does nothing of the kind by being, or ending in, a bare letter or a list item. Naming several letters is wrong, whatever
they are: "A or C" must not be a way to be right twice. A response may change its mind if it says so: after "wait",
"final", "不对" the later letter counts; two letters without a word of revision between them contradict each other.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from r1kit.records import Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_CHARS = 20_000  # the end of a final answer is read, no more


@dataclass(frozen=True, slots=True)
class Options:
    """Options as shown: `texts[i]` stands under letter i and was option `order[i]` of the source."""

    texts: tuple[str, ...]
    order: tuple[int, ...]
    gold: str

    def render(self) -> str:
        """One line per option: "A) text"."""
        return "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, self.texts, strict=False))

    def source_index(self, letter: str) -> int:
        """The option of the source that stands under `letter`."""
        return self.order[LETTERS.index(letter)]


def permute_options(texts: Sequence[str], gold: int, *, seed: int, key: str) -> Options:
    """The options in an order drawn from (seed, key) alone; `gold` is the right one's index in `texts`.

    A bijection: every option stands under exactly one letter. `key` is the problem's id, so the order does not depend
    on how many problems there are or who asks first. GPQA is shown like this, or its gold is always the first.
    """
    if not 0 <= gold < len(texts) or not 2 <= len(texts) <= len(LETTERS):
        raise ValueError(f"gold is {gold} of {len(texts)} options: expected an index into 2 to {len(LETTERS)} options")

    def draw(index: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{key}:{index}".encode(), digest_size=16).digest()

    order = tuple(sorted(range(len(texts)), key=draw))
    return Options(tuple(texts[i] for i in order), order, LETTERS[order.index(gold)])


@dataclass(frozen=True, slots=True)
class Choice:
    """What a response commits to: `letters` in order of the alphabet, `text` as written."""

    letters: str
    text: str
    disjunction: bool = False


_OPEN = r"[\s*_$`\"'“‘(\[{「【《~:：]{0,12}"
_CLOSE = r"[*_$)\]}」】》\"'”’`]{0,6}"
_CUE = re.compile(
    # the answer is, Answer:, correct option = ...
    rf"\b(?:answer|choice|option)(?:\s+(?:choice|option|letter))?{_OPEN}"
    rf"(?:(?<=[:：])|\b(?:is|are|(?:must|should|would|will) be)\b|=|->|→){_OPEN}"
    r"(?:(?:therefore|thus|clearly|simply|just)[\s,]{1,3}){0,2}"
    r"|\banswer\s{1,3}(?=\(?(?-i:[A-Z])\)?[.)]?\s*(?:\n|\Z))"
    r"|\bI(?:'d|’d|'ll|’ll|\s+would|\s+will)?\s+(?:choose|pick|select|go with)\b"
    # 答案是, 正确选项为, 【答案】, 故选, 选择 ...
    r"|(?:答案|选择|正确的?选项)(?:的?(?:字母|选项))?(?:应该|应当|应|就)?(?:是|为|选择?|[:：=】])"
    r"|选项(?:应该|应当|应|就)?(?:是|为)|选择?(?!项)(?:是|为|[:：])?",
    re.IGNORECASE,
)
_TRUE_LETTER = re.compile(
    rf"(?<![\w'’])([A-Z]){_CLOSE}\s+(?:is|was)\s+(?:the\s+)?(?:correct|right|best|final)\b(?!\s+(?:if|when|only))"
    r"|(?<![A-Za-z])([A-Z])\s*(?:选?项)?(?:是|为)?(?:正确|对)(?:的|答案|选项)"
)
_FILLER = re.compile(rf"{_OPEN}(?:(?:either|both|option|choice|letter|选项)\s*){{0,2}}{_OPEN}", re.IGNORECASE)
_WRAP = r"(?:\\(?:text|textbf|mathrm|mathbf|rm|bf)\s{0,2}\{?\s{0,2}\(?)?"
_LETTER = re.compile(rf"{_WRAP}([A-Za-z])(?![A-Za-z0-9'’])")
_MORE = re.compile(
    rf"{_CLOSE}(\s*(?:,|、|/|&|;|\band\b|\bor\b|和|或者?|与|以及)(?:\s*(?:and|or)\b)?){_OPEN}"
    r"(?:option\s+)?\(?([A-Za-z])(?![A-Za-z0-9'’])",
    re.IGNORECASE,
)
_HEDGE = re.compile(r"(?:,|/|\band\b|\bor\b|和|或)\s*\(?([A-Z])\)(?!\s*(?:is|are|was|were|does|would|can|是|不|错))")
_DENIED = re.compile(r"\s*(?:选?项)?\s*(?:是|为|is|was)?\s*(?:错|不|wrong\b|incorrect\b|not\b|false\b)")
_REVISION = re.compile(
    r"\b(?:wait|no|actually|but|however|correction|corrected|instead|rather|mistake|wrong|incorrect|re-?check\w*"
    r"|re-?consider\w*|re-?examin\w*|revis\w*|final|finally|hmm)\b|不对|更正|等等|重新|错|最终|最后|其实|但",
    re.IGNORECASE,
)
# "the answer is a prime": an article, unless what follows the letter starts a reason or a second letter.
_ARTICLE = re.compile(
    r"[Aa]\s+(?!because|since|as\b|is\b|which|due|for\b|given|with\b|by\b|and\b|or\b|but\b|not\b)[a-z]"
)
_BARE = re.compile(rf"{_OPEN}([A-Za-z]){_CLOSE}[.。,、):：]{{0,2}}\s{{0,8}}")
_LIST = re.compile(r"^[ \t*_>#-]{0,8}\(?\*{0,2}([A-Z])\*{0,2}(?:[).:：、]|\*\*)(?:\s|\*|$)", re.MULTILINE)


def find_choice(answer: str, *, options: int = 4, texts: Sequence[str] = ()) -> Choice | None:
    """The letters `answer` commits to, among the first `options` letters; None where it commits to none.

    `answer` is the final answer (after the thought). `texts` are the options as shown: an answer that is the text of
    exactly one of them, letter for letter, counts as its letter.
    """
    allowed = LETTERS[: len(texts) or options]
    text = unicodedata.normalize("NFKC", answer[-MAX_CHARS:])
    commitments = sorted(_boxed(text, allowed, texts) + _phrases(text, allowed, texts), key=lambda item: item[0])
    return _settle(text, commitments) if commitments else _bare(text, allowed, texts)


Commitment = tuple[int, int, Choice]  # where its cue starts, where reading goes on, what


def _settle(text: str, commitments: list[Commitment]) -> Choice:
    """The last commitment; with the letters of an earlier one where it differs and nothing between them revises."""
    _, end, chosen = commitments[0]
    for start, later_end, choice in commitments[1:]:
        if choice.letters != chosen.letters and not _REVISION.search(text, end, start):
            together = "".join(sorted(set(chosen.letters + choice.letters)))
            chosen = Choice(together, f"{chosen.text} ... {choice.text}", True)
        else:
            chosen = choice
        end = later_end
    return chosen


def _boxed(text: str, allowed: str, texts: Sequence[str]) -> list[Commitment]:
    found = []
    for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text):
        inside, end = _braced(text, match.end())
        choice = _letters(inside, allowed) or _by_text(inside, texts)
        if choice:
            found.append((match.start(), end, choice))
    return found


def _braced(text: str, start: int) -> tuple[str, int]:
    depth = 1
    for position in range(start, min(len(text), start + 400)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if not depth:
            return text[start:position], position + 1
    return "", start


def _phrases(text: str, allowed: str, texts: Sequence[str]) -> list[Commitment]:
    found = []
    for cue in _CUE.finditer(text):
        rest = text[cue.end() : cue.end() + 160]
        choice = _letters(rest, allowed) or _by_text(re.split(r"\n|[.。]\s|[.。]\Z", rest, maxsplit=1)[0], texts)
        if choice:
            found.append((cue.start(), cue.end() + 1, choice))
    for match in _TRUE_LETTER.finditer(text):
        letter = match[1] or match[2]
        if letter in allowed:
            found.append((match.start(), match.end(), Choice(letter, match[0].strip())))
    return found


def _letters(text: str, allowed: str) -> Choice | None:
    """The letter or letters that `text` starts with, as "C", "(C) 12", "A or C", "ABD"; None where there is none."""
    filler = _FILLER.match(text)
    start = filler.end() if filler else 0
    glued = re.compile(r"[A-Z]{2,8}(?![A-Za-z0-9'’])").match(text, start)
    if glued and set(glued[0]) <= set(allowed) and len(set(glued[0])) == len(glued[0]):
        return Choice("".join(sorted(glued[0])), glued[0])
    first = _LETTER.match(text, start)
    if not first or first[1].upper() not in allowed or _ARTICLE.match(text, first.start(1)):
        return None
    end = first.end()
    if _DENIED.match(text, end) or (
        first[1].islower() and not re.match(rf"{_CLOSE}\s*(?:[.。,)}}:：]|\Z)", text[end:])
    ):
        return None
    letters, joined = {first[1].upper()}, ""
    while more := _MORE.match(text, end):
        if more[2].upper() not in allowed or more[2].islower() != first[1].islower() or _DENIED.match(text, more.end()):
            break
        letters.add(more[2].upper())
        joined, end = joined + more[1], more.end()
    hedges = [letter for letter in _HEDGE.findall(text[end:].split("\n", 1)[0]) if letter in allowed]
    letters.update(hedges)
    disjunction = bool(hedges) or re.search(r"or|或|/", joined) is not None
    return Choice("".join(sorted(letters)), text[start:end].strip(), disjunction)


def _by_text(text: str, texts: Sequence[str]) -> Choice | None:
    wanted = _plain(text)
    same = [letter for letter, option in zip(LETTERS, texts, strict=False) if wanted and _plain(option) == wanted]
    return Choice(same[0], text.strip()) if len(same) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"[\s$*\\{}()]+|[.。]\Z", "", unicodedata.normalize("NFKC", text)).casefold()


def _bare(text: str, allowed: str, texts: Sequence[str]) -> Choice | None:
    """A response that is nothing but a letter, a list item or an option's text; or ends in a line that is."""
    stripped = text.strip()
    for candidate in (stripped, stripped.rpartition("\n")[2].strip()):
        lone = _BARE.fullmatch(candidate)
        if lone and lone[1].upper() in allowed:
            return Choice(lone[1].upper(), candidate)
        several = _letters(candidate, allowed) if len(candidate) <= 24 else None
        if several and len(several.letters) > 1:
            return several
        if by_text := _by_text(candidate, texts):
            return by_text
    items = sorted({letter for letter in _LIST.findall(text) if letter in allowed})
    return Choice("".join(items), "".join(items), len(items) > 1) if items else None


def judge_choice(answer: str, gold: str, *, options: int = 4, texts: Sequence[str] = ()) -> Verdict:
    """Score 1 where `answer` commits to exactly the letter (or, for "ABD", exactly the letters) of `gold`, else 0."""
    wanted = "".join(sorted(set(re.sub(r"[\s,、，()]", "", unicodedata.normalize("NFKC", gold)).upper())))
    allowed = LETTERS[: len(texts) or options]
    if not wanted or not set(wanted) <= set(allowed):
        return Verdict("skip", None, "gold_invalid", normal_form=f"gold {gold!r} of {allowed}", voter="choice")
    choice = find_choice(answer, options=options, texts=texts)
    if choice is None:
        return Verdict.scored(0, "no_answer", voter="choice")
    right = choice.letters == wanted and not (choice.disjunction and len(wanted) > 1)
    return Verdict.scored(
        float(right),
        "correct" if right else "wrong",
        extracted=choice.text,
        normal_form=choice.letters,
        voter="choice",
    )
