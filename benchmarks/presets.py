"""What each RL preset gains on the quick start's task at `scale=small`, from one shared base for each seed.

    python benchmarks/presets.py                                  # every preset, seed 0
    python benchmarks/presets.py --presets grpo ppo_orz prime --seeds 0 1 2
    python benchmarks/presets.py --ablation                       # DAPO's parts, one after another
    python benchmarks/presets.py --smoke                          # does it work? its figures mean nothing

For each seed one run directory (--out/seed-N): the recipe's base is trained once, then every preset trains from it with
the recipe's own learning rate, batch, cap and reward, and is measured on the recipe's held-out problems. A run that was
stopped goes on where it was; further presets are added to what is there.

The recipe's rl stage gives everything but the algorithm. MINIATURE holds what a preset cannot keep in so few steps, and
is printed. The ablation starts from naive GRPO without KL and adds DAPO's parts in the paper's order
(arXiv:2503.14476, table 1).

gain: held-out pass@1 after less before, in points. Its interval adds the two evaluations' own 95 % intervals in
quadrature: problems and samples of one trained model. Over several seeds the mean stands with the smallest and the
largest gain: training seeds differ by more than an interval says. CPU-s: of the rl stage.

The last line is a JSON object: the gains by preset, one for each seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from harness.arguments import run
from harness.machine import describe
from harness.report import table
from r1kit.config.load import load_recipe
from r1kit.config.presets import PRESETS
from r1kit.config.schema import Recipe
from r1kit.pipeline.catalog import find_recipe
from r1kit.pipeline.run import Options, run_recipe

# What a few dozen steps of responses of a hundred tokens cannot keep of the papers' settings. Chosen by accuracy on
# training problems, from another seed.
MINIATURE: dict[str, dict[str, Any]] = {
    # Its alpha looks ahead over a twentieth of a response: hundreds of tokens there, five here.
    "vapo": {"gae_alpha": 1.0, "critic": {"pretrain_steps": 10, "minibatches": 4}},
    "ppo_orz": {"critic": {"minibatches": 4}},
    "prorl": {"reference_refresh": 30},
    # A process model that learns at twice this policy's rate, and weighs as much as the outcome, leads it astray.
    "prime": {"process": {"lr_factor": 0.5, "coef": 1.0}},
}
NAIVE: dict[str, Any] = {
    "algorithm": {"advantage": "std", "clip_low": 0.2, "clip_high": 0.2, "aggregation": "sequence_mean"},
    "dynamic_sampling": {"enabled": False},
}


@dataclass(frozen=True)
class Contestant:
    """A stage to train: its name, and the settings that replace the recipe's."""

    name: str
    settings: Mapping[str, Any]


def main() -> None:
    arguments = parse()
    print(describe())
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds:
        recipe = load_recipe(find_recipe(arguments.recipe), [f"seed={seed}", *arguments.set])
        steps = arguments.steps or recipe.stages["rl"].steps  # type: ignore[union-attr]
        contestants = ablation(recipe) if arguments.ablation else presets(arguments.presets, steps)
        whole = contest(recipe, contestants, steps)
        result = run_recipe(whole, arguments.out / f"seed-{seed}", Options(redo_changed=True, allow_new_code=True))
        stages = {stage["name"]: stage for stage in result.summary["stages"]}
        for one in contestants:
            rows.setdefault(one.name, []).append(measured(stages, one.name))
    show(rows, arguments.seeds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS), metavar="NAME")
    parser.add_argument("--ablation", action="store_true", help="DAPO's parts one after another, instead of presets")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="each has a base of its own")
    parser.add_argument("--steps", type=int, help="RL steps (default: the recipe's)")
    parser.add_argument("--recipe", default="tinyzero", help="recipe (name or file) with a base and an rl stage")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in r1kit run")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/presets"), help="a run directory for each seed goes here"
    )
    parser.add_argument("--smoke", action="store_true", help="the recipe's scale=smoke: proves the path only")
    arguments = parser.parse_args()
    if arguments.smoke or arguments.recipe == "tinyzero":
        arguments.set.insert(0, f"scale={'smoke' if arguments.smoke else 'small'}")
    return arguments


def presets(names: Sequence[str], steps: int) -> list[Contestant]:
    """One contestant for each preset; whether groups are replaced is the preset's own affair."""
    return [Contestant(name, {"algorithm": {"preset": name, **miniature(name, steps)}}) for name in names]


