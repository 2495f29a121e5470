"""Sign tests of reward parts: what a part is about may never earn less than its contrary.

Each part is given made-up responses that differ in that alone: right and wrong, short and at the cap, varied and said
again and again, in the wished form or language and not. A weight or a value of the wrong sign is found before a run
has trained towards what was to be prevented.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from r1kit.config.reward_parts import PartSettings, VerdictPart
from r1kit.config.rl import RLSettings
from r1kit.config.schedules import phases_of

if TYPE_CHECKING:
    from r1kit.records import Rollout, Verdict

Finding = tuple[str, bool, str]
# Parts that pay a right response less where it is longer; of lcpo_*, beyond their target. `cosine` may be flat.
LENGTHS = ("overlong", "length", "kimi_length", "lcpo_exact", "lcpo_max", "cosine")
# Of a broken response: no verifier gives more reasons that a part treats apart.
BROKEN = ("wrong", "no_answer", "unparsable")


def part_checks(name: str, stage: RLSettings) -> Iterator[Finding]:
    """(what was looked at, whether it holds, what was found) for each part that is paid in some phase.

    Parts that pay by no rule of their own are left out: scores of models, the user's functions, and the controls.
    """
    for part, settings, phase in _paid(stage):
        found: tuple[bool, str] | None = None
        if settings.part in LENGTHS:
            found = _length(part, settings, phase)
        elif settings.part == "repetition":
            found = _repetition(part, settings, phase)
        elif isinstance(settings, VerdictPart) and settings.part != "inverted":
            found = _verdict(part, settings, phase)
        elif texts := _texts(settings):
            found = _text(part, settings, phase, *texts)
        if found is not None:
            yield (f"{name}: sign of {part}", *found)


def _paid(stage: RLSettings) -> Iterator[tuple[str, PartSettings, RLSettings]]:
    """(name, part, settings of the stage) of every part that is paid in some phase; once more where its sign turns."""
    seen: set[tuple[str, bool]] = set()
    for _, settings in phases_of(stage):
        for name, part in settings.reward.resolved().items():
            if part.weight and (name, part.weight > 0) not in seen:
                seen.add((name, part.weight > 0))
                yield name, part, settings


def _verdict(part: str, settings: VerdictPart, phase: RLSettings) -> tuple[bool, str]:
    """Of two responses the one that its verdict calls right; of a consolation, among wrong answers."""
    wrong = _scored("wrong")

    def judged(verdict: Verdict) -> Rollout:
        consoles = getattr(settings, "only_if_wrong", False)
        return _response(1, {"accuracy": wrong if consoles else verdict, settings.verdict: verdict})

    responses = [judged(_scored(reason)) for reason in ("correct", *BROKEN)]
    good, *broken = _earned(phase, part, settings, responses)
    words = ("a well-formed", "a broken") if settings.part == "format" else ("a right", "a wrong")
    return good >= max(broken), f"{words[0]} response earns {good:g}, {words[1]} one {_most(broken)}"


def _most(values: Sequence[float]) -> str:
    least, most = min(values), max(values)
    return f"{most:g}" if least == most else f"{least:g} to {most:g}"


def _length(part: str, settings: PartSettings, phase: RLSettings) -> tuple[bool, str]:
    """Of two equally right responses the one at the cap may never earn more, nor a wrong one than a right one."""
    cap = phase.sampling.max_tokens
    length = min(cap, getattr(settings, "target", None) or max(1, cap // 4))
    reads = {"accuracy", getattr(settings, "verdict", "accuracy")}
    right, wrong = (dict.fromkeys(reads, _scored(reason)) for reason in ("correct", "wrong"))
    responses = [_response(length, right), _response(cap, right), _response(length, wrong)]
    short, long, missed = _earned(phase, part, settings, responses)
    found = f"a right response of {length} tokens earns {short:g}"
    if missed > short or length == cap:
        return missed <= short, f"{found}, a wrong one {missed:g}"
    return long < short or (settings.part == "cosine" and long == short), f"{found}, one of {cap} earns {long:g}"


def _repetition(part: str, settings: PartSettings, phase: RLSettings) -> tuple[bool, str]:
    length = 4 * getattr(settings, "ngram", 1)
    varied = _response(length, {})
    same = replace(varied, token_ids=0 * varied.token_ids, text="again " * length)
    good, bad = _earned(phase, part, settings, [varied, same])
    return bad < good, f"a response that repeats nothing earns {good:g}, one word {length} times earns {bad:g}"


def _text(part: str, settings: PartSettings, phase: RLSettings, wished: str, other: str) -> tuple[bool, str]:
    responses = [replace(_response(1, {}), text=text) for text in (wished, other)]
    good, bad = _earned(phase, part, settings, responses)
    return bad < good, f"a response as it is to be earns {good:g}, its contrary {bad:g}"


def _texts(settings: Any) -> tuple[str, str] | None:
    """A response as a part about its text wishes it, and one that has nothing of it."""
    if settings.part == "language":
        from r1kit.verifiers.scripts import RANGES, SCRIPTS_OF

        # An unknown language is told where the part is made.
        own = SCRIPTS_OF.get(settings.target, ("latin",))
        foreign = "han" if "latin" in own else "latin"
        wished, other = (RANGES[script][0] * 8 for script in (own[-1], foreign))
        return wished, other
    if settings.part == "reasoning_steps":
        return "\n".join(f"Step {i}: so" for i in range(settings.steps)), "so"
    answer = {"tag_count": "so", "code_format": f"```{getattr(settings, 'language', '')}\nso\n```"}.get(settings.part)
    return None if answer is None else (f"<think>\nso\n</think>\n<answer>\n{answer}\n</answer>", "so")


def _scored(reason: str) -> Verdict:
    from r1kit.records import Verdict

    return Verdict.scored(reason == "correct", reason)


def _response(length: int, verdicts: Mapping[str, Verdict]) -> Rollout:
    """A response of so many tokens, all different, after a prompt of one."""
    import numpy as np

    from r1kit.records import Rollout

    ids = np.arange(length + 1)
    sampled = ids > 0
    versions, zeros = np.where(sampled, 0, -1), np.zeros(length + 1)
    return Rollout("toy", 0, 1, ids, sampled, zeros, versions, sampled, "stopped").scored(verdicts, {})


def _earned(phase: RLSettings, name: str, part: PartSettings, responses: Sequence[Rollout]) -> list[float]:
    """What one part pays the responses, as one group."""
    from r1kit.records import Message, Problem
    from r1kit.rewards import Reward

    wished = {"target_tokens": responses[0].response_length}
    problem = Problem("toy", (Message("text", "toy"),), "toy", {}, metadata=wished)
    first, _ = part.window(phase.steps)
    rows = Reward({name: part}, steps=phase.steps)(problem, responses, max_tokens=phase.sampling.max_tokens, step=first)
    return [sum(row.values()) for row in rows]
