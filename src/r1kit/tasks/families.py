"""Families of questions: equal or nearly equal ones, which must never stand on both sides of a split.

Two questions are nearly equal where they differ only in case, punctuation, white space and numbers ("A car drives 60
km" and "... 80 km": the same exercise), or where about nine in ten of their runs of three words are the same. The
first is a normal form, the second an estimate of the Jaccard similarity by MinHash (Broder 1997) with bands, so that
forty thousand questions take seconds. Short questions, and those made of formulas, are compared as they are: `12*34`
and `56*78` are two exercises.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

MIN_WORDS = 8  # fewer words than that: only equal questions are alike
RUN = 3  # words of a shingle
BANDS, ROWS = 8, 16  # two questions of Jaccard similarity s meet with chance 1 - (1 - s^16)^8: 0.8 at 0.9, 0.2 at 0.8
_SINGLE = "\u3040-\u30ff\u4e00-\u9fff"  # scripts without spaces: every letter is a word
_WORD = re.compile(rf"[{_SINGLE}]|[^\W\d_{_SINGLE}]{{2,}}")
_TOKEN = re.compile(rf"#|[{_SINGLE}]|[^\W{_SINGLE}]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PRIME = (1 << 31) - 1


def plain(question: str) -> str:
    """Case, compatibility forms and white space gone; nothing else."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def near_form(question: str) -> str:
    """What nearly equal questions have in common: words, with a mark for each number."""
    text = plain(question)
    if len(_WORD.findall(text)) < MIN_WORDS:
        return text
    return " ".join(_TOKEN.findall(_NUMBER.sub("#", text)))


def families(questions: Sequence[str], *, near: bool) -> list[str]:
    """The family of each question: a short name, equal for those that belong together.

    The name is a hash of the members' normal forms that sorts first, so it does not depend on the order of the
    questions; a question that joins two families into one can change it.
    """
    forms = [near_form(q) if near else plain(q) for q in questions]
    names = {form: _digest(form) for form in forms}
    if near:
        names = _joined(names)
    return [names[form] for form in forms]


def _digest(form: str) -> str:
    return hashlib.blake2b(form.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _joined(names: dict[str, str]) -> dict[str, str]:
    """Names by form, with one name for all forms that share a band of their MinHash signatures."""
    long = [form for form in names if len(form.split()) >= MIN_WORDS + RUN]
    parent = {form: form for form in names}

    def root(form: str) -> str:
        while parent[form] != form:
            parent[form] = form = parent[parent[form]]
        return form

    buckets: dict[tuple[int, bytes], str] = {}
    for form in long:
        for band, rows in enumerate(_signature(form)):
            first = buckets.setdefault((band, rows.tobytes()), form)
            parent[root(form)] = root(first)
    members: dict[str, list[str]] = defaultdict(list)
    for form in names:
        members[root(form)].append(names[form])
    return {form: min(members[root(form)]) for form in names}


_COEFFICIENTS = np.random.Generator(np.random.Philox(key=[20_20, 7])).integers(1, _PRIME, (2, BANDS * ROWS, 1))


def _signature(form: str) -> np.ndarray:
    """MinHash of the runs of words: [BANDS, ROWS] int64."""
    words = form.split()
    runs = {" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
    hashes = np.array([zlib.crc32(run.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF for run in runs], np.int64)
    multiply, add = _COEFFICIENTS
    return np.asarray(((multiply * hashes + add) % _PRIME).min(axis=1)).reshape(BANDS, ROWS)
