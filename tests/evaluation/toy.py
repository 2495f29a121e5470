"""A toy world for evaluation tests: letters for answers, a task that judges their parity, and helpers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from r1kit.engines.protocol import Request, Sample
from r1kit.records import Message, Problem, Verdict

LETTERS = "abcdefgh"
EOS = len(LETTERS)


class ToyTokenizer:
    """One token per letter and an end token; as much of a tokenizer as evaluation uses."""

    eos_token_id = EOS

    def batch_decode(self, batch: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        assert not skip_special_tokens
        return ["".join("<eos>" if i == EOS else LETTERS[i] for i in ids) for ids in batch]


def encode(tokenizer: Any, problem: Problem) -> list[int]:
    return [LETTERS.index(c) for c in problem.prompt[0].content]


@dataclass
class ToyTask:
    """Right: an even number of a's. Problems listed in `skipped` cannot be judged, those in `broken` break
    the verifier."""

    name: str = "toy"
    skipped: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()

    def problems(self, split: str) -> Sequence[Problem]:
        return make_problems(12)

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        well_formed = Verdict.scored("b" in response, "correct" if "b" in response else "no_answer")
        if problem.id in self.skipped:
            return {"accuracy": Verdict("skip", None, "gold_invalid"), "format": well_formed}
        if problem.id in self.broken:
            return {"accuracy": Verdict("error", None, "worker_lost"), "format": well_formed}
        right = response.count("a") % 2 == 0
        return {"accuracy": Verdict.scored(right, "correct" if right else "wrong"), "format": well_formed}

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        found = {"attempts": float(response.count("c")), "backtracking": float("d" in response)}
        return found | ({"verdict_right": 1.0} if "e" in response else {})

    def blind_rate(self, problem: Problem) -> float:
        return 0.5


def make_problems(count: int) -> list[Problem]:
    """`count` problems in families of two; each prompt differs."""
    prompts = ["".join(LETTERS[int(d)] for d in np.base_repr(i + 8, 8)) for i in range(count)]
    return [
        Problem(f"p{i}", (Message("text", prompts[i]),), "toy", {}, family=f"f{i // 2}", split="test")
        for i in range(count)
    ]


@dataclass(frozen=True)
class ToySettings:
    problems: int = 12
    samples: int = 4
    max_tokens: int = 12
    temperature: float = 1.0
    top_p: float = 1.0


class ScriptedEngine:
    """Answers "word" or "word|finish" by (problem, sample); finish is "stopped" unless said."""

    def __init__(self, script: dict[tuple[str, int], str]) -> None:
        self.script, self.policy_version = script, 3

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Sample:
        word, _, finish = self.script[request.problem, request.sample].partition("|")
        ids = [LETTERS.index(c) for c in word] + ([EOS] if not finish else [])
        return Sample(
            request.id, tuple(ids), (-1.0,) * len(ids), (False,) * len(ids), finish or "stopped", 3,  # type: ignore[arg-type]
        )  # fmt: skip
