"""Made-up units, a tiny policy and data files of pairs, shared by the tests of preference and reward-model training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r1kit.config.preference import PreferenceSettings
from r1kit.models.marked import MarkedSequence, summed_logprobs
from r1kit.training.judged_data import Judged, prompt_of
from r1kit.training.parallel import World
from r1kit.training.preference import PreferenceStep
from r1kit.training.reference import Reference
from r1kit.training.unit_steps import optimise
from r1kit.training.units import backward, read_all

from .helpers import VOCABULARY, session, tiny_model


def sequence(generator: np.random.Generator, prompt: Sequence[int], longest: int = 14) -> MarkedSequence:
    """`prompt` and a random response of 1 to `longest` tokens, the response marked."""
    response = generator.integers(3, VOCABULARY, int(generator.integers(1, longest + 1)))
    ids = np.concatenate([np.asarray(prompt, dtype=np.int64), response])
    return MarkedSequence(ids, np.arange(len(ids)) >= len(prompt))


def pairs(count: int, seed: int = 0, *, prompt_tokens: int | None = None, longest: int = 14) -> list[Judged]:
    """Pairs of responses of different lengths."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        prompt = generator.integers(3, VOCABULARY, prompt_tokens or int(generator.integers(1, 6)))
        unit = (sequence(generator, prompt.tolist(), longest), sequence(generator, prompt.tolist(), longest))
        found.append(Judged(unit, prompt_of(unit[0])))
    return found


def singles(count: int, seed: int = 0) -> list[Judged]:
    """Single responses, good and bad in turn."""
    return [Judged(j.unit[:1], j.prompt, (float(i % 2 == 0),)) for i, j in enumerate(pairs(count, seed))]


def pair_rows(count: int) -> list[dict[str, Any]]:
    """Rows in which the chosen response counts up and the rejected one does not."""
    return [
        {
            "prompt": [{"role": "text", "content": f"Q:{i % 9}+{i // 9}\n"}],
            "chosen": {"role": "assistant", "content": f"{i % 9}+{i // 9}={i % 9 + i // 9}"},
            "rejected": {"role": "assistant", "content": f"{i % 9}+{i // 9}={i % 9 + i // 9 + 1} no\n" * (1 + i % 2)},
            "id": f"p{i}",
            "provenance": {},
        }
        for i in range(count)
    ]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def preference_step(world: World) -> dict[str, np.ndarray]:
    """Gradient, weights and metrics of one KTO step, its reference point and log-probs read over the ranks."""
    chosen = PreferenceSettings.model_validate(
        {"model": "m", "data": [{"path": "d"}], "method": "kto", "max_tokens": 40, "token_budget": 40, "grad_clip": 0.0}
    )
    judged, state = singles(7), session(world)
    sequences = [j.unit[0] for j in judged]
    read = read_all(tiny_model(seed=9), sequences, summed_logprobs, 40, world)
    reference = Reference(None, sequences, np.concatenate(read), 40)
    step = PreferenceStep(chosen, judged, list(range(7)), reference, 0.3)
    units = [j.unit for j in judged]
    metrics = optimise(state, chosen, 1.0, lambda: backward(state.model, units, summed_logprobs, step.loss, 40, world))
    means = step.means(metrics)
    return {
        "grad": state.flat.grad.numpy(),
        "weights": state.flat.master.numpy(),
        "metrics": np.array([means[name] for name in sorted(means)]),
    }
