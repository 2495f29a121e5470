"""Sign tests of `r1kit check`: one step of a stage's own objective on a toy policy moves everything the right way, and
one of its critic and of its process reward model too.

A penalty of the wrong sign trains for days towards what it was to prevent (one published run maximised its KL). The
toy has a few hundred weights and the stage's algorithm; what is tested is the code and the settings, not the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.config.parts import OptimizerSettings
from r1kit.config.rl import RLSettings
from r1kit.config.schedules import phases_of

if TYPE_CHECKING:
    from r1kit.records import Group
    from r1kit.training.roles import Roles

VOCABULARY, TOKENS, SAMPLES = 8, 6, 64
Finding = tuple[str, bool, str]


def sign_checks(name: str, stage: RLSettings) -> Iterator[Finding]:
    """(what was looked at, whether it holds, what was found) for the reward and every penalty of a stage, its critic
    and its process rewards."""
    yield _reward(name, stage)
    with_kl = [settings for _, settings in phases_of(stage) if settings.algorithm.kl_coef]
    if with_kl:
        yield _kl(name, with_kl[0])
    if stage.algorithm.entropy.coef or stage.algorithm.entropy.target:
        yield _entropy(name, stage)
    if stage.algorithm.critic is not None:
        yield _critic(name, stage)
    if stage.algorithm.process is not None:
        yield _process(name, stage.algorithm.process.beta)


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


def _critic(name: str, stage: RLSettings) -> Finding:
    """Where every token returns 1, values of 0 have to rise."""
    value = _Toy(stage, kl_coef=0.0).value_after_step()
    return (
        f"{name}: sign of the value loss",
        value > 0,
        f"in one step values of 0 went to {value:.4f}, where all returns are 1",
    )


def _process(name: str, beta: float) -> Finding:
    """One gradient step on the token log-probs of two responses, a right and a wrong one, of four tokens each."""
    import torch

    from r1kit.algorithms.implicit_prm import implicit_prm_loss, token_rewards

    start_T, owners_T, labels = torch.zeros(8), torch.arange(8) // 4, torch.tensor([1.0, 0.0])
    logprobs_T = start_T.clone().requires_grad_()
    loss = implicit_prm_loss(token_rewards(logprobs_T, start_T, beta), owners_T, labels, 2.0)
    (gradient_T,) = torch.autograd.grad(loss, logprobs_T)
    right, wrong = token_rewards(start_T - gradient_T, start_T, beta).split(4)
    score, other = right.sum().item(), wrong.sum().item()
    return (
        f"{name}: sign of the process rewards",
        score > 0 > other,
        f"in one step of their model the score of a right response went from 0 to {score:.2g}, of a wrong one to "
        f"{other:.2g}",
    )


def _prompt() -> tuple[Any, ...]:
    from r1kit.records import Message

    return (Message("text", "toy"),)


class _Toy:
    """A tiny policy with its own samples, a reference apart from it, and the stage's algorithm; a critic is one more
    head on the policy.

    Process rewards change how much credit a token gets, not which way a penalty pulls.
    """

    def __init__(self, stage: RLSettings, *, kl_coef: float, entropy: float = 0.0) -> None:
        from r1kit.models.decoder import Decoder, DecoderConfig, initialise
        from r1kit.training.critic import Critic
        from r1kit.training.parallel import World
        from r1kit.training.roles import EntropyControl, Roles
        from r1kit.training.session import Session

        config = DecoderConfig(VOCABULARY, 8, 1, 2, 1, 4, 12, model_type="llama", max_positions=16)
        self.model, self.reference = Decoder(config), Decoder(config)
        for seed, model in enumerate((self.model, self.reference)):
            initialise(model, seed, std=0.5)
        self.reference.requires_grad_(False)
        algorithm = _of_toy(stage.algorithm, kl_coef)
        optimizer: Any = OptimizerSettings(name="adamw", lr=3e-3)
        changes = {"algorithm": algorithm, "token_budget": 4096, "optimizer": optimizer, "grad_clip": 1.0}
        self.settings = stage.model_copy(update=changes)
        nowhere, world = Path("no-such-directory"), World.single()
        no_tokenizer: Any = None
        self.session = Session(
            nowhere, world, optimizer, lambda: self.model, no_tokenizer, dtype="float32", keep_checkpoints=1
        )
        values = algorithm.critic
        self.roles: Roles = Roles(
            reference=self.reference if kl_coef else None,
            critic=None if values is None else Critic(values, optimizer, self.model, nowhere, world, "float32"),
            entropy=EntropyControl(entropy, entropy),
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

    def value_after_step(self) -> float:
        """The mean value of all tokens after one step of the critic alone on returns of 1; it is 0 before."""
        import numpy as np

        from r1kit.training.examples import Example

        critic, budget = self.roles.critic, self.settings.token_budget
        assert critic is not None
        ones = np.ones(TOKENS, np.float32)
        examples = [Example.of(rollout.scored({}, {"toy": 1.0})) for rollout in self.rollouts]
        examples = [replace(e, old_values=e.along(0 * ones), returns=e.along(ones)) for e in examples]
        critic.update(self.session.network, examples, budget, 1.0, 1.0)
        return float(critic.score(self.session.network, examples, budget).mean())

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


def _of_toy(algorithm: Any, kl_coef: float) -> Any:
    changes: dict[str, Any] = {"kl_coef": kl_coef, "process": None, "group_filter": None, "minibatches": 1}
    if algorithm.critic is not None:
        head = {"trunk": "shared", "lr_factor": 1.0, "pretrain_steps": 0, "minibatches": 1}
        # While all values are 0, a reward at the end reaches the first token with lambda 1 only.
        whole = {"gamma": 1.0, "gae_lambda": 1.0, "gae_alpha": None}
        changes |= {"critic": algorithm.critic.model_copy(update=head), **whole}
    return algorithm.model_copy(update=changes)


def _group(rollouts: Sequence[Any]) -> Group:
    from r1kit.records import Group, Problem

    name = rollouts[0].problem_id
    return Group(Problem(name, _prompt(), "toy", {}), tuple(replace(r, problem_id=name) for r in rollouts))
