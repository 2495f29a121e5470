"""Code: a response's program against a problem's tests, run in a sandbox that never holds an expected output."""

from r1kit.verifiers.code.build import BuildCache
from r1kit.verifiers.code.extract import extract_code
from r1kit.verifiers.code.judge import judge_code, report_code, verify_code
from r1kit.verifiers.code.languages import LANGUAGES, Language, LanguageError, register_language
from r1kit.verifiers.code.problem import (
    CallTest,
    Checker,
    CodeProblem,
    CodeProblemError,
    Comparison,
    ProgramTest,
    Subtask,
)
from r1kit.verifiers.code.report import CodeReport, TestReport

__all__ = [
    "LANGUAGES",
    "BuildCache",
    "CallTest",
    "Checker",
    "CodeProblem",
    "CodeProblemError",
    "CodeReport",
    "Comparison",
    "Language",
    "LanguageError",
    "ProgramTest",
    "Subtask",
    "TestReport",
    "extract_code",
    "judge_code",
    "register_language",
    "report_code",
    "verify_code",
]
