"""Preference losses and gradients equal those of TRL's trainers, on the same batch and the same weights.

Why this matters: results of the published recipes were made with these trainers' conventions (sums or means, what is
a response's token, where a margin stands); a recipe's beta means what it means there only if these agree. What equal
means in either precision is said in parity.py.

Compared, in TRL 1.16: DPOTrainer's sigmoid (dpo), ipo (ipo, per token), nca_pair (nca) and sft (nll_coef of any of
them); cdpo, which TRL has no longer, as the sum of its sigmoid and robust that equals it, and without a reference by
CPOTrainer's label smoothing; KTOTrainer's kto; and of its experimental trainers CPO's simpo and ORPO's.

Not exercised here, for TRL has none: ipo by sums of a response; nca, ipo and kto as their papers' own code has them
(tests/algorithms). Not ours: hinge, exo_pair, robust, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down,
discopop, sigmoid_norm, apo_zero_unpaired, alphapo. Optimiser and schedule are tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.families import random_model, saved

from r1kit.config.preference import PreferenceSettings
from r1kit.models.checkpoint import to_hf_state
from r1kit.models.decoder import Decoder
from r1kit.models.loading import load_model
from r1kit.models.marked import MarkedSequence, summed_logprobs
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training.parallel import World
from r1kit.training.preference import PreferenceStep
from r1kit.training.reference import Reference
from r1kit.training.units import backward, read_all

from .judged import pairs, singles
from .parity import assert_equal_gradients, assert_equal_loss, gradients, widened

trl: Any = pytest.importorskip("trl", reason="trl is not installed (the bench extra)")
datasets: Any = pytest.importorskip("datasets", reason="datasets is not installed (the bench extra)")

TOKENIZER = build_tiny_tokenizer()
ARGUMENTS = {"report_to": "none", "use_cpu": True, "bf16": False}
PAD = 0


pytestmark = pytest.mark.usefixtures("precision")


def models() -> tuple[Any, Any]:
    """Transformers' policy and reference, in the precision of the test."""
    return _models(torch.get_default_dtype())


@cache
def _models(dtype: torch.dtype) -> tuple[Any, Any]:
    return random_model("qwen2", vocab_size=len(TOKENIZER)), random_model("qwen2", seed=1, vocab_size=len(TOKENIZER))


def settings(**changes: Any) -> PreferenceSettings:
    return PreferenceSettings.model_validate({"model": "m", "data": [{"path": "d"}], **changes})


def our_step(
    judged: list[Any], folder: Path, **changes: Any
) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradient by Transformers' names, and metrics of one step over `judged`."""
    chosen = settings(**changes)
    policy, reference = (widened(load_model(saved(m, folder / str(i)))) for i, m in enumerate(models()))
    sequences = [s for j in judged for s in j.unit]
    made = Reference(reference, sequences, None, 8192) if chosen.needs_reference else None
    point = 0.0
    if chosen.method == "kto":
        cyclic = mismatched_in_a_circle(judged)
        values = [np.concatenate(read_all(m, cyclic, summed_logprobs, 8192)) for m in (policy, reference)]
        point = max(0.0, float((values[0] - values[1]).mean()))
    step = PreferenceStep(chosen, judged, list(range(len(judged))), made, point)
    sums = backward(policy, [j.unit for j in judged], summed_logprobs, step.loss, 8192, World.single())
    assert isinstance(policy, Decoder)
    gradients = to_hf_state({n: p.grad for n, p in policy.named_parameters() if p.grad is not None}, policy.config)
    return sums["loss"], gradients, step.means(sums)


def mismatched_in_a_circle(judged: list[Any]) -> list[MarkedSequence]:
    """Each prompt with the response of the row before it, as TRL's data preparation pairs them."""
    found = []
    for own, other in zip(judged, judged[-1:] + judged[:-1], strict=True):
        response = other.unit[0].token_ids[len(other.prompt) :]
        ids = np.concatenate([own.prompt.token_ids, response])
        found.append(MarkedSequence(ids, np.arange(len(ids)) >= len(own.prompt)))
    return found


def parts(judged: Any) -> tuple[list[int], list[list[int]]]:
    """Ids of the prompt and of each response."""
    prompt = judged.prompt.token_ids.tolist()
    return prompt, [s.token_ids[len(prompt) :].tolist() for s in judged.unit]


