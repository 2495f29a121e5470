"""Shapes of a response: what the verdict "format" asks for, and a right response written in each of them.

    any          something stands behind the thought, where there is one
    think        a closed thought, and something behind it
    tags         <think>..</think><answer>..</answer>, each once, nothing beside them (R1-Zero)
    tag_lines    the same with every tag on a line of its own (Open-R1)
    boxed        a \\boxed{} that is closed and not empty, behind the thought
    answer_line  the last line is "Answer: ..."
    fence        a closed block of code, behind the thought

A shape says nothing of right and wrong. In every shape a thought that was opened must be closed once, and not empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from r1kit.records import Problem, Verdict
from r1kit.tasks.templates import thinking_opened
from r1kit.verifiers import judge_format

S1_ANSWER = "<|im_start|>answer"
_ANSWER_LINE = re.compile(r"\**Answer\s*:\**\s*\S.*", re.IGNORECASE)


def judge_shape(response: str, shape: str, *, opened: bool) -> Verdict:
    """Score 1 where the response has the shape, else 0 (`no_answer` where nothing stands behind the thought)."""
    if shape in ("tags", "tag_lines"):
        return judge_format(response, opened=opened, lines=shape == "tag_lines")
    thought, answer = _parted(response, opened)
    if answer is None or not answer.strip():
        return Verdict.scored(0, "no_answer", voter="shape")
    good = thought != "" and _LOOKS[shape](answer) and (shape != "think" or thought is not None)
    return Verdict.scored(float(good), "correct" if good else "wrong", voter="shape")


def _parted(response: str, opened: bool) -> tuple[str | None, str | None]:
    """(thought, answer): no thought is None, an empty or broken one "", an answer that never comes None."""
    text = f"<think>{response}" if opened else response
    if "<think>" not in text and "</think>" not in text:
        return None, text
    thought, closed, answer = text.rpartition("</think>")
    if not closed:
        return "", None
    before, _, thought = thought.partition("<think>")
    whole = not before.strip() and "think>" not in thought and "<think>" not in answer
    return thought.strip() if whole else "", answer


def _has_box(answer: str) -> bool:
    from r1kit.verifiers.math.extraction import boxes

    return any(content.strip() for _, _, content in boxes(answer))


def _has_fence(answer: str) -> bool:
    fence, filled = "", False
    for line in map(str.strip, answer.split("\n")):
        if not fence:
            fence, filled = (line[:3], False) if line.startswith(("```", "~~~")) else ("", False)
        elif line == fence:
            if filled:
                return True
            fence = ""
        else:
            filled = filled or bool(line)
    return False


_LOOKS: Mapping[str, Callable[[str], bool]] = {
    "any": lambda answer: True,
    "think": lambda answer: True,
    "boxed": _has_box,
    "answer_line": lambda answer: _ANSWER_LINE.fullmatch(answer.strip().rpartition("\n")[2].strip()) is not None,
    "fence": _has_fence,
}


def shaped(answer: str, shape: str, *, opened: bool, math: bool = False) -> str:
    """A well-formed response whose thought and answer are `answer`; inside a thought that the prompt opened.

    `math`: where the shape marks no answer it is boxed, or it could not be told from the text around it.
    """
    shape = "boxed" if math and shape == "any" else shape
    begin = "" if opened else "<think>"
    if shape == "tags":
        return f"{begin}{answer}</think><answer>{answer}</answer>"
    if shape == "tag_lines":
        return f"{begin}\n{answer}\n</think>\n<answer>\n{answer}\n</answer>"
    boxed = f"\\boxed{{{answer}}}"
    final = {"boxed": boxed, "think": boxed if math else answer, "answer_line": f"Answer: {answer}"}.get(shape, answer)
    return f"{begin}{answer}</think>\n{final}" if opened or shape == "think" else final


def witness_response(problem: Problem) -> str | None:
    """A right, well-formed response to a problem, from the solution that was kept of it; None where none is known."""
    witness = problem.metadata.get("witness")
    if witness is None:
        return None
    shape, math = problem.metadata.get("format", "tags"), problem.payload.get("kind") == "math"
    response = shaped(str(witness), shape, opened=thinking_opened(problem), math=math)
    return response.replace("</think>", S1_ANSWER) if problem.metadata.get("template") == "s1" else response


def read_s1(response: str) -> str:
    """A response of s1 with its answer delimiter as everybody else writes the end of a thought."""
    return response.replace(S1_ANSWER, "</think>", 1)
