"""Why this matters: the rollouts on the page are all most readers ever see of a model; the choice must be fair.

Does not exercise: the script that shows them.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import zstandard

from r1kit.dashboard.browser import make_bundle, outcome_of, spread
from r1kit.dashboard.run_data import load_run
from r1kit.records import Rollout, Verdict


def rollout(finish="stopped", verdict=None):
    made = Rollout(
        problem_id="p",
        sample=0,
        prompt_length=1,
        token_ids=np.array([1, 2]),
        loss_mask=np.array([False, True]),
        logprobs=np.array([0.0, -0.5]),
        policy_versions=np.array([-1, 0]),
        temperatures=np.array([0.0, 1.0]),
        finish=finish,
    )
    return made.scored({"accuracy": verdict} if verdict else {}, {})


def test_outcomes():
    wrong = Verdict.scored(0, "wrong")
    assert outcome_of(rollout(verdict=Verdict.scored(1, "correct"))) == "right"
    assert outcome_of(rollout(verdict=wrong)) == "wrong"
    assert outcome_of(rollout("length", wrong)) == "truncated"
    assert outcome_of(rollout("failed", wrong)) == "unjudged"
    assert outcome_of(rollout(verdict=Verdict("error", None, "worker_lost"))) == "unjudged"
    assert outcome_of(rollout()) == "unjudged"


def test_spread_keeps_both_ends():
    assert spread(list(range(100)), 4) == [0, 33, 66, 99]
    assert spread([1, 2], 4) == [1, 2]


def test_early_middle_and_late_are_there_in_whole_groups(finished_run):
    bundle = make_bundle(load_run(finished_run))
    labels = [moment["label"] for moment in bundle.moments]
    assert labels == ["base_eval", *[f"rl · step {s}" for s in (0, 1, 2, 4, 6, 8, 8)], "final"]
    groups = {(row["moment"], row["problem"]) for row in bundle.rollouts}
    for moment, problem in groups:
        rows = [r for r in bundle.rollouts if (r["moment"], r["problem"]) == (moment, problem)]
        assert sorted(r["sample"] for r in rows) == list(range(len(rows)))
        assert abs(sum(r["advantage"] for r in rows)) < 1e-3


def test_one_problem_can_be_followed_through_time(finished_run):
    bundle = make_bundle(load_run(finished_run))
    moments: dict[int, set[int]] = {}
    for row in bundle.rollouts:
        moments.setdefault(row["problem"], set()).add(row["moment"])
    assert max(len(seen) for seen in moments.values()) == 4


def test_tokens_spell_the_response(finished_run):
    bundle = make_bundle(load_run(finished_run))
    row = next(r for r in bundle.rollouts if r["finish"] == "stopped")
    spelled = "".join(bundle.words[i] for i in row["tokens"])
    assert spelled == "".join(p[1] for _, pieces in row["regions"] for p in pieces) + "<eos>"
    assert len(row["logprobs"]) == row["length"]
    assert max(row["logprobs"]) <= 0


def test_the_budget_holds_and_every_moment_keeps_a_share(finished_run):
    full = make_bundle(load_run(finished_run))
    small = make_bundle(load_run(finished_run), max_bytes=60_000)
    assert len(json.dumps(small.to_json())) < 75_000
    assert len(small.rollouts) < len(full.rollouts)
    assert small.moments == full.moments


def test_without_a_tokenizer_there_are_responses_but_no_strips(finished_run, tmp_path):
    run_directory = shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    bundle = make_bundle(load_run(run_directory))
    assert bundle.words == []
    assert "tokens" not in bundle.rollouts[0]
    assert bundle.rollouts[0]["regions"]


def test_a_file_that_holds_no_groups_is_told(finished_run, tmp_path):
    run_directory = shutil.copytree(finished_run, tmp_path / "run")
    path = run_directory / "rollouts/rl/step-000001.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"problem": {}, "rollouts": []}\n'))
    run = load_run(run_directory)
    make_bundle(run)
    assert any("step-000001.jsonl.zst, group 1 is not a group" in note for note in run.notes)
