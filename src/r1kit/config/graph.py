"""The stage graph: `${stage}` edges, their checks and the order of work."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from r1kit.config.errors import ConfigError
from r1kit.config.schema import REFERENCE, Recipe, StageSettings
from r1kit.config.suggest import nearest
from r1kit.config.yaml_source import Origins, YamlSource


def stage_inputs(stage: StageSettings) -> dict[str, str]:
    """Upstream stage by setting: `{"model": "base"}` for `model: ${base}`; `after[0]` and so on for lists."""
    found: dict[str, str] = {}
    for name in stage.edge_fields:
        value = getattr(stage, name)
        items = {name: value} if isinstance(value, str) else {f"{name}[{i}]": v for i, v in enumerate(value)}
        for key, text in items.items():
            match = REFERENCE.fullmatch(text.strip())
            if match:
                found[key] = match[1]
    return found


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
            place = source.place(("stages", name, key.split("[")[0]), filename)
            if upstream not in recipe.stages:
                raise ConfigError(
                    f"{place}: stages.{name}.{key} is ${{{upstream}}}: no such stage"
                    f"{nearest(upstream, recipe.stages)}; the stages are {', '.join(recipe.stages)}"
                )
            if key == "model" and not recipe.stages[upstream].produces_model:
                kind = recipe.stages[upstream].kind
                raise ConfigError(
                    f"{place}: stages.{name}.model is ${{{upstream}}}, a stage of kind {kind}, which "
                    "makes no model: name a pretrain or rl stage"
                )
    stage_order(recipe)
