"""Questions of reasoning-gym, judged by our own checks; kinds whose answers cannot be checked are refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r1kit.config.errors import UserError
from r1kit.records import Problem
from r1kit.tasks.families import families
from r1kit.tasks.question_task import QuestionTask
from r1kit.tasks.split import in_test
from r1kit.verifiers import judge_entry, load_entries

SPARE = 1.2  # questions made for each that is wanted: some come twice, and the sides fill unevenly


class ReasoningGym(QuestionTask):
    """`settings`: a `config.tasks.ReasoningGymSettings`. UserError for kinds that are unknown or denied."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings, "reasoning_gym")
        self._unfit = 0

    def load(self) -> Mapping[str, Sequence[Problem]]:
        s = self.settings
        wanted = max(s.train_problems / (1 - s.test_share), s.test_problems / s.test_share)
        size = math.ceil(SPARE * wanted / len(s.kinds)) + 1
        entries = [entry for name in s.kinds for entry in self._entries(name, size)]
        named = families([question for _, question, _ in entries], near=s.families == "near")
        found: dict[str, list[Problem]] = {"train": [], "test": []}
        seen: set[str] = set()
        for (name, question, payload), family in zip(entries, named, strict=True):
            if question in seen:
                continue
            seen.add(question)
            side = "test" if in_test(family, s.test_share, s.seed) else "train"
            found[side].append(self._problem(name, question, payload, family, side, len(seen)))
        return found

    def _entries(self, name: str, size: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Kind, question and payload; one whose own answer does not verify is left out."""
        settings = self.settings
        try:
            for entry in load_entries(name, size=size, seed=settings.generator_seed, **settings.kinds[name]):
                payload = entry["payload"]
                if payload["answer"] == "None" or judge_entry(payload["answer"], payload).correct:
                    yield name, entry["question"], payload
                else:
                    self._unfit += 1
        except (ImportError, ValueError, TypeError, AssertionError) as error:
            raise UserError(f"task.kinds.{name}: {error}") from None

    def _problem(
        self, name: str, question: str, payload: dict[str, Any], family: str, side: str, number: int
    ) -> Problem:
        prompt, answer = self.prompter(question), payload["answer"]
        metadata: dict[str, Any] = {"template": self.prompter.template, "format": self.prompter.shape}
        return Problem(
            id=f"{name}-{number}",
            prompt=prompt.messages,
            prefill=prompt.prefill,
            task=self.name,
            payload={"kind": "reasoning_gym", "gold": payload, "policy": {}},
            family=family,
            source=f"reasoning_gym/{name}",
            split=side,
            metadata=metadata | ({} if answer == "None" else {"witness": answer}),
        )

    def notes(self) -> list[str]:
        self.problems("train")
        return [f"{self._unfit} questions whose own answer does not verify are left out"] if self._unfit else []