def miniature(name: str, steps: int) -> dict[str, Any]:
    """What MINIATURE says of a preset; a critic never trains alone for more than half of the steps."""
    changes = {key: dict(v) if isinstance(v, dict) else v for key, v in MINIATURE.get(name, {}).items()}
    if "pretrain_steps" in changes.get("critic", {}):
        changes["critic"]["pretrain_steps"] = min(changes["critic"]["pretrain_steps"], steps // 2)
    return changes


def ablation(recipe: Recipe) -> list[Contestant]:
    """Naive GRPO, then DAPO's parts added one after another in the order of the paper's table."""
    cap = recipe.stages["rl"].sampling.max_tokens  # type: ignore[union-attr]
    additions: list[tuple[str, dict[str, Any]]] = [
        ("naive_grpo", {}),
        ("overlong_filtering", {"dynamic_sampling": {"truncated": "mask"}}),
        ("clip_higher", {"algorithm": {"clip_high": 0.28}}),
        ("soft_overlong", {"reward": {"overlong": {"buffer": max(cap // 5, 1), "penalty": 1.0}}}),
        ("token_level_loss", {"algorithm": {"aggregation": "token_mean"}}),
        ("dynamic_sampling", {"dynamic_sampling": {"enabled": True}}),
    ]
    settings, found = NAIVE, []
    for name, addition in additions:
        settings = merged(settings, addition)
        found.append(Contestant(name, settings))
    return found


def contest(recipe: Recipe, contestants: Sequence[Contestant], steps: int) -> Recipe:
    """The recipe with an rl stage and an evaluation for each contestant in place of its own."""
    data = recipe.model_dump(mode="json", exclude_unset=True)  # what it leaves open stays open: native, for one
    stages = data["stages"]
    rl, final = stages.pop("rl"), stages.pop("final")
    for one in contestants:
        kept = {k: v for k, v in rl.items() if k not in ("algorithm", "dynamic_sampling", "evaluate")}
        reward = {k: v for k, v in rl["reward"].items() if v is not None}
        stages[one.name] = merged({**kept, "reward": reward, "evaluate": {"every": 0}}, one.settings)
        stages[one.name]["steps"] = steps
        stages[f"{one.name}_final"] = {**final, "model": f"${{{one.name}}}"}
    return Recipe.model_validate({**data, "name": f"{recipe.name}-presets", "expect": []})


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, blocks inside too."""
    both = {
        key: merged(below[key], value) if isinstance(value, Mapping) and isinstance(below.get(key), Mapping) else value
        for key, value in above.items()
    }
    return {**below, **both}


def measured(stages: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Held-out pass@1 before and after, the gain with its interval, and what the stage cost."""
    before, after = (stages[s]["eval"]["pass@1"] for s in ("base_eval", f"{name}_final"))
    gain = after["value"] - before["value"]
    low = ((after["value"] - after["low"]) ** 2 + (before["high"] - before["value"]) ** 2) ** 0.5
    high = ((after["high"] - after["value"]) ** 2 + (before["value"] - before["low"]) ** 2) ** 0.5
    return {
        "before": before["value"],
        "after": after["value"],
        "gain": gain,
        "low": gain - low,
        "high": gain + high,
        "tokens": stages[f"{name}_final"]["eval"]["tokens_mean"],
        "cpu_seconds": stages[name]["cpu_seconds"],
    }


def show(rows: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> None:
    """The table, what was changed for the miniature, and the machine's line."""
    cells = []
    for name, found in rows.items():
        gains = [100 * row["gain"] for row in found]
        each = "  ".join(f"{100 * r['gain']:+.1f} [{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]" for r in found)
        spread = (
            f"{mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})" if len(gains) > 1 else f"{gains[0]:+.1f}"
        )
        cells.append(
            [
                name,
                f"{100 * mean(r['before'] for r in found):.1f}",
                f"{100 * mean(r['after'] for r in found):.1f}",
                spread,
                each,
                f"{mean(r['tokens'] for r in found):.0f}",
                f"{mean(r['cpu_seconds'] for r in found):.0f}",
            ]
        )
    headers = ["preset", "before %", "after %", "gain", f"seeds {' '.join(map(str, seeds))}", "tokens", "CPU-s"]
    print(table(headers, cells))
    for name in rows:
        if name in MINIATURE:
            print(f"{name}: {json.dumps(MINIATURE[name])} (at most) in place of the preset's, for so few steps")
    print(
        json.dumps({"name": "presets", "gains": {n: [round(r["gain"], 4) for r in found] for n, found in rows.items()}})
    )


if __name__ == "__main__":
    run(main)
