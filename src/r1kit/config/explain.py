"""Validation errors as lines a person can act on: place, key, expected, found, nearest name."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from r1kit.config.schema import STAGE_KINDS, Recipe
from r1kit.config.suggest import nearest
from r1kit.config.tasks import TASK_KINDS
from r1kit.config.yaml_source import YamlSource

Path = tuple[str | int, ...]
_TAG_ERRORS = ("union_tag_invalid", "union_tag_not_found")
# The key that says which settings a task and a stage have.
_TAGS: dict[str | int, str] = {"task": "name", "stages": "kind"}


def explain(error: ValidationError, source: YamlSource, filename: str) -> str:
    """One line per mistake, in the order of the file's keys."""
    lines: dict[Path, str] = {}
    for detail in error.errors(include_url=False):
        path = _path(detail["loc"])
        place = source.place((*path, _TAGS[path[0]]) if detail["type"] in _TAG_ERRORS else path, filename)
        # Several errors at one path are the branches of a union: the first says enough.
        lines.setdefault(path, f"{place}: {_sentence(detail, path, source.data)}")
    return "\n".join(lines.values())


def _path(loc: tuple[str | int, ...]) -> Path:
    """pydantic's location without the tags of the unions (the task's name, the stage's kind)."""
    parts = list(loc)
    if parts[:1] == ["task"] and len(parts) > 1:
        del parts[1]
    if parts[:1] == ["stages"] and len(parts) > 2:
        del parts[2]
    if parts[:1] == ["processes"]:
        del parts[1:]
    return tuple(parts)


def _sentence(detail: ErrorDetails, path: Path, data: Any) -> str:
    name = ".".join(str(p) for p in path) or "the recipe"
    kind, found = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        owner = ".".join(str(p) for p in path[:-1]) or "a recipe"
        known = _fields_at(path[:-1], data)
        return f"{owner} has no setting {path[-1]!r}{nearest(str(path[-1]), known)}; it has {', '.join(known)}"
    if kind == "missing":
        return f"{name} is missing: {_description(path, data) or 'it has no default'}"
    if kind in _TAG_ERRORS:
        tag, known = _TAGS[path[0]], list(TASK_KINDS if path[0] == "task" else STAGE_KINDS)
        value = found.get(tag) if isinstance(found, dict) else None
        if value is None:
            return f"{name}.{tag} is missing: expected one of {', '.join(known)}"
        return f"{name}.{tag} is {value!r}: expected one of {', '.join(known)}{nearest(str(value), known)}"
    message = detail["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{name}: {message}"
    wish = message[0].lower() + message[1:]
    hint = nearest(str(found), _choices(detail)) if kind == "literal_error" else ""
    return f"{name} is {found!r}: {wish.replace('input should be', 'expected')}{hint}"


def _choices(detail: ErrorDetails) -> list[str]:
    return [part.strip(" '") for part in str(detail["ctx"]["expected"]).replace(" or ", ", ").split(",")]


def _model_at(path: Path, data: Any) -> type[BaseModel] | None:
    """The settings class that stands at `path` of a recipe, or None (unknown kind, a list, a plain value)."""
    model: Any = Recipe
    rest = list(path)
    if rest[:1] == ["task"]:
        task = data.get("task")
        model = TASK_KINDS.get(str(task.get("name") if isinstance(task, dict) else task))
        rest = rest[1:]
    elif rest[:1] == ["stages"] and len(rest) > 1:
        stage = data["stages"][rest[1]]
        model = STAGE_KINDS.get(str(stage.get("kind"))) if isinstance(stage, dict) else None
        rest = rest[2:]
    for part in rest:
        field = model.model_fields.get(part) if model else None
        model = _settings_in(field.annotation) if field else None
    return model


def _settings_in(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _fields_at(path: Path, data: Any) -> list[str]:
    model = _model_at(path, data)
    return list(model.model_fields) if model else []


def _description(path: Path, data: Any) -> str:
    model = _model_at(path[:-1], data)
    field = model.model_fields.get(str(path[-1])) if model else None
    return (field.description or "") if field else ""
