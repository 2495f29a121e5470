"""Log-probs of whole responses under a frozen reference policy: kept on disk, or made when they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from r1kit.models.checkpoint import weights_checksum
from r1kit.models.loading import LanguageModel
from r1kit.models.marked import MarkedSequence, summed_logprobs
from r1kit.training.parallel import World
from r1kit.training.units import read_all


class Reference:
    """Summed log-probs of `sequences`, from `kept` or by `model`."""

    def __init__(
        self,
        model: LanguageModel | None,
        sequences: Sequence[MarkedSequence],
        kept: np.ndarray | None,
        token_budget: int,
    ) -> None:
        self.model, self.sequences, self.kept, self.token_budget = model, sequences, kept, token_budget

    @classmethod
    def make(
        cls,
        how: str,
        model: LanguageModel,
        sequences: Sequence[MarkedSequence],
        token_budget: int,
        directory: Path,
        world: World,
    ) -> Reference:
        """`how` is "precomputed" or "on_the_fly", which keeps the model's weights."""
        model.requires_grad_(False)
        if how == "on_the_fly":
            return cls(model, sequences, None, token_budget)
        return cls(None, sequences, cached_logprobs(model, sequences, token_budget, directory, world), token_budget)

    def logprobs(self, ids: Sequence[int]) -> Tensor:
        """float32 [len(ids)] on the CPU, in nats."""
        if self.kept is not None:
            return torch.from_numpy(self.kept[list(ids)]).float()
        found = read_all(self.model, [self.sequences[i] for i in ids], summed_logprobs, self.token_budget)
        return torch.tensor(np.concatenate(found), dtype=torch.float32)


def cached_logprobs(
    model: LanguageModel, sequences: Sequence[MarkedSequence], token_budget: int, directory: Path, world: World
) -> np.ndarray:
    """Summed log-probs of all sequences, float64, from `directory` where they were made of the same content before.

    The file's name is the hash of the model's weights and of the sequences, so nothing stale is ever read.
    """
    digest = hashlib.sha256(weights_checksum(model).encode())
    for sequence in sequences:
        digest.update(sequence.token_ids.tobytes() + b"|" + sequence.marks.tobytes() + b";")
    path = directory / f"reference-{digest.hexdigest()[:16]}.json"
    if world.broadcast(path.is_file() if world.is_main else None, "reference"):
        return np.array(json.loads(path.read_text()), dtype=np.float64)
    found = np.concatenate(read_all(model, sequences, summed_logprobs, token_budget, world))
    if world.is_main:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        try:
            temporary.write_text(json.dumps(found.tolist()))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    world.barrier("reference")
    return found
