"""One evaluation, from problems to numbers: sample k responses of each, judge them, summarise with
intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from r1kit.engines.protocol import Engine
from r1kit.evaluation.sampling import EncodePrompt, Progress, Shard, sample_and_score, select_problems
from r1kit.evaluation.summary import Evaluation, summarise
from r1kit.models.chat import encode_prompt as encode_chat_prompt
from r1kit.records import Problem
from r1kit.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Peers(Protocol):
    """The processes that share an evaluation (`r1kit.training.parallel.World` is one)."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, value: Any, stage: str = ...) -> list[Any]:
        """Every rank's plain (JSON) value, in rank order, on every rank."""
        ...


def evaluate(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    problems: Sequence[Problem],
    settings: Any,
    *,
    seed: int,
    encode_prompt: EncodePrompt = encode_chat_prompt,
    peers: Peers | None = None,
    examples: int = 16,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the engine's policy on the first `settings.problems` of `problems`.

    `settings`: problems, samples (k), max_tokens (cap), temperature, top_p (and top_k where it has one).
    With `peers` each process samples its share, and all return the same Evaluation, equal to that of a
    single process. `seed` keys the noise together with problem and sample. `progress(done, total)` counts
    the responses of this process.

    EvaluationError where there is nothing to ask or nothing could be judged; errors of engine, tokenizer
    and task pass through.
    """
    chosen = select_problems(problems, settings)
    rank, size = (peers.rank, peers.size) if peers else (0, 1)
    shard = sample_and_score(
        engine, tokenizer, task, chosen, settings,
        seed=seed, encode_prompt=encode_prompt, rank=rank, size=size, examples=examples, progress=progress,
    )  # fmt: skip
    shards = [shard]
    if peers and size > 1:
        shards = [Shard.from_json(value) for value in peers.gather(shard.to_json(), "evaluation")]
    return summarise(
        shards,
        benchmark=f"{task.name}/{chosen[0].split}",
        problems=len(chosen),
        settings=settings,
        seed=seed,
        policy_version=engine.policy_version,
        examples=examples,
    )
