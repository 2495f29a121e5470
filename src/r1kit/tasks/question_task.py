"""What every task of questions in words shares: how a response is judged, measured, and batched.

A subclass says where the problems come from. A problem carries what judging needs in its payload: `kind`, `gold` and
`policy`, the words of `verifiers.registry`, so that a stored response can be judged again without the task
(`r1kit verify`). What its author knows of it is metadata: template, shape, file and line, a right answer.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from r1kit.config.errors import UserError
from r1kit.records import Problem, Verdict
from r1kit.sandbox import SandboxError
from r1kit.tasks.grade import in_order, settled
from r1kit.tasks.question_prompts import Prompter
from r1kit.tasks.shapes import judge_shape, read_s1
from r1kit.tasks.split import check_split
from r1kit.tasks.templates import thinking_opened
from r1kit.verifiers import find_thought, style_statistics
from r1kit.verifiers.registry import Judge, final_text, make_judge, text_gold
from r1kit.verifiers.user import UserVerifier

_log = logging.getLogger(__name__)
# Kinds whose judges wait for other processes: of these a whole step is judged side by side.
WAITING = ("math", "code", "regex")
# Statistics that training also measures, otherwise, of whole responses: they get a name of their own.
OF_THOUGHT = ("words", "code_share", "formula_share", "language_share", "loop")
Verify = Callable[[Problem, str], dict[str, Verdict]]


class QuestionTask(ABC):
    """Base of the tasks. `settings`: a `config.tasks.QuestionSettings`; `kind`: of the judges of its problems.

    `own`: import path of a function of the user's that judges every answer, for a task that has no rule of its own.
    """

    def __init__(self, settings: Any, kind: str, own: str | None = None) -> None:
        self.settings, self.name = settings, str(settings.name)
        self._own = UserVerifier(own) if own else None
        self.kind = kind
        self.prompter = Prompter(settings, kind=kind)
        self._judges: dict[str, Judge] = {}
        self._troubled = False

    # --- problems ---

    @abstractmethod
    def load(self) -> Mapping[str, Sequence[Problem]]:
        """The problems by split, each problem once."""

    def notes(self) -> list[str]:
        """What a person should know of how the problems were made; lines for `r1kit check`."""
        return []

    @cached_property
    def _splits(self) -> dict[str, Sequence[Problem]]:
        caps = {"train": self.settings.train_problems, "test": self.settings.test_problems}
        return {
            split: tuple(sorted(problems, key=self._place)[: caps[split]]) for split, problems in self.load().items()
        }

    def _place(self, problem: Problem) -> bytes:
        return hashlib.blake2b(f"{self.settings.seed}:{problem.id}".encode(), digest_size=8).digest()

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of "train" or "test" in an order drawn from the seed and their ids, at most the cap."""
        check_split(split)
        return self._splits[split]

    # --- judging ---

    def verify(self, problem: Problem, response: str) -> dict[str, Verdict]:
        """Verdicts "accuracy" (by the verifier of the problem's kind) and "format" (the shape of the prompt)."""
        text = read_s1(response) if problem.metadata.get("template") == "s1" else response
        opened = thinking_opened(problem)
        accuracy = self._own(problem, text) if self._own else self._judged(problem, text, opened)
        return {"accuracy": accuracy, "format": judge_shape(text, problem.metadata["format"], opened=opened)}

    def verify_many(
        self, problems: Sequence[Problem], responses: Sequence[str], verify: Verify | None = None
    ) -> list[dict[str, Verdict]]:
        """`verify` of every pair, in order; side by side where judging waits for other processes."""
        pairs, judge = list(zip(problems, responses, strict=True)), verify or self.verify
        if not any(problem.payload["kind"] in WAITING for problem in problems):
            return [judge(*pair) for pair in pairs]
        for problem in {problem.id: problem for problem in problems}.values():
            self._judge(problem)  # here, so that what opens pools does it once
        return list(in_order(lambda pair: judge(*pair), pairs))

    def _judged(self, problem: Problem, text: str, opened: bool) -> Verdict:
        verdict, trouble = settled(self._judge(problem), text, opened)
        if trouble and not self._troubled:
            self._troubled = True
            _log.error("%s: a judge failed on a response to %s: %s (told once)", self.name, problem.id, trouble)
        return verdict

    def _judge(self, problem: Problem) -> Judge:
        if problem.id not in self._judges:
            payload = problem.payload
            try:
                self._judges[problem.id] = response_judge(
                    payload["kind"], payload["gold"], payload["policy"], getattr(self.settings, "judge_model", None)
                )
            except SandboxError as error:
                raise UserError(f"task {self.name}: {error}") from None
        return self._judges[problem.id]

    # --- measuring ---

    def statistics(self, problem: Problem, response: str) -> dict[str, float]:
        """How the thought is written (`verifiers.style`; of a response without one, all of it).

        thought_words; thought_code_share, thought_formula_share (of its characters), thought_language_share (of its
        words, of its main language); thought_loop; reflection_rate, doubt_rate, check_rate, retry_rate per 1,000 words;
        backtracking and verification are 1 where its words say so.
        """
        text = read_s1(response) if problem.metadata.get("template") == "s1" else response
        thought = find_thought(text, opened=thinking_opened(problem))
        found = style_statistics(text if thought is None else thought)
        found.pop("repetition", None)  # training measures that of tokens, under this name
        if "words" in found:
            found["backtracking"] = float(found["doubt_rate"] + found["retry_rate"] > 0)
            found["verification"] = float(found["check_rate"] > 0)
        return {f"thought_{name}" if name in OF_THOUGHT else name: value for name, value in found.items()}

    def blind_rate(self, problem: Problem) -> float:
        """The chance that a blind answer is right: one option of a choice, one assignment of a puzzle, for other kinds
        an answer drawn from those of the training problems (of the held-out ones where there are none)."""
        payload = problem.payload
        if payload["kind"] == "choice":
            options = payload["policy"].get("options", 4)
            return 1 / (options if isinstance(options, int) else len(options))
        if payload["kind"] == "knights_knaves":
            return 0.5 ** len(payload["gold"]["names"])
        key = _gold_key(payload)
        return self._gold_shares.get(key, 0.0) if key else 0.0

    @cached_property
    def _gold_shares(self) -> dict[str, float]:
        problems = self.problems("train") or self.problems("test")
        counts = Counter(_gold_key(problem.payload) for problem in problems)
        return {key: count / len(problems) for key, count in counts.items()}


