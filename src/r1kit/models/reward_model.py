"""A trained reward model: from a prompt and a response to a number, in batches.

    pairwise    the value at the response's end: only differences between responses to one prompt mean something
    pointwise   the value at the response's end, a logit: sigma(value) is the chance that the response is good
    process     values at the ends of the steps, logits; the score joins their probabilities (least, product, last)
    implicit    beta * (log model - log reference) of the response's tokens, summed: no head at all

`reward_model.json` beside the weights says which. A checkpoint that others made and that has none is taken for pairwise
(a sequence classifier) or process (a token classifier).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from r1kit.models.checkpoint import CheckpointError
from r1kit.models.conversation import CONTEXT, ConversationEncoder
from r1kit.models.heads import ValueModel, load_value_model, write_value_model
from r1kit.models.loading import load_model, load_tokenizer, write_model
from r1kit.models.marked import MarkedSequence, Rows, marked_logprobs, marked_values, rows_of_like_length
from r1kit.models.own_tokenizer import require_rows
from r1kit.records import Message, Problem, Rollout
from r1kit.tasks.thinking import join, split

Method = Literal["pairwise", "pointwise", "process", "implicit"]
Join = Literal["least", "product", "last"]
Item = tuple[Sequence[Message], Message]
SPEC = "reward_model.json"
JOINS: Mapping[Join, Callable[[np.ndarray], Any]] = {"least": np.min, "product": np.prod, "last": lambda p: p[-1]}


@dataclass(frozen=True)
class RewardModelSpec:
    """What reward_model.json holds. `reference` is a path, relative to the checkpoint, and `reference_sha256` the
    checksum of its weights; `report` what was measured on held-out data when it was saved."""

    method: Method = "pairwise"
    thinking: str = "think"
    step_separator: str = "\n\n"
    beta: float = 0.05
    reference: str | None = None
    reference_sha256: str | None = None
    report: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> RewardModelSpec | None:
        """None where the directory has none; CheckpointError where it cannot be read."""
        path = directory / SPEC
        if not path.is_file():
            return None
        try:
            spec = cls(**json.loads(path.read_text()))
        except (json.JSONDecodeError, TypeError) as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error}); the file is damaged, take another copy"
            ) from error
        if spec.method not in get_args(Method):
            raise CheckpointError(f"{path}: method is {spec.method!r}, expected one of {', '.join(get_args(Method))}")
        return spec


def write_reward_model(model: Any, tokenizer: PreTrainedTokenizerBase, directory: Path, spec: RewardModelSpec) -> None:
    """Weights, head, config, tokenizer and reward_model.json in the Hugging Face layout."""
    if isinstance(model, ValueModel):
        write_value_model(model, tokenizer, directory)
    else:
        write_model(model, tokenizer, directory)
    if spec.reference is not None:
        spec = replace(spec, reference=os.path.relpath(spec.reference, directory))
    (directory / SPEC).write_text(json.dumps(asdict(spec), indent=1))


class RewardModel:
    """Scores responses in batches of at most `token_budget` tokens; nothing here has a gradient."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        spec: RewardModelSpec,
        reference: Any = None,
        *,
        token_budget: int = 16384,
    ) -> None:
        if (spec.method == "implicit") != (reference is not None):
            needs = "needs a" if reference is None else "has no"
            raise ValueError(f"a reward model of method {spec.method} {needs} reference")
        self.model, self.reference, self.spec, self.token_budget = model, reference, spec, token_budget
        self.encoder = ConversationEncoder(tokenizer, spec.thinking)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
        reference: str | Path | None = None,
        token_budget: int = 16384,
    ) -> RewardModel:
        """The reward model of a checkpoint directory. `reference` replaces the path that an implicit one names.

        CheckpointError where the directory holds none, or another model's tokenizer, or where the reference is gone or
        is another one.
        """
        directory = Path(directory)
        spec, tokenizer = RewardModelSpec.read(directory), load_tokenizer(directory)
        if spec is not None and spec.method == "implicit":
            model: Any = load_model(directory, dtype=dtype, device=device, tokenizer=tokenizer)
            other = _load_reference(directory, spec, reference, dtype, device)
            return cls(model, tokenizer, spec, other, token_budget=token_budget)
        model = load_value_model(directory, dtype=dtype, device=device)
        require_rows(model.trunk, tokenizer)
        spec = spec or RewardModelSpec(method="pairwise" if model.bias is None else "process")
        return cls(model, tokenizer, spec, token_budget=token_budget)

    def score(self, items: Sequence[Item], *, joined: Join = "least") -> np.ndarray:
        """One number for each prompt and response, float64 [N]; higher is better. What it means: see the module.

        `joined` says how a process model's step probabilities become one.
        """
        if self.spec.method == "process":
            return np.array([JOINS[joined](p) for p in self.score_steps(items)], dtype=np.float64)
        sequences = [self._sequence(*item) for item in items]
        if self.spec.method == "implicit":
            return np.array([values.sum() for values in self.token_scores(sequences)], dtype=np.float64)
        return np.array([v[0] for v in self._values([s.last_only() for s in sequences])], dtype=np.float64)

    def score_steps(self, items: Sequence[Item]) -> list[np.ndarray]:
        """A process model's probability that each step is right; of an implicit one, each step's part of the score."""
        separator = self.spec.step_separator
        pairs = [(prompt, split_steps(self._text(response), separator)) for prompt, response in items]
        sequences = [step_sequence(self.encoder, prompt, steps, separator) for prompt, steps in pairs]
        if self.spec.method == "process":
            return [1.0 / (1.0 + np.exp(-values)) for values in self._values(sequences)]
        if self.spec.method != "implicit":
            raise ValueError(f"a reward model of method {self.spec.method} judges whole responses, not steps")
        starts = [len(prompt_ids(self.encoder, prompt)) for prompt, _ in pairs]
        wholes = [MarkedSequence(s.token_ids, np.arange(len(s)) >= n) for s, n in zip(sequences, starts, strict=True)]
        sums = [np.cumsum(rewards) for rewards in self.token_scores(wholes)]
        ends = [np.flatnonzero(s.marks) - n for s, n in zip(sequences, starts, strict=True)]
        return [np.diff(total[at], prepend=0.0) for total, at in zip(sums, ends, strict=True)]

    def token_scores(self, sequences: Sequence[MarkedSequence]) -> list[np.ndarray]:
        """An implicit model's reward of every marked token: beta * (log model - log reference)."""
        mine, theirs = (self._read(m, marked_logprobs, sequences) for m in (self.model, self.reference))
        return [self.spec.beta * (a - b) for a, b in zip(mine, theirs, strict=True)]

    def source(self, reads: Literal["whole", "answer"] = "whole", *, joined: Join = "least") -> RewardModelSource:
        """A source of scores for a reward part. "answer" judges what follows the thought, as R1 does helpfulness;
        "whole" all of it, as R1 does harmlessness."""
        return RewardModelSource(self, reads, joined)

    def _sequence(self, prompt: Sequence[Message], response: Message) -> MarkedSequence:
        stream = self.encoder.streams([*prompt, response], last_only=True)[0]
        return MarkedSequence(stream.token_ids.astype(np.int64), stream.parts != CONTEXT)

    def _text(self, response: Message) -> str:
        return join(response.reasoning, response.content, self.spec.thinking)

    def _values(self, sequences: Sequence[MarkedSequence]) -> list[np.ndarray]:
        return self._read(self.model, marked_values, sequences)

    @torch.no_grad()
    def _read(self, model: Any, read: Any, sequences: Sequence[MarkedSequence]) -> list[np.ndarray]:
        found: list[np.ndarray] = [np.zeros(0)] * len(sequences)
        for batch in rows_of_like_length([len(s) for s in sequences], self.token_budget):
            members = [sequences[i] for i in batch]
            values = read(model, Rows(len(batch), max(map(len, members))), members).double().cpu()
            for i, part in zip(batch, values.split([s.marked for s in members]), strict=True):
                found[i] = part.numpy()
        return found


