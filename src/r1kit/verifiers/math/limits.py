"""What the exact tier refuses to touch, and the exceptions that say why it stopped.

Every text costs a bounded amount of work: the limits hold before the work is done, never after.
"""

from __future__ import annotations

MAX_CHARS = 4_000
MAX_TOKENS = 1_500
MAX_DEPTH = 40
MAX_DIGITS = 2_000
MAX_BITS = 32_000  # of an exact integer; beyond it a power is a symbol, or too large
MAX_EXPONENT = 10**7  # of a power kept as a symbol
MAX_TERMS = 400
MAX_DEGREE = 64
MAX_FACTORIAL = 3_000  # worked out exactly; beyond it a symbol
MAX_ARGUMENT = 10**7  # of a factorial or binomial coefficient kept as a symbol
MAX_ITEMS = 200


class MathError(ValueError):
    """The text is not read, or not compared."""


class NotMathError(MathError):
    """The text is not an expression of the grammar: it may still be words."""


class UndefinedError(MathError):
    """The text is an expression without a value, such as 1/0."""


class OverLimitError(MathError):
    """The text is larger, deeper or would cost more than the limits of this module."""


class TooLargeError(MathError):
    """A form grew past the limits of exact algebra: the question goes to numbers, it is no fault of the text."""


class UnsupportedError(NotMathError):
    """Mathematics that the exact tier does not model (integrals, sums, cases ...): another voter may."""
