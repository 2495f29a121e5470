"""One spelling for what people spell in many ways: Unicode, full-width forms, LaTeX styling, thousands separators.

`tidy` turns a text into the plain LaTeX that `tokens` reads. It only rewrites, it never judges; words set with `\\text`
keep a mark (`\\x02`) so that a unit `\\text{m}` is not taken for the variable m.
"""

from __future__ import annotations

import re

from r1kit.verifiers.math.policy import Reading

_SINGLE = {
    **{chr(0xFF01 + i): chr(0x21 + i) for i in range(94)},
    **dict(zip("，、；：（）【】。％＝－−–—﹣‐‑‒", ",,;:()[].%=--------", strict=False)),
    "　": " ",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "\u200b": "",
    "\ufeff": "",
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∙": r"\cdot ",
    "•": r"\cdot ",
    "÷": r"\div ",
    "∕": "/",
    "⁄": "/",
    "√": r"\sqrt ",
    "∛": r"\cbrt ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≦": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≧": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "∞": r"\infty ",
    "∪": r"\cup ",
    "⋃": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∖": r"\setminus ",
    "∅": r"\emptyset ",
    "Ø": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "°": r"\circ ",
    "º": r"\circ ",
    "′": "'",
    "’": "'",
    "″": "''",
    "“": '"',
    "”": '"',
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "→": r"\to ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "…": r"\ldots ",
    "ℓ": "l",
    "∶": ":",
}
_GREEK = (  # noqa: SIM905
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho _ sigma tau "
    "upsilon phi chi psi omega"
).split()
_SINGLE |= {chr(0x3B1 + i): rf"\{name} " for i, name in enumerate(_GREEK) if name != "_"}
_SINGLE |= {"ϕ": r"\phi ", "Δ": r"\Delta ", "Ω": r"\Omega ", "µ": r"\mu ", "Σ": r"\Sigma ", "Θ": r"\Theta "}
_SINGLE |= dict(
    zip(
        "½⅓⅔¼¾⅕⅛⅜⅝⅞",
        (rf"\frac{{{a}}}{{{b}}}" for a, b in zip("1121311357", "2334458888", strict=True)),
        strict=True,
    )
)
_TRANSLATION = str.maketrans(_SINGLE)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_RAISED_RUN = re.compile(f"[{''.join(_RAISED)}]+")
_LOWERED_RUN = re.compile(f"[{''.join(_LOWERED)}]+")

