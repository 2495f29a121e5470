"""Before spending: how much memory and work the stages of a recipe need. Estimates, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1kit.config.data_path import expand
from r1kit.config.generate import GenerateSettings
from r1kit.config.graph import edge_part, main_model, stage_inputs, stage_order, stage_paths
from r1kit.config.merge import MergeSettings
from r1kit.config.preference import PreferenceSettings
from r1kit.config.reward_model import RewardModelSettings
from r1kit.config.schedules import phases_of
from r1kit.config.schema import EvaluateSettings, PretrainSettings, Recipe, RLSettings, StageSettings
from r1kit.config.supervised import SFTSettings
from r1kit.pipeline.memory import PROCESS_BYTES, Computing, Memory, Shape, cached, laid_out, passes, sampled, trained

PROMPT_TOKENS = 64
# Mean response of a tiny policy as a share of its cap, and groups sampled for each group trained.
RESPONSE_SHARE, OVERSAMPLING = 0.5, 1.3
# Rows of the engine by which a stage is measured while it trains: LocalEngine's own number.
ENGINE_SLOTS = 128
# Columns of the table that are not called as the parts of Memory.
LABELS = {"cache": "KV cache"}


@dataclass(frozen=True)
class StagePlan:
    """`memory` of each of the `processes`, and operations of the matrix products in training and decoding."""

    name: str
    memory: Memory
    processes: int
    train_flops: float = 0.0
    decode_flops: float = 0.0

    @property
    def memory_bytes(self) -> int:
        """Over all processes."""
        return self.memory.total * self.processes

    @property
    def gpu_bytes(self) -> int:
        """Memory on the GPU of one of the processes: all of its part but the interpreter's."""
        return self.memory.total - self.memory.process


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
        how = Computing(recipe.dtype == "bfloat16", recipe.device == "cuda")
        judges = sum(judge.parameters for judge in _judges(stage, shapes)) * how.size
        memory = Memory(process=PROCESS_BYTES, beside=judges) + _memory(stage, shape, how)
        plans.append(StagePlan(name, memory, int(recipe.processes), *_work(stage, shape)))
    return plans


def memory_table(plans: Sequence[StagePlan], on_gpu: bool) -> list[str]:
    """MiB of each process by what they hold, a row per stage; on a GPU without the interpreter's. What no stage holds
    has no column."""
    memories = [replace(plan.memory, process=0) if on_gpu else plan.memory for plan in plans]
    columns = {name: [getattr(memory, name) for memory in memories] for name in vars(memories[0])}
    columns = {name: sizes for name, sizes in columns.items() if any(sizes)}
    columns["in all"] = [memory.total for memory in memories]
    names = [f"MiB a {'GPU' if on_gpu else 'process'}", *(plan.name for plan in plans)]
    table = [names, *([LABELS.get(name, name), *map(_mib, sizes)] for name, sizes in columns.items())]
    widths = [max(map(len, cells)) for cells in table]
    rows = zip(*table, strict=True)
    return [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    ]


def _mib(size: int) -> str:
    mib = size / (1 << 20)
    return "-" if not size else f"{mib:.1f}" if mib < 10 else f"{mib:,.0f}"


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


def _memory(stage: StageSettings, shape: Shape, how: Computing) -> Memory:
    """What a stage holds beside the interpreter and its judges."""
    if isinstance(stage, EvaluateSettings):
        return sampled(shape, replace(how, native=stage.native), *_asked(stage, stage.slots))
    if isinstance(stage, MergeSettings):
        # A merge itself holds a tensor of each model.
        measured = stage.evaluate
        how = replace(how, native=measured.native)
        return sampled(shape, how, *_asked(measured, measured.slots)) if stage.grid else Memory()
    if isinstance(stage, GenerateSettings):
        rows, length = stage.engine.slots, PROMPT_TOKENS + stage.sampling.max_tokens
        return sampled(shape, replace(how, native=stage.engine.native), rows, length)
    if isinstance(stage, RLSettings):
        return _reinforced(stage, shape, how)
    if isinstance(stage, PreferenceSettings | RewardModelSettings):
        return _judged(stage, shape, how)
    if isinstance(stage, PretrainSettings):
        how = replace(how, native=stage.native)
        learned = trained(shape, how) + passes(shape, how, stage.token_budget, stage.document_length)
        return learned + _measured(stage, shape, how)
    if isinstance(stage, SFTSettings):
        rank = stage.lora.rank if stage.lora else None
        how = replace(how, native="off" if rank or stage.recompute or stage.neftune_alpha else stage.native)
        micro = (stage.token_budget, stage.max_tokens)
        learned = passes(shape, how, *micro, recompute=stage.recompute, head_trained=rank is None)
        return trained(shape, how, rank=rank) + learned + _measured(stage, shape, replace(how, native="off"))
    return Memory()


