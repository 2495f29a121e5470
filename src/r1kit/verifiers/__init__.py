"""Verifiers: from a response to a `Verdict` (score, skip or error), never a fake 0.

`verifiers.math` and `verifiers.code` are packages with faces of their own; `verifiers.registry` finds a judge by the
name of its kind.
"""

from r1kit.verifiers.choice import Options, find_choice, judge_choice, permute_options
from r1kit.verifiers.exact import ExactPolicy, judge_exact, judge_regex
from r1kit.verifiers.expression import (
    Expression,
    ExpressionError,
    ExpressionLimitError,
    judge_expression,
    judge_integer,
    parse_expression,
)
from r1kit.verifiers.instructions import check_instruction, judge_instructions
from r1kit.verifiers.knights_knaves import judge_knights_knaves, judge_puzzle, solve
from r1kit.verifiers.language import count_words, judge_language, language_share, main_language
from r1kit.verifiers.reasoning_gym import CHECKS, DENIED, judge_entry, load_entries
from r1kit.verifiers.repetition import find_loop, judge_loop, judge_repetition, longest_repeat, ngram_repetition
from r1kit.verifiers.style import reflection_counts, style_statistics
from r1kit.verifiers.tags import find_answer, find_thought, judge_format, judge_tag_count

__all__ = [
    "CHECKS",
    "DENIED",
    "ExactPolicy",
    "Expression",
    "ExpressionError",
    "ExpressionLimitError",
    "Options",
    "check_instruction",
    "count_words",
    "find_answer",
    "find_choice",
    "find_loop",
    "find_thought",
    "judge_choice",
    "judge_entry",
    "judge_exact",
    "judge_expression",
    "judge_format",
    "judge_instructions",
    "judge_integer",
    "judge_knights_knaves",
    "judge_language",
    "judge_loop",
    "judge_puzzle",
    "judge_regex",
    "judge_repetition",
    "judge_tag_count",
    "language_share",
    "load_entries",
    "longest_repeat",
    "main_language",
    "ngram_repetition",
    "parse_expression",
    "permute_options",
    "reflection_counts",
    "solve",
    "style_statistics",
]