def response_judge(kind: str, gold: Any, policy: Mapping[str, Any], model: Any = None) -> Judge:
    """The judge of whole responses. KindError as `make_judge`, which takes bare answers of math as well.

    `model`: of math, the `JudgeModelSettings` of a model to be asked last.
    """
    if kind == "math":
        return _math_judge(gold, policy, model)
    judge = make_judge(kind, gold, policy)
    if kind != "code":
        return judge

    def of_answer(prediction: str, opened: bool = False) -> Verdict:
        """Where there is an answer block, what it holds: a fence may begin right behind its tag."""
        text = final_text(prediction, opened)
        return Verdict.scored(0, "no_answer") if text is None else judge(text)

    return of_answer


def _math_judge(gold: Any, policy: Mapping[str, Any], model: Any) -> Judge:
    from r1kit.verifiers.math import SYMBOLIC, JudgeModel, MathPolicy, verify_math
    from r1kit.verifiers.math.verify import default_pool

    default_pool()  # made before threads may ask for it; it starts its workers when one does
    wanted, rules, voters = text_gold(gold), MathPolicy.from_dict(policy), SYMBOLIC
    if model is not None:
        voters = (*SYMBOLIC, JudgeModel(model.url, model.model, model.key_variable, model.seconds))
    return lambda prediction, opened=False: verify_math(prediction, wanted, rules, opened=opened, voters=voters)


def _gold_key(payload: Mapping[str, Any]) -> str:
    """The answer as a key; empty where the gold is no answer but a rule (tests, instructions, a pattern)."""
    gold = payload["gold"]
    if gold is None or payload["kind"] in ("code", "instructions", "regex"):
        return ""
    return " ".join(str(gold.get("answer", gold) if isinstance(gold, Mapping) else gold).casefold().split())
