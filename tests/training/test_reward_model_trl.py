"""The pairwise reward model's loss, gradient and metrics equal those of TRL's RewardTrainer.

Why this matters: a reward model trained by the published recipes' settings is theirs only if the loss is. What equal
means in either precision is said in parity.py.

Not exercised here: margins that differ from pair to pair, which are not ours; pointwise, process and implicit reward
models, for which TRL 1.16 has no trainer (tests/algorithms).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.models.families import saved
from tests.models.test_heads import classifier

from r1kit.config.reward_model import RewardModelSettings
from r1kit.models.checkpoint import to_hf_state
from r1kit.models.heads import load_value_model
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.training.parallel import World
from r1kit.training.reward_model import RewardStep
from r1kit.training.units import backward

from .judged import pairs
from .parity import assert_equal_gradients, assert_equal_loss, gradients, widened

trl: Any = pytest.importorskip("trl", reason="trl is not installed (the bench extra)")
datasets: Any = pytest.importorskip("datasets", reason="datasets is not installed (the bench extra)")


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize(("centre", "margin"), [(0.0, 0.0), (0.05, 0.0), (0.05, 0.7)])
def test_reward_trainer(tmp_path: Path, centre: float, margin: float) -> None:
    theirs = classifier(("llama", {}), per_token=False)
    ours = widened(load_value_model(saved(theirs, tmp_path / "model")))
    rows = datasets.Dataset.from_list([{"chosen": "1+1=2", "rejected": "1+1=3"}] * 2)
    arguments = trl.RewardConfig(
        output_dir=str(tmp_path / "rm"),
        center_rewards_coefficient=centre or None,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    tokenizer = build_tiny_tokenizer()
    trainer = trl.RewardTrainer(model=theirs, args=arguments, train_dataset=rows, processing_class=tokenizer)
    made = pairs(5, seed=3)
    batch = [
        {name: s.token_ids.tolist() for name, s in zip(("chosen_ids", "rejected_ids"), j.unit, strict=True)}
        | ({"margin": margin} if margin else {})
        for j in made
    ]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(batch))
    trainer.model.zero_grad(set_to_none=True)
    loss.backward()

    judged = [type(j)(tuple(s.last_only() for s in j.unit), j.prompt) for j in made]
    chosen = {"model": "m", "data": [{"path": "d"}], "centre": centre, "margin": margin}
    settings = RewardModelSettings.model_validate(chosen)
    step = RewardStep(settings, judged, list(range(5)), None)
    sums = backward(ours, [j.unit for j in judged], step.read, step.loss, 8192, World.single())
    assert_equal_loss(sums["loss"], loss.item())
    means = step.means(sums)
    logged = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert means["judged_right"] == pytest.approx(logged["accuracy"])
    assert means["pair_margin"] == pytest.approx(logged["margin"], rel=1e-5)

    mine = {n.removeprefix("trunk."): p.grad for n, p in ours.named_parameters() if n.startswith("trunk.")}
    found = to_hf_state({n: g for n, g in mine.items() if g is not None}, ours.config)
    assert ours.weight.grad is not None
    found["score.weight"] = ours.weight.grad
    assert_equal_gradients(found, gradients(trainer.model))
