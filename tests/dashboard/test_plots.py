"""Why this matters: these are the figures a reader compares with R1-Zero's.

Does not exercise: the browser that draws them; the cursor script.
"""

from __future__ import annotations

from r1kit.dashboard.chart_specs import PRETRAIN_GROUPS, RL_GROUPS, groups_for
from r1kit.dashboard.glossary import GLOSSARY, entry_of
from r1kit.dashboard.plots import stage_plots
from r1kit.dashboard.run_data import StageData, load_run


def titles(stage):
    return {plot.spec.title: plot for group in stage_plots(stage) for plot in group.plots}


def test_rl_shows_the_figures_of_r1_zero(finished_run):
    plots = titles(load_run(finished_run).stages[2])
    wanted = {"Accuracy", "Response length", "Reward", "Entropy", "Attempts per response", "Reflection"}
    wanted |= {"Truncated", "Useful groups", "Gradient norm", "Clip share"}
    assert wanted <= set(plots)
    held_out, training, _ = plots["Accuracy"].lines
    assert held_out.band
    assert held_out.dots
    assert not training.band
    assert "[" in held_out.value


def test_pretraining_is_against_tokens(finished_run):
    plots = titles(load_run(finished_run).stages[0])
    assert {plot.axis for plot in plots.values()} == {"training tokens"}
    skills = [line.label for line in plots["What it can do"].lines]
    assert skills == ["arithmetic right", "numbers right", "verdicts right", "pass@1"]


def test_charts_of_a_stage_share_their_axis(finished_run):
    plots = titles(load_run(finished_run).stages[2])
    assert {(plot.data["x0"], plot.data["x1"]) for plot in plots.values()} == {(0.0, 8.0)}


def test_the_cursor_reads_one_text_for_each_point(finished_run):
    for plot in titles(load_run(finished_run).stages[2]).values():
        for line in plot.data["lines"]:
            assert len(line["x"]) == len(line["text"])


def test_a_chart_is_described_in_words(finished_run):
    described = titles(load_run(finished_run).stages[2])["Response length"].description
    assert described.startswith("Response length, step 0 to 8: held-out from ")


def test_an_unknown_kind_gets_a_chart_for_every_metric():
    rows = [{"step": i, "margin": 0.1 * i, "loss": 1.0, "kind": "train"} for i in range(5)]
    plots = titles(StageData("prefer", "preference", train=rows))
    assert set(plots) == {"margin", "loss"}


def test_no_data_no_charts():
    assert stage_plots(StageData("rl", "rl")) == []


def test_a_metric_that_a_kind_does_not_know_is_still_shown():
    rows = [{"step": i, "reward": 0.1, "novelty": 0.5} for i in range(3)]
    groups = groups_for(StageData("rl", "rl", train=rows))
    assert [chart.title for chart in groups[-1].charts] == ["novelty"]


def test_every_charted_metric_is_explained():
    charts = [chart for group in (*RL_GROUPS, *PRETRAIN_GROUPS) for chart in group.charts]
    assert [c.title for c in charts if not any(entry_of(curve.key) for curve in c.curves)] == []


def test_the_glossary_has_no_two_entries_for_one_metric():
    keys = [key for entry in GLOSSARY for key in entry.keys]
    assert len(keys) == len(set(keys))
    assert len({entry.anchor for entry in GLOSSARY}) == len(GLOSSARY)
