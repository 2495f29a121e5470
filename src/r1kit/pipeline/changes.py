"""Has a stage changed since it ran? Fingerprints of settings and inputs, and the words for what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from r1kit.config.graph import stage_inputs, stage_order, stage_paths
from r1kit.config.load import parse_recipe
from r1kit.config.schema import Recipe
from r1kit.config.yaml_source import read_yaml
from r1kit.pipeline.files import RunError
from r1kit.pipeline.lineage import changed_code, code_hashes, digest, hash_functions, hash_path
from r1kit.pipeline.run_directory import RunDirectory

# What a stage depends on besides its own settings.
SHARED = ("seed", "task", "dtype", "processes")
# Of the sandbox only what changes a verdict: where programs run and how many at a time is the machine's affair.
JUDGING = ("limits", "libraries")


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Per stage a hash of its settings, the shared settings and the fingerprints of its inputs.

    The recipe is resolved ("auto" replaced). Models and data that lie on this machine, and the file of a function of
    the user's own, count by their content.
    """
    plain = recipe.model_dump(mode="json")
    shared = {key: plain[key] for key in SHARED} | {"sandbox": {key: plain["sandbox"][key] for key in JUDGING}}
    if recipe.device != "cpu":  # runs from before there was a choice have no such word
        shared["device"] = recipe.device
    if recipe.task.data_files:
        shared["task data"] = [hash_path(path) for path in recipe.task.data_files]
    found: dict[str, str] = {}
    for name in stage_order(recipe):
        inputs = {key: found[upstream] for key, upstream in stage_inputs(recipe.stages[name]).items()}
        hashes = {key: hash_path(text) for key, text in stage_paths(recipe.stages[name]).items()}
        inputs |= {key: found_hash for key, found_hash in hashes.items() if found_hash}
        inputs |= hash_functions(user_functions(recipe, name))
        found[name] = digest({"settings": plain["stages"][name], "inputs": inputs, **shared})
    return found


def user_functions(recipe: Recipe, stage: str) -> list[str]:
    """Import paths of the functions of the user's own that a stage may call: verifiers and reward parts."""
    verifiers = [recipe.task.own_verifier] if recipe.task.own_verifier else []
    reward = getattr(recipe.stages[stage], "reward", None)
    second = getattr(getattr(recipe.stages[stage], "evaluate", None), "verifier", "auto")
    verifiers += [second] if second not in ("auto", "off") else []
    return verifiers + (reward.functions if reward else [])


def begun_machine(run: RunDirectory, recipe: Recipe) -> Recipe:
    """The recipe with `auto` processes, device and `native` replaced by those the run in this directory began with.

    All change sums in their last bits or more, so a run keeps them, on whatever machine it goes on or is reported.
    """
    if not run.exists:
        return recipe
    begun_with = {"device": "cpu", **read_yaml(run.recipe.read_text(encoding="utf-8"), str(run.recipe)).data}
    kept = {key: begun_with[key] for key in ("processes", "device") if getattr(recipe, key) == "auto"}
    stages = {
        name: _begun_native(stage, begun_with["stages"].get(name, {}), recipe.native)
        for name, stage in recipe.stages.items()
    }
    return recipe.model_copy(update={**kept, "stages": stages})


def _begun_native(settings: Any, before: Mapping[str, Any], inherited: str) -> Any:
    """Settings of a stage, and of its engine and evaluation, with `auto` for `native` replaced by what it was."""
    changes: dict[str, Any] = {}
    own = settings.native if "native" in settings.model_fields_set else inherited
    if own == "auto" and "native" in type(settings).model_fields and "native" in before:
        changes["native"] = before["native"]
    for part in ("engine", "evaluate"):
        if "native" in getattr(type(getattr(settings, part, None)), "model_fields", ()):
            changes[part] = _begun_native(getattr(settings, part), before.get(part, {}), inherited)
    return settings.model_copy(update=changes) if changes else settings


def changed_stages(run: RunDirectory, now: Mapping[str, str]) -> list[str]:
    """The stages that began here with other settings or inputs than they have now, in order."""
    return [name for name in now if (before := begun(run, name)) and before["fingerprint"] != now[name]]


def refuse_changes(run: RunDirectory, recipe: Recipe, changed: list[str]) -> NoReturn:
    """Raise RunError, naming what differs in the `changed` stages."""
    old = parse_recipe(run.recipe.read_text(encoding="utf-8"), str(run.recipe))
    relevant = _with_inputs(recipe, changed)
    lines = [
        f"    {key}: {before!r} -> {after!r}"
        for key, before, after in differences(old.model_dump(mode="json"), recipe.model_dump(mode="json"))
        if key.split(".")[0] in (*SHARED, "device")
        or key.startswith(tuple(f"sandbox.{part}" for part in JUDGING))
        or (key.startswith("stages.") and key.split(".")[1] in relevant)
    ]
    what = "\n".join(lines) or "    the content of an input model, of a data file or of a function of yours"
    raise RunError(
        f"{run.root} holds a run of other settings; stages already run ({', '.join(changed)}) would change:\n"
        f"{what}\nDo these stages again and keep the others with --redo-changed, keep both with another --out, or "
        "start over with --fresh (make quickstart FRESH=1)."
    )


def refuse_new_code(run: RunDirectory, lineage: Mapping[str, Any], *, allow: bool) -> list[str]:
    """Source files that changed since this run was last worked on; RunError where they are not allowed."""
    history = lineage.get("history") or []
    before = (lineage.get("code") or {}).get(history[-1]["code"], {}) if history else {}
    changed = changed_code(before) if before else []
    if changed and not allow:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise RunError(
            f"{run.root} was begun with another version of r1kit ({shown} changed): going on would mix the "
            "two. Start over with --fresh (make quickstart FRESH=1), choose another --out, or accept it with "
            "--allow-new-code."
        )
    return changed


def code_version() -> str:
    return digest(code_hashes())


def begun(run: RunDirectory, stage: str) -> dict[str, Any] | None:
    """The record of a stage that finished or began here."""
    return run.finished(stage) or run.started(stage)


def differences(before: Any, after: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old, new) of every value that differs; a key missing on one side counts as None."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in [*before, *(n for n in after if n not in before)]:
            found += differences(before.get(name), after.get(name), f"{key}.{name}" if key else str(name))
        return found
    return [] if before == after else [(key, before, after)]


def _with_inputs(recipe: Recipe, names: list[str]) -> set[str]:
    wanted: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue += stage_inputs(recipe.stages[name]).values()
    return wanted