def compare(trainer: Any, loss: torch.Tensor, ours: tuple[float, dict[str, torch.Tensor], Any]) -> None:
    """The loss and every gradient."""
    trainer.model.zero_grad(set_to_none=True)
    loss.backward()
    assert_equal_loss(ours[0], loss.item())
    assert_equal_gradients(ours[1], gradients(trainer.model))


def dpo_trainer(folder: Path, **changes: Any) -> Any:
    policy, reference = models()
    rows = datasets.Dataset.from_list([{"prompt": "1+1=", "chosen": "2", "rejected": "34"}] * 2)
    arguments = trl.DPOConfig(output_dir=str(folder / "dpo"), **ARGUMENTS, **changes)
    return trl.DPOTrainer(
        model=policy, ref_model=reference, args=arguments, train_dataset=rows, processing_class=TOKENIZER
    )


# Ours, and TRL's losses with their weights.
DPO: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "dpo": ({"method": "dpo"}, {"sigmoid": 1.0}),
    "ipo": ({"method": "ipo"}, {"ipo": 1.0}),
    "nca": ({"method": "nca"}, {"nca_pair": 1.0}),
    # With l(m) = -log sigma(m): robust = ((1 - s) l(m) - s l(-m)) / (1 - 2 s), cdpo = (1 - s) l(m) + s l(-m).
    "cdpo": ({"method": "dpo", "label_smoothing": 0.1}, {"sigmoid": 1.8, "robust": -0.8}),
    "dpo and nll": ({"method": "dpo", "nll_coef": 0.4}, {"sigmoid": 1.0, "sft": 0.4}),
    "nca and nll": ({"method": "nca", "nll_coef": 0.4}, {"nca_pair": 1.0, "sft": 0.4}),
}


@pytest.mark.parametrize("case", DPO)
def test_dpo_trainer(tmp_path: Path, case: str) -> None:
    ours, theirs = DPO[case]
    judged = pairs(4, seed=3)
    rows = []
    for j in judged:
        prompt, (chosen, rejected) = parts(j)
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    trainer = dpo_trainer(
        tmp_path, beta=0.3, loss_type=list(theirs), loss_weights=list(theirs.values()), label_smoothing=0.1
    )
    loss = trainer._compute_loss(trainer.model, trainer.data_collator(rows), False)
    found = our_step(judged, tmp_path, beta=0.3, **ours)
    compare(trainer, loss, found)
    logged = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    names = {
        "chosen_reward": "rewards/chosen",
        "rejected_reward": "rewards/rejected",
        "pair_accuracy": "rewards/accuracies",
        "pair_margin": "rewards/margins",
        "chosen_logprob": "logps/chosen",
        "rejected_logprob": "logps/rejected",
    }
    for mine, name in names.items():
        assert found[2][mine] == pytest.approx(logged[name], rel=1e-4, abs=1e-5), mine


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def concatenated_batch(judged: list[Any]) -> dict[str, torch.Tensor]:
    """The batch that TRL's CPO and ORPO trainers take."""
    batch: dict[str, torch.Tensor] = {}
    for side, name in enumerate(("chosen", "rejected")):
        ids = [j.unit[side].token_ids.tolist() for j in judged]
        labels = [[-100] * len(j.prompt) + j.unit[side].token_ids[len(j.prompt) :].tolist() for j in judged]
        batch[f"{name}_input_ids"] = padded(ids, PAD)
        batch[f"{name}_attention_mask"] = padded([[1] * len(row) for row in ids], 0)
        batch[f"{name}_labels"] = padded(labels, -100)
    return batch


def paired_trainer(kind: str, folder: Path, **changes: Any) -> Any:
    """TRL's CPO or ORPO trainer, which are experimental there."""
    module = pytest.importorskip(f"trl.experimental.{kind.lower()}", reason=f"this trl has no {kind} trainer")
    rows = datasets.Dataset.from_list([{"prompt": "1+1=", "chosen": "2", "rejected": "34"}] * 2)
    arguments = getattr(module, f"{kind}Config")(output_dir=str(folder), max_length=64, **ARGUMENTS, **changes)
    return getattr(module, f"{kind}Trainer")(
        model=models()[0], args=arguments, train_dataset=rows, processing_class=TOKENIZER
    )


