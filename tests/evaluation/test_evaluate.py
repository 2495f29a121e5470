"""Why this matters: an evaluation that shares noise between processes reports pass@8 as pass@16 (it
happened in the prototype); one that counts a lost verifier as a wrong answer moves the headline without a
trace.

Does not exercise: the local engine (tests/engines), real tasks' verdicts, a process group; `peers` are
played by hand.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from r1kit.config.schema import EvaluateSettings
from r1kit.engines.fake import FakeEngine
from r1kit.evaluation import EvaluationError, Shard, evaluate, sample_and_score, summarise
from r1kit.evaluation.sampling import select_problems
from r1kit.records import Group

from .toy import EOS, LETTERS, ScriptedEngine, ToySettings, ToyTask, ToyTokenizer, encode, make_problems


def shard_of(rank: int, size: int, *, seed: int = 5, **change: Any) -> Shard:
    """One process' part, by a sampling engine of its own."""
    settings = replace(ToySettings(), **change)
    return sample_and_score(
        FakeEngine(EOS + 1), ToyTokenizer(), ToyTask(), make_problems(settings.problems), settings,
        seed=seed, encode_prompt=encode, rank=rank, size=size, examples=2,
    )  # fmt: skip


def summary_of(shards: list[Shard], **change: Any):
    settings = replace(ToySettings(), **change)
    return summarise(shards, benchmark="toy/test", problems=settings.problems, settings=settings, seed=5, examples=2)


