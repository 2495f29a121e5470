"""Before spending: how much memory and work the stages of a recipe need. Estimates, from shapes alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from r1kit.config.data_path import expand
from r1kit.config.generate import GenerateSettings
from r1kit.config.graph import edge_part, main_model, stage_inputs, stage_order, stage_paths
from r1kit.config.merge import MergeSettings
from r1kit.config.parts import ModelSettings
from r1kit.config.preference import PreferenceSettings
from r1kit.config.reward_model import RewardModelSettings
from r1kit.config.schedules import phases_of
from r1kit.config.schema import EvaluateSettings, PretrainSettings, Recipe, RLSettings, StageSettings
from r1kit.config.supervised import SFTSettings

# Entries of the tiny tokenizer, rounded up; it is not imported here because that takes seconds.
TINY_VOCABULARY = 256
# Interpreter, torch, Transformers and the task's tables, per process.
PROCESS_BYTES = 600 << 20
PROMPT_TOKENS = 64
# Mean response of a tiny policy as a share of its cap, and groups sampled for each group trained.
RESPONSE_SHARE, OVERSAMPLING = 0.5, 1.3


@dataclass(frozen=True)
class Shape:
    """What a model's size depends on."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    tied: bool

    @classmethod
    def of_settings(cls, model: ModelSettings) -> Shape:
        return cls(
            TINY_VOCABULARY,
            model.hidden,
            model.layers,
            model.heads,
            model.kv_heads,
            model.head_dim,
            model.intermediate,
            model.tie_embeddings,
        )

    @classmethod
    def of_directory(cls, path: Path) -> Shape | None:
        """Read from a Hugging Face config.json; None where there is none, or where it names its sizes otherwise."""
        file = path / "config.json"
        if not file.is_file():
            return None
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            heads = raw["num_attention_heads"]
            return cls(
                raw["vocab_size"],
                raw["hidden_size"],
                raw["num_hidden_layers"],
                heads,
                raw.get("num_key_value_heads") or heads,
                raw.get("head_dim") or raw["hidden_size"] // heads,
                raw["intermediate_size"],
                bool(raw.get("tie_word_embeddings", False)),
            )
        except (json.JSONDecodeError, KeyError):
            return None  # a damaged file is named where the model's lengths are looked at

    @property
    def matmul_parameters(self) -> int:
        """Parameters that every token multiplies with, the head included."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        return self.matmul_parameters + (0 if self.tied else self.vocabulary * self.hidden)

    def trained_bytes(self, *, bf16: bool, rank: int | None = None) -> int:
        """Weights, gradient and optimiser in float32, and a bf16 copy; with adapters of `rank` theirs, and beside the
        model its matrices as they were and as a forward pass sums them."""
        if rank is None:
            return self.parameters * (4 + 4 + 8 + (4 if bf16 else 0))
        matrices = self.matmul_parameters - self.vocabulary * self.hidden
        adapters = self.adapter_parameters(rank) * (16 + (4 if bf16 else 0))
        return (self.parameters + 2 * matrices) * (2 if bf16 else 4) + adapters

    def adapter_parameters(self, rank: int) -> int:
        """Both factors of each matrix of the layers: query, key and value in one; output; gate and up in one; down."""
        queries, keys = self.head_dim * self.heads, self.head_dim * self.kv_heads
        sides = 4 * self.hidden + (queries + 2 * keys) + queries + 3 * self.intermediate
        return self.layers * rank * sides

    def training_bytes(self, token_budget: int, *, bf16: bool, reference: bool, rank: int | None = None) -> int:
        """What is trained, activations of one micro-batch, a reference: under adapters it takes nothing."""
        weights = self.trained_bytes(bf16=bf16, rank=rank) + self.parameters * (4 if reference and rank is None else 0)
        width = 8 * self.hidden + 4 * self.head_dim * (self.heads + self.kv_heads) + 4 * self.intermediate
        activations = token_budget * (self.layers * width + 3 * self.vocabulary) * (2 if bf16 else 4)
        return weights + activations

    def chunked_training_bytes(self, token_budget: int, *, bf16: bool, recompute: bool, rank: int | None = None) -> int:
        """The same where only learned tokens meet the head, a chunk of logits at a time; with `recompute` one layer's
        activations and the inputs of the others."""
        width = 8 * self.hidden + 4 * self.head_dim * (self.heads + self.kv_heads) + 4 * self.intermediate
        kept = self.layers * self.hidden + width if recompute else self.layers * width
        logits = 2 * max(256, (1 << 18) // self.vocabulary) * self.vocabulary * 4
        activations = token_budget * (kept + 3 * self.hidden) * (2 if bf16 else 4)
        return self.trained_bytes(bf16=bf16, rank=rank) + activations + logits

    def decoding_bytes(self, slots: int, length: int, *, bf16: bool) -> int:
        """Weights and the key/value cache of `slots` responses of `length` tokens."""
        cache = slots * length * self.layers * 2 * self.kv_heads * self.head_dim
        return (cache + self.parameters) * (2 if bf16 else 4)


@dataclass(frozen=True)
class StagePlan:
    """Memory over all processes, and operations of the matrix products in training and decoding."""

    name: str
    memory_bytes: int
    train_flops: float
    decode_flops: float

    def gpu_bytes(self, processes: int) -> int:
        """Memory on the GPU of one of the processes: all of its part but the interpreter's."""
        return self.memory_bytes // processes - PROCESS_BYTES