def _asked(measured: Any, slots: int) -> tuple[int, int]:
    """Rows and tokens of the cache in a measurement: of free slots nothing is touched."""
    return min(slots, measured.problems * measured.samples), PROMPT_TOKENS + measured.max_tokens


def _measured(stage: Any, shape: Shape, how: Computing) -> Memory:
    """The engine by which a stage is measured while it trains."""
    if not stage.evaluate.every:
        return Memory()
    return Memory(weights=laid_out(shape, how)) + cached(shape, how, *_asked(stage.evaluate, ENGINE_SLOTS))


def _reinforced(stage: RLSettings, shape: Shape, how: Computing) -> Memory:
    """A policy that is sampled and trained, and what stands beside it."""
    # A schedule that raises the cap raises what has to fit.
    phases = [settings for _, settings in phases_of(stage)]
    length = PROMPT_TOKENS + max(phase.sampling.max_tokens for phase in phases)
    rank = stage.lora.rank if stage.lora else None
    train, decode = replace(how, native=stage.native), replace(how, native=stage.engine.native)
    # Under adapters the reference takes nothing.
    refers = rank is None and any(phase.algorithm.kl_coef > 0 for phase in phases)
    beside = shape.parameters * (how.size * refers + _beside_policy(stage))
    return (
        trained(shape, train, rank=rank)
        + passes(shape, train, stage.token_budget, length, recompute=stage.recompute, head_trained=rank is None)
        + Memory(weights=laid_out(shape, decode), beside=beside)
        + cached(shape, decode, stage.engine.slots, length)
    )


def _judged(stage: PreferenceSettings | RewardModelSettings, shape: Shape, how: Computing) -> Memory:
    """What is trained and its reference, which takes nothing where it is the model under the adapters."""
    lora = stage.lora if isinstance(stage, PreferenceSettings) else None
    rank = lora.rank if lora else None
    how = replace(how, native="off" if lora else stage.native)
    micro = passes(shape, how, stage.token_budget, stage.max_tokens, head_trained=rank is None)
    learned = trained(shape, how, rank=rank) + micro
    if isinstance(stage, PreferenceSettings):
        refers = stage.needs_reference and not (lora and stage.reference_model is None)
        learned += _measured(stage, shape, replace(how, native="off"))
    else:
        refers = stage.method == "implicit"
    if not refers:
        return learned
    reference = shape.parameters * how.size
    if stage.reference == "precomputed":
        # Its log-probs are made before there are activations, and it is gone then.
        reference = max(0, reference - micro.total)
    return learned + Memory(beside=reference)


def _beside_policy(stage: RLSettings) -> int:
    """Bytes per parameter of the models that an rl stage trains beside its policy: weights, gradient, two moments."""
    critic, process = stage.algorithm.critic, stage.algorithm.process
    learned = 16 * ((critic is not None and critic.trunk == "separate") + (process is not None))
    return learned + (4 if process is not None else 0)


def _work(stage: StageSettings, shape: Shape) -> tuple[float, float]:
    """Operations of the matrix products in training and in decoding, of the stages of the quick start."""
    work = 2.0 * shape.matmul_parameters
    if isinstance(stage, PretrainSettings):
        return 3 * work * stage.tokens, 0.0
    if isinstance(stage, RLSettings):
        # That of the dearest phase.
        phases = [settings for _, settings in phases_of(stage)]
        per_step = max(p.problems_per_step * p.samples_per_problem * p.sampling.max_tokens for p in phases)
        tokens = stage.steps * per_step * RESPONSE_SHARE
        return 3 * work * tokens, work * tokens * OVERSAMPLING
    if isinstance(stage, EvaluateSettings):
        return 0.0, work * stage.problems * stage.samples * stage.max_tokens * RESPONSE_SHARE
    return 0.0, 0.0
