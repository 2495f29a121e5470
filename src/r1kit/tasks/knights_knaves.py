"""Knights and knaves, generated: each person says something, knights tell the truth, knaves lie; who is what?

Every puzzle has exactly one solution, found by trying all assignments (`verifiers.knights_knaves.solve`). A family is
what is said, names apart, so a held-out puzzle is none of the training puzzles with other people.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.records import Problem
from r1kit.tasks.question_task import QuestionTask
from r1kit.tasks.split import PATIENCE, in_test
from r1kit.verifiers import solve

NAMES = (
    "Ada", "Ben", "Chloe", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Kira", "Leo", "Mara", "Nils",
    "Olga", "Paul", "Quinn", "Rosa", "Simon", "Tara", "Uma", "Victor", "Wanda", "Xavier", "Yara", "Zeno",
)  # fmt: skip
_JOINTS = {"and": "{} and {}", "or": "{} or {}", "->": "if {}, then {}", "<=>": "{} if and only if {}"}
Statement = tuple[Any, ...]


class KnightsKnaves(QuestionTask):
    """`settings`: a `config.tasks.KnightsKnavesSettings`. Puzzle i is drawn from (seed, i) alone."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings, "knights_knaves")

    def load(self) -> Mapping[str, Sequence[Problem]]:
        wanted = {"train": self.settings.train_problems, "test": self.settings.test_problems}
        found: dict[str, list[Problem]] = {"train": [], "test": []}
        seen: set[str] = set()
        index = missed = 0
        while missed < PATIENCE and any(len(found[side]) < wanted[side] for side in wanted):
            names, statements = self._draw(index)
            family = f"{len(names)} {statements}"
            side = "test" if in_test(family, self.settings.test_share, self.settings.seed) else "train"
            new = len(found[side]) < wanted[side] and family not in seen and len(solve(statements)) == 1
            if new:
                found[side].append(self._problem(index, names, statements, family, side))
                seen.add(family)
            index, missed = index + 1, 0 if new else missed + 1
        return found

    def _draw(self, index: int) -> tuple[tuple[str, ...], tuple[Statement, ...]]:
        """Names and statements; most draws have no solution, or several."""
        rng = random.Random(f"knights_knaves/{self.settings.seed}/{index}")
        people = rng.randint(*self.settings.people)
        names = tuple(rng.sample(NAMES, people))
        return names, tuple(_statement(rng, people, speaker, self.settings.depth) for speaker in range(people))

    def _problem(
        self, index: int, names: Sequence[str], statements: Sequence[Statement], family: str, side: str
    ) -> Problem:
        prompt = self.prompter(question(names, statements))
        roles = zip(names, solve(statements)[0], strict=True)
        witness = ", ".join(f"{name} is a {'knight' if knight else 'knave'}" for name, knight in roles)
        return Problem(
            id=f"knights-knaves-{index}",
            prompt=prompt.messages,
            prefill=prompt.prefill,
            task=self.name,
            payload={
                "kind": "knights_knaves",
                "gold": {"names": list(names), "statements": list(statements)},
                "policy": {},
            },
            family=family,
            split=side,
            difficulty=float(len(names)),
            metadata={"template": self.prompter.template, "format": self.prompter.shape, "witness": witness},
        )


def _statement(rng: random.Random, people: int, speaker: int, depth: int) -> Statement:
    """A random statement of `speaker` about others, joined from simpler ones at most `depth` deep."""
    if depth == 1 or rng.random() < 0.3:
        other = rng.randrange(people - 1)
        return rng.choice(("telling-truth", "lying")), other + (other >= speaker)
    joint = rng.choice(("not", *_JOINTS))
    parts = 1 if joint == "not" else 2
    return joint, *(_statement(rng, people, speaker, depth - 1) for _ in range(parts))


def question(names: Sequence[str], statements: Sequence[Statement]) -> str:
    """The puzzle in words."""
    said = "\n".join(f'{name} says: "{_words(s, names)}."' for name, s in zip(names, statements, strict=True))
    people = f"{', '.join(names[:-1])} and {names[-1]}"
    return (
        "On an island live knights, who always tell the truth, and knaves, who always lie. "
        f"You meet {people}.\n{said}\n"
        f"Who is a knight and who is a knave? Answer in this form: {names[0]} is a knight, {names[1]} is a knave."
    )


def _words(statement: Statement, names: Sequence[str]) -> str:
    operator, *parts = statement
    if operator in ("telling-truth", "lying"):
        return f"{names[parts[0]]} is a {'knight' if operator == 'telling-truth' else 'knave'}"
    words = [f"({_words(p, names)})" if p[0] in _JOINTS or p[0] == "not" else _words(p, names) for p in parts]
    return f"it is not true that {words[0]}" if operator == "not" else _JOINTS[operator].format(*words)
