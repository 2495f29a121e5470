"""Why this matters: the first screen is what gets quoted.

Does not exercise: layout.
"""

from __future__ import annotations

import dataclasses

from r1kit.dashboard import health, overview
from r1kit.dashboard.comparison import compare
from r1kit.dashboard.examples import make_examples
from r1kit.dashboard.run_data import RunData, StageData, load_run


def test_the_headline_of_a_finished_run(finished_run):
    run = load_run(finished_run)
    line, about = overview.headline(run, compare(run))
    assert line.startswith("From ")
    assert line.endswith(" %")
    assert about.endswith("after 8 RL steps.")
    assert overview.status(run).kind == "ok"


def test_the_headline_says_when_there_is_nothing_yet():
    run = RunData(None, {}, "", {}, {}, {}, [StageData("base", "pretrain")], [])
    assert overview.headline(run, compare(run))[0] == "No evaluation yet"
    assert overview.status(run).kind == "open"
    assert overview.track(compare(run)) == []
    assert overview.cards(run, compare(run)) == []


def test_an_unfinished_run_says_how_far_it_is(stopped_run):
    status = overview.status(load_run(stopped_run))
    assert (status.kind, status.detail) == ("open", "rl: step 3 of 8; not started: final")


def test_an_expectation_that_does_not_hold_is_bad(finished_run):
    run = load_run(finished_run)
    run = dataclasses.replace(run, summary={**run.summary, "expect_ok": False})
    assert overview.status(run).kind == "bad"
    (expected,) = overview.expectations(run)
    assert expected.text == "final.pass@1 >= 0.45"
    assert expected.found.startswith("found 0.")


def test_expectations_on_the_record_of_a_stage():
    record = {"seconds": 12.0, "tokens": {"sampled": 5}, "eval": {"pass@k": {"8": 0.9}, "truncated": 0.1}}
    expect = ["rl.seconds < 60", "rl.tokens.sampled > 1", "rl.pass@8 > 0.5", "rl.truncated < 1", "rl.x > 0"]
    run = RunData(None, {"expect": expect}, "", {}, {}, {}, [StageData("rl", "rl", record=record)], [])
    found = [expected.found for expected in overview.expectations(run)]
    assert found == ["found 12", "found 5", "found 0.9", "found 0.1", "not measured"]


def test_the_overlong_part_is_named_when_it_is_used(finished_run):
    run = load_run(finished_run)
    assert "nothing for length" in dict(overview.setup(run))["Reward"]
    reward = {"kind": "tinyzero", "overlong": {"buffer": 40, "penalty": 0.5}}
    with_part = RunData(None, {}, "", {}, {}, {}, [StageData("rl", "rl", settings={"reward": reward})], [])
    assert "the overlong part (buffer 40 tokens, penalty 0.5)" in dict(overview.setup(with_part))["Reward"]


def test_stage_rows_count_unfinished_stages_too(stopped_run):
    rows = overview.stage_rows(load_run(stopped_run))
    assert [row.status for row in rows] == ["finished", "finished", "unfinished", "not started"]
    assert rows[2].seconds == 61.0
    assert rows[3].seconds is None
    assert abs(sum(row.share for row in rows) - 1) < 1e-9


def test_the_checks_put_what_deserves_a_look_first(finished_run):
    run = load_run(finished_run)
    run.stages[2].train = [{"step": i, "truncated": 0.05 * i, "entropy": 1 / (i + 1) ** 2} for i in range(10)]
    findings = health.find(run, compare(run))
    assert [f.ok for f in findings] == sorted(f.ok for f in findings)
    looked_at = " ".join(f.text for f in findings if not f.ok)
    assert "truncated share" not in looked_at  # its last third is below the peak at the very end
    assert "entropy ends at 1." in looked_at
    assert all(f.term for f in findings)


def test_examples_are_one_of_each_kind_of_change(finished_run):
    run = load_run(finished_run)
    examples = make_examples(run, compare(run))
    kinds = [(e.base.outcome, e.final.outcome) for e in examples]
    assert kinds
    assert len(kinds) == len(set(kinds))
