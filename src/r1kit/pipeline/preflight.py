"""`r1kit check`: proves, before a token is sampled, that a recipe can work.

A correct answer must be able to score full marks under the recipe's template and format rule, every gold must
verify, training and held-out problems must share no family, the batch numbers must fit, and so must the memory; the
tags of a checkpoint must be trained, its responses must be able to end, one step of the objective must move the
policy the way the reward and each penalty mean it to, and no part of a reward may pay its contrary (in every phase of
a schedule).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from r1kit.config.data_path import expand
from r1kit.config.errors import ConfigError, UserError
from r1kit.config.graph import edge_output, edge_part, stage_paths
from r1kit.config.schedules import phases_of
from r1kit.config.schema import EvaluateSettings, PretrainSettings, Recipe, RLSettings, StageSettings
from r1kit.config.tasks import ArithmeticSettings, TaskSettings
from r1kit.pipeline.files import RunError
from r1kit.pipeline.lengths import WITNESSES, Lengths, measured_lengths, root_model, stage_lengths
from r1kit.pipeline.lineage import gpu_memory_bytes, memory_bytes
from r1kit.pipeline.plan import memory_table, plan_stages
from r1kit.pipeline.preflight_data import data_checks
from r1kit.pipeline.preflight_model import model_checks
from r1kit.pipeline.preflight_parts import part_checks
from r1kit.pipeline.preflight_reward import full_marks, right_response
from r1kit.pipeline.preflight_signs import sign_checks
from r1kit.pipeline.progress import gib
from r1kit.pipeline.trackers import missing_trackers

if TYPE_CHECKING:
    from r1kit.records import Problem
    from r1kit.tasks import Task

DRAWN = 4096
PROGRAMS = 32  # right responses tried where each runs a program


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it holds, and what was found; `table`: lines that say more."""

    name: str
    ok: bool
    found: str
    table: tuple[str, ...] = ()


def preflight(recipe: Recipe) -> Iterator[Check]:
    """Every check in turn; `recipe` is resolved and has passed its schema."""
    yield Check("settings", True, f"{recipe.dtype}, processes {recipe.processes}, seed {recipe.seed}")
    yield from _batches(recipe)
    yield from _models(recipe)
    yield from (Check(*found) for found in data_checks(recipe))
    yield _memory(recipe)
    yield from _trackers(recipe)
    yield from _task(recipe)


def refuse_unsound(recipe: Recipe) -> None:
    """Raise RunError with every check that fails."""
    failed = [f"    {check.name}: {check.found}" for check in preflight(recipe) if not check.ok]
    if failed:
        raise RunError("this recipe cannot work as it stands:\n" + "\n".join(failed))


def _batches(recipe: Recipe) -> Iterator[Check]:
    for name, stage in recipe.stages.items():
        if isinstance(stage, PretrainSettings):
            yield Check(f"{name}: batch", True, f"{stage.steps} steps of {stage.tokens_per_step} tokens")
        elif isinstance(stage, RLSettings):
            for phase, settings in _phases_of(name, stage):
                yield _rl_batch(phase, settings, int(recipe.processes))


def _phases_of(name: str, stage: RLSettings) -> list[tuple[str, RLSettings]]:
    """What a stage and its settings are called in each phase of its schedule; the stage itself where it has none."""
    return [(f"{name} ({phase})" if phase else name, settings) for phase, settings in phases_of(stage)]


def _rl_batch(name: str, stage: RLSettings, processes: int) -> Check:
    rollouts = stage.problems_per_step * stage.samples_per_problem
    micro, minibatches = stage.token_budget // (stage.sampling.max_tokens + 1), stage.algorithm.minibatches
    found = (
        f"{stage.steps} steps of {stage.problems_per_step} problems x {stage.samples_per_problem} "
        f"samples = {rollouts} responses; a micro-batch holds at least {micro} of them, on each of "
        f"{processes} processes"
    )
    if rollouts % minibatches:
        found += f"; {rollouts} do not divide into {minibatches} minibatches: change minibatches or the batch"
    if stage.problems_per_step < processes:
        found += f"; a problem is sampled by one process, so {processes - stage.problems_per_step} wait meanwhile"
    return Check(f"{name}: batch", not rollouts % minibatches, found)


def _models(recipe: Recipe) -> Iterator[Check]:
    for name, stage in recipe.stages.items():
        for key, text in stage_paths(stage).items():
            if edge_output(key) != "model":
                continue
            model = expand(text)
            ok = (model / "config.json").is_file()
            found = (
                "has a config.json"
                if ok
                else f"no checkpoint directory (no config.json); hf download NAME --local-dir {model} fetches one"
            )
            if ok and edge_part(key):
                ok, found = _judges(model)
            yield Check(f"{name}: {key}", ok, f"{model}: {found}")


