"""`r1kit export --adapters`: the adapters of a stage trained with `lora`, as PEFT loads them on the model under them.

An adapter of r1kit may stand on a fused matrix (query, key and value; gate and up), whose parts share the factor A: in
PEFT each part has a copy of it and its own rows of B, in Hugging Face's order of rotary pairs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from r1kit.models.checkpoint import to_hf_state
from r1kit.models.decoder import Decoder
from r1kit.models.loading import load_model
from r1kit.models.lora import LoRAModel
from r1kit.pipeline.export_origin import Made, Origin
from r1kit.pipeline.export_proofs import (
    LENGTH,
    REFUSED,
    Finding,
    adapted_model,
    allowed,
    kept_by_trainer,
    logprob_gap,
    over,
    quiet,
    spread_tokens,
)
from r1kit.pipeline.files import RunError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def trained_adapters(source: Path, about: Made) -> tuple[LoRAModel, Origin]:
    """The model with the adapters that trained `source`. RunError where there are none, or no model under them."""
    if "adapters" not in kept_by_trainer(source):
        raise RunError(f"{source} was not trained with adapters (lora): export it without --adapters")
    found = adapted_model(source, about)
    if isinstance(found, str):
        raise RunError(f"{source}: the model under its adapters is not at hand: {found}")
    return found


def factors(adapted: LoRAModel) -> dict[str, tuple[Tensor, Tensor]]:
    """(A [rank, in], B [out, rank]) by the name of the module that they stand on in Transformers."""
    inner, targets = adapted.inner, adapted.targets
    if not isinstance(inner, Decoder):
        pairs = zip(adapted.down, adapted.up, strict=True)
        modules = [name.removeprefix("inner.").removesuffix(".weight") for name in targets]
        return dict(zip(modules, pairs, strict=True))
    # A last column that holds the number of the adapter says which one each part of a fused matrix belongs to.
    state = {name: torch.full((*p.shape[:1], 1), -1.0) for name, p in inner.state_dict().items()}
    for number, (name, up) in enumerate(zip(targets, adapted.up, strict=True)):
        state[name] = torch.cat([up.detach().float(), torch.full((len(up), 1), float(number))], dim=1)
    parts = {name: part for name, part in to_hf_state(state, inner.config).items() if part[0, -1] >= 0}
    return {
        name.removesuffix(".weight"): (adapted.down[int(part[0, -1])], part[:, :-1].to(adapted.up[0].dtype))
        for name, part in parts.items()
    }


def write_adapters(adapted: LoRAModel, base: Path, directory: Path) -> None:
    """adapter_config.json and adapter_model.safetensors of PEFT."""
    found = factors(adapted)
    tensors = {}
    for name, pair in found.items():
        for letter, factor in zip("AB", pair, strict=True):
            # Parts of a fused matrix share A, and a file of tensors has no shared ones.
            tensors[f"base_model.model.{name}.lora_{letter}.weight"] = factor.detach().clone().contiguous()
    rank = len(next(iter(found.values()))[0])
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.resolve()),
        "r": rank,
        "lora_alpha": adapted.scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in found}),
        "inference_mode": True,
    }
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / CONFIG).write_text(json.dumps(config, indent=1))


def beside_peft(adapted: LoRAModel, origin: Origin, directory: Path) -> tuple[float, Finding]:
    """PEFT's model of what was written, against the trainer's factors on the model under them, both in float32.

    Returns the largest difference in log-probs, in nats. RunError where it is not below what is `allowed`.
    """
    from peft import PeftModel

    rank = adapted.down[0].shape[0]
    ours: Any = LoRAModel(load_model(origin.path), rank=rank, alpha=adapted.scale * rank)
    with torch.no_grad(), quiet():
        for mine, trained in zip(ours.parameters(), adapted.parameters(), strict=True):
            mine.copy_(trained)
        ours.merge_()
        plain = AutoModelForCausalLM.from_pretrained(
            origin.path, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
        try:
            theirs = PeftModel.from_pretrained(plain, str(directory)).eval()
        except ValueError as error:  # a matrix that is no linear layer
            raise RunError(
                f"PEFT cannot adapt this architecture as r1kit does ({error}): leave --adapters out"
            ) from error
        text = spread_tokens(ours.config.vocab_size, min(LENGTH, ours.config.max_positions))
        gap = float(torch.stack([logprob_gap(ours.inner, theirs, ids) for ids in text]).max())
        limit = allowed(gap, theirs, text)
    if not gap < limit:
        raise RunError(
            f"{directory}: PEFT and r1kit differ by {gap:.2g} nats in log-probs (expected: less than {limit:.2g}): "
            f"{REFUSED}"
        )
    return gap, Finding("peft", f"it loads {len(factors(adapted))} adapted matrices{over(text)}")
