"""Why this matters: the parts are right one by one and the number still wrong if prompt, stop token,
verifier and behaviour reader disagree on what a response is. Here real problems, the real tokenizer and
hand-written answers meet.

Does not exercise: a model, the local engine, the rates of a trained policy.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from r1kit.config.tasks import CountdownSettings
from r1kit.engines.protocol import Request, Sample
from r1kit.evaluation import evaluate
from r1kit.models.chat import encode_prompt
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Problem
from r1kit.tasks import make_task

from .toy import ToySettings


class Student:
    """Samples 0 to 3 of every problem: right after a failed attempt, wrong, cut off, right without the
    tags."""

    policy_version = 1

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.tokenizer = build_tiny_tokenizer()
        self.problems = {problem.id: problem for problem in problems}

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Sample:
        problem = self.problems[request.problem]
        assert list(request.prompt_ids) == encode_prompt(self.tokenizer, problem)
        target, witness = problem.payload["target"], problem.metadata["witness"]
        a, b, c = problem.payload["numbers"]
        failed = f"{a}+{b}+{c}+1={a + b + c + 1}?{target} no\n"
        solved = f"{witness}={target}?{target} yes"
        text = [
            f"<think>{failed}{solved}</think><answer>{witness}</answer>",
            f"<think>{failed}</think><answer>{a}</answer>",
            f"<think>{failed}",
            f"{solved}",
        ][request.sample]
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        finish = "length" if request.sample == 2 else "stopped"
        ids += [] if finish == "length" else [self.tokenizer.eos_token_id]
        return Sample(request.id, tuple(ids), (-0.5,) * len(ids), (False,) * len(ids), finish, 1)


def test_hand_written_answers_give_the_numbers_they_must() -> None:
    task = make_task(CountdownSettings(high=10))
    problems = [p for p in task.problems("test") if sum(p.payload["numbers"]) + 1 != p.payload["target"]]
    student = Student(problems)
    row = evaluate(
        student,
        student.tokenizer,
        task,
        problems,
        ToySettings(problems=20),
        seed=0,
        encode_prompt=encode_prompt,
    ).to_json()
    assert row["benchmark"] == "countdown/test"
    assert row["pass@1"]["value"] == 0.25
    assert row["pass@k"] == {"1": 0.25, "2": 0.5, "4": 1.0}
    assert row["truncated"] == 0.25
    assert row["format_finished"] == pytest.approx(2 / 3)
    assert row["attempts"] == pytest.approx((2 + 1 + 1 + 1) / 4)
    assert row["backtracking"] == 0.25
    assert row["verification"] == 1.0
    assert row["verdict_right"] == 1.0
    assert row["reasons"]["correct"] == 20
    assert row["errors"] == row["skips"] == 0
    text = row["examples"][0]["rollouts"][0]["text"]
    assert text.startswith("<think>")
    assert text.endswith("</answer>")
