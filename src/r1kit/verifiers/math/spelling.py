"""A normal form of what is written rather than of what it means: for golds that no tier can work out.

Spaces, math marks, fonts, sizes of brackets and braces around one token do not count; everything else does. Equal
spellings are the same answer. That differing ones are different answers is said of abstract notation only (a group, a
space of functions, a presentation); of a sum or an integral it may be false.
"""

from __future__ import annotations

import re

from r1kit.verifiers.math.limits import MAX_CHARS, MAX_TOKENS

_DROPPED = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|mathbb|Bbb|mathbf|boldsymbol|bm|mathrm|mathcal|mathfrak|"
    r"mathscr|mathsf|text(?:bf|it|rm)?|mbox|operatorname\*?|quad|qquad|bf|rm|it)(?![A-Za-z])|\\[,;:!> ]|\\[()\[\]]|"
    r"(?<!\\)\$+|~"
)
_INVISIBLE = re.compile(r"\\(left|right)\s*\.")
_OPENED, _CLOSED = "\x06", "\x07"  # they match any other bracket
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|[A-Za-z]|[^\s\w]|\w")
_ALIASES = {
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\dbinom": "\\binom", "\\tbinom": "\\binom", "\\leq": "\\le",
    "\\leqslant": "\\le", "\\geq": "\\ge", "\\geqslant": "\\ge", "\\neq": "\\ne", "\\rightarrow": "\\to",
    "\\dots": "\\ldots", "\\cdots": "\\ldots", "\\dotsc": "\\ldots", "\\simeq": "\\cong", "\\prime": "'",
    "\\lbrace": "\\{", "\\rbrace": "\\}", "\\vert": "|", "\\mid": "|", "\\lvert": "|", "\\rvert": "|",
    "\\Vert": "\\|", "\\bmod": "\\mod", "\\cdot": "*", "\\ast": "*", "\\intercal": "\\top",
    "\\emptyset": "\\varnothing",
}  # fmt: skip
_UNICODE = str.maketrans(
    {
        **dict(zip("ℝℤℚℂℕ−·", "RZQCN-*", strict=True)),
        **{"⊕": r"\oplus ", "⊗": r"\otimes ", "≅": r"\cong ", "×": r"\times ", "⊆": r"\subseteq ", "⊂": r"\subset "},
        **{"∈": r"\in ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "…": r"\ldots "},
    }
)
_ABSTRACT = re.compile(
    r"\\(?:mathbb|Bbb|mathfrak|mathscr|cong|oplus|otimes|ltimes|rtimes|wr|top|intercal|ker|dim|hom|subset(?:eq)?|"
    r"supset(?:eq)?|triangleleft|trianglelefteq)(?![A-Za-z])|[ℤℚℂ⊕⊗≅⊆⊂]"
    r"|\\operatorname\*?\s*\{\s*(?:ker|im|Aut|End|Hom|Gal|Ext|Tor|colim|GL|SL|SO|SU|Spec)\s*\}"
)
_MODULO = re.compile(r"Z / (?:(\d+|[a-z]) Z|\( (\d+|[a-z]) \)|\( (\d+|[a-z]) Z \)|\\langle (\d+|[a-z]) \\rangle)")
_PAIRS = {"{": "}", "\\{": "\\}", "(": ")", "[": "]", _OPENED: _CLOSED}


def spelling(text: str) -> str | None:
    """Tokens in one spelling; None for what is too long, has nothing to compare, or whose brackets do not close."""
    if len(text) > MAX_CHARS:
        return None
    text = _INVISIBLE.sub(lambda m: _OPENED if m[1] == "left" else _CLOSED, text.translate(_UNICODE))
    plain = _DROPPED.sub(" ", text).strip(" \n\t.,;。")
    tokens = [_ALIASES.get(token, token) for token in _TOKEN.findall(plain)]
    if len(tokens) > MAX_TOKENS or (len(tokens) < 3 and not any(token[0].isalnum() for token in tokens)):
        return None
    kept = _without_braces(tokens)
    if kept is None:
        return None
    return _MODULO.sub(lambda m: f"Z _ {next(filter(None, m.groups()))}", " ".join(kept))


def _without_braces(tokens: list[str]) -> list[str] | None:
    """Braces around a single token dropped; None where brackets do not close. `(0, 1]` closes."""
    stack: list[int] = []
    kept: list[str] = []
    for token in tokens:
        kept.append(token)
        if token in _PAIRS:
            stack.append(len(kept) - 1)
        elif token in _PAIRS.values():
            if not stack:
                return None
            start = stack.pop()
            opened = kept[start]
            loose = opened == _OPENED or token == _CLOSED or (opened in "([" and token in ")]")
            if _PAIRS[opened] != token and not loose:
                return None
            if token == "}" and start == len(kept) - 3:
                kept[start:] = [kept[start + 1]]
    return None if stack else kept


def same_spelling(a: str, b: str) -> bool:
    left = spelling(a)
    return left is not None and left == spelling(b)


def is_abstract(text: str) -> bool:
    """True for notation that stands for itself: there is nothing in it to work out."""
    return _ABSTRACT.search(text) is not None and spelling(text) is not None