def run(script: dict[tuple[str, int], str], task: ToyTask | None = None, **change: Any):
    problems = len({problem for problem, _ in script})
    settings = replace(ToySettings(), problems=problems, samples=len(script) // problems, **change)
    return evaluate(
        ScriptedEngine(script), ToyTokenizer(), task or ToyTask(), make_problems(problems), settings,
        seed=5, encode_prompt=encode,
    )  # fmt: skip


def test_by_hand() -> None:
    """p0: right, right (cut off); p1: wrong, right. Mean 3/4; pass@2 is 1; 1 of 4 cut off; 2 of the 3
    finished hold a b."""
    result = run({("p0", 0): "bb", ("p0", 1): "ccd|length", ("p1", 0): "ab", ("p1", 1): "ce"})
    row = result.to_json(examples=False)
    assert (row["benchmark"], row["n"], row["k"], row["cap"]) == ("toy/test", 2, 2, 12)
    assert row["pass@1"]["value"] == 0.75
    assert row["pass@k"] == {"1": 0.75, "2": 1.0}
    assert row["truncated"] == 0.25
    assert row["format_finished"] == pytest.approx(2 / 3)
    assert row["tokens_mean"] == 3.0  # the end token counts
    assert row["attempts"] == 0.75
    assert row["backtracking"] == 0.25
    assert row["verdict_right"] == 1.0
    assert row["repeats"] is None
    assert row["decoding_error"] == pytest.approx((0.25) ** 0.5 / 2)
    assert (row["responses"], row["judged"], row["errors"], row["skips"]) == (4, 4, 0, 0)
    assert row["tokens_sampled"] == 12
    assert row["reasons"] == {"correct": 3, "wrong": 1}
    assert row["policy_version"] == 3


def test_skips_and_errors_are_apart_and_never_zero() -> None:
    """Of three problems one is skipped and one broken: pass@1 is that of the third."""
    script = {(f"p{i}", s): "b" for i in range(3) for s in range(2)}
    row = run(script, ToyTask(skipped=frozenset({"p0"}), broken=frozenset({"p1"}))).to_json()
    assert row["pass@1"]["value"] == 1.0
    assert (row["judged"], row["skips"], row["errors"], row["problems_unjudged"]) == (2, 2, 2, 2)
    assert row["reasons"] == {"correct": 2, "gold_invalid": 2, "worker_lost": 2}


def test_a_response_the_engine_lost_is_an_error_and_has_no_length() -> None:
    row = run({("p0", 0): "b", ("p0", 1): "|failed", ("p1", 0): "b", ("p1", 1): "a"}).to_json()
    assert (row["errors"], row["judged"]) == (1, 3)
    assert row["reasons"]["failed"] == 1
    assert row["pass@1"]["value"] == 0.75  # problems weigh the same: (1/1 + 1/2) / 2
    assert row["pass@k"]["2"] == 1.0  # over the one problem that has two judged responses
    assert row["tokens_mean"] == 2.0


def test_nothing_judged_is_an_error_not_a_number() -> None:
    script = {("p0", 0): "b"}
    with pytest.raises(EvaluationError, match=r"none of 1 responses could be judged.*worker_lost"):
        run(script, ToyTask(broken=frozenset({"p0"})))


@pytest.mark.parametrize("size", [2, 3, 5, 20])
def test_shards_add_up_to_the_single_process(size: int) -> None:
    """Whatever the number of processes (20: some have nothing to do) and their order, the result is the
    same to the bit."""
    whole = summary_of([shard_of(0, 1)])
    shards = [Shard.from_json(json.loads(json.dumps(shard_of(r, size).to_json()))) for r in range(size)]
    assert summary_of(shards[::-1]).to_json() == whole.to_json()


def test_noise_is_never_shared() -> None:
    """All 12 x 16 responses to one and the same prompt differ in their noise, within a problem and between
    shards."""
    problems = [replace(p, prompt=make_problems(1)[0].prompt) for p in make_problems(12)]
    settings = ToySettings(samples=16, max_tokens=24)
    texts: list[str] = []
    for rank in range(2):
        shard = sample_and_score(
            FakeEngine(EOS + 1, lambda tokens: [1.0] * len(LETTERS) + [-99.0]), ToyTokenizer(), ToyTask(),
            problems, settings, seed=0, encode_prompt=encode, rank=rank, size=2, examples=12,
        )  # fmt: skip
        assert len(shard.rows) == 6 * 16
        texts += [rollout.text for group in shard.examples.values() for rollout in group]
    assert len(texts) >= 24
    assert len(set(texts)) == len(texts)


def test_another_seed_draws_other_responses_and_the_same_seed_the_same() -> None:
    first, again, other = shard_of(0, 1), shard_of(0, 1), shard_of(0, 1, seed=6)
    assert first.to_json() == again.to_json()
    assert [r.tokens for r in first.rows] != [r.tokens for r in other.rows]


def test_the_pass_at_k_of_real_noise_rises() -> None:
    """Were the samples of a problem copies of one another, pass@k would equal pass@1."""
    result = summary_of([shard_of(0, 1, samples=16)], samples=16)
    values = [result.pass_k[k].value for k in (1, 2, 4, 8, 16)]
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.2


def test_missing_and_doubled_shards_are_refused() -> None:
    with pytest.raises(EvaluationError, match="is a shard missing"):
        summary_of([shard_of(0, 2)])
    with pytest.raises(EvaluationError, match="comes twice"):
        summary_of([shard_of(0, 2), shard_of(0, 2), shard_of(1, 2)])
    with pytest.raises(EvaluationError, match="expected 12 problems"):
        summary_of([shard_of(0, 1, problems=13)])


def test_examples_are_the_same_problems_every_time_and_show_each_kind() -> None:
    """The first problems whatever happens, then the first of each kind these do not show: here wrong (p3),
    cut off (p4)."""
    words = {"p3": "a", "p4": "a|length"}
    script = {(f"p{i}", s): words.get(f"p{i}", "b") for i in range(6) for s in range(3)}
    settings = ToySettings(problems=6, samples=3)
    result = evaluate(
        ScriptedEngine(script), ToyTokenizer(), ToyTask(), make_problems(6), settings,
        seed=0, encode_prompt=encode, examples=2,
    )  # fmt: skip
    assert [group.problem.id for group in result.examples] == ["p0", "p1", "p3", "p4"]
    assert all(len(group) == 2 for group in result.examples)
    rows = json.loads(json.dumps(result.to_json()))["examples"]
    assert [Group.from_json(row).rollouts[0].text for row in rows] == ["b", "b", "a", "a"]
    rollout = result.examples[0].rollouts[0]
    assert rollout.verdicts["accuracy"].correct
    assert rollout.loss_mask.tolist() == [False, False, True, True]
    assert rollout.policy_versions.tolist() == [-1, -1, 3, 3]


def test_peers_share_the_work_and_all_get_the_same() -> None:
    """Both ranks of a pair, played one after the other."""

    class Pair:
        size = 2

        def __init__(self, rank: int, other: Shard) -> None:
            self.rank, self.other = rank, other

        def gather(self, value: Any, stage: str = "gather") -> list[Any]:
            pair = [json.loads(json.dumps(value)), self.other.to_json()]
            return pair if self.rank == 0 else pair[::-1]

    results = []
    for rank in range(2):
        results.append(
            evaluate(
                FakeEngine(EOS + 1), ToyTokenizer(), ToyTask(), make_problems(12), ToySettings(),
                seed=5, encode_prompt=encode, peers=Pair(rank, shard_of(1 - rank, 2)), examples=2,
            ).to_json()
        )  # fmt: skip
    assert results[0] == results[1] == summary_of([shard_of(0, 1)]).to_json()


def test_progress_counts_responses_and_waves_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.evaluation.sampling.WAVE", 10)
    seen: list[tuple[int, int]] = []
    shard = sample_and_score(
        FakeEngine(EOS + 1), ToyTokenizer(), ToyTask(), make_problems(12), ToySettings(),
        seed=5, encode_prompt=encode, examples=2, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(8, 48), (16, 48), (24, 48), (32, 48), (40, 48), (48, 48)]
    assert shard.to_json() == shard_of(0, 1).to_json()


def test_provenance_tells_prompts_and_problems_apart() -> None:
    base = summary_of([shard_of(0, 1)]).provenance
    assert base == summary_of([shard_of(0, 2), shard_of(1, 2)]).provenance
    settings = ToySettings()
    moved = sample_and_score(
        FakeEngine(EOS + 1), ToyTokenizer(), ToyTask(), make_problems(12), settings,
        seed=5, encode_prompt=lambda t, p: [*encode(t, p), 0],
    )  # fmt: skip
    other = summary_of([moved]).provenance
    assert other["prompts_hash"] != base["prompts_hash"]
    assert other["problems_hash"] == base["problems_hash"]


def test_provenance_holds_every_setting_of_the_sampler() -> None:
    settings = EvaluateSettings(model="m", problems=12, samples=4, max_tokens=12, top_p=0.9, top_k=3, temperature=0.7)
    provenance = summarise([shard_of(0, 1)], benchmark="toy", problems=12, settings=settings, seed=5).provenance
    assert {name: provenance[name] for name in ("temperature", "top_p", "top_k")} == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 3,
    }


def test_problems_are_checked_before_anything_is_sampled() -> None:
    with pytest.raises(EvaluationError, match="no problem to ask"):
        select_problems([], ToySettings())
    with pytest.raises(EvaluationError, match="p0 comes twice"):
        select_problems([*make_problems(1), *make_problems(1)], ToySettings())
    assert len(select_problems(make_problems(12), ToySettings(problems=3))) == 3
