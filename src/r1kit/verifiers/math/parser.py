"""Tokens to an expression tree, by recursive descent over one item (no commas, no relations at its top).

Nodes are tuples: ("n", value), ("v", name), ("k", "pi" | "e" | "i" | "inf"), ("+", nodes), ("*", nodes), ("/", a, b),
("^", a, b), ("neg", a), ("pm", a, sign), ("root", a, index), ("f", name, nodes), ("log", base or None, a), ("!", a),
("abs", a), ("floor", a), ("ceil", a), ("binom", a, b), ("deg", a), ("%", a). Nothing is evaluated here.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from r1kit.verifiers.math.limits import MAX_DEPTH, NotMathError, OverLimitError, UnsupportedError
from r1kit.verifiers.math.tokens import Token

Node = tuple[Any, ...]
TRIGONOMETRIC = frozenset("sin cos tan cot sec csc cis".split())  # noqa: SIM905
_INVERSE = {name: "arc" + name for name in TRIGONOMETRIC - {"cis"}}
_BRACKETED = frozenset("exp max min gcd lcm det floor ceil abs sgn".split())  # noqa: SIM905
CALLED = ("f", "g")  # f(2) is a call, a(2) a product
_END: Token = ("o", "")
# Short words that are words, not products of variables.
_PLAIN_WORDS = frozenset(
    ("no on yes odd and or if is of to in at by the not any all one two six ten few dne nor").split()  # noqa: SIM905
)


def parse_number(text: str) -> int | Fraction:
    """The exact value of a number token."""
    if text.isdigit():
        return int(text)
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > 400:
        raise OverLimitError(f"{text[:40]} has an exponent beyond 400")
    value = Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
    return int(value) if value.denominator == 1 else value


class Parser:
    """One item: tokens[start:end]. `expression` reads it whole or raises `NotMathError`."""

    def __init__(self, tokens: list[Token], partner: dict[int, int], start: int, end: int, mixed: bool = True) -> None:
        self.tokens, self.partner = tokens, partner
        self.start, self.position, self.end = start, start, end
        self.mixed = mixed
        self.depth = 0

    def expression(self) -> Node:
        node = self.sum()
        if self.position < self.end:
            raise NotMathError(f"unexpected {self.peek()[1]!r}")
        return node

    def peek(self) -> Token:
        return self.tokens[self.position] if self.position < self.end else _END

    def take(self) -> Token:
        token = self.peek()
        self.position += 1
        return token

    def sum(self) -> Node:
        terms: list[Node] = []
        while True:
            kind, value = self.peek()
            if kind == "o" and value in "+-±∓" and value:
                term = self.signed(self.product)
            elif terms:
                break
            else:
                term = self.product()
            terms.append(term)
        return terms[0] if len(terms) == 1 else ("+", terms)

    def signed(self, operand: Any) -> Node:
        """Signs, then an operand; a run of signs is read in a loop, so that it costs no depth."""
        negative, pm = False, ""
        while self.peek()[0] == "o" and (sign := self.peek()[1]) and sign in "+-±∓":
            self.position += 1
            negative ^= sign == "-"
            if sign in "±∓":
                if pm:
                    raise NotMathError("two signs ± before one term")
                pm = sign
        node = operand()
        if pm:
            return ("pm", node, -1 if (pm == "∓") ^ negative else 1)
        return ("neg", node) if negative else node

    def product(self) -> Node:
        node = self.factor()
        factors = [node]
        while True:
            kind, value = self.peek()
            if kind == "o":
                if value == "*":
                    self.position += 1
                    factors.append(self.signed(self.factor))
                    continue
                if value == "/":
                    self.position += 1
                    left = factors[0] if len(factors) == 1 else ("*", factors)
                    factors = [("/", left, self.signed(self.factor))]
                    continue
                if value not in ("(", "[", "{", "⌊", "⌈", "|"):
                    break
            elif kind == "n" and not self.number_may_follow():
                raise NotMathError("two numbers side by side")
            factors.append(self.factor())
        return factors[0] if len(factors) == 1 else ("*", factors)

    def number_may_follow(self) -> bool:
        """`(2)3` is a product and so is `n 2^k`; `2 3` and `x 2` are not."""
        after = self.tokens[self.position + 1] if self.position + 1 < self.end else _END
        before = self.tokens[self.position - 1]
        return before[1] in (")", "}") or (before[0] in "vk" and after == ("o", "^"))

    def factor(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise OverLimitError(f"nested deeper than {MAX_DEPTH}")
        node = self.postfix()
        if self.peek() == ("o", "^"):
            self.position += 1
            node = self.raised(node)
        self.depth -= 1
        return node

    def raised(self, base: Node) -> Node:
        if self.peek() == ("o", "°"):
            self.position += 1
            return ("deg", base)
        if self.peek() == ("o", "'"):
            raise UnsupportedError("a derivative")
        if self.peek() == ("o", "{"):
            close = self.partner[self.position]
            if close == self.position + 2 and self.tokens[self.position + 1] == ("o", "°"):
                self.position = close + 1
                return ("deg", base)
            exponent = self.group()
        else:
            exponent = self.signed(self.factor)
        node: Node = ("^", base, exponent)
        while self.peek() == ("o", "!"):
            self.position += 1
            node = ("!", node)
        return node

    def postfix(self) -> Node:
        node = self.atom()
        while self.position < self.end:
            kind, value = self.tokens[self.position]
            if kind != "o":
                break
            if value == "!":
                node = ("!", node)
            elif value == "%":
                node = ("%", node)
            elif value == "°":
                node = ("deg", node)
            elif value == "_" and node[0] == "v":
                self.position += 1
                node = ("v", f"{node[1]}_{self.subscript()}")
                continue
            elif value == "'" and node[0] == "v":
                node = ("v", node[1] + "'")
            else:
                break
            self.position += 1
        return node

    def subscript(self) -> str:
        """The text of a subscript: one token, or a group of plain tokens."""
        if self.peek() != ("o", "{"):
            kind, value = self.take()
            if kind not in "nvwk" or not kind:
                raise NotMathError("a subscript that is no name")
            return value
        close = self.partner[self.position]
        inner = self.tokens[self.position + 1 : close]
        self.position = close + 1
        return ",".join(value for _, value in inner)

    def group(self) -> Node:
        """The expression between a bracket and its partner."""
        close = self.partner[self.position]
        if close > self.end:
            raise NotMathError("a bracket is not closed")
        outer, self.end = self.end, close
        self.position += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise OverLimitError(f"nested deeper than {MAX_DEPTH}")
        node = self.expression()
        self.depth -= 1
        self.position, self.end = close + 1, outer
        return node

    def atom(self) -> Node:
        kind, value = self.take()
        if kind == "n":
            return self.number(value)
        if kind == "v" and value in CALLED and self.peek() == ("o", "("):
            return ("f", value, tuple(self.arguments()))
        if kind == "v":
            return ("k", value) if value in ("e", "i") else ("v", value)
        if kind == "f":
            return self.function(value)
        if kind == "k" and value in ("pi", "inf"):
            return ("k", value)
        if kind == "w":
            return self.letters(value)
        if kind == "c":
            return self.structure(value)
        if kind == "o" and value in ("(", "[", "{"):
            self.position -= 1
            return self.group()
        if value == "|":
            return self.absolute()
        if kind == "o" and value in ("⌊", "⌈"):
            self.position -= 1
            name = "floor" if value == "⌊" else "ceil"
            return (name, self.group())
        raise NotMathError(f"expected a term, found {value or 'the end'!r}")

    def number(self, text: str) -> Node:
        value = parse_number(text)
        if not self.mixed or not isinstance(value, int):
            return ("n", value)
        if self.peek() == ("c", "frac"):
            start = self.position
            self.position += 1
            part: Any = self.structure("frac")
            if part[1][0] == "n" and part[2][0] == "n" and self.proper(part[1][1], part[2][1]):
                return ("n", value + Fraction(part[1][1], part[2][1]))
            self.position = start
        else:
            ahead = self.tokens[self.position : min(self.position + 3, self.end)]
            if [kind for kind, _ in ahead] == ["n", "o", "n"] and ahead[1][1] == "/":
                top, bottom = parse_number(ahead[0][1]), parse_number(ahead[2][1])
                if self.proper(top, bottom):
                    self.position += 3
                    return ("n", value + Fraction(top, bottom))
        return ("n", value)

    @staticmethod
    def proper(top: Any, bottom: Any) -> bool:
        return isinstance(top, int) and isinstance(bottom, int) and 0 < top < bottom

    def letters(self, word: str) -> Node:
        """`xy` is a product, `abcd` and `no` are words."""
        if len(word) > 3 or not word.isascii() or not word.isalpha() or self.alone(word):
            raise NotMathError(f"the word {word!r}")
        nodes: list[Node] = [("k", c) if c in "ei" else ("v", c) for c in word]
        if self.peek() == ("o", "_"):
            raise NotMathError(f"the word {word!r} with a subscript")
        if self.peek() == ("o", "^"):  # xy^2: the power belongs to the last letter
            self.position += 1
            nodes[-1] = self.raised(nodes[-1])
        return ("*", nodes)

    def alone(self, word: str) -> bool:
        """True for a plain word that is the whole item: `no` is a word, the `at` of sin(at) is a product."""
        return word.lower() in _PLAIN_WORDS and self.end - self.start == 1

    def argument(self) -> Node:
        """What a TeX macro takes: a group, or one token."""
        if self.peek()[0] == "o" and self.peek()[1] in ("{", "("):
            return self.group()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise OverLimitError(f"nested deeper than {MAX_DEPTH}")
        mixed, self.mixed = self.mixed, False
        node = self.atom()
        self.mixed = mixed
        self.depth -= 1
        return node

    def structure(self, name: str) -> Node:
        if name == "frac":
            if self.peek() == ("o", "("):
                raise NotMathError(r"\frac without braces")
            return ("/", self.argument(), self.argument())
        if name == "sqrt":
            index: Node = ("n", 2)
            if self.peek() == ("o", "["):
                index = self.group()
            return ("root", self.argument(), index)
        if name == "cbrt":
            return ("root", self.argument(), ("n", 3))
        if name == "binom":
            return ("binom", self.argument(), self.argument())
        if name == "accent":
            close = self.partner.get(self.position)
            inner = self.tokens[self.position + 1 : close] if close else [self.peek()]
            self.position = close + 1 if close else self.position + 1
            if any(kind not in "vw" for kind, _ in inner):
                raise UnsupportedError("an accent over an expression")
            return ("v", "^" + "".join(value for _, value in inner))
        raise UnsupportedError(f"\\{name} inside an expression")

    def absolute(self) -> Node:
        start, index = self.position, self.position
        while index < self.end and self.tokens[index] != ("o", "|"):
            index = self.partner.get(index, index) + 1
        if index >= self.end or index == start:
            raise NotMathError("| is not closed")
        outer, self.end = self.end, index
        self.depth += 1
        node = self.expression()
        self.depth -= 1
        self.position, self.end = index + 1, outer
        return ("abs", node)

    def function(self, name: str) -> Node:
        power: Node | None = None
        base: Node | None = None
        for _ in range(2):
            if self.peek() == ("o", "^"):
                self.position += 1
                power = self.group() if self.peek() == ("o", "{") else self.signed(self.atom)
            elif self.peek() == ("o", "_"):
                self.position += 1
                if name != "log":
                    raise UnsupportedError(f"{name} with a subscript")
                base = self.log_base()
        if power == ("neg", ("n", 1)):
            if name not in _INVERSE:
                raise UnsupportedError(f"the inverse of {name}")
            name, power = _INVERSE[name], None
        node = self.applied(name, base)
        return node if power is None else ("^", node, power)

    def log_base(self) -> Node:
        """`\\log_28` is the logarithm of 8 to base 2; `\\log_{28} 5` says otherwise."""
        kind, value = self.peek()
        if kind == "n" and len(value) > 1 and value.isdigit() and self.position + 1 >= self.end:
            self.tokens = [*self.tokens[: self.position], ("n", value[0]), ("n", value[1:])]
            self.end = self.position + 2
        return self.group() if self.peek() == ("o", "{") else self.atom()

    def applied(self, name: str, base: Node | None) -> Node:
        if self.peek()[0] == "o" and self.peek()[1] in ("(", "[", "{", "{{"):
            arguments = self.arguments()
        elif name in _BRACKETED:
            raise NotMathError(f"{name} without brackets")
        else:
            arguments = [self.open_argument(name)]
        if name == "log":
            return ("log", base, self.only(name, arguments))
        if name in ("ln", "lg"):
            return ("log", ("k", "e") if name == "ln" else ("n", 10), self.only(name, arguments))
        if name in ("abs", "floor", "ceil"):
            return (name, self.only(name, arguments))
        if name == "exp":
            return ("^", ("k", "e"), self.only(name, arguments))
        if name in ("max", "min", "gcd", "lcm"):
            return ("f", name, tuple(arguments))
        if name in ("det", "sgn"):
            raise UnsupportedError(name)
        return ("f", name, (self.only(name, arguments),))

    @staticmethod
    def only(name: str, arguments: list[Node]) -> Node:
        if len(arguments) != 1:
            raise NotMathError(f"{name} with {len(arguments)} arguments")
        return arguments[0]

    def arguments(self) -> list[Node]:
        close, outer = self.partner[self.position], self.end
        self.position += 1
        nodes = []
        start = index = self.position
        while index <= close:
            if index == close or self.tokens[index] == ("o", ","):
                self.position, self.end = start, index
                nodes.append(self.expression())
                start = index + 1
            index = self.partner.get(index, index) + 1
        self.position, self.end = close + 1, outer
        return nodes

    def open_argument(self, name: str) -> Node:
        """`\\sin 2\\pi x`: the product that follows, up to the next function, bracket, sign or slash."""
        factors = [self.signed(self.factor)]
        while self.position < self.end:
            kind, value = self.peek()
            if kind in ("v", "k", "c", "w") or (kind == "o" and value == "|"):
                factors.append(self.factor())
            else:
                break
        node = factors[0] if len(factors) == 1 else ("*", factors)
        if name in TRIGONOMETRIC and self.peek() == ("o", "/") and ("k", "pi") in factors:
            self.position += 1
            node = ("/", node, self.factor())
        return node
