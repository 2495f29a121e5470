"""Pre-flight of a reward: under the recipe's template and format rule a right response earns the most there is.

A reward that no response can earn in full trains for days towards whatever part of it can be earned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r1kit.config.reward_parts import PartSettings
from r1kit.config.rl import RLSettings

if TYPE_CHECKING:
    from r1kit.records import Problem, Rollout
    from r1kit.rewards.parts import ScoreSource
    from r1kit.tasks import Task

Finding = tuple[str, bool, str]


def full_marks(name: str, stage: RLSettings, task: Task, problems: Sequence[Problem]) -> Finding:
    """In every phase of the reward a right response must earn the most its rules can give, an empty one must not."""
    from r1kit.rewards import make_reward

    title = f"{name}: a right response can score full marks"
    parts = stage.reward.resolved()
    if not problems:
        return (title, True, "not looked at: of no problem a right response is known")
    right = _rollouts(task, problems, [right_response(p) for p in problems])
    empty = _rollouts(task, problems, [""] * len(problems))
    given = right[0].verdicts
    unknown = sorted({verdict for part in parts.values() if part.valued for verdict in part.reads} - set(given))
    if unknown:
        return (
            title,
            False,
            f"the reward reads {', '.join(unknown)}, a verdict that the task does not give: "
            f"it gives {', '.join(given)}",
        )
    # Loads what is the user's own, or says why it cannot, and lets it judge once.
    # A reward model may not be trained yet, and what it thinks of right responses is its own affair.
    whole, cap = make_reward(stage.reward, steps=stage.steps, sources=_indifferent(parts)), stage.sampling.max_tokens
    for step in stage.reward.phases(stage.steps):
        paid = whole.one(problems[0], right[0], max_tokens=cap, step=step)
        whole.monitored(problems[0], right[:1], max_tokens=cap, step=step)
        if not paid or whole.failures:
            failing = ", ".join(whole.failures) or "the verdict"
            return (title, False, f"{failing} gives no value for the right response to {problems[0].id}")
    rules = {part: s for part, s in parts.items() if s.rule and s.weight}
    steps = [step for step in stage.reward.phases(stage.steps) if any(_paid(s, step, stage) for s in rules.values())]
    if not steps:
        return (title, True, f"not looked at: {', '.join(parts)} does not go by right and wrong")
    found = [_phase(title, stage, rules, step, problems, right, empty) for step in steps]
    return next((finding for finding in found if not finding[1]), found[-1])


def right_response(problem: Problem) -> str:
    """A right response to a problem of which one is known."""
    from r1kit.tasks import witness_response

    response = witness_response(problem)
    assert response is not None, f"{problem.id} was to be one of a known answer"
    return response


def _indifferent(parts: Mapping[str, PartSettings]) -> dict[str, ScoreSource]:
    """In the place of reward models: 0 for every response."""
    return {name: lambda _, rollouts: [0.0] * len(rollouts) for name, s in parts.items() if s.part == "reward_model"}


def _paid(part: PartSettings, step: int, stage: RLSettings) -> bool:
    first, last = part.window(stage.steps)
    return first <= step <= last


def _phase(
    title: str,
    stage: RLSettings,
    rules: Mapping[str, PartSettings],
    step: int,
    problems: Sequence[Problem],
    right: Sequence[Rollout],
    empty: Sequence[Rollout],
) -> Finding:
    from r1kit.rewards import Reward

    reward = Reward(rules, steps=stage.steps)

    def earned(rollouts: Sequence[Rollout]) -> list[float]:
        pairs = zip(problems, rollouts, strict=True)
        return [sum(reward.one(p, r, max_tokens=stage.sampling.max_tokens, step=step).values()) for p, r in pairs]

    scores, nothing = earned(right), max(earned(empty))
    best = max(scores)
    short = [p.id for p, score in zip(problems, scores, strict=True) if score < best]
    lacking = [name for name, verdict in right[0].verdicts.items() if verdict.score != 1.0]
    ok = not short and not lacking and nothing < best
    found = f"a right response earns {best:g}, an empty one {nothing:g}"
    if lacking:
        found += f"; a right response fails {', '.join(lacking)} under template {_template(problems[0])}"
    elif short:
        found += f"; {len(short)} right responses earn less, such as that of {short[0]}"
    return (title, ok, found)


def _template(problem: Problem) -> str:
    return str(problem.metadata.get("template", "unknown"))


def _rollouts(task: Task, problems: Sequence[Problem], texts: Sequence[str]) -> list[Rollout]:
    """Judged rollouts of one prompt and one response token each: length must play no part in what is looked at here."""
    import numpy as np

    from r1kit.records import Rollout
    from r1kit.tasks import verify_many

    zeros = np.zeros(2)
    return [
        Rollout(problem.id, 0, 1, zeros, zeros, zeros, zeros, zeros, "stopped", text=text).scored(verdicts, {})
        for problem, text, verdicts in zip(problems, texts, verify_many(task, problems, texts), strict=True)
    ]
