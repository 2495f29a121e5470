"""From an engine's sample to a Rollout: one flat stream, prompt first, nothing tokenised a second time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from r1kit.engines.protocol import Sample
from r1kit.records import Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def response_texts(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample], stop_token_ids: Sequence[int]
) -> list[str]:
    """The text of each response, special tokens written out, without the stop token that ended it."""
    return list(tokenizer.batch_decode([_content(s, stop_token_ids) for s in samples], skip_special_tokens=False))


def _content(sample: Sample, stop_token_ids: Sequence[int]) -> list[int]:
    ids = list(sample.token_ids)
    return ids[:-1] if sample.finish == "stopped" and ids and ids[-1] in stop_token_ids else ids


def make_rollout(
    problem_id: str,
    index: int,
    prompt_ids: Sequence[int],
    sample: Sample,
    *,
    temperature: float,
    text: str,
) -> Rollout:
    """The rollout of one sample: forced tokens are given, not chosen, so the loss mask leaves them out."""
    before = len(prompt_ids)
    chosen = ~np.array(sample.forced, dtype=bool)

    def stream(before_value: float, response: Any) -> np.ndarray:
        return np.concatenate([np.full(before, before_value), np.asarray(response, dtype=np.float64)])

    return Rollout(
        problem_id=problem_id,
        sample=index,
        prompt_length=before,
        token_ids=np.array([*prompt_ids, *sample.token_ids]),
        loss_mask=stream(0, chosen),
        logprobs=stream(0.0, sample.logprobs),
        policy_versions=stream(-1, np.where(chosen, sample.policy_version, -1)),
        temperatures=stream(0.0, chosen * temperature),
        finish=sample.finish,
        text=text,
    )