# Styling that carries no meaning. `\left.` and `\right.` are invisible brackets.
_DROP = re.compile(
    r"\\(?:left|right)\s*\.(?!\d)|\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|"
    r"mathop|quad|qquad|thinspace|allowbreak|newline|hfill|centering|bf|rm|it|sf|tt|par|noindent)(?![A-Za-z])|"
    r"\\[hv]space\*?\s*\{[^{}]*\}|\\[hv]?phantom\s*(?:\{[^{}]*\}|[-+])?|\\(?:label|tag|color)\s*\{[^{}]*\}|"
    r"\\[,;:!> ]|~|"
    r"\\(?:begin|end)\s*\{(?:equation|align|aligned|gather|gathered|split|math|displaymath|center)\*?\}"
)
_BRACED_ROWS = re.compile(
    r"\\left\s*\\(?:\{|lbrace)\s*\\begin\s*\{(array|aligned|matrix|gathered|split)\}(?:(?<=array\})\s*\{[^{}]*\})?"
    r"((?:(?!\\begin).)*?)\\end\s*\{\1\}\s*\\right\s*\.",
    re.DOTALL,
)
_ROW_SPACE = re.compile(r"(?<=\\\\)\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\]")
_ALIGNED = re.compile(r"&\s*(?=[=<>]|\\(?:le|ge|leq|geq|lt|gt|ne|neq|approx)(?![A-Za-z]))")
_MATH_MARKS = re.compile(r"\\[()\[\]]|(?<!\\)\$+|`+")
_QUOTED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|sc|normal|up)?|mbox|hbox|mathrm|operatorname\*?|mathsf|mathtt|emph|underline)"
    r"\s*\{([^{}]*)\}"
)
_STYLED = re.compile(
    r"\\(?:mathbf|mathit|mathnormal|boldsymbol|bm|pmb|ensuremath|mathcal|mathfrak|mathscr|cancel|fbox|boxed|"
    r"textcircled|textcolor\s*\{\w+\})\s*\{([^{}]*)\}"
)
_BLACKBOARD = re.compile(r"\\(?:mathbb|Bbb)\s*\{?\s*([RNZQC])(?![A-Za-z])\s*\}?|\\(?:mathbf|mathrm)\s*\{\s*(R)\s*\}")
_FRACTION_NAMES = re.compile(r"\\[dtc](frac|binom)(?![A-Za-z])")
# dy/dx and d^2y/dx^2 are y' and y''; dx/dt is x'.
_DERIVATIVE = re.compile(
    r"\\frac\s*\{\s*d\s*(?P<n>\^\s*\{?\s*2\s*\}?)?\s*(?P<f>[a-zA-Z])\s*\}\s*\{\s*d\s*(?P<x>[xt])\s*(?(n)\^\s*\{?\s*2\s*\}?)\s*\}"
    r"|(?<![A-Za-z\\])d(?P<g>[a-zA-Z])\s*/\s*d(?P<y>[xt])(?![A-Za-z^])"
)
_REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\overline|\\bar|\\dot)\s*\{(\d+)\}")
_MARKED_THOUSANDS = re.compile(
    r"(?<=\d)(?:\s*\{,\}\s*|\s*\\!\s*,\s*|\s*,\s*\\!\s*(?:\\!)?|\\,|\\ |\\:|\\;|~)(?=\d{3}(?!\d))"
)
_COMMA_THOUSANDS = re.compile(r"(?<![\d,.^_{(\[])-?\d{1,3}(?:,\d{3})+(?![\d,]|\s*[)\]}])")
_FRACTION_THOUSANDS = re.compile(r"(?<=[}c])\s*\{\d{1,3}(?:,\d{3})+\}")
_TWICE_ESCAPED = re.compile(r"\\\\(?=[A-Za-z])")
_LONE_THOUSANDS = re.compile(r"\s*[-+]?\s*\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*")
_SPACE_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?: \d{3})+(?![\d/])")
_DECIMAL_COMMA = re.compile(r"(?<![\d,])(\d+),(\d+)(?![\d,])")
# C_5^2 is a number of combinations, A_5^2 (or P) of arrangements, in Chinese schools and others.
_CHOSEN = re.compile(r"\x02?(?<![A-Za-z\\])([CAP])\x02?\s*_\s*\{?\s*(\d{1,4})\s*\}?\s*\^\s*\{?\s*(\d{1,4})\s*\}?")
# 5 m/s behind a space has units; 5m/s is a quotient of variables.
_RATE = re.compile(r"(?<=\d)\s+(m|g)\s*/\s*(s|h|cm|L)(?![A-Za-z])")
_TEMPERATURE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*(\x02?[CF]\x02?)(?![A-Za-z])")
_TIMES_TEN = re.compile(r"(?<=\d)\s*[xX]\s*10\s*(?=\^)")
_EMPHASIS = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*(?![\w(])|^__(.+)__$")


def tidy(text: str, reading: Reading) -> str:
    """`text` in the one spelling that the tokenizer reads."""
    if not text.isascii():
        text = _ascii(text)
    if "**" in text:
        text = _EMPHASIS.sub(lambda m: m[1] or m[2], text)
    if "\\" in text or "{,}" in text:
        text = _plain_latex(text, reading.thousands)
    elif "$" in text or "`" in text:
        text = _MATH_MARKS.sub(" ", text)
    if "/" in text:
        text = _RATE.sub(" \x02\\1\x02/\x02\\2\x02", text)
    if "d" in text and ("/" in text or "\\frac" in text):
        text = _DERIVATIVE.sub(_prime, text)
    if "^" in text:
        text = _TEMPERATURE.sub(r"\\circ \1", _TIMES_TEN.sub(r" \\times 10", text))
        if "_" in text:
            text = _CHOSEN.sub(_counted, text)
    if reading.decimal_comma:
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    if reading.thousands and ("," in text or " " in text):
        text = _COMMA_THOUSANDS.sub(_join, text)
        text = _SPACE_THOUSANDS.sub(_join, text)
    text = text.strip()
    if text[:1] == '"' == text[-1:]:
        text = text.strip('" ')
    return text.rstrip(" \t\n\r.,;:?。") if text.endswith((".", ",", ";", ":", "?")) else text


def _prime(match: re.Match[str]) -> str:
    name, by = match["f"] or match["g"], match["x"] or match["y"]
    if (by == "t") != (name == "x"):
        return match[0]
    marks = "''" if match["n"] else "'"
    return f" {name}{marks} "


def _counted(match: re.Match[str]) -> str:
    kind, n, k = match[1], int(match[2]), int(match[3])
    if k > n:
        return match[0]
    return rf"\binom{{{n}}}{{{k}}}" if kind == "C" else rf"(\frac{{{n}!}}{{{n - k}!}})"


def lone_thousands(text: str) -> bool:
    """True for `100,200`: one number with separators, or a list of two."""
    return "," in text and _LONE_THOUSANDS.fullmatch(text) is not None


def _join(match: re.Match[str]) -> str:
    return match[0].replace(",", "").replace(" ", "")


def _ascii(text: str) -> str:
    text = text.rstrip("！").replace("根号", r"\sqrt ")
    text = _RAISED_RUN.sub(lambda m: "^{" + "".join(_RAISED[c] for c in m[0]) + "}", text)
    text = _LOWERED_RUN.sub(lambda m: "_{" + "".join(_LOWERED[c] for c in m[0]) + "}", text)
    return text.translate(_TRANSLATION)


def _plain_latex(text: str, thousands: bool) -> str:
    if thousands:
        text = _MARKED_THOUSANDS.sub("", text)
        text = _FRACTION_THOUSANDS.sub(_join, text)
    if "\\begin" in text:
        text = _BRACED_ROWS.sub(r"\\begin{cases}\2\\end{cases}", text)
        text = _ALIGNED.sub("", _ROW_SPACE.sub("", text))
    else:
        text = _TWICE_ESCAPED.sub(r"\\", text)
    text = text.replace("\\$", "\x04")
    text = _MATH_MARKS.sub(" ", text.replace("\\\\", "\x05"))  # a line break is not the start of `\(`
    text = _FRACTION_NAMES.sub(r"\\\1", text)
    text = _BLACKBOARD.sub(lambda m: f" \\set{m[1] or m[2]} ", text)
    text = _DROP.sub(" ", text)
    while True:  # from the inside out: `\text{a \textbf{b}}`; the text shrinks with every round
        text, quoted = _QUOTED.subn(lambda m: f" {_quote(m[1])} ", text)
        text, styled = _STYLED.subn(r"{\1}", text)
        if not quoted and not styled:
            break
    if "{," in text:
        text = text.replace("{,}", ",")
    return _REPEATING.sub(_repeating, text).replace("\x05", "\\\\")


def _quote(content: str) -> str:
    """Mark the words of a `\\text`; numbers and brackets in it stay what they are. A lone e, i or d is mathematics."""
    if content.strip() in ("e", "i", "d"):
        return content
    return re.sub(r"(?<![A-Za-z\x02\\])[A-Za-z]+(?![A-Za-z\x02])", lambda m: f"\x02{m[0]}\x02", content)


def _repeating(match: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction of integers."""
    whole, fixed, cycle = match.groups()
    if len(fixed) + len(cycle) > 100:
        return match[0]
    numerator = int((whole or "0") + fixed + cycle) - int((whole or "0") + fixed)
    return rf"\frac{{{numerator}}}{{{'9' * len(cycle)}{'0' * len(fixed)}}}"
