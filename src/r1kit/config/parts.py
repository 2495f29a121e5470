"""What stages are made of: model shape, optimiser, sampling, engine, evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from r1kit.config.fields import Count, Native, Natural, NonNegative, Off, Positive, Settings, Share

Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]


class ModelSettings(Settings):
    """Shape of a decoder trained from scratch (Llama/Qwen family: RoPE, RMSNorm first, SwiGLU)."""

    hidden: Count = Field(128, description="width of the residual stream")
    layers: Count = Field(4, description="number of blocks")
    heads: Count = Field(2, description="query heads")
    kv_heads: Count = Field(1, description="key/value heads; heads must be a multiple of it")
    head_dim: Count = Field(64, description="width of one head; even, because RoPE turns pairs")
    intermediate: Count = Field(384, description="width of the gated MLP")
    rope_theta: Positive = Field(10000.0, description="base of the rotary frequencies")
    tie_embeddings: bool = Field(True, description="output head shares the embedding matrix")
    qk_norm: bool = Field(False, description="RMSNorm on queries and keys, as Qwen3")

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelSettings:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads is {self.heads}: expected a multiple of kv_heads {self.kv_heads}; change one of them"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}: expected an even number (rotary embedding turns pairs)")
        return self


class OptimizerSettings(Settings):
    """AdamW, or Muon on the matrices with AdamW (`adam_lr`) on embeddings and norms."""

    name: Literal["muon", "adamw"] = "adamw"
    lr: Positive = Field(3e-4, description="peak learning rate (of the matrices, with muon)")
    adam_lr: Positive | None = Field(None, description="muon only: peak rate of the embeddings and norms")
    betas: Betas = Field((0.9, 0.99), description="AdamW moments")
    eps: Positive = Field(1e-8, description="AdamW denominator")
    weight_decay: NonNegative = Field(
        0.0, description="decoupled weight decay: of all weights with adamw, of the matrices with muon"
    )
    momentum: Share = Field(0.95, description="muon only: Nesterov momentum")

    @model_validator(mode="after")
    def _rates(self) -> OptimizerSettings:
        if self.name == "muon" and self.adam_lr is None:
            raise ValueError("adam_lr is missing: muon needs it for embeddings and norms, for example adam_lr: 3e-3")
        if self.name == "adamw" and self.adam_lr is not None:
            raise ValueError(f"adam_lr is {self.adam_lr}: only muon reads it; remove it or set name: muon")
        return self


class SamplingSettings(Settings):
    """How responses are drawn from the policy."""

    temperature: NonNegative = Field(1.0, description="0 is greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Natural = Field(0, description="0 is off")
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_tokens: Count = Field(240, description="cap on a response, in tokens")


class EvalSettings(Settings):
    """One measurement: how many problems, how many samples of each, and how they are drawn."""

    problems: Count = Field(512, description="at most this many held-out problems (all, if there are fewer)")
    samples: Count = Field(8, description="samples per problem, k")
    max_tokens: Count = Field(240, description="cap on a response, in tokens")
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class TrainingEvalSettings(EvalSettings):
    """Evaluation on held-out problems while training goes on."""

    every: Natural = Field(0, description="steps between evaluations; 0 is off")
    verifier: Annotated[str, Off] = Field(
        "auto",
        description="second judge of the same responses, module:function or path/to/file.py:function; off; auto: the "
        "task's own rule where task.verifier took its place",
    )
    problems: Count = 128
    samples: Count = 4


class DynamicSamplingSettings(Settings):
    """DAPO's dynamic sampling: groups whose rewards are all equal carry no gradient and are replaced."""

    enabled: bool = True
    max_factor: Annotated[float, Field(ge=1)] = Field(
        3.0, description="sample at most this many times problems_per_step in a step"
    )
    carry: bool = Field(True, description="useful groups beyond the batch wait for the next step")
    rounds: Count = Field(1, description="times a step may sample again while it lacks useful groups")
    when_short: Literal["train", "wait"] = Field(
        "train", description="a step that still lacks useful groups trains on those it has, or keeps them for the next"
    )
    max_age: Count | None = Field(None, description="carried groups older than so many steps are dropped; none: kept")
    truncated: Literal["train", "mask"] = Field(
        "train", description="responses cut at the cap: trained, or their loss masked (DAPO's overlong filtering)"
    )

    @model_validator(mode="after")
    def _waits_with_carry(self) -> DynamicSamplingSettings:
        if self.when_short == "wait" and not self.carry:
            raise ValueError("when_short is wait but carry is false: groups that wait are carried; set carry: true")
        return self


class EngineSettings(Settings):
    """The local engine."""

    slots: Count = Field(256, description="responses decoded at a time, per process")
    deterministic: bool = Field(
        False, description="batching, slots and neighbours never change what is sampled, bitwise"
    )
    native: Native = Field(
        "off", description="decode in C++, compiled once on this machine: small float32 models on a CPU; needs g++"
    )
