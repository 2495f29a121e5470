"""Log-probs of whole responses under a frozen reference policy: kept on disk, or made when they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.atomic import write_atomic
from r1kit.models.checkpoint import CheckpointError, weights_checksum
from r1kit.models.loading import LanguageModel, load_model, load_tokenizer
from r1kit.models.marked import MarkedSequence, summed_logprobs
from r1kit.models.vocabulary import differing_tokens
from r1kit.training.beside import compiled
from r1kit.training.parallel import World
from r1kit.training.units import read_all


class Reference:
    """Summed log-probs of `sequences`, from `kept` or by `model`."""

    def __init__(
        self,
        model: Any,
        sequences: Sequence[MarkedSequence],
        kept: np.ndarray | None,
        token_budget: int,
    ) -> None:
        self.model, self.sequences, self.kept, self.token_budget = model, sequences, kept, token_budget

    @classmethod
    def make(
        cls,
        how: str,
        model: Any,
        sequences: Sequence[MarkedSequence],
        token_budget: int,
        directory: Path,
        world: World,
        native: str = "off",
    ) -> Reference:
        """`how` is "precomputed" or "on_the_fly", which keeps the model's weights. `native`: run as a stage does that
        trains compiled, so that policy and reference differ by their weights alone."""
        if how == "on_the_fly":
            return cls(compiled(model, native), sequences, None, token_budget)
        kept = cached_logprobs(model, sequences, token_budget, directory, world, native)
        return cls(None, sequences, kept, token_budget)

    def logprobs(self, ids: Sequence[int]) -> Tensor:
        """float32 [len(ids)] on the CPU, in nats."""
        if self.kept is not None:
            return torch.from_numpy(self.kept[list(ids)]).float()
        found = read_all(self.model, [self.sequences[i] for i in ids], summed_logprobs, self.token_budget)
        return torch.tensor(np.concatenate(found), dtype=torch.float32)


def load_reference(inputs: Mapping[str, Path], dtype: str, device: str = "cpu") -> LanguageModel:
    """The model a policy is compared with: `inputs["reference_model"]`, or what the policy starts from.

    CheckpointError where it reads other tokens than the policy writes: their log-probs would mean nothing.
    """
    policy = inputs["model"]
    path = inputs.get("reference_model", policy)
    tokenizer = load_tokenizer(path)
    unlike = differing_tokens(load_tokenizer(policy), tokenizer) if path != policy else ""
    if unlike:
        raise CheckpointError(
            f"{path}: the tokenizer of the reference is not that of {policy} ({unlike}): name a reference that was "
            "made from the same base"
        )
    return load_model(path, dtype=dtype, device=device, tokenizer=tokenizer)


def cached_logprobs(
    model: Any,
    sequences: Sequence[MarkedSequence],
    token_budget: int,
    directory: Path,
    world: World,
    native: str = "off",
) -> np.ndarray:
    """Summed log-probs of all sequences, float64, from `directory` where they were made of the same content before.

    The file's name is the hash of the model's weights, of how it runs and of the sequences, so nothing stale is ever
    read.
    """
    digest = hashlib.sha256(f"{weights_checksum(model)} {native}".encode())
    for sequence in sequences:
        digest.update(sequence.token_ids.tobytes() + b"|" + sequence.marks.tobytes() + b";")
    path = directory / f"reference-{digest.hexdigest()[:16]}.json"
    kept = _kept(path)
    if world.broadcast(kept is not None if world.is_main else None, "reference"):
        return np.array(kept, dtype=np.float64)
    network = compiled(model, native)
    found = np.concatenate(read_all(network, sequences, summed_logprobs, token_budget, world))
    if world.is_main:
        write_atomic(path, json.dumps(found.tolist()))
    world.barrier("reference")
    return found


def _kept(path: Path) -> list[float] | None:
    """None where there is nothing to read; damaged numbers are made again, and come out the same."""
    try:
        values: list[float] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return values
