"""Tidy text to tokens: (kind, value) pairs, brackets matched.

Kinds: "n" number (its digits), "v" variable, "w" word, "q" word set with `\\text`, "f" function, "k" constant, "o"
operator or bracket, "c" structure (frac, sqrt, begin ...). Unknown commands stop the reading:
what is not understood is never guessed.
"""

from __future__ import annotations

import re

from r1kit.verifiers.math.limits import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_TOKENS,
    NotMathError,
    OverLimitError,
    UnsupportedError,
)
from r1kit.verifiers.math.units import is_unit

Token = tuple[str, str]

_TOKEN = re.compile(
    r"(?P<n>\d+\.\d+(?:[eE][+-]?\d+(?![\d.]))?|\.\d+(?:[eE][+-]?\d+(?![\d.]))?|\d+(?:[eE][+-]?\d+(?![\d.]))?)"
    r"|(?P<c>\\[A-Za-z]+|\\.)|(?P<q>\x02[A-Za-z]+\x02)|(?P<w>[A-Za-z]+(?:'[a-z]+)?|[^\x00-\x7f]+)"
    r"|(?P<o><=|>=|=<|!=|==|\*\*|:=|->|\|\||[^\s])|(?P<s>\s+)",
    re.DOTALL,
)
FUNCTIONS = frozenset(
    (  # noqa: SIM905
        "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc asin acos atan cosec tg ctg sinh cosh "
        "tanh coth sech csch arcsinh arccosh arctanh log ln lg exp max min gcd lcm det cis sgn floor ceil abs"
    ).split()
)
_RENAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "cosec": "csc", "tg": "tan", "ctg": "cot"}
# Commands after which a lost space is mended; short ones such as \\in would split \\int.
_GLUED = frozenset(
    (  # noqa: SIM905
        "pi sin cos tan cot ln log alpha beta gamma delta theta lambda rho sigma tau phi omega cdot times angle Delta"
    ).split()
)
GREEK = frozenset(
    (  # noqa: SIM905
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi omicron rho "
        "varrho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega Pi "
        "hbar ell aleph odot oplus"
    ).split()
)
_OPERATORS = {
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "pm": "±", "mp": "∓", "le": "<=", "leq": "<=", "leqslant": "<=",
    "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "approx": "≈",
    "simeq": "≈", "doteq": "≈", "in": "∈", "cup": "∪", "bigcup": "∪", "cap": "∩", "setminus": "∖", "backslash": "∖",
    "{": "{{", "}": "}}", "lbrace": "{{", "rbrace": "}}", "langle": "⟨", "rangle": "⟩", "circ": "°", "degree": "°",
    "%": "%", "|": "|", "lvert": "|", "rvert": "|", "vert": "|", "lVert": "|", "rVert": "|", "Vert": "|",
    "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "to": "→", "rightarrow": "→", "mapsto": "→",
    "ldots": "…", "cdots": "…", "dots": "…", "dotsc": "…", "prime": "'", "mid": "|", "colon": ":", "land": "and",
    "wedge": "and", "lor": "or", "vee": "or", "equiv": "≡", "lbrack": "[", "rbrack": "]", "&": "&", "\\": "\\\\",
    "implies": "→", "Rightarrow": "→", "_": "_", "#": "#", "cong": "≅", "sim": "~", "propto": "∝",
    "perp": "⊥", "parallel": "∥",
}  # fmt: skip
_PLAIN_OPERATORS = {"**": "^", "==": "=", ":=": "=", "=<": "<=", "->": "→", "||": "|"}
_CONSTANTS = {
    "pi": "pi", "infty": "inf", "infinity": "inf", "oo": "inf",
    "emptyset": "empty", "varnothing": "empty", "oslash": "empty",
}  # fmt: skip
_ACCENTS = frozenset(("overline bar vec hat widehat overrightarrow overarc overset tilde dot ddot widetilde").split())  # noqa: SIM905
_WORDS = frozenset(("angle", "triangle", "square", "star", "dagger", "Box"))
_STRUCTURES = frozenset(("frac", "sqrt", "cbrt", "binom", "begin", "end", "pmod", "bmod", "mod"))
_SEPARATORS = {
    "or": "or",
    "and": "and",
    "AND": "and",
    "OR": "or",
    "或": "or",
    "或者": "or",
    "和": "and",
    "且": "and",
    "与": "and",
}
_OPEN, _CLOSE = (
    {"(": ")", "[": "]", "{": "}", "{{": "}}", "⟨": "⟩", "⌊": "⌋", "⌈": "⌉"},
    {")", "]", "}", "}}", "⟩", "⌋", "⌉"},
)


