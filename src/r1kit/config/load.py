"""From a recipe file and overrides to a checked `Recipe`, every error with its place.

Order: the file, then the variants chosen by `--set group=name` in the order given, then the other `--set`s in
the order given, then validation of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from r1kit.config.errors import ConfigError
from r1kit.config.explain import explain
from r1kit.config.graph import check_edges
from r1kit.config.schema import Recipe
from r1kit.config.suggest import nearest
from r1kit.config.yaml_source import Origins, YamlSource, parse_scalar, read_yaml


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check the recipe at `path`. Raises ConfigError."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"recipe file {path} does not exist: give a recipe's name (r1kit recipes list) or a YAML file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}): save the file as UTF-8"
        ) from None
    return parse_recipe(text, str(path), overrides, folder=path.parent)


def parse_recipe(text: str, filename: str, overrides: Sequence[str] = (), *, folder: Path | None = None) -> Recipe:
    """Like `load_recipe`, from text; `filename` is only named in errors. `folder`: where relative data paths begin."""
    source = read_yaml(text, filename)
    if not isinstance(source.data, dict):
        raise ConfigError(
            f"{filename}: expected a mapping with name, task and stages, found {type(source.data).__name__}"
        )
    variants = source.data.pop("variants", {})
    _check_variants(variants, filename)
    _apply_overrides(source, variants, overrides)
    try:
        recipe = Recipe.model_validate(source.data, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(explain(error, source, filename)) from None
    check_edges(recipe, source.origins, filename)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe with every default written out, as YAML that `parse_recipe` reads back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def _check_variants(variants: Any, filename: str) -> None:
    ok = isinstance(variants, dict) and all(
        isinstance(group, dict) and all(isinstance(values, dict) for values in group.values())
        for group in variants.values()
    )
    if not ok:
        raise ConfigError(
            f"{filename}: variants: expected group -> variant -> dotted key -> value, such as "
            "variants: {scale: {smoke: {rl.steps: 10}}}"
        )


def _apply_overrides(source: YamlSource, variants: Mapping[str, Any], overrides: Sequence[str]) -> None:
    explicit: list[tuple[str, Any]] = []
    chosen: list[tuple[str, str]] = []
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.strip()
        if not key or not equals:
            raise ConfigError(f"--set {text}: expected KEY=VALUE, such as --set rl.steps=10")
        value = parse_scalar(raw, f"--set {text}")
        if key in variants:
            if str(value) in variants[key]:
                chosen.append((key, str(value)))
                continue
            if key not in Recipe.model_fields:
                raise ConfigError(
                    f"--set {text}: no variant {value!r} of {key}{nearest(str(value), variants[key])}; "
                    f"the recipe has {', '.join(variants[key])}"
                )
        explicit.append((key, value))
    for group, name in chosen:
        place = f"--set {group}={name}"
        if group in Recipe.model_fields:
            set_value(source, group, name, place, variants)
        for key, value in variants[group][name].items():
            set_value(source, key, value, f"{place} (variant: {key})", variants)
    for key, value in explicit:
        set_value(source, key, value, f"--set {key}={value}", variants)


def set_value(source: YamlSource, dotted: str, value: Any, place: str, variants: Iterable[str] = ()) -> None:
    """Put `value` at a dotted key; a stage's name is a key too, so `rl.steps` is `stages.rl.steps`."""
    keys = str(dotted).split(".")
    stages = source.data.get("stages")
    stage_names = list(stages) if isinstance(stages, dict) else []
    if keys[0] in stage_names:
        keys = ["stages", *keys]
    elif keys[0] not in Recipe.model_fields:
        known = [*stage_names, *Recipe.model_fields, *variants]
        raise ConfigError(
            f"{place}: no setting, stage or variant {keys[0]!r}{nearest(keys[0], known)}; "
            f"the stages are {', '.join(stage_names)}"
        )
    # A whole stage may be added (`stages.more={kind: evaluate, ...}`), a setting of an unknown one not.
    if len(keys) > 2 and keys[0] == "stages" and keys[1] not in stage_names:
        raise ConfigError(
            f"{place}: no stage {keys[1]!r}{nearest(keys[1], stage_names)}; the stages are {', '.join(stage_names)}"
        )
    node = source.data
    for depth, key in enumerate(keys[:-1]):
        child = node.get(key)
        if depth == 0 and key == "task" and isinstance(child, str):
            child = node[key] = {"name": child}
        if child is None:
            child = node[key] = {}
        if not isinstance(child, dict):
            found = ".".join(keys[: depth + 1])
            raise ConfigError(f"{place}: {found} is {child!r}, which has no setting {keys[depth + 1]!r}")
        node = child
    node[keys[-1]] = value
    _forget(source.origins, tuple(keys))
    source.origins[tuple(keys)] = place


def _forget(origins: Origins, path: tuple[str | int, ...]) -> None:
    for known in [p for p in origins if p[: len(path)] == path]:
        del origins[known]