def plan_stages(recipe: Recipe) -> list[StagePlan]:
    """One row per stage whose model's shape is known; `recipe` is resolved."""
    shapes: dict[str, Shape] = {}
    plans = []
    for name in stage_order(recipe):
        stage = recipe.stages[name]
        shape = _shape(recipe, name, shapes)
        if shape is None:
            continue
        shapes[name] = shape
        processes, bf16 = int(recipe.processes), recipe.dtype == "bfloat16"
        plan = _plan(name, stage, shape, processes, bf16=bf16)
        judges = sum(judge.parameters for judge in _judges(stage, shapes)) * (2 if bf16 else 4) * processes
        plans.append(replace(plan, memory_bytes=plan.memory_bytes + judges))
    return plans


def _shape(recipe: Recipe, name: str, shapes: dict[str, Shape]) -> Shape | None:
    stage = recipe.stages[name]
    if isinstance(stage, PretrainSettings):
        return Shape.of_settings(stage.model)
    upstream, path = main_model(stage)
    if path is not None:
        return Shape.of_directory(expand(path))
    return shapes.get(upstream) if upstream is not None else None


def _judges(stage: StageSettings, shapes: Mapping[str, Shape]) -> list[Shape]:
    """The reward models that judge for a stage; each is held once, however many parts of the reward name it."""
    valued = stage.valued_parts if isinstance(stage, RLSettings) else ()
    stages = {upstream for key, upstream in stage_inputs(stage).items() if edge_part(key) in valued}
    paths = {expand(path) for key, path in stage_paths(stage).items() if edge_part(key) in valued}
    found = [*(shapes.get(upstream) for upstream in sorted(stages)), *map(Shape.of_directory, sorted(paths))]
    return [shape for shape in found if shape is not None]


def _plan(name: str, stage: object, shape: Shape, processes: int, *, bf16: bool) -> StagePlan:
    memory, train, decode = PROCESS_BYTES, 0.0, 0.0
    work = 2.0 * shape.matmul_parameters
    if isinstance(stage, PretrainSettings):
        memory += shape.training_bytes(stage.token_budget, bf16=bf16, reference=False)
        train = 3 * work * stage.tokens
    elif isinstance(stage, SFTSettings):
        memory += shape.chunked_training_bytes(
            stage.token_budget, bf16=bf16, recompute=stage.recompute, rank=stage.lora.rank if stage.lora else None
        )
    elif isinstance(stage, PreferenceSettings | RewardModelSettings):
        memory += _judged_bytes(stage, shape, bf16=bf16)
    elif isinstance(stage, RLSettings):
        # A schedule that raises the cap raises what has to fit; the work is that of its dearest phase.
        phases = [settings for _, settings in phases_of(stage)]
        reference = any(phase.algorithm.kl_coef > 0 for phase in phases)
        rank = stage.lora.rank if stage.lora else None
        memory += shape.training_bytes(stage.token_budget, bf16=bf16, reference=reference, rank=rank)
        memory += shape.parameters * _beside_policy(stage)
        cap = max(phase.sampling.max_tokens for phase in phases)
        memory += shape.decoding_bytes(stage.engine.slots, PROMPT_TOKENS + cap, bf16=bf16)
        per_step = max(p.problems_per_step * p.samples_per_problem * p.sampling.max_tokens for p in phases)
        tokens = stage.steps * per_step * RESPONSE_SHARE
        train, decode = 3 * work * tokens, work * tokens * OVERSAMPLING
    elif isinstance(stage, GenerateSettings):
        memory += shape.decoding_bytes(stage.engine.slots, PROMPT_TOKENS + stage.sampling.max_tokens, bf16=bf16)
    elif isinstance(stage, MergeSettings) and stage.grid:
        # A merge itself holds a tensor of each model.
        measured = stage.evaluate
        memory += shape.decoding_bytes(measured.slots, PROMPT_TOKENS + measured.max_tokens, bf16=bf16)
    elif isinstance(stage, EvaluateSettings):
        memory += shape.decoding_bytes(stage.slots, PROMPT_TOKENS + stage.max_tokens, bf16=bf16)
        decode = work * stage.problems * stage.samples * stage.max_tokens * RESPONSE_SHARE
    return StagePlan(name, memory * processes, train, decode)


def _judged_bytes(stage: PreferenceSettings | RewardModelSettings, shape: Shape, *, bf16: bool) -> int:
    """What is trained and its reference, which takes nothing where it is the model under the adapters."""
    lora = stage.lora if isinstance(stage, PreferenceSettings) else None
    rank = lora.rank if lora else None
    training = shape.chunked_training_bytes(stage.token_budget, bf16=bf16, recompute=False, rank=rank)
    refers = stage.needs_reference if isinstance(stage, PreferenceSettings) else stage.method == "implicit"
    if not refers or (lora and stage.reference_model is None):
        return training
    reference = shape.parameters * (2 if bf16 else 4)
    if stage.reference == "on_the_fly":
        return training + reference
    # Log-probs that are made once are made before there are activations, and the reference is gone then.
    return max(training, shape.trained_bytes(bf16=bf16, rank=rank) + reference)


def _beside_policy(stage: RLSettings) -> int:
    """Bytes per parameter of the models that an rl stage trains beside its policy: weights, gradient, two moments."""
    critic, process = stage.algorithm.critic, stage.algorithm.process
    trained = 16 * ((critic is not None and critic.trunk == "separate") + (process is not None))
    return trained + (4 if process is not None else 0)