def _judges(model: Path) -> tuple[bool, str]:
    """Whether a checkpoint gives scores, and what it is."""
    from r1kit.models.checkpoint import CheckpointError
    from r1kit.models.loading import is_value_model
    from r1kit.models.reward_model import RewardModelSpec

    try:
        spec, has_head = RewardModelSpec.read(model), is_value_model(model)
    except CheckpointError as error:
        return False, str(error)
    if spec is None and not has_head:
        return False, "a language model, which gives no scores; name a reward model"
    return True, f"a reward model ({spec.method if spec else 'a classifier with one label'})"


def _memory(recipe: Recipe) -> Check:
    plans, on_gpu = plan_stages(recipe), recipe.device == "cuda"
    available = gpu_memory_bytes() if on_gpu else memory_bytes()
    if not plans:
        return Check("memory", True, "not estimated: no stage's model can be read yet")
    most = max(plans, key=lambda plan: plan.memory_bytes)
    needed = most.gpu_bytes if on_gpu else most.memory_bytes
    ok = available is None or needed < 0.9 * available
    advice = "" if ok else f"; lower token_budget{' or slots' if on_gpu else ', slots or processes'}"
    room = f" of {gib(available)}" if available is not None else ""
    found = f"at most {gib(needed)}{' a GPU' if on_gpu else ''} (stage {most.name}, estimated){room}{advice}"
    return Check("memory", ok, found, tuple(memory_table(plans, on_gpu)))


def _trackers(recipe: Recipe) -> Iterator[Check]:
    for name, error in missing_trackers(recipe.track).items():
        yield Check(f"track.{name}", False, error)


def _task(recipe: Recipe) -> Iterator[Check]:
    from r1kit.sandbox import use_sandbox
    from r1kit.tasks import make_task

    sandboxes: list[str] = []
    use_sandbox(recipe.sandbox, sandboxes.append)
    task = make_task(_limited(recipe))
    train, test = task.problems("train"), task.problems("test")
    for note in getattr(task, "notes", list)():
        yield Check("task data", True, note)
    shared = {p.family for p in train} & {p.family for p in test}
    trains = any(isinstance(stage, (PretrainSettings, RLSettings)) for stage in recipe.stages.values())
    filled = bool(test and (train or not trains))
    yield Check(
        "train and held-out are disjoint",
        filled and not shared,
        f"{len(train)} training and {len(test)} held-out problems, {len(shared)} shared families"
        + (f", such as {sorted(shared)[0]}" if shared else "")
        + ("" if filled else ": one side is empty; widen the task or move task.test_share"),
    )
    if not filled:
        return
    yield from _corpora(recipe)
    yield from _enough_problems(recipe, len(train))
    yield _golds(task, [*witnessed(train), *witnessed(test)])
    yield from (Check("sandbox", True, line.removeprefix("sandbox: ")) for line in sandboxes)
    for name, stage in recipe.stages.items():
        yield from _second_verifier(name, stage, witnessed(test))
        if isinstance(stage, RLSettings):
            yield Check(f"{name}: reward", True, stage.reward.described().removeprefix("reward: "))
            for phase, settings in _phases_of(name, stage):
                yield Check(*full_marks(phase, settings, task, witnessed(train)))
            yield from (Check(*found) for found in (*sign_checks(name, stage), *part_checks(name, stage)))
            yield from _mixes(recipe, name, stage, train)
    yield from _lengths(recipe, train, test)
    yield from _checkpoints(recipe, witnessed(train) or train[:1])


def _checkpoints(recipe: Recipe, problems: Sequence[Problem]) -> Iterator[Check]:
    """Of each checkpoint that an rl stage goes back to: trained tags, a stop token that can come."""
    from r1kit.models.chat import PromptError
    from r1kit.models.checkpoint import CheckpointError
    from r1kit.tasks import witness_response

    roots = {root_model(recipe, name) for name, stage in recipe.stages.items() if isinstance(stage, RLSettings)}
    texts = [text for problem in problems[:1] if (text := witness_response(problem)) is not None]
    for model in sorted(root for root in roots if root is not None and (root / "config.json").is_file()):
        try:
            yield from (Check(*found) for found in model_checks(model, problems[:1], texts))
        except (CheckpointError, PromptError):
            continue  # `_lengths` says so


def _corpora(recipe: Recipe) -> Iterator[Check]:
    """The text a tiny base reads is written about the problems of a task of numbers."""
    for name, stage in recipe.stages.items():
        if isinstance(stage, PretrainSettings) and not isinstance(recipe.task, ArithmeticSettings):
            advice = "start from a checkpoint instead (model: its directory)"
            found = f"text to pretrain on is there for countdown and multiplication, not for {recipe.task.name}"
            yield Check(f"{name}: corpus", False, f"{found}: {advice}")


