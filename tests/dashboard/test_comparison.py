"""Why this matters: this picks the two numbers of the headline.

Does not exercise: how intervals are computed (evaluation does).
"""

from __future__ import annotations

from r1kit.dashboard.comparison import Measured, compare
from r1kit.dashboard.formats import Estimate
from r1kit.dashboard.run_data import RunData, StageData, load_run


def run_of(*stages: StageData) -> RunData:
    return RunData(None, {}, "", {}, {}, {}, list(stages), [])


def evaluated(name: str, value: float, kind: str = "evaluate", **rest) -> StageData:
    return StageData(name, kind, record={"eval": {"pass@1": {"value": value}, **rest}})


def test_two_evaluate_stages_are_base_and_final(finished_run):
    comparison = compare(load_run(finished_run))
    assert (comparison.base.stage, comparison.final.stage) == ("base_eval", "final")
    assert comparison.same_protocol
    labels = [row.label for row in comparison.rows()]
    assert labels[:5] == ["pass@1", "pass@2", "pass@4", "pass@8", "tokens per response"]
    assert all(row.base.has_interval for row in comparison.rows()[:4])
    assert comparison.final.protocol() == "512 problems × 8 samples, cap 240 tokens, T 1"
    assert comparison.final.errors().endswith("1.2 from the choice of problems")


def test_evaluate_stages_go_before_what_training_measured():
    run = run_of(
        evaluated("base", 0.2, "pretrain"),
        evaluated("before", 0.1),
        evaluated("rl", 0.7, "rl"),
        evaluated("after", 0.6),
    )
    comparison = compare(run)
    assert (comparison.base.stage, comparison.final.stage) == ("before", "after")


def test_a_running_stage_is_compared_by_its_rows(stopped_run):
    comparison = compare(load_run(stopped_run))
    assert (comparison.base.stage, comparison.final.label) == ("base_eval", "rl, step 0")
    assert comparison.final_name == "latest"
    rl = StageData("rl", "rl", evals=[{"step": s, "pass@1": 0.1 * s, "pass@4": 0.5} for s in (1, 2, 3)])
    comparison = compare(run_of(rl))
    assert (comparison.base.label, comparison.final.label) == ("rl, step 1", "rl, step 3")
    assert set(comparison.final.pass_at()) == {1, 4}


def test_the_base_of_a_lone_final_evaluation_is_the_stage_before():
    comparison = compare(run_of(evaluated("base", 0.1, "pretrain"), evaluated("final", 0.6)))
    assert (comparison.base.stage, comparison.final.stage) == ("base", "final")


def test_one_evaluation_is_a_base_without_a_final():
    comparison = compare(run_of(evaluated("base_eval", 0.1)))
    assert comparison.base.stage == "base_eval"
    assert comparison.final is None
    assert compare(run_of(StageData("rl", "rl"))).rows() == []


def test_intervals_are_found_beside_the_values():
    values = {"attempts": 7.0, "intervals": {"attempts": {"value": 7.0, "low": 6.5, "high": 7.5}}}
    assert Measured("s", "s", values).estimate("attempts") == Estimate(7.0, 6.5, 7.5)


def test_different_protocols_are_noticed():
    run = run_of(evaluated("a", 0.1, cap=240), evaluated("b", 0.2, cap=480))
    assert not compare(run).same_protocol


def test_better_knows_which_way_is_good():
    run = run_of(evaluated("a", 0.1, truncated=0.2, attempts=2), evaluated("b", 0.2, truncated=0.3, attempts=7))
    rows = {row.label: row for row in compare(run).rows()}
    assert rows["pass@1"].better is True
    assert rows["truncated"].better is False
    assert rows["attempts per response"].better is None
