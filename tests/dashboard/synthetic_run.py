"""A run directory as a real run leaves it, made in a moment: real countdown search, nothing is trained.

Skill grows from 0 to 1: a skilled policy goes on searching where an unskilled one gives up, so accuracy,
length, attempts and backtracking rise together for the same reason as in training. To look at a page:
`python tests/dashboard/synthetic_run.py DIRECTORY`, then `r1kit report DIRECTORY`.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zstandard

from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.records import Group, Message, Problem, Rollout, Verdict
from r1kit.tasks.search import members, random_expression, reachable, render, witness, working
from r1kit.verifiers import find_answer, judge_expression, judge_format

CAP = 240
STAGES = ("base", "base_eval", "rl", "final")
TOKENIZER = build_tiny_tokenizer()
RECIPE = {
    "name": "tinyzero",
    "description": "A tiny base from scratch, then rule-rewarded RL.",
    "seed": 0,
    "task": {
        "name": "countdown",
        "numbers": [3, 3],
        "low": 1,
        "high": 15,
        "max_value": 99,
        "template": "compact",
    },
    "processes": 2,
    "dtype": "float32",
    "stages": {
        "base": {"kind": "pretrain", "tokens": 3_900_000, "row_length": 256, "rows_per_step": 8},
        "base_eval": {
            "kind": "evaluate",
            "model": "${base}",
            "problems": 512,
            "samples": 8,
            "max_tokens": CAP,
        },
        "rl": {
            "kind": "rl",
            "model": "${base}",
            "steps": 75,
            "problems_per_step": 32,
            "samples_per_problem": 8,
            "sampling": {"temperature": 1.0, "max_tokens": CAP},
            "reward": {"kind": "tinyzero", "weights": {}, "overlong": None},
            "algorithm": {"advantage": "none", "clip_low": 0.2, "clip_high": 0.28, "kl_coef": 0.0},
            "evaluate": {"every": 15, "problems": 128, "samples": 4, "max_tokens": CAP},
        },
        "final": {"kind": "evaluate", "model": "${rl}", "problems": 512, "samples": 8, "max_tokens": CAP},
    },
    "expect": ["final.pass@1 >= 0.45"],
}


@dataclass(frozen=True)
class Shape:
    """How large the run is and how far it got: `reached` of STAGES finished; `stop_at`: RL steps logged."""

    steps: int = 75
    reached: int = 4
    stop_at: int | None = None
    seed: int = 0
    rollouts_every: int = 5
    groups: int = 8
    samples: int = 8
    examples: int = 12
    held_out: int = 40


def make_problem(rng: random.Random, index: int, split: str) -> Problem:
    """A countdown problem with three numbers and a target that can be reached."""
    numbers = tuple(sorted(rng.randint(1, 15) for _ in range(3)))
    target = rng.choice(members(reachable(numbers, 99) & ~1))
    written = ",".join(map(str, numbers))
    node = witness(numbers, target, 99)
    return Problem(
        id=f"countdown-{written.replace(',', '.')}-{target}-{index}",
        prompt=(Message("text", f"Q:{written}>{target}\n"),),
        task="countdown",
        payload={"numbers": list(numbers), "target": target},
        family=written,
        split=split,
        metadata={"witness": render(node) if node else ""},
    )


def write_response(problem: Problem, skill: float, rng: random.Random) -> str:
    """Search as a policy of this skill would write it, cut nowhere."""
    numbers, target = tuple(problem.payload["numbers"]), problem.payload["target"]
    lines, node, said_yes = [], None, False
    for attempt in range(24):
        node = random_expression(numbers, 99, rng)
        text = working(node)
        if rng.random() < 0.12 - 0.08 * skill:  # an arithmetic slip in the last side
            text = f"{text.rsplit('=', 1)[0]}={node.value + rng.choice((-1, 1, 2))}"
        truth = text.rsplit("=", 1)[1] == str(target)
        said_yes = truth if rng.random() < 0.97 + 0.025 * skill else not truth
        wait = "wait " if attempt and rng.random() < 0.2 else ""
        lines.append(f"{wait}{text}?{target} {'yes' if said_yes else 'no'}")
        if said_yes or rng.random() > 0.5 + 0.48 * skill:
            break
    assert node is not None
    body = "\n".join(lines)
    if rng.random() < 0.22 * (1 - skill):
        return f"<think>{body}\nA:{render(node)}"
    return f"<think>{body}</think><answer>{render(node)}</answer>"


def make_rollout(problem: Problem, sample: int, skill: float, version: int, rng: random.Random) -> Rollout:
    """One judged rollout; log-probs are low where an attempt begins and near 0 inside the working."""
    text = write_response(problem, skill, rng)
    prompt = [TOKENIZER.bos_token_id, *TOKENIZER.encode(problem.prompt[0].content, add_special_tokens=False)]
    response = [*TOKENIZER.encode(text, add_special_tokens=False), TOKENIZER.eos_token_id]
    finish = "stopped" if len(response) <= CAP else "length"
    response = response[:CAP]
    shown = TOKENIZER.decode(response[:-1] if finish == "stopped" else response)
    words = TOKENIZER.convert_ids_to_tokens(response)
    chosen, start = [], True
    for word in words:
        chosen.append(-rng.expovariate(0.7 if start else 14 + 20 * skill))
        start = word in (" no\n", "<think>", "wait ", "(")
    mask = [False] * len(prompt) + [True] * len(response)
    rollout = Rollout(
        problem_id=problem.id,
        sample=sample,
        prompt_length=len(prompt),
        token_ids=np.array(prompt + response),
        loss_mask=np.array(mask),
        logprobs=np.array([0.0] * len(prompt) + chosen),
        policy_versions=np.where(mask, version, -1),
        temperatures=np.where(mask, 1.0, 0.0),
        finish=finish,
        text=shown,
    )
    answer = find_answer(shown)
    numbers, target = problem.payload["numbers"], problem.payload["target"]
    accuracy = Verdict.scored(0, "no_answer") if answer is None else judge_expression(answer, numbers, target)
    form = judge_format(shown)
    right = accuracy.correct
    rewards = {"accuracy": float(right), "format": 0.1 if form.correct and not right else 0.0}
    return rollout.scored({"accuracy": accuracy, "format": form}, rewards)


def make_groups(
    problems: Sequence[Problem], samples: int, skill: float, version: int, rng: random.Random
) -> list[Group]:
    return [Group(p, tuple(make_rollout(p, s, skill, version, rng) for s in range(samples))) for p in problems]


def skill_at(share: float) -> float:
    """How skill grows over a run: fast at first."""
    return 1 - math.exp(-3.2 * share)


def measures(groups: Iterable[Group]) -> dict[str, float]:
    """What a step reports of its groups."""
    rows = [r for g in groups for r in g]
    texts = [r.text for r in rows]
    finished = [r for r in rows if not r.truncated] or rows
    return {
        "accuracy": float(np.mean([r.verdicts["accuracy"].correct for r in rows])),
        "format": float(np.mean([r.verdicts["format"].correct for r in rows])),
        "format_finished": float(np.mean([r.verdicts["format"].correct for r in finished])),
        "reward": float(np.mean([r.reward for r in rows])),
        "reward_accuracy": float(np.mean([r.rewards["accuracy"] for r in rows])),
        "reward_format": float(np.mean([r.rewards["format"] for r in rows])),
        "response_tokens": float(np.mean([r.response_length for r in rows])),
        "truncated": float(np.mean([r.truncated for r in rows])),
        "attempts": float(np.mean([t.count("?") for t in texts])),
        "backtracking": float(np.mean([" no\n" in t for t in texts])),
        "verification": float(np.mean(["?" in t for t in texts])),
    }


def evaluation(groups: Sequence[Group], problems: int, skill: float, examples: int) -> dict[str, Any]:
    """An evaluation as r1kit.evaluation writes it."""
    found = measures(groups)
    value = found["accuracy"]
    half = 1.96 * math.sqrt(value * (1 - value) / problems) + 0.004
    k = len(groups[0])
    tries = {j: 1 - (1 - value) ** (0.55 * j + 0.45) for j in (1, 2, 4, 8) if j <= k}
    return {
        "benchmark": "countdown",
        "n": problems,
        "k": k,
        "cap": CAP,
        "temperature": 1.0,
        "pass@1": {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)},
        "pass@k": {str(j): v for j, v in tries.items()},
        "tokens_mean": found["response_tokens"],
        "truncated": found["truncated"],
        "format_finished": found["format_finished"],
        "attempts": found["attempts"],
        "backtracking": found["backtracking"],
        "verification": found["verification"],
        "verdict_right": 0.97 + 0.025 * skill,
        "arithmetic_right": 0.88 + 0.08 * skill,
        "numbers_right": 0.93 + 0.04 * skill,
        "seed": 0,
        "top_p": 1.0,
        "decoding_error": 0.004,
        "problem_error": 0.012,
        "right_finished": value / max(1e-9, 1 - found["truncated"]),
        "repeats": 0.1 + 0.15 * skill,
        "intervals": {
            f"pass@{j}": {"value": v, "low": max(0.0, v - half), "high": min(1.0, v + half)} for j, v in tries.items()
        },
        "examples": [g.to_json() for g in groups[:examples]],
    }


class RunWriter:
    """Writes the files of one run, stage by stage."""

    def __init__(self, directory: Path, shape: Shape) -> None:
        self.directory, self.shape = directory, shape
        self.rng = random.Random(shape.seed)
        self.noise = np.random.default_rng(shape.seed)
        self.held_out = [make_problem(self.rng, i, "test") for i in range(shape.held_out)]
        self.rows: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []

    def write(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        recipe = json.loads(json.dumps(RECIPE))
        recipe["stages"]["rl"]["steps"] = self.shape.steps
        (self.directory / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        self.checkpoint("base")
        writers = (self.pretrain, self.base_eval, self.rl, self.final)
        for name, writer in list(zip(STAGES, writers, strict=True))[: self.shape.reached]:
            self.json(f"stages/{name}.json", writer())
            self.records.append(json.loads((self.directory / f"stages/{name}.json").read_text()))
        if self.shape.stop_at is not None:
            self.rl(stop_at=self.shape.stop_at)
            self.json("stages/rl.started.json", {"kind": "rl", "seconds": 61.0, "cpu_seconds": 118.0})
        with (self.directory / "metrics.jsonl").open("w") as out:
            out.writelines(json.dumps(row) + "\n" for row in self.rows)
        self.paperwork()
        return self.directory

    def json(self, name: str, value: Any) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def checkpoint(self, stage: str) -> None:
        folder = self.directory / "checkpoints" / stage / "step-000010"
        folder.mkdir(parents=True, exist_ok=True)
        TOKENIZER.save_pretrained(folder)
        (folder / "COMPLETE").touch()

    def record(self, name: str, kind: str, seconds: float, tokens: dict[str, int], **rest: Any) -> dict[str, Any]:
        return {
            "name": name,
            "kind": kind,
            "fingerprint": f"{hash((name, 1)) & 0xFFFFFFFF:08x}",
            "seconds": seconds,
            "cpu_seconds": seconds * 1.93,
            "peak_memory_bytes": int(1.2e9 + 1e6 * seconds),
            "tokens": tokens,
            **rest,
        }

    def pretrain(self) -> dict[str, Any]:
        total, per_step = 3_900_000, 2048
        for step in range(20, total // per_step + 1, 20):
            tokens = step * per_step
            share = tokens / total
            loss = (
                0.69 + 4.2 * math.exp(-9 * share) + 0.35 * math.exp(-2.2 * share) + float(self.noise.normal(0, 0.012))
            )
            values = {
                "loss": loss,
                "lr": 0.02 * (1 - share),
                "grad_norm": 0.5 + 2 * math.exp(-6 * share),
                "tokens": tokens,
            }
            clock = {"tokens_per_s": 25_000 + float(self.noise.normal(0, 900)), "wall": 1.7e9 + step}
            self.rows.append({"stage": "base", "kind": "train", "step": step, **values, "clock": clock})
        for i in range(1, 9):
            share = i / 8

            def rise(at: float, width: float, share: float = share) -> float:
                return 1 / (1 + math.exp(-(share - at) / width))

            values = {
                "pass@1": 0.1 * rise(0.7, 0.1),
                "pass@1_low": 0.09 * rise(0.7, 0.1),
                "pass@1_high": 0.115 * rise(0.7, 0.1),
                "response_tokens": 60 - 12 * share,
                "truncated": 0.05,
                "format_finished": 0.55,
                "attempts": 2.2 + 0.3 * share,
                "backtracking": 0.45,
                "verdict_right": 0.6 + 0.38 * rise(0.3, 0.08),
                "arithmetic_right": 0.88 * rise(0.28, 0.09),
                "numbers_right": 0.95 * rise(0.58, 0.06),
            }
            self.rows.append({"stage": "base", "kind": "eval", "step": round(share * 1900), **values, "clock": {}})
        tokens = {"sampled": 0, "trained": total, "discarded": 0}
        return self.record("base", "pretrain", 158.2, tokens, outputs={"model": "checkpoints/base/step-001905"})

    def base_eval(self) -> dict[str, Any]:
        return self.measured("base_eval", 0.0, 9.4)

    def final(self) -> dict[str, Any]:
        return self.measured("final", 1.0, 15.8)

    def measured(self, name: str, skill: float, seconds: float) -> dict[str, Any]:
        result = evaluation(self.evaluated(8, skill, 0), 512, skill, self.shape.examples)
        self.json(f"evaluations/{name}/final.json", result)
        short = {key: value for key, value in result.items() if key != "examples"}
        tokens = {"sampled": int(result["tokens_mean"] * 4096), "trained": 0, "discarded": 0}
        return self.record(name, "evaluate", seconds, tokens, eval=short)

    def evaluated(self, samples: int, skill: float, step: int) -> list[Group]:
        return make_groups(self.held_out, samples, skill, step, self.rng)

    def rl(self, *, stop_at: int | None = None) -> dict[str, Any]:
        steps = self.shape.steps
        last = steps if stop_at is None else stop_at
        counted = {"sampled": 0, "trained": 0, "discarded": 0}
        for step in range(last + 1):
            skill = skill_at(step / steps)
            if step % 15 == 0 or step == steps:
                self.evaluate_rl(step, skill)
            if step:
                row = self.rl_step(step, skill)
                for name in counted:
                    counted[name] += int(row[f"tokens_{name}"])
        return self.record("rl", "rl", 214.7, counted, outputs={"model": f"checkpoints/rl/step-{steps:06d}"})

    def evaluate_rl(self, step: int, skill: float) -> None:
        result = evaluation(self.evaluated(4, skill, step), 128, skill, self.shape.examples)
        self.json(f"evaluations/rl/step-{step:06d}.json", result)
        same = (
            "truncated",
            "format_finished",
            "attempts",
            "backtracking",
            "verification",
            "verdict_right",
            "arithmetic_right",
        )
        self.rows.append(
            {
                "stage": "rl",
                "kind": "eval",
                "step": step,
                "pass@1": result["pass@1"]["value"],
                "pass@1_low": result["pass@1"]["low"],
                "pass@1_high": result["pass@1"]["high"],
                "pass@4": result["pass@k"]["4"],
                "response_tokens": result["tokens_mean"],
                **{key: result[key] for key in same},
                "clock": {"seconds": 2.1},
            }
        )

    def rl_step(self, step: int, skill: float) -> dict[str, Any]:
        shape = self.shape
        problems = [make_problem(self.rng, step * 1000 + i, "train") for i in range(shape.groups)]
        groups = make_groups(problems, shape.samples, skill, step, self.rng)
        if step % shape.rollouts_every == 0 or step in (1, shape.steps):
            self.rollouts(step, groups)
        found = measures(groups)
        useful = float(np.mean([len(set(g.rewards)) > 1 for g in groups]))
        sampled = found["response_tokens"] * 256 / max(useful, 0.4)
        wobble = self.noise.normal
        row = {
            **{key: value for key, value in found.items() if key != "format_finished"},
            "verdict_right": 0.97 + 0.025 * skill + float(wobble(0, 0.002)),
            "arithmetic_right": 0.88 + 0.08 * skill + float(wobble(0, 0.004)),
            "numbers_right": 0.93 + 0.04 * skill + float(wobble(0, 0.004)),
            "entropy": 0.42 - 0.14 * skill + float(wobble(0, 0.008)),
            "grad_norm": 0.35 + 0.3 * math.exp(-step / 12) + abs(float(wobble(0, 0.05))),
            "loss": float(wobble(0, 0.01)),
            "lr": 3e-4 * min(1, step / 5),
            "clip_low": 0.0,
            "clip_high": 0.0,
            "approx_kl": abs(float(wobble(0, 2e-4))),
            "useful_groups": useful,
            "groups_sampled": 40,
            "groups_trained": 32,
            "carried": 3,
            "tokens_sampled": sampled,
            "tokens_trained": sampled * useful,
            "tokens_discarded": sampled * (1 - useful),
        }
        seconds = sampled / 40_000
        clock = {
            "sample_s": seconds,
            "reward_s": 0.06,
            "train_s": 1.3 * seconds,
            "sync_s": 0.01,
            "tokens_per_s": 17_000.0,
        }
        self.rows.append({"stage": "rl", "kind": "train", "step": step, **row, "clock": clock})
        return row

    def rollouts(self, step: int, groups: Sequence[Group]) -> None:
        path = self.directory / f"rollouts/rl/step-{step:06d}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(g.to_json(), ensure_ascii=False) + "\n" for g in groups)
        path.write_bytes(zstandard.compress(lines.encode("utf-8", "surrogatepass")))

    def paperwork(self) -> None:
        if self.shape.reached == len(STAGES):
            stages = [{k: v for k, v in r.items() if k not in ("fingerprint", "outputs")} for r in self.records]
            self.json("summary.json", {"recipe": "tinyzero", "seed": 0, "expect_ok": True, "stages": stages})
        total: dict[str, Any] = {
            name: sum(r["tokens"][name] for r in self.records) for name in ("sampled", "trained", "discarded")
        }
        seconds = sum(r["seconds"] for r in self.records)
        totals = {
            "tokens": total,
            "seconds": seconds,
            "cpu_seconds": 1.93 * seconds,
            "energy_kwh": 65 * seconds / 3.6e6,
        }
        self.json("ledger.json", {"stages": {}, "total": totals, "rates": {"watts": 65}})
        code = {f"room/{i}.py": f"{i:064x}" for i in range(30)}
        machine = {
            "system": "Linux",
            "processor": "a processor",
            "cores": 2,
            "memory_bytes": 24 << 30,
            "flags": ["avx512f"],
        }
        stages = {
            name: {
                "fingerprint": "f1" * 32,
                "finished": "2026-01-02T03:04:05+00:00",
                "input": None if name == "base" else {"path": "checkpoints/base/step-001905", "sha256": "ab" * 32},
                "output": {"path": f"checkpoints/{name}/step-000075", "sha256": "cd" * 32},
            }
            for name in STAGES[: self.shape.reached]
        }
        history = [{"started": "2026-01-02T03:00:00+00:00", "command": "r1kit run tinyzero", "machine": machine}]
        git = {"commit": "c0ffee" * 6, "changed": False}
        lineage = {"seed": 0, "git": git, "code": {"e5" * 32: code}, "inputs": {}, "stages": stages, "history": history}
        self.json("lineage.json", lineage)


def write_run(directory: Path, shape: Shape | None = None) -> Path:
    """Write a synthetic run into `directory` and return it."""
    return RunWriter(directory, shape or Shape()).write()


if __name__ == "__main__":
    write_run(Path(sys.argv[1]), Shape(groups=16))
