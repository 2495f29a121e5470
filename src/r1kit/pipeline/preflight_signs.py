"""Sign tests of `r1kit check`: one step of a stage's own objective on a toy policy moves everything the right way.

A penalty of the wrong sign trains for days towards what it was to prevent (one published run maximised its KL). The
toy has a few hundred weights and the stage's algorithm; what is tested is the code and the settings, not the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.config.parts import OptimizerSettings
from r1kit.config.reward_parts import PartSettings
from r1kit.config.rl import RLSettings
from r1kit.config.schedules import phases_of

if TYPE_CHECKING:
    from r1kit.records import Group
    from r1kit.training.roles import Roles

VOCABULARY, TOKENS, SAMPLES = 8, 6, 64
Finding = tuple[str, bool, str]
# Parts of a reward that pay a right response less where it is longer; of the last two, beyond their target.
LENGTHS = ("overlong", "length", "kimi_length", "lcpo_exact", "lcpo_max")


def sign_checks(name: str, stage: RLSettings) -> Iterator[Finding]:
    """(what was looked at, whether it holds, what was found) for the reward and every penalty of a stage."""
    yield _reward(name, stage)
    with_kl = [settings for _, settings in phases_of(stage) if settings.algorithm.kl_coef]
    if with_kl:
        yield _kl(name, with_kl[0])
    if stage.algorithm.entropy.coef or stage.algorithm.entropy.target:
        yield _entropy(name, stage)
    yield from _lengths(name, stage)
    yield from _repetition(name, stage)


def _reward(name: str, stage: RLSettings) -> Finding:
    """Responses that begin with an even token are rewarded: their probability has to rise."""
    toy = _Toy(stage, kl_coef=0.0)
    even = [float(r.response_ids[0] % 2 == 0) for r in toy.rollouts]
    before = toy.even_share()
    toy.step(even)
    after = toy.even_share()
    return (
        f"{name}: sign of the reward",
        after > before,
        f"in one step the chance of what is rewarded went from {before:.4f} to {after:.4f}",
    )


def _kl(name: str, stage: RLSettings) -> Finding:
    toy = _Toy(stage, kl_coef=1.0)
    before = toy.kl()
    toy.step([0.0] * SAMPLES)
    after = toy.kl()
    where = f"(in the {stage.algorithm.kl_in}, {stage.algorithm.kl_estimator})"
    return (
        f"{name}: sign of the KL penalty",
        after < before,
        f"in one step the KL to the reference went from {before:.4f} to {after:.4f} nats a token {where}",
    )


def _entropy(name: str, stage: RLSettings) -> Finding:
    toy = _Toy(stage, kl_coef=0.0, entropy=1.0)
    before = toy.entropy()
    toy.step([0.0] * SAMPLES)
    after = toy.entropy()
    return (
        f"{name}: sign of the entropy bonus",
        after > before,
        f"in one step the entropy went from {before:.4f} to {after:.4f} nats a token",
    )


def _paid(stage: RLSettings) -> Iterator[tuple[str, PartSettings, RLSettings]]:
    """(name, part, settings of the stage) of every part that is paid in some phase; once more where its sign turns."""
    seen: set[tuple[str, bool]] = set()
    for _, settings in phases_of(stage):
        for name, part in settings.reward.resolved().items():
            if part.weight and (name, part.weight > 0) not in seen:
                seen.add((name, part.weight > 0))
                yield name, part, settings


def _earned(stage: RLSettings, name: str, part: PartSettings, lengths: Sequence[int], text: str = "") -> list[float]:
    """What one part pays right responses of so many tokens in one group; `text`: of the last, all one word or none."""
    from r1kit.records import Problem
    from r1kit.rewards import Reward

    rollouts = [_right_response(length) for length in lengths]
    if text:
        rollouts[-1] = replace(rollouts[-1], token_ids=0 * rollouts[-1].token_ids, text=f"{text} " * lengths[-1])
    problem = Problem("toy", _prompt(), "toy", {}, metadata={"target_tokens": lengths[0]})
    first, _ = part.window(stage.steps)
    rows = Reward({name: part}, steps=stage.steps)(problem, rollouts, max_tokens=stage.sampling.max_tokens, step=first)
    return [sum(row.values()) for row in rows]


def _lengths(name: str, stage: RLSettings) -> Iterator[Finding]:
    """Of two equally right responses the one at the cap may never earn more by a part about length."""
    for part, settings, phase in _paid(stage):
        cap = phase.sampling.max_tokens
        length = getattr(settings, "target", None) or max(1, cap // 4)
        if settings.part not in LENGTHS or length >= cap:
            continue
        short, long = _earned(phase, part, settings, (length, cap))
        yield (
            f"{name}: sign of {part}",
            long < short,
            f"a right response of {length} tokens earns {short:g}, one of {cap} earns {long:g}",
        )


def _repetition(name: str, stage: RLSettings) -> Iterator[Finding]:
    """Of two responses the one that says one thing again and again may never earn more by a part about repetition."""
    for part, settings, phase in _paid(stage):
        if settings.part == "repetition":
            length = 4 * getattr(settings, "ngram", 1)
            varied, same = _earned(phase, part, settings, (length, length), text="again")
            yield (
                f"{name}: sign of {part}",
                same < varied,
                f"a response that repeats nothing earns {varied:g}, one word {length} times earns {same:g}",
            )


def _prompt() -> tuple[Any, ...]:
    from r1kit.records import Message

    return (Message("text", "toy"),)


def _right_response(length: int) -> Any:
    import numpy as np

    from r1kit.records import Rollout, Verdict

    sampled = np.arange(length + 1) > 0
    right = Verdict.scored(1, "correct")
    rollout = Rollout(
        "toy", 0, 1, np.arange(length + 1), sampled, np.zeros(length + 1), np.where(sampled, 0, -1), sampled, "stopped"
    )
    return rollout.scored({"accuracy": right, "format": right}, {})


class _Toy:
    """A tiny policy with its own samples, a reference apart from it, and the stage's algorithm without its critic.

    A critic and process rewards change how much credit a token gets, not which way a penalty pulls.
    """

    def __init__(self, stage: RLSettings, *, kl_coef: float, entropy: float = 0.0) -> None:
        from r1kit.models.decoder import Decoder, DecoderConfig, initialise
        from r1kit.training.parallel import World
        from r1kit.training.roles import EntropyControl, Roles
        from r1kit.training.session import Session

        config = DecoderConfig(VOCABULARY, 8, 1, 2, 1, 4, 12, model_type="llama", max_positions=16)
        self.model, self.reference = Decoder(config), Decoder(config)
        for seed, model in enumerate((self.model, self.reference)):
            initialise(model, seed, std=0.5)
        self.reference.requires_grad_(False)
        algorithm = _without_models(stage.algorithm, kl_coef)
        optimizer: Any = OptimizerSettings(name="adamw", lr=3e-3)
        changes = {"algorithm": algorithm, "token_budget": 4096, "optimizer": optimizer, "grad_clip": 1.0}
        self.settings = stage.model_copy(update=changes)
        nowhere = Path("no-such-directory")
        no_tokenizer: Any = None
        self.session = Session(
            nowhere, World.single(), optimizer, lambda: self.model, no_tokenizer, dtype="float32", keep_checkpoints=1
        )  # fmt: skip
        self.roles: Roles = Roles(
            reference=self.reference if kl_coef else None, entropy=EntropyControl(entropy, entropy)
        )
        self.rollouts = self._sample()

    def _sample(self) -> list[Any]:
        """SAMPLES responses of TOKENS tokens, two to a group."""
        from r1kit.engines.local import LocalEngine
        from r1kit.engines.protocol import Request, SamplingParams
        from r1kit.evaluation.rollouts import make_rollout

        engine = LocalEngine(self.model, slots=SAMPLES, deterministic=False)
        params = SamplingParams(max_tokens=TOKENS)
        asked = [Request(str(i), (1,), params, f"toy{i // 2}", i % 2) for i in range(SAMPLES)]
        samples = engine.generate(asked)
        return [
            make_rollout(request.problem, request.sample, (1,), sample, temperature=1.0, text="")
            for request, sample in zip(asked, samples, strict=True)
        ]

    def step(self, rewards: Sequence[float]) -> None:
        """One optimiser step of the stage's objective."""
        from r1kit.training.update import update

        judged = [r.scored({}, {"toy": reward}) for r, reward in zip(self.rollouts, rewards, strict=True)]
        groups = [_group(judged[i : i + 2]) for i in range(0, len(judged), 2)]
        update(self.session, groups, self.settings, 1.0, self.roles)

    def even_share(self) -> float:
        """The policy's chance of an even first token."""
        return float(self._distributions(self.model)[0][0].exp()[::2].sum())

    def kl(self) -> float:
        """KL(policy || reference), exact over the vocabulary, mean over the sampled contexts."""
        pairs = zip(self._distributions(self.model), self._distributions(self.reference), strict=True)
        return float(sum((p.exp() * (p - q)).sum(-1).mean() for p, q in pairs) / SAMPLES)

    def entropy(self) -> float:
        return float(sum(-(p.exp() * p).sum(-1).mean() for p in self._distributions(self.model)) / SAMPLES)

    def _distributions(self, model: Any) -> list[Any]:
        """Log-probs of the next token at each place of each response, [TOKENS, V]."""
        import torch

        from r1kit.models.attention import Segment, packed_attention, positions

        segments = (Segment(SAMPLES, TOKENS),)
        ids = torch.cat([torch.from_numpy(r.token_ids[:-1].astype("int64")) for r in self.rollouts])
        with torch.no_grad():
            hidden = model(ids, positions(segments), packed_attention(segments))
            return list((hidden @ model.head_weight.t()).log_softmax(-1).split(TOKENS))


def _without_models(algorithm: Any, kl_coef: float) -> Any:
    changes: dict[str, Any] = {"kl_coef": kl_coef, "process": None, "group_filter": None, "minibatches": 1}
    if algorithm.baseline == "critic":
        changes |= {"baseline": "none", "critic": None}
    return algorithm.model_copy(update=changes)


def _group(rollouts: Sequence[Any]) -> Group:
    from r1kit.records import Group, Problem

    name = rollouts[0].problem_id
    return Group(Problem(name, _prompt(), "toy", {}), tuple(replace(r, problem_id=name) for r in rollouts))
