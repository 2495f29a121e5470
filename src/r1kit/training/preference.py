"""Preference training: read from top to bottom, one step at a time.

1. data        pairs or judged responses as marked token sequences (training/judged_data.py)
2. reference   log-probs of every response under the reference policy, once and kept, or in every step
3. update      the loss of the step's units over their global number (training/units.py)
4. record      metrics, the same on held-out pairs, evaluation by sampling, checkpoint (training/unit_steps.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.algorithms import preference_loss as losses
from r1kit.engines.local import LocalEngine
from r1kit.models.conversation import ConversationEncoder
from r1kit.models.loading import load_model, load_tokenizer
from r1kit.models.lora import BaseOf, adapters, plain_model
from r1kit.models.marked import MarkedSequence, summed_logprobs
from r1kit.models.vocabulary import token_warnings
from r1kit.tasks import Task
from r1kit.training.held_out import HeldOut
from r1kit.training.judged_data import Judged, as_labelled, read_labelled_data, read_pair_data
from r1kit.training.parallel import World
from r1kit.training.recorder import Recorder, StageOutcome
from r1kit.training.reference import Reference, load_reference
from r1kit.training.sampling import derived_seed
from r1kit.training.session import Session
from r1kit.training.unit_steps import UnitOrder, optimise, train_epochs
from r1kit.training.units import backward, read_all


def train_preference(
    settings: Any,
    *,
    stage: str,
    inputs: Mapping[str, Path],
    task: Task,
    seed: int,
    world: World,
    recorder: Recorder,
    directory: Path,
    dtype: str,
) -> StageOutcome:
    """Train the policy at `inputs["model"]`, or go on from the last checkpoint in `directory`."""
    run = PreferenceRun(settings, stage, inputs, task, seed, world, recorder, directory, dtype)
    model = train_epochs(run, run.order, settings, stage, recorder)
    return StageOutcome(
        model=model,
        tokens={"sampled": run.by_sampling.tokens_sampled, "trained": run.order.epochs * run.tokens, "discarded": 0},
        eval=run.by_sampling.last,
        metrics={"units": float(len(run.units)), **{n: float(v) for n, v in run.counts.items()}, **run.last},
    )


class PreferenceRun:
    """The state of one stage."""

    def __init__(
        self,
        settings: Any,
        stage: str,
        inputs: Mapping[str, Path],
        task: Task,
        seed: int,
        world: World,
        recorder: Recorder,
        directory: Path,
        dtype: str,
    ) -> None:
        self.settings, self.stage, self.recorder, self.world = settings, stage, recorder, world
        self.seed = derived_seed(seed, stage, "preference")
        tokenizer = load_tokenizer(inputs["model"])
        encoder = ConversationEncoder(tokenizer, settings.thinking)
        read = read_labelled_data if settings.takes_labels else read_pair_data
        data = read(settings, inputs, encoder)
        if settings.method == "kto" and not settings.takes_labels:
            data = as_labelled(data)
        # Those held out stand behind those trained on, so one index names a unit.
        self.units = data.train
        self.all = [*data.train, *data.held_out]
        self.counts = {name: data.counts[name] for name in ("skipped", "dropped", "cut")}
        self.counts["held_out"] = len(data.held_out)
        self.tokens = sum(len(s) for judged in data.train for s in judged.unit)
        self.mismatched = mismatched(self.all, settings.max_tokens, self.seed) if settings.method == "kto" else []
        self.session = Session(
            directory,
            world,
            settings.optimizer,
            lambda: load_model(inputs["model"], dtype=dtype, device=world.device, tokenizer=tokenizer),
            tokenizer,
            dtype=dtype,
            keep_checkpoints=settings.keep_checkpoints,
            adapt=adapters(settings.lora, derived_seed(seed, stage, "lora")),
            native=self.native,
        )
        self.reference = self._reference(inputs, directory, dtype)
        self.order = UnitOrder(len(self.units), settings.batch_size, settings.epochs, self.seed)
        self.engine = LocalEngine(plain_model(self.session.model), tokenizer)
        kept = self.session.state.get("by_sampling")
        self.by_sampling = HeldOut(settings.evaluate, stage, task, self.engine, tokenizer, seed, world, recorder, kept)
        self.last: dict[str, float] = self.session.state.get("last", {})
        recorder.truncate(stage, self.session.last_recorded)
        if not self.session.resumed:
            policy: Any = plain_model(self.session.model)
            warnings = token_warnings(policy, tokenizer, encoder.control_tokens(), inputs["model"])
            for line in [*data.notes, *self._notes(), *warnings]:
                recorder.note(stage, line)

    def _reference(self, inputs: Mapping[str, Path], directory: Path, dtype: str) -> Reference | None:
        if not self.settings.needs_reference:
            return None
        model: Any
        if self.settings.lora and "reference_model" not in inputs:
            model = BaseOf(self.session.model)  # no weights of its own
        else:
            model = load_reference(inputs, dtype, self.world.device)
        sequences = [s for judged in self.all for s in judged.unit] + self.mismatched
        s = self.settings
        return Reference.make(s.reference, model, sequences, s.token_budget, directory, self.world, self.native)

    @property
    def native(self) -> str:
        """How policy and reference run: adapters need PyTorch's own pass."""
        return "off" if self.settings.lora else self.settings.native

    def _notes(self) -> list[str]:
        turned_off = self.settings.native != self.native
        return ["native is off in this stage: lora needs PyTorch's own pass"] if turned_off else []

    def train(self, chosen: list[int], lr_scale: float) -> dict[str, float]:
        """One optimiser step."""
        step = self._begin(chosen)

        def gradient() -> dict[str, float]:
            units = [self.all[i].unit for i in chosen]
            budget = self.settings.token_budget
            return backward(self.session.network, units, summed_logprobs, step.loss, budget, self.world)

        return step.means(optimise(self.session, self.settings, lr_scale, gradient))

    def measure(self, step: int, total: int) -> None:
        """The loss and its metrics on what is held out, and an evaluation by sampling, both where they are due."""
        every = self.settings.evaluate.every or self.order.steps_per_epoch
        held_out = list(range(len(self.units), len(self.all)))
        if held_out and (step % every == 0 or step == total):
            self.last = {f"held_out_{name}": value for name, value in self.evaluate(held_out).items()}
            self.recorder.metrics(self.stage, step, self.last, {}, kind="eval")
        if self.settings.evaluate.every:
            self.engine.load_weights(step)
            self.by_sampling.maybe_run(step, total)

    @torch.no_grad()
    def evaluate(self, chosen: list[int]) -> dict[str, float]:
        """The metrics of a step on these units, without a step."""
        step = self._begin(chosen)
        sequences = [s for i in chosen for s in self.all[i].unit]
        found = read_all(self.session.network, sequences, summed_logprobs, self.settings.token_budget, self.world)
        loss, sums = step.loss(torch.tensor(np.concatenate(found), dtype=torch.float32), range(len(chosen)))
        return step.means({"loss": loss.item(), **sums})

    def state(self) -> dict[str, Any]:
        return {"by_sampling": self.by_sampling.state(), "last": self.last}

    def _begin(self, chosen: Sequence[int]) -> PreferenceStep:
        """What the loss of a step needs to know of the whole step before its first micro-batch."""
        point = self._reference_point(chosen) if self.settings.method == "kto" else 0.0
        return PreferenceStep(self.settings, [self.all[i] for i in chosen], list(chosen), self.reference, point)

    def _reference_point(self, chosen: Sequence[int]) -> float:
        """KTO's z: the mean log-ratio of the step's responses to other prompts."""
        assert self.reference is not None
        sequences = [self.mismatched[i] for i in chosen]
        budget = self.settings.token_budget
        policy = np.concatenate(read_all(self.session.network, sequences, summed_logprobs, budget, self.world))
        # The mismatched sequences stand behind all others, one for each unit.
        first = len(self.reference.sequences) - len(self.mismatched)
        reference = self.reference.logprobs([first + i for i in chosen]).double().numpy()
        return losses.kto_reference_point(float((policy - reference).sum()), len(chosen))