def test_simpo(tmp_path: Path) -> None:
    judged = pairs(4, seed=3)
    trainer = paired_trainer("CPO", tmp_path / "cpo", loss_type="simpo", beta=2.0, simpo_gamma=0.6, cpo_alpha=0.0)
    loss, _ = trainer.get_batch_loss_metrics(trainer.model, concatenated_batch(judged))
    compare(trainer, loss, our_step(judged, tmp_path, method="simpo", beta=2.0, gamma=0.6))


def test_simpo_with_the_loss_of_the_next_token(tmp_path: Path) -> None:
    """TRL's next-token term takes the prompt's tokens too; a prompt of one token has none to predict."""
    judged = pairs(4, seed=3, prompt_tokens=1)
    trainer = paired_trainer("CPO", tmp_path / "cpo", loss_type="simpo", beta=2.0, simpo_gamma=0.6, cpo_alpha=0.3)
    loss, _ = trainer.get_batch_loss_metrics(trainer.model, concatenated_batch(judged))
    compare(trainer, loss, our_step(judged, tmp_path, method="simpo", beta=2.0, gamma=0.6, nll_coef=0.3))


def test_label_smoothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPO without its next-token term is DPO with a reference to which all responses are equally likely."""
    judged = pairs(4, seed=3)
    trainer = paired_trainer("CPO", tmp_path / "cpo", loss_type="sigmoid", beta=0.3, cpo_alpha=0.0, label_smoothing=0.1)
    loss, _ = trainer.get_batch_loss_metrics(trainer.model, concatenated_batch(judged))
    monkeypatch.setattr(Reference, "logprobs", lambda self, ids: torch.zeros(len(ids)))
    compare(trainer, loss, our_step(judged, tmp_path, method="dpo", beta=0.3, label_smoothing=0.1))


def test_orpo(tmp_path: Path) -> None:
    """TRL's next-token term takes the prompt's tokens too: see above."""
    judged = pairs(4, seed=3, prompt_tokens=1)
    trainer = paired_trainer("ORPO", tmp_path / "orpo", beta=0.25)
    loss, _ = trainer.get_batch_loss_metrics(trainer.model, concatenated_batch(judged))
    compare(trainer, loss, our_step(judged, tmp_path, method="orpo", beta=0.25))


def test_kto(tmp_path: Path) -> None:
    judged = singles(5, seed=8)
    policy, reference = models()
    rows = datasets.Dataset.from_list(
        [{"prompt": "1+1=", "completion": "2", "label": True}, {"prompt": "1+2=", "completion": "34", "label": False}]
    )
    arguments = trl.KTOConfig(
        output_dir=str(tmp_path / "kto"),
        beta=0.2,
        desirable_weight=1.0,
        undesirable_weight=1.5,
        per_device_train_batch_size=2,
        **ARGUMENTS,
    )
    trainer = trl.KTOTrainer(
        model=policy, ref_model=reference, args=arguments, train_dataset=rows, processing_class=TOKENIZER
    )
    batch = []
    for j, shifted in zip(judged, mismatched_in_a_circle(judged), strict=True):
        prompt, (response,) = parts(j)
        other = shifted.token_ids[len(prompt) :].tolist()
        label = bool(j.labels[0])
        batch.append({"prompt_ids": prompt, "completion_ids": response, "KL_completion_ids": other, "label": label})
    loss = trainer._compute_loss(trainer.model, trainer.data_collator(batch), False)
    ours = our_step(judged, tmp_path, method="kto", beta=0.2, undesirable_weight=1.5)
    assert ours[2]["kl"] == pytest.approx(trainer._metrics["eval"]["kl"][-1], rel=1e-4)
    assert ours[2]["kl"] > 0, "the case says nothing where the reference point is cut off at 0"
    compare(trainer, loss, ours)


def test_every_case_has_more_than_one_length() -> None:
    lengths: Callable[[Any], list[int]] = lambda judged: [s.marked for j in judged for s in j.unit]  # noqa: E731
    assert len(set(lengths(pairs(4, seed=3)))) > 2
    assert len(set(lengths(singles(5, seed=8)))) > 2