@dataclass(frozen=True)
class RewardModelSource:
    """`(problem, rollouts) -> scores`: what a reward part of kind reward_model calls."""

    model: RewardModel
    reads: Literal["whole", "answer"]
    joined: Join

    def __call__(self, problem: Problem, rollouts: Sequence[Rollout]) -> list[float | None]:
        """A score for each rollout; None where a value is not finite, which the part counts as a failure of its own.

        A response that never ends its thought has no answer: an empty one is judged, by "answer".
        """
        responses = [self._response(problem, rollout.text) for rollout in rollouts]
        scores = self.model.score([(problem.prompt, response) for response in responses], joined=self.joined)
        return [float(score) if np.isfinite(score) else None for score in scores]

    def _response(self, problem: Problem, text: str) -> Message:
        try:
            thought, answer = split(problem.prefill + text, "auto")
        except ValueError:
            thought, answer = problem.prefill + text, ""
        return Message("assistant", answer, thought if self.reads == "whole" else "")


def step_sequence(
    encoder: ConversationEncoder, prompt: Sequence[Message], steps: Sequence[str], separator: str
) -> MarkedSequence:
    """Prompt and steps, each with the separator behind it and encoded apart; the last token of each is marked."""
    ids = list(prompt_ids(encoder, prompt))
    ends = []
    for step in steps:
        ids += encoder.tokenizer.encode(step + separator, add_special_tokens=False)
        ends.append(len(ids) - 1)
    token_ids = np.array(ids, dtype=np.int64)
    return MarkedSequence(token_ids, np.isin(np.arange(len(ids)), ends))


def prompt_ids(encoder: ConversationEncoder, prompt: Sequence[Message]) -> np.ndarray:
    """Token ids of a prompt with an open assistant turn."""
    stream = encoder.streams([*prompt, Message("assistant", "-")], last_only=True)[0]
    return stream.token_ids[stream.parts == CONTEXT].astype(np.int64)


def split_steps(text: str, separator: str) -> list[str]:
    """The steps of a solution: pieces between separators, empty ones left out; one empty step where there is none."""
    return [piece.strip() for piece in text.split(separator) if piece.strip()] or [""]


def _load_reference(
    directory: Path, spec: RewardModelSpec, given: str | Path | None, dtype: str, device: str | torch.device
) -> Any:
    path = Path(given) if given is not None else directory / (spec.reference or ".")
    if spec.reference is None and given is None:
        raise CheckpointError(f"{directory / SPEC}: method is implicit, but no reference is named: pass reference=")
    if not path.is_dir():
        raise CheckpointError(f"{path}: the reference of {directory} is gone: restore it, or pass reference=")
    if spec.reference_sha256 and weight_files_sha256(path) != spec.reference_sha256:
        raise CheckpointError(f"{path}: not the reference that {directory} was trained with: pass reference=")
    return load_model(path, dtype=dtype, device=device)


def weight_files_sha256(directory: Path) -> str:
    """Checksum of a checkpoint's weights as they lie on disk."""
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.glob("*.safetensors") if p.name != "trainer.safetensors"):
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