def witnessed(problems: Sequence[Problem]) -> list[Problem]:
    """The first problems of which a right response is known: WITNESSES of them, fewer where judging runs programs."""
    from r1kit.tasks import witness_response

    known = (problem for problem in problems if witness_response(problem) is not None)
    programs = bool(problems) and problems[0].payload.get("kind") == "code"
    return list(islice(known, PROGRAMS if programs else WITNESSES))


def _limited(recipe: Recipe) -> TaskSettings:
    """Fewer training problems where a recipe draws very many: a sample shows what is looked for."""
    task, drawn = recipe.task, recipe.task.train_problems
    steps = [stage.problems_per_step for stage in recipe.stages.values() if isinstance(stage, RLSettings)]
    enough = max([DRAWN, *steps])
    return task.model_copy(update={"train_problems": enough}) if drawn and drawn > enough else task


def _enough_problems(recipe: Recipe, problems: int) -> Iterator[Check]:
    """A step trains on different problems: where there are fewer, it would silently be smaller than asked."""
    for name, stage in recipe.stages.items():
        if isinstance(stage, RLSettings) and stage.problems_per_step > problems:
            yield Check(
                f"{name}: problems",
                False,
                f"problems_per_step is {stage.problems_per_step}, but the task has {problems} training problems: "
                "lower it or widen the task",
            )


def _mixes(recipe: Recipe, name: str, stage: RLSettings, train: Sequence[Problem]) -> Iterator[Check]:
    """A wished mix is of sources that the training problems have; a phase that names another would end the run."""
    from r1kit.tasks import make_task
    from r1kit.training.pools import check_mix

    sources = dict.fromkeys(problem.source for problem in train[: stage.problems])
    for phase, settings in _phases_of(name, stage):
        mix = settings.pools.mix
        if not mix:
            continue
        if not mix.keys() <= sources.keys():  # `train` may be a sample
            whole = make_task(recipe.task).problems("train")
            sources = dict.fromkeys(problem.source for problem in whole[: stage.problems])
        try:
            check_mix(mix, sources)
        except ConfigError as error:
            yield Check(f"{phase}: pools.mix", False, str(error))
        else:
            yield Check(f"{phase}: pools.mix", True, f"the training problems come from {', '.join(sources)}")


def _golds(task: Task, problems: Sequence[Problem]) -> Check:
    from r1kit.tasks import verify_many

    verdicts = verify_many(task, problems, [right_response(p) for p in problems])
    wrong = [p.id for p, v in zip(problems, verdicts, strict=True) if not v["accuracy"].correct]
    found = f"the solutions of {len(problems)} problems verify" if problems else "not looked at: no solution is known"
    return Check("golds verify", not wrong, f"{len(wrong)} do not, such as {wrong[0]}" if wrong else found)


def _second_verifier(name: str, stage: StageSettings, problems: Sequence[Problem]) -> Iterator[Check]:
    """A function of the user's that judges held-out responses again has to load, and to have a word for one."""
    from r1kit.verifiers.user import UserVerifier

    spec = getattr(getattr(stage, "evaluate", None), "verifier", "off")
    if spec in ("auto", "off"):
        return
    title = f"{name}: evaluate.verifier"
    try:
        verifier = UserVerifier(spec)
    except UserError as error:
        yield Check(title, False, str(error))
        return
    verdicts = [verifier(problem, right_response(problem)) for problem in problems[:1]]
    lost = [verdict for verdict in verdicts if verdict.outcome == "error"]
    yield Check(title, not lost, f"{spec} fails on a right response" if lost else f"{spec} loads and judges")


def _lengths(recipe: Recipe, train: Sequence[Problem], test: Sequence[Problem]) -> Iterator[Check]:
    """In the tokens of each stage's own model: prompts have no unknown token, and with a full response fit."""
    from r1kit.models.chat import PromptError
    from r1kit.models.checkpoint import CheckpointError

    answers = [right_response(p) for p in (*witnessed(train), *witnessed(test))]
    found: dict[Path | None, Lengths] = {}
    for name, stage in recipe.stages.items():
        if not isinstance(stage, (PretrainSettings, RLSettings, EvaluateSettings)):
            continue
        model = root_model(recipe, name)
        if model is not None and not (model / "config.json").is_file():
            continue  # `_models` says so
        if model not in found:
            what = "prompts and tokenizer" + (f" of {model}" if model else "")
            try:
                lengths = found[model] = measured_lengths(model, train, test, answers)
            except (CheckpointError, PromptError) as error:
                yield Check(what, False, str(error))
                return
            unknown = f"{lengths.unknown} of {lengths.prompts} prompts have an unknown token"
            yield Check(what, not lengths.unknown, unknown)
            if lengths.opened:
                advice = 'set task.prefill: "<think>\\n", so that responses are read as beginning inside the thought'
                yield Check(what, False, f"the chat template itself opens <think>: {advice}")
        for phase, settings in _phases_of(name, stage) if isinstance(stage, RLSettings) else [(name, stage)]:
            for check in stage_lengths(phase, settings, found[model]):
                yield Check(*check)