class PreferenceStep:
    """The loss of one step's units, in parts that add up to the mean over the step."""

    def __init__(
        self, settings: Any, judged: Sequence[Judged], names: Sequence[int], reference: Reference | None, point: float
    ) -> None:
        self.settings, self.judged, self.names = settings, judged, names
        self.reference, self.point = reference, point
        self.width = len(judged[0].unit)
        self.chosen_tokens = sum(j.unit[0].marked for j in judged)

    def loss(self, logprobs_S: Tensor, units: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        """Part of `units` (indices into the step) in the loss, given the log-probs of their sequences in order."""
        judged = [self.judged[i] for i in units]
        lengths_S = torch.tensor([s.marked for j in judged for s in j.unit], device=logprobs_S.device)
        if self.reference is None:
            quantity_S = logprobs_S / lengths_S
        else:
            ids = [self.width * self.names[i] + side for i in units for side in range(self.width)]
            quantity_S = logprobs_S - self.reference.logprobs(ids).to(logprobs_S.device)
        rewards_S = self.settings.beta * quantity_S.detach()
        if self.width == 1:
            return self._judged_loss(quantity_S, rewards_S, logprobs_S, lengths_S, judged)
        loss_N = self._pair_loss(quantity_S.view(-1, 2), lengths_S.view(-1, 2))
        loss = loss_N.sum() / len(self.judged)
        logprobs_N2, lengths_N2, rewards_N2 = logprobs_S.view(-1, 2), lengths_S.view(-1, 2), rewards_S.view(-1, 2)
        sums = {"nll": -logprobs_N2[:, 0].sum().item()}
        if self.settings.nll_weight:
            loss = loss + self.settings.nll_weight * -logprobs_N2[:, 0].sum() / self.chosen_tokens
        margins_N = rewards_N2[:, 0] - rewards_N2[:, 1]
        sums |= {"pair_accuracy": (margins_N > 0).sum().item(), "pair_margin": margins_N.sum().item()}
        for side, name in enumerate(("chosen", "rejected")):
            sums[f"{name}_reward"] = rewards_N2[:, side].sum().item()
            sums[f"{name}_logprob"] = logprobs_N2[:, side].sum().item()
            sums[f"{name}_tokens"] = lengths_N2[:, side].sum().item()
        return loss, sums

    def _pair_loss(self, quantity_N2: Tensor, lengths_N2: Tensor) -> Tensor:
        s, (chosen_N, rejected_N) = self.settings, quantity_N2.unbind(1)
        if s.method == "dpo":
            return losses.dpo_loss(chosen_N, rejected_N, beta=s.beta, label_smoothing=s.label_smoothing)
        if s.method == "ipo":
            lengths = (lengths_N2[:, 0], lengths_N2[:, 1]) if s.length_normalised else None
            return losses.ipo_loss(chosen_N, rejected_N, tau=s.beta, lengths_N=lengths)
        if s.method == "nca":
            return losses.nca_loss(chosen_N, rejected_N, beta=s.beta)
        if s.method == "simpo":
            return losses.simpo_loss(chosen_N, rejected_N, beta=s.beta, gamma=s.gamma)
        if s.method == "orpo":
            return s.beta * losses.orpo_loss(chosen_N, rejected_N)
        raise ValueError(f"method is {s.method!r}: no loss of pairs has that name")

    def _judged_loss(
        self, ratio_N: Tensor, rewards_N: Tensor, logprobs_N: Tensor, lengths_N: Tensor, judged: Sequence[Judged]
    ) -> tuple[Tensor, dict[str, float]]:
        s, good_N = self.settings, torch.tensor([j.labels[0] > 0.5 for j in judged], device=ratio_N.device)
        loss_N = losses.kto_loss(
            ratio_N,
            good_N,
            self.point,
            beta=s.beta,
            desirable_weight=s.desirable_weight,
            undesirable_weight=s.undesirable_weight,
        )
        sums: dict[str, float] = {}
        for name, mask_N in (("wanted", good_N), ("unwanted", ~good_N)):
            sums[f"{name}_count"] = mask_N.sum().item()
            sums[f"{name}_reward"] = rewards_N[mask_N].sum().item()
            sums[f"{name}_logprob"] = logprobs_N.detach()[mask_N].sum().item()
            sums[f"{name}_tokens"] = lengths_N[mask_N].sum().item()
        return loss_N.sum() / len(self.judged), sums

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Metrics of the step from sums over all its units; what nobody counted is left out."""
        found = dict(sums)
        if self.width == 2:
            found["nll"] /= self.chosen_tokens
            count = dict.fromkeys(("chosen", "rejected", "pair"), float(len(self.judged)))
        else:
            count = {name: found.pop(f"{name}_count") for name in ("wanted", "unwanted")}
            found["kl"] = self.point
        for name in list(found):
            group = name.partition("_")[0]
            if group in count:
                total = found.pop(name)
                if count[group]:
                    found[name] = total / count[group]
        if "wanted_reward" in found and "unwanted_reward" in found:
            found["pair_margin"] = found["wanted_reward"] - found["unwanted_reward"]
        return found


def mismatched(judged: Sequence[Judged], longest: int, seed: int) -> list[MarkedSequence]:
    """For every unit a prompt of another one before its response, cut to `longest` tokens: KTO's reference point.

    Prompts are shifted within one random order of all units, past units of the same prompt where there are others.
    """
    order = np.random.Generator(np.random.Philox(key=derived_seed(seed, "mismatched"))).permutation(len(judged))
    found: dict[int, MarkedSequence] = {}
    for place, index in enumerate(order):
        own = judged[index].prompt.token_ids
        others = (judged[order[(place + shift) % len(order)]].prompt for shift in range(1, len(order) + 1))
        prompt = next((p for p in others if not np.array_equal(p.token_ids, own)), judged[index].prompt)
        (response,) = judged[index].unit
        start = len(own)
        found[int(index)] = MarkedSequence(
            np.concatenate([prompt.token_ids, response.token_ids[start:]])[:longest],
            np.concatenate([prompt.marks, response.marks[start:]])[:longest],
        )
    return [found[i] for i in range(len(judged))]