def tokenize(text: str) -> list[Token]:
    """The tokens of a tidy text; raises `MathError` where it holds what is not known."""
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind, value = match.lastgroup, match[0]
        if kind == "s":
            continue
        if kind == "n":
            if len(value) > MAX_DIGITS:
                raise OverLimitError(f"a number of {len(value)} characters, at most {MAX_DIGITS} are read")
            _number(value, tokens)
        elif kind == "o":
            tokens.append(("o", _PLAIN_OPERATORS.get(value, value)))
        elif kind == "c":
            tokens.extend(_command(value[1:]))
        elif kind == "q":
            word = value[1:-1]
            known = ("k", "inf") if word == "infinity" else ("q", word)
            tokens.append(("o", _SEPARATORS[word]) if word in _SEPARATORS else known)
        else:
            _word(value, tokens)
        if len(tokens) > MAX_TOKENS:
            raise OverLimitError(f"more than {MAX_TOKENS} tokens")
    return tokens


def _number(value: str, tokens: list[Token]) -> None:
    """`\\frac12` is one half: TeX takes one digit for each argument."""
    if len(value) > 1 and value.isdigit() and tokens and tokens[-1] == ("c", "frac"):
        tokens.extend(("n", part) for part in (value[0], value[1], value[2:]) if part)
    else:
        tokens.append(("n", value))


def _command(name: str) -> list[Token]:
    """The token of a command; `\\cotx` and `\\pit`, whose space was lost, are split after the longest known name."""
    token = _known(name)
    if token is not None:
        return [token]
    for cut in range(min(len(name) - 1, 8), 1, -1):
        token = _known(name[:cut]) if name[:cut] in _GLUED else None
        if token is not None:
            rest: list[Token] = []
            _word(name[cut:], rest)
            return [token, *rest]
    raise UnsupportedError(f"unknown command \\{name}")


def _known(name: str) -> Token | None:
    if name in _OPERATORS:
        return "o", _OPERATORS[name]
    if name in FUNCTIONS:
        return "f", _RENAMED.get(name, name)
    if name in _CONSTANTS:
        return "k", _CONSTANTS[name]
    if name in _STRUCTURES:
        return "c", name
    if name in GREEK:
        return "v", "\\" + name.removeprefix("var")
    if name in _ACCENTS:
        return "c", "accent"
    if name.startswith("set") and len(name) == 4:
        return "k", name
    if name in _WORDS:
        return "w", name
    return ("q", name) if is_unit(name) else None


def _word(value: str, tokens: list[Token]) -> None:
    if len(value) == 1 and value.isascii():
        tokens.append(("v", value))
    elif value in _SEPARATORS:
        tokens.append(("o", _SEPARATORS[value]))
    elif value in ("sqrt", "cbrt", "binom"):
        tokens.append(("c", value))
    elif value == "min" and tokens and tokens[-1][0] == "n":
        tokens.append(("w", value))  # minutes
    elif value in FUNCTIONS:
        tokens.append(("f", _RENAMED.get(value, value)))
    elif value in _CONSTANTS:
        tokens.append(("k", _CONSTANTS[value]))
    elif value in GREEK:
        tokens.append(("v", "\\" + value))
    elif value[0] == "i" and value in ("inf", "infty"):
        tokens.append(("k", "inf"))
    else:
        tokens.append(("w", value))


def match_brackets(tokens: list[Token]) -> dict[int, int]:
    """Index of the closing bracket for each opening one. `[1,2)` closes; `(1` and `{1)` do not."""
    stack: list[int] = []
    partner: dict[int, int] = {}
    for index, (kind, value) in enumerate(tokens):
        if kind != "o":
            continue
        if value in _OPEN:
            stack.append(index)
            if len(stack) > MAX_DEPTH:
                raise OverLimitError(f"brackets nested deeper than {MAX_DEPTH}")
        elif value in _CLOSE:
            opened = tokens[stack[-1]][1] if stack else ""
            half_open = opened in ("(", "[") and value in (")", "]")
            if not stack or (_OPEN[opened] != value and not half_open):
                raise NotMathError(f"{value!r} closes no bracket")
            partner[stack.pop()] = index
    if stack:
        raise NotMathError(f"{tokens[stack[-1]][1]!r} is not closed")
    return partner
