"""The recipe's `native` switch: what it turns on in which stage, and what it is refused with.

Why it matters: one word changes what computes in every stage. It must reach all of them, give way to a stage that says
otherwise, and stand resolved in the run's recipe.

Not exercised: the compiled passes themselves (tests/models, tests/engines).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from r1kit.config import machine
from r1kit.config.errors import ConfigError
from r1kit.config.load import dump_recipe, load_recipe, parse_recipe
from r1kit.config.machine import can_compile, resolve
from r1kit.config.merge import MergeSettings
from r1kit.config.preference import PreferenceSettings
from r1kit.config.reward_model import RewardModelSettings
from r1kit.config.schema import Recipe
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.changes import begun_machine, fingerprints
from r1kit.pipeline.run_directory import RunDirectory


def resolved(*changes: str) -> Recipe:
    return resolve(load_recipe(find_recipe("tinyzero"), overrides=changes))


def uses(recipe: Recipe) -> list[object]:
    """What base, rl, its engine and final use."""
    base, rl, final = (recipe.stages[name] for name in ("base", "rl", "final"))
    return [base.native, rl.native, rl.engine.native, final.native]  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a compiler and without AMX, whatever this one has."""
    monkeypatch.setattr(machine, "can_compile", lambda: True)
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset())


def test_a_recipe_that_says_nothing_has_it_off() -> None:
    silent = GRID.replace("native: {native}\n", "").format(evaluate="{}")
    assert resolve(parse_recipe(silent, "grid.yaml")).native == "off"


def test_auto_is_on_where_it_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert uses(resolved("native=auto")) == ["float32"] * 4
    monkeypatch.setattr(machine, "can_compile", lambda: False)
    assert uses(resolved("native=auto")) == ["off"] * 4
    assert uses(resolved("native=true")) == ["float32"] * 4  # the stage says what is missing


@pytest.mark.parametrize(
    ("change", "used"),
    [
        ("dtype=bfloat16", ["off"] * 4),
        ("base.model.head_dim=48", ["off"] * 4),
        ("base.model.intermediate=400", ["off"] * 4),
        ("rl.lora={rank: 2}", ["float32", "off", "off", "float32"]),
        ("rl.recompute=true", ["float32", "off", "off", "float32"]),
    ],
)
def test_auto_gives_way_to_what_is_not_compiled(change: str, used: list[str]) -> None:
    assert uses(resolved("native=auto", change)) == used


@pytest.mark.parametrize(
    ("says", "can"),
    [
        ("g++ 13.2.0\nCopyright (C) 2023 Free Software Foundation, Inc.", True),
        ("Apple clang version 16.0.0", False),
        (None, False),
    ],
)
def test_only_gcc_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str | None, can: bool) -> None:
    compiler = tmp_path / "g++"
    if says is not None:
        compiler.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n", encoding="utf-8")
        compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert can_compile.__wrapped__() is can


@pytest.mark.parametrize(
    ("flags", "products"),
    [({"amx_bf16", "avx512_bf16", "avx512f"}, "bfloat16"), ({"avx512_bf16"}, "float32"), (set(), "float32")],
)
def test_true_is_what_this_processor_is_good_at(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], products: str
) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    recipe = resolved("native=true")
    assert recipe.native == products
    assert uses(recipe) == [products, products, products, "float32"]  # what measures, measures the weights as saved


def test_a_stage_has_the_last_word() -> None:
    stated = resolved("native=float32", "rl.native=off", "rl.engine.native=false")
    assert uses(stated) == ["float32", "off", "off", "float32"]
    assert uses(resolved("native=off", "rl.native=float32")) == ["off", "float32", "off", "off"]


GRID = """\
name: merged
task: countdown
native: {native}
stages:
  base: {{kind: pretrain}}
  better: {{kind: preference, model: "${{base}}", data: [{{path: pairs.jsonl}}]}}
  judge: {{kind: reward_model, model: "${{base}}", data: [{{path: pairs.jsonl}}], native: off}}
  merged: {{kind: merge, models: ["${{base}}", "${{better}}"], grid: {{weights: [[1, 2]]}}, evaluate: {evaluate}}}
"""


@pytest.mark.parametrize(
    ("native", "evaluate", "decoder"),
    [
        ("float32", "{}", "float32"),
        ("bfloat16", "{}", "float32"),  # what measures, measures the weights as saved
        ("float32", "{native: off}", "off"),
        ("off", "{}", "off"),
        ("off", "{native: float32}", "float32"),
    ],
)
def test_it_reaches_preference_reward_models_and_the_candidates_of_a_merge(
    native: str, evaluate: str, decoder: str
) -> None:
    recipe = resolve(parse_recipe(GRID.format(native=native, evaluate=evaluate), "grid.yaml"))
    better, judge, merged = (recipe.stages[name] for name in ("better", "judge", "merged"))
    assert isinstance(better, PreferenceSettings)
    assert isinstance(judge, RewardModelSettings)
    assert isinstance(merged, MergeSettings)
    assert (better.native, judge.native, merged.evaluate.native) == (native, "off", decoder)
    assert resolve(recipe) == recipe


def test_resolving_again_changes_nothing() -> None:
    recipe = resolved("native=float32", "rl.native=off")
    assert resolve(recipe) == recipe


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (("native=float32", "dtype=bfloat16"), "base.native is float32 and dtype bfloat16.*dtype: float32"),
        (("native=float32", "rl.recompute=true"), "rl.native is float32 with recompute.*rl.native: off"),
        (("native=float32", "rl.lora={rank: 2}"), "rl.native is float32 with lora"),
        (("native=float16",), "expected 'off', 'auto', 'on', 'float32' or 'bfloat16'"),
    ],
)
def test_what_cannot_run_is_refused(changes: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolved(*changes)


@pytest.mark.parametrize("could", [True, False])
def test_a_run_keeps_its_passes_wherever_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, could: bool
) -> None:
    begin = parse_recipe(GRID.format(native="auto", evaluate="{}"), "grid.yaml")
    monkeypatch.setattr(machine, "can_compile", lambda: could)
    run = RunDirectory(tmp_path / "run")
    run.root.mkdir()
    run.recipe.write_text(dump_recipe(resolve(begin)))
    monkeypatch.setattr(machine, "can_compile", lambda: not could)
    assert fingerprints(resolve(begun_machine(run, begin))) == fingerprints(
        resolve(parse_recipe(run.recipe.read_text(), "r"))
    )
    tinyzero = load_recipe(find_recipe("tinyzero"), overrides=["rl.engine.native=auto", "rl.lora={rank: 2}"])
    run.recipe.write_text(dump_recipe(resolve(tinyzero)))
    monkeypatch.setattr(machine, "can_compile", lambda: could)
    assert uses(resolve(begun_machine(run, tinyzero))) == (
        ["off"] * 4 if could else ["float32", "off", "off", "float32"]
    )
