"""The stage graph: `${stage}` edges, their checks and the order of work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from r1kit.config.errors import ConfigError
from r1kit.config.schema import REFERENCE, STAGE_KINDS, Recipe, StageSettings
from r1kit.config.suggest import nearest
from r1kit.config.yaml_source import Origins, YamlSource


def stage_inputs(stage: StageSettings) -> dict[str, str]:
    """Upstream stage by setting: `{"model": "base"}` for `model: ${base}`; `after[0]` and so on for lists."""
    matches = {key: REFERENCE.fullmatch(text.strip()) for key, text in _edges(stage)}
    return {key: match[1] for key, match in matches.items() if match}


def stage_paths(stage: StageSettings) -> dict[str, str]:
    """What stands where an edge may stand and is none: paths of models and data, by setting."""
    return {key: text for key, text in _edges(stage) if not REFERENCE.fullmatch(text.strip())}


def main_model(stage: StageSettings) -> tuple[str | None, str | None]:
    """(upstream stage, path) of the model whose shape and tokenizer a stage's own has; one of them at most is given.

    Of a merge it is the first of its models.
    """
    for key in ("model", "models[0]"):
        found = stage_inputs(stage).get(key), stage_paths(stage).get(key)
        if any(found):
            return found
    return None, None


def edge_output(key: str) -> str:
    """What an edge takes of the upstream stage: its model or its data."""
    return "data" if key.startswith("data") else "model"


def edge_part(key: str) -> str | None:
    """The reward part whose scores the model of an edge gives; None for every other edge."""
    found = re.fullmatch(r"reward\.parts\.(\w+)\.source", key)
    return found[1] if found else None


def _makers(key: str) -> tuple[str, list[str]]:
    """What an edge wants, in words, and the kinds of stage that make it."""
    if edge_part(key):
        return "reward model", ["reward_model"]
    wanted = edge_output(key)
    return wanted, [kind for kind, settings in STAGE_KINDS.items() if getattr(settings, f"produces_{wanted}")]


def _has_to_write(stage: StageSettings, key: str) -> bool:
    """The model of an edge has to be a language model; reward models may go on from one another, and be merged."""
    return key == "reference_model" or (key == "model" and stage.kind != "reward_model")


def _only_scores(stage: StageSettings) -> bool:
    return stage.kind == "reward_model" and getattr(stage, "method", None) != "implicit"


def _other_rows(stage: StageSettings, key: str, upstream: StageSettings) -> str:
    """What is wrong where one side of an edge of data makes pairs and the other reads none, or the reverse; else ""."""
    if not key.startswith("data") or stage.kind not in ("sft", "preference"):
        return ""
    pairs = bool(getattr(upstream, "pairs", None))
    if stage.kind == "sft":
        return "makes pairs, and sft learns answers: leave pairs out there" if pairs else ""
    if getattr(stage, "takes_labels", False):
        return "has no labelled responses, as kto reads them: set labelled: false for pairs of a generate stage"
    return "" if pairs else "makes no pairs: name a stage of kind generate with pairs: verdict"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def _edges(stage: StageSettings) -> Iterator[tuple[str, str]]:
    for name in stage.edge_fields:
        first, *rest = name.split(".")
        yield from _texts(getattr(stage, first), first, rest)


def _texts(value: Any, key: str, rest: list[str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _texts(item, f"{key}[{i}]", rest)
    elif isinstance(value, str) and not rest:
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}", rest)
    elif value is not None and rest:
        # Blocks of several kinds may stand side by side, and not each has the setting.
        yield from _texts(getattr(value, rest[0], None), f"{key}.{rest[0]}", rest[1:])


def stage_order(recipe: Recipe) -> list[str]:
    """Stages so that each comes after its inputs, else in the order written. A cycle raises ConfigError."""
    graph = {name: set(stage_inputs(stage).values()) for name, stage in recipe.stages.items()}
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"stages: {cycle} is a cycle: a stage cannot wait for itself; cut one of these edges"
        ) from None
    written = list(recipe.stages)
    done: list[str] = []
    while len(done) < len(written):
        # The first written stage whose inputs are done, so that a reader can follow the file.
        ready = next(name for name in written if name not in done and graph[name] <= set(done))
        done.append(ready)
    return done


def check_edges(recipe: Recipe, origins: Origins | None = None, filename: str = "recipe") -> None:
    """Refuse edges to unknown stages, edges that carry no model, and cycles. Raises ConfigError."""
    source = YamlSource(None, origins or {})
    for name, stage in recipe.stages.items():
        for key, upstream in stage_inputs(stage).items():
            parts = (int(part) if part.isdecimal() else part for part in re.findall(r"\w+", key))
            place = source.place(("stages", name, *parts), filename)
            if upstream not in recipe.stages:
                raise ConfigError(
                    f"{place}: stages.{name}.{key} is ${{{upstream}}}: no such stage"
                    f"{nearest(upstream, recipe.stages)}; the stages are {', '.join(recipe.stages)}"
                )
            wanted, makers = _makers(key)
            kind = recipe.stages[upstream].kind
            if not key.startswith("after") and kind not in makers:
                raise ConfigError(
                    f"{place}: stages.{name}.{key} is ${{{upstream}}}, a stage of kind {kind}, which "
                    f"makes no {wanted}: name a stage of kind {_listed(makers)}"
                )
            if _has_to_write(stage, key) and _only_scores(recipe.stages[upstream]):
                raise ConfigError(
                    f"{place}: stages.{name}.{key} is ${{{upstream}}}, a reward model, which cannot write text: name a "
                    "stage that makes a language model"
                )
            if other := _other_rows(stage, key, recipe.stages[upstream]):
                raise ConfigError(f"{place}: stages.{name}.{key} is ${{{upstream}}}, which {other}")
    stage_order(recipe)
