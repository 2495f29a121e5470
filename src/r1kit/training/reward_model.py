"""Reward-model training: read from top to bottom, one step at a time.

1. data      pairs, labelled responses or labelled steps as marked token sequences
2. update    the loss of the step's units over their global number (training/units.py)
3. report    accuracy and calibration on prompts that were held out, kept beside the weights

The model is a trunk with one output (models/heads.py), or for an implicit process reward model a language model whose
log-ratio to a reference is the score (algorithms/implicit_prm.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.algorithms.implicit_prm import implicit_prm_loss, token_rewards
from r1kit.algorithms.reward_model_loss import monte_carlo_labels, pairwise_loss, pointwise_loss, prm800k_labels
from r1kit.config.errors import UserError
from r1kit.evaluation.calibration import Calibration, calibration, pair_calibration
from r1kit.models.conversation import ConversationEncoder
from r1kit.models.heads import ValueModel, load_value_model
from r1kit.models.loading import is_value_model, load_model, load_tokenizer
from r1kit.models.marked import MarkedSequence, marked_values, summed_logprobs
from r1kit.models.own_tokenizer import require_rows
from r1kit.models.reward_model import RewardModelSpec, step_sequence, weight_files_sha256, write_reward_model
from r1kit.models.vocabulary import token_warnings
from r1kit.tasks.step_labels import RatedSteps, StepReading
from r1kit.training.judged_data import Collector, Judged, JudgedData, prompt_of, read_labelled_data, read_pair_data
from r1kit.training.parallel import World
from r1kit.training.recorder import Recorder, StageOutcome
from r1kit.training.reference import Reference, load_reference
from r1kit.training.sampling import derived_seed
from r1kit.training.session import Session
from r1kit.training.unit_steps import UnitOrder, optimise, train_epochs
from r1kit.training.units import backward, read_all


def train_reward_model(
    settings: Any,
    *,
    stage: str,
    inputs: Mapping[str, Path],
    seed: int,
    world: World,
    recorder: Recorder,
    directory: Path,
    dtype: str,
) -> StageOutcome:
    """Train from the model at `inputs["model"]`, or go on from the last checkpoint in `directory`."""
    run = RewardModelRun(settings, stage, inputs, seed, world, recorder, directory, dtype)
    model = train_epochs(run, run.order, settings, stage, recorder)
    numbers = {name: value for name, value in run.report.items() if isinstance(value, (int, float))}
    trained = run.order.epochs * sum(len(s) for judged in run.units for s in judged.unit)
    return StageOutcome(
        model=model,
        tokens={"sampled": 0, "trained": trained, "discarded": 0},
        metrics={"units": float(len(run.units)), **{n: float(v) for n, v in run.counts.items()}, **numbers},
    )


class RewardModelRun:
    """The state of one stage."""

    def __init__(
        self,
        settings: Any,
        stage: str,
        inputs: Mapping[str, Path],
        seed: int,
        world: World,
        recorder: Recorder,
        directory: Path,
        dtype: str,
    ) -> None:
        self.settings, self.stage, self.recorder, self.world = settings, stage, recorder, world
        self.seed = derived_seed(seed, stage, "reward model")
        tokenizer = load_tokenizer(inputs["model"])
        encoder = ConversationEncoder(tokenizer, settings.thinking)
        data = read_data(settings, inputs, encoder, self.seed)
        # Those held out stand behind those trained on, so one index names a unit.
        self.units, self.all = data.train, [*data.train, *data.held_out]
        kinds = ("skipped", "dropped", "cut", "unbalanced", "uneven")
        self.counts = {name: data.counts[name] for name in kinds} | {"held_out": len(data.held_out)}
        self.spec = RewardModelSpec(settings.method, settings.thinking, settings.step_separator, settings.beta)
        self.reference: Reference | None = None
        implicit = settings.method == "implicit"
        if implicit:
            self._refer(inputs, directory, dtype)
        self.session = Session(
            directory,
            world,
            settings.optimizer,
            partial(self._fresh, inputs["model"], tokenizer, dtype),
            tokenizer,
            dtype=dtype,
            keep_checkpoints=settings.keep_checkpoints,
            load=load_model if implicit else load_value_model,
            write=self._write,
            native=settings.native,
        )
        self.order = UnitOrder(len(self.units), settings.batch_size, settings.epochs, self.seed)
        self.report: dict[str, Any] = self.session.state.get("report", {})
        recorder.truncate(stage, self.session.last_recorded)
        if not self.session.resumed:
            report = [] if data.held_out else ["no prompt is held out: there will be no report of accuracy"]
            trunk = getattr(self.session.model, "trunk", self.session.model)
            warnings = token_warnings(trunk, tokenizer, encoder.control_tokens(), inputs["model"])
            for line in [*data.notes, *balance_notes(data), *report, *warnings]:
                recorder.note(stage, line)

    def _fresh(self, path: Path, tokenizer: Any, dtype: str) -> Any:
        device, method = self.world.device, self.settings.method
        if method != "implicit" and is_value_model(path):
            model = load_value_model(path, dtype=dtype, device=device)
            require_rows(model.trunk, tokenizer)
            return model
        trunk = load_model(path, dtype=dtype, device=device, tokenizer=tokenizer)
        return trunk if method == "implicit" else ValueModel(trunk, bias=method == "process").draw_head(self.seed)

    def _refer(self, inputs: Mapping[str, Path], directory: Path, dtype: str) -> None:
        s, path = self.settings, inputs.get("reference_model", inputs["model"])
        sequences = [s for judged in self.all for s in judged.unit]
        model = load_reference(inputs, dtype, self.world.device)
        self.reference = Reference.make(s.reference, model, sequences, s.token_budget, directory, self.world, s.native)
        sha256 = weight_files_sha256(path)
        self.spec = RewardModelSpec(s.method, s.thinking, s.step_separator, s.beta, str(path.resolve()), sha256)

    def _write(self, model: Any, tokenizer: Any, target: Path) -> None:
        spec = RewardModelSpec(**{**vars(self.spec), "report": self.report})
        write_reward_model(model, tokenizer, target, spec)

    def train(self, chosen: list[int], lr_scale: float) -> dict[str, float]:
        """One optimiser step."""
        step = RewardStep(self.settings, [self.all[i] for i in chosen], chosen, self.reference)
        units, budget = [self.all[i].unit for i in chosen], self.settings.token_budget

        def gradient() -> dict[str, float]:
            return backward(self.session.network, units, step.read, step.loss, budget, self.world)

        return step.means(optimise(self.session, self.settings, lr_scale, gradient))

    def measure(self, step: int, total: int) -> None:
        """The report on what is held out, where it is due."""
        every = self.settings.measure_every or self.order.steps_per_epoch
        if len(self.all) > len(self.units) and (step % every == 0 or step == total):
            self.report = self.evaluate(range(len(self.units), len(self.all)))
            row = {name: value for name, value in self.report.items() if isinstance(value, (int, float))}
            self.recorder.metrics(self.stage, step, row, {}, kind="eval")

    def evaluate(self, chosen: Sequence[int]) -> dict[str, Any]:
        """Accuracy and calibration of these units, and the table of reliability."""
        step = RewardStep(self.settings, [self.all[i] for i in chosen], list(chosen), self.reference)
        sequences = [s for judged in step.judged for s in judged.unit]
        per_mark = self.settings.method != "implicit"
        budget = self.settings.token_budget
        found = read_all(self.session.network, sequences, step.read, budget, self.world, per_mark=per_mark)
        scores = step.scores(torch.tensor(np.concatenate(found)), range(len(chosen))).numpy()
        result = measured(self.settings.method, scores, step.judged)
        numbers = {f"held_out_{name}": value for name, value in result.numbers().items()}
        if self.settings.method == "pairwise":
            numbers |= {f"held_out_{n}": v for n, v in length_bias(scores.reshape(-1, 2), step.judged).items()}
        return {**numbers, "reliability": result.to_json()["table"]}

    def state(self) -> dict[str, Any]:
        return {"report": self.report}


class RewardStep:
    """The loss of one step's units, in parts that add up to the mean over the step."""

    def __init__(
        self, settings: Any, judged: Sequence[Judged], names: Sequence[int], reference: Reference | None
    ) -> None:
        self.settings, self.judged, self.names, self.reference = settings, judged, names, reference
        self.read = summed_logprobs if settings.method == "implicit" else marked_values
        self.count = sum(len(j.labels) for j in judged) if settings.method == "process" else len(judged)

    def scores(self, outputs_M: Tensor, units: Sequence[int]) -> Tensor:
        """What `read` gives, as scores: of an implicit model against its reference."""
        if self.reference is None:
            return outputs_M
        reference_N = self.reference.logprobs([self.names[i] for i in units]).to(outputs_M)
        return token_rewards(outputs_M, reference_N, self.settings.beta)

    def loss(self, outputs_M: Tensor, units: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        """Part of `units` (indices into the step) in the loss."""
        scores_M = self.scores(outputs_M, units)
        if self.settings.method == "pairwise":
            return self._pairwise(*scores_M.view(-1, 2).unbind(1))
        labels = [label for i in units for label in self.judged[i].labels]
        labels_M = torch.tensor(labels, device=scores_M.device)
        if self.settings.method == "implicit":
            # A sum of token rewards is one reward: each response stands as a single token here.
            each = torch.arange(len(scores_M), device=scores_M.device)
            loss = implicit_prm_loss(scores_M, each, labels_M, self.count)
        else:
            loss = pointwise_loss(scores_M, labels_M).sum() / self.count
        good_M, seen_M = labels_M > 0.5, scores_M.detach()
        sums = {"judged_right": ((seen_M > 0) == good_M).sum().item()}
        for name, mask_M in (("good", good_M), ("bad", ~good_M)):
            sums |= {f"{name}_count": mask_M.sum().item(), f"{name}_score": seen_M[mask_M].sum().item()}
        return loss, sums

    def _pairwise(self, chosen_N: Tensor, rejected_N: Tensor) -> tuple[Tensor, dict[str, float]]:
        s = self.settings
        margin_N = torch.full_like(chosen_N, s.margin) if s.margin else None
        loss_N = pairwise_loss(chosen_N, rejected_N, margin_N=margin_N, centre=s.centre)
        gap_N = (chosen_N - rejected_N).detach()
        sums = {"judged_right": (gap_N > 0).sum().item(), "pair_margin": gap_N.sum().item()}
        for name, side_N in (("chosen", chosen_N), ("rejected", rejected_N)):
            sums[f"{name}_score"] = side_N.detach().sum().item()
        return loss_N.sum() / self.count, sums

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Metrics of the step from sums over all its units; what nobody counted is left out."""
        found = dict(sums)
        counts = {name: found.pop(f"{name}_count", float(self.count)) for name in ("good", "bad", "chosen", "rejected")}
        for name in [n for n in found if n not in ("loss", "grad_norm")]:
            number, total = counts.get(name.partition("_")[0], float(self.count)), found.pop(name)
            if number:
                found[name] = total / number
        return found


def measured(method: str, scores: np.ndarray, judged: Sequence[Judged]) -> Calibration:
    """Calibration of the scores of `judged`, unit after unit."""
    if method == "pairwise":
        chosen_N, rejected_N = scores.reshape(-1, 2).T
        return pair_calibration((chosen_N - rejected_N).tolist())
    labels = [label for j in judged for label in j.labels]
    return calibration((1.0 / (1.0 + np.exp(-scores))).tolist(), labels)


def length_bias(scores_N2: np.ndarray, judged: Sequence[Judged]) -> dict[str, float]:
    """What a judge of length alone would get right, and how often the model prefers the longer response."""
    lengths = np.array([[float(len(s)) for s in j.unit] for j in judged])
    longer = np.sign(lengths[:, 0] - lengths[:, 1])
    prefers = np.sign(scores_N2[:, 0] - scores_N2[:, 1])
    known = longer != 0
    found = {"longer_is_better": float(np.mean((longer + 1) / 2))}
    return found | ({"prefers_longer": float(np.mean(prefers[known] == longer[known]))} if known.any() else {})


def read_data(settings: Any, paths: Mapping[str, Path], encoder: ConversationEncoder, seed: int) -> JudgedData:
    """The data sets in the form that the method is trained on. UserError where nothing is left."""
    if settings.method == "process":
        return read_step_data(settings, paths, encoder)
    data = (read_pair_data if settings.method == "pairwise" else read_labelled_data)(settings, paths, encoder)
    if settings.method == "pairwise":
        data = balanced(data, settings, seed)
    if settings.method != "implicit":
        for name in ("train", "held_out"):
            kept = [Judged(tuple(s.last_only() for s in j.unit), j.prompt, j.labels) for j in getattr(data, name)]
            setattr(data, name, kept)
    return data


def read_step_data(settings: Any, paths: Mapping[str, Path], encoder: ConversationEncoder) -> JudgedData:
    """Solutions with their labelled steps marked."""
    into = Collector(settings, encoder)
    for index, rules in enumerate(settings.data):
        reading = StepReading(rules, paths.get(f"data[{index}].path"))
        for row in reading:
            into.add(rules, row.place, row.prompt, partial(_rated, settings, encoder, row))
        into.finish(rules.path, reading)
    return into.data


def _rated(settings: Any, encoder: ConversationEncoder, row: RatedSteps) -> Judged:
    if row.human:
        labels = prm800k_labels([None if r is None else int(r) for r in row.ratings], neutral=settings.neutral)
    else:
        known = [(i, r) for i, r in enumerate(row.ratings) if r is not None]
        labels = [None] * len(row.ratings)
        for (i, _), label in zip(
            known, monte_carlo_labels([r for _, r in known], mode=settings.monte_carlo), strict=True
        ):
            labels[i] = label
    sequence = step_sequence(encoder, row.prompt, row.steps, settings.step_separator)
    ends = np.flatnonzero(sequence.marks)[[label is not None for label in labels]]
    if not len(ends):
        raise ValueError("none of its steps has a label to train on")
    marked = MarkedSequence(sequence.token_ids, np.isin(np.arange(len(sequence)), ends))
    return Judged((marked,), prompt_of(sequence), tuple(label for label in labels if label is not None))


def balanced(data: JudgedData, settings: Any, seed: int) -> JudgedData:
    """Pairs to train on such that length says little: none of very uneven lengths, and as many with the longer
    response better as with the shorter. What is held out stays whole: it shows what length alone would get right."""

    def lengths(judged: Judged) -> tuple[int, int]:
        return judged.unit[0].marked, judged.unit[1].marked

    kept = data.train
    if settings.length_ratio is not None:
        kept = [j for j in kept if max(lengths(j)) <= settings.length_ratio * min(lengths(j))]
        data.counts["uneven"] = len(data.train) - len(kept)
    if settings.balance_lengths:
        longer = [i for i, j in enumerate(kept) if lengths(j)[0] > lengths(j)[1]]
        shorter = [i for i, j in enumerate(kept) if lengths(j)[0] < lengths(j)[1]]
        many, few = (longer, shorter) if len(longer) > len(shorter) else (shorter, longer)
        generator = np.random.Generator(np.random.Philox(key=derived_seed(seed, "balance")))
        surplus = set(generator.permutation(many)[len(few) :].tolist())
        data.counts["unbalanced"] = len(surplus)
        kept = [j for i, j in enumerate(kept) if i not in surplus]
    if not kept:
        raise UserError("no pair is left once lengths are balanced: raise length_ratio or set balance_lengths: false")
    data.train = kept
    return data


def balance_notes(data: JudgedData) -> list[str]:
    """Lines for a person about pairs left out for their lengths."""
    c = data.counts
    lines = (
        [f"{c['uneven']} pairs left out: one response is more than length_ratio times as long"] if c["uneven"] else []
    )
    if c["unbalanced"]:
        lines.append(f"{c['unbalanced']} pairs left out, so that the longer response is the better one in half of them")
    return lines
