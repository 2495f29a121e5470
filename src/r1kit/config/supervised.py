"""Settings of a supervised fine-tuning stage, and what published systems set them to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from r1kit.config.data import DataSettings, ThinkingOut
from r1kit.config.fields import Count, NonNegative, Positive, Share
from r1kit.config.parts import OptimizerSettings
from r1kit.config.rl import LoRASettings
from r1kit.config.stage import CompiledSettings, Decay, check_passes, fit_budget, under_preset

TOKEN_BUDGET = 16384
_ADAMW = {"lr": 1e-5, "betas": [0.9, 0.999]}


def _r1_distill(lr: float) -> dict[str, Any]:
    """DeepSeek-R1's distillation, 2-3 epochs on 800k samples; the rate goes by the student's size. The students'
    tokenizers have `<think>` and `</think>` as tokens, which those of their bases have not."""
    return {
        "epochs": 3,
        "batch_size": 64,
        "max_tokens": 32768,
        "decay": "cosine",
        "lr_floor": 0.1,
        "delimiters": "tokens",
        "optimizer": {"lr": lr},
    }


_SKY = {"epochs": 3, "batch_size": 96, "max_tokens": 16384, "too_long": "cut", "thinking": "sky_t1", "decay": "cosine"}
# Epochs are chosen by answers as long as what is learned.
_LIGHT = {"max_tokens": 20000, "decay": "cosine", "select": "pass@1", "evaluate": {"max_tokens": 20000}}
_LIGHT_OPTIMIZER = {"weight_decay": 0.1, "betas": [0.9, 0.95]}

# Only what the sources state (docs/sft.md has the table and the gaps); everything else keeps its default.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "r1_distill_qwen_1.5b": _r1_distill(1e-4),
    "r1_distill_qwen_7b": _r1_distill(8e-5),
    "r1_distill_qwen_14b": _r1_distill(7e-5),
    "r1_distill_qwen_32b": _r1_distill(6e-5),
    "r1_distill_llama_8b": _r1_distill(5e-5),
    "r1_distill_llama_70b": _r1_distill(2e-5),
    "open_r1": {
        "epochs": 5,
        "batch_size": 128,
        "max_tokens": 32768,
        "too_long": "cut",
        "decay": "cosine",
        "lr_floor": 0.1,
        "warmup_share": 0.03,
        "grad_clip": 0.2,
        "max_positions": 32768,
        "rope_theta": 300000.0,
        "optimizer": {"lr": 4e-5},
    },
    "s1": {
        "epochs": 5,
        "batch_size": 16,
        "max_tokens": 32768,
        "too_long": "cut",
        "thinking": "s1",
        "decay": "cosine",
        "warmup_share": 0.05,
        "optimizer": {"lr": 1e-5, "weight_decay": 1e-4, "betas": [0.9, 0.95]},
    },
    "limo": {
        "epochs": 15,
        "max_tokens": 16384,
        "too_long": "cut",
        "decay": "cosine",
        "system": "Please reason step by step, and put your final answer within \\boxed{}.",
        "optimizer": {"lr": 5e-6},
    },
    "open_thoughts": {**_SKY, "warmup_share": 0.1, "optimizer": {"lr": 1e-5}},
    "sky_t1": {**_SKY, "optimizer": {"lr": 1e-5}},
    "light_r1_stage1": {
        **_LIGHT,
        "epochs": 100,
        "warmup_share": 0.01,
        "optimizer": {"lr": 5e-5, **_LIGHT_OPTIMIZER},
    },
    "light_r1_stage2": {**_LIGHT, "epochs": 10, "optimizer": {"lr": 1e-5, **_LIGHT_OPTIMIZER}},
    "journey": {"order": "in_turn", "epochs": 1},
}


class TrainingDataSettings(DataSettings):
    """A data set of an sft stage."""

    epochs: Count | None = Field(None, description="order in_turn only: passes over this set; none: the stage's")


class SFTSettings(CompiledSettings):
    """Supervised fine-tuning on conversations: the assistant's turns are learned, everything else is context."""

    edge_fields: ClassVar[tuple[str, ...]] = ("model", "data.path")
    produces_model: ClassVar[bool] = True
    kind: Literal["sft"] = "sft"
    preset: str | None = Field(None, description="published settings that fill what is not set here (docs/sft.md)")
    model: str = Field(description="model to start from: ${stage}, or a checkpoint directory")
    data: tuple[TrainingDataSettings, ...] = Field(min_length=1, description="data sets")
    order: Literal["mixed", "in_turn"] = Field(
        "mixed", description="all data sets shuffled together, or one after the other (a curriculum)"
    )
    epochs: Count = Field(3, description="passes over the data")
    max_steps: Count | None = Field(None, description="stop after this many optimiser steps; none: all epochs")
    batch_size: Count = Field(64, description="sequences of one optimiser step, over all processes")
    max_tokens: Count = Field(4096, description="longest sequence, in tokens")
    too_long: Literal["drop", "cut"] = Field("drop", description="longer sequences are left out or cut; both counted")
    token_budget: Count = Field(
        TOKEN_BUDGET, description="tokens in one micro-batch, per process; none: as many as the longest sequence needs"
    )
    thinking: ThinkingOut = Field("think", description="how thoughts are written; drop leaves them out")
    thought_weight: NonNegative = Field(1.0, description="weight of the thought's tokens in the loss")
    answer_weight: NonNegative = Field(1.0, description="weight of the answer's tokens in the loss")
    system: str | None = Field(None, description="system prompt of conversations that have none")
    chat_template: str | None = Field(None, description="chatml, chatml_think or a .jinja file; none: the tokenizer's")
    delimiters: Literal["as_is", "tokens"] = Field(
        "as_is",
        description="delimiters of a thought stay what the tokenizer makes of them, or become one token each as well",
    )
    add_tokens: tuple[str, ...] = Field((), description="texts that become one token each, where they are not yet")
    max_positions: Count | None = Field(None, description="positions the model is to know; none: as many as it does")
    rope_theta: Positive | None = Field(None, description="base of the rotary frequencies; none: the model's own")
    held_out_share: Share = Field(0.0, description="share of the prompts kept out of training, for the held-out loss")
    select: Literal["last", "loss", "pass@1"] = Field(
        "last", description="which epoch's model the stage hands on: the last, or the best by held-out measurement"
    )
    patience: Count | None = Field(None, description="stop after this many epochs without a better one")
    neftune_alpha: NonNegative = Field(0.0, description="noise on the embeddings (NEFTune); 0 is off, 5 is usual")
    lora: LoRASettings | None = Field(None, description="train adapters only; null trains all weights")
    recompute: bool = Field(
        False, description="make activations again in the backward pass: less memory, a third slower"
    )
    optimizer: OptimizerSettings
    warmup_share: Share = Field(0.0, description="share of the steps in which the learning rate rises")
    decay: Decay = "cosine"
    lr_floor: Share = Field(0.0, description="the learning rate ends at this share of lr")
    log_every: Count = 10
    checkpoint_every: Count = 100

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, raw: Any) -> Any:
        """The preset's settings under those that the recipe names."""
        if not isinstance(raw, dict):
            return raw
        filled = under_preset(raw, PRESETS)
        own = raw.get("optimizer", {})
        if isinstance(own, dict):  # what presets say of adamw means nothing to another optimizer
            adamw = own.get("name", "adamw") == "adamw"
            filled["optimizer"] = {**_ADAMW, **filled.get("optimizer", {})} if adamw else own
        fit_budget(filled, TOKEN_BUDGET)
        return filled

    @model_validator(mode="after")
    def _possible(self) -> SFTSettings:
        check_passes(self)
        if not (self.thought_weight or self.answer_weight):
            raise ValueError("thought_weight and answer_weight are both 0: nothing would be learned")
        if self.select == "loss" and not self.held_out_share:
            raise ValueError("select is loss, but nothing is held out: set held_out_share, for example 0.02")
        if self.patience and self.select == "last":
            raise ValueError("patience stops where no epoch is better, and select: last never looks: set select")
        if self.lora is not None and (self.add_tokens or self.recompute):
            raise ValueError(
                "lora trains the matrices of the layers alone: new tokens (add_tokens) would never be learned, and "
                "recompute works on the model's own weights; take them out, or train all weights (lora: null)"
            )
        if self.delimiters == "tokens" and self.thinking == "drop":
            raise ValueError(
                "delimiters: tokens are those of thoughts, but thinking is drop, which writes none: "
                "set delimiters: as_is, or name how thoughts are written (thinking: think)"
            )
        if self.order == "mixed" and any(d.epochs for d in self.data):
            raise ValueError("epochs of a data set have a meaning only with order: in_turn")
        return self
