"""Benchmark figures are worth something only if ours and the peers do the same work and it is counted alike: these
tests hold the counting, the grids of the specification, the turns, the last line, and the training peer's loss.

Not exercised here: any timing (no test may fail because a machine is busy), and TRL's trainer, which is an extra; the
slow test runs a whole script against Transformers.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import engine
import rl_step
import train
from harness import contest as contest_module
from harness.arguments import newest_checkpoint
from harness.contest import Contender, contest, fastest
from harness.phases import PhaseClock
from harness.report import cost_cells, result_line, shares, table
from harness.team import BenchmarkError, Layout, Measurement, Team
from harness.workload import natural_tokens, queue, read_recipe, rl_settings
from r1kit.config.machine import resolve_native
from r1kit.config.parts import ModelSettings
from r1kit.models.chat import encode_prompt
from r1kit.models.loading import load_model, load_tokenizer, write_model
from r1kit.models.tiny import make_tiny
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer
from r1kit.tasks import make_task
from r1kit.training.parallel import World
from r1kit.training.pretraining import train_step
from r1kit.training.session import Session
from workers.batches import Batches
from workers.plain_training import Step, TransformersTraining
from workers.rl import prompt_text

FIELDS = ["name", "ratio", "ours", "peer", "unit", "machine"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of a few thousand parameters."""
    directory, tokenizer = tmp_path_factory.mktemp("checkpoint"), build_tiny_tokenizer()
    settings = ModelSettings(hidden=16, layers=2, heads=2, kv_heads=1, head_dim=32, intermediate=32)
    write_model(make_tiny(settings, tokenizer, seed=0), tokenizer, directory)
    return directory


# -- counting ---------------------------------------------------------------------------------------------------------


def test_natural_tokens_count_the_stop_token_and_no_padding() -> None:
    eos, pad = 2, 0
    assert natural_tokens([[5, 6, eos, pad, pad]], [eos]) == 3
    assert natural_tokens([[eos, pad, pad]], [eos]) == 1
    assert natural_tokens([[5, 6, 7]], [eos]) == 3, "a response at the cap has no stop token"
    assert natural_tokens([[5, eos, eos, eos]], [eos]) == 2, "padding with <eos> itself is padding"
    assert natural_tokens([[5, pad, 6, 9, 1]], [eos, 9]) == 4, "a padding id before the end was sampled"
    assert natural_tokens([[5], [6, eos]], [eos]) == 3
    assert natural_tokens([], [eos]) == 0


def test_queue_repeats_problems_as_further_samples() -> None:
    problems: Any = ["a", "b", "c"]
    assert queue(problems, 5) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1)]


def test_shares_of_a_measurement_add_up_over_processes() -> None:
    figures = [
        {"tokens": 10, "phases": {"sample": 3.0, "train": 1.0}},
        {"tokens": 20, "phases": {"sample": 3.0}},
        {"phases": {"train": 1.0}},
    ]
    measured = Measurement(2.0, 3.0, 0.0, 0.0, figures)
    assert measured.total("tokens") == 30
    assert measured.phases() == {"sample": 6.0, "train": 2.0}
    assert shares(measured.phases()) == "sample 75 %, train 25 %"


def test_phases_count_for_the_innermost_and_wrapping_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    monkeypatch.setattr("harness.phases.time.perf_counter", lambda: float(next(now)))

    class Model:
        def inner(self) -> str:
            return "inner"

        def outer(self) -> str:
            return self.inner()

    model, clock = Model(), PhaseClock()
    with clock.wrapped(model, "inner", "in"), clock.wrapped(model, "outer", "out"):
        assert model.outer() == "inner"
    # The clock was read at: outer begins 0, inner begins 1, inner ends 2, outer ends 3.
    assert clock.seconds == {"out": 2.0, "in": 1.0}
    assert vars(model) == {}


# -- what is printed --------------------------------------------------------------------------------------------------


def test_last_line_has_exactly_the_fields_of_the_specification() -> None:
    row = json.loads(result_line("engine", 41234.56, 10000.0, "tokens/s", "a machine"))
    assert list(row) == FIELDS
    assert row == {
        "name": "engine",
        "ratio": 4.123,
        "ours": 41230.0,
        "peer": 10000.0,
        "unit": "tokens/s",
        "machine": "a machine",
    }


def test_a_peer_that_did_nothing_is_an_error_and_no_infinite_ratio() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        result_line("engine", 1.0, 0.0, "tokens/s", "a machine")


def test_table_aligns_columns() -> None:
    assert table(["name", "n"], [["a", "1,000"], ["long name", "2"]]).splitlines() == [
        "name           n",
        "---------  -----",
        "a          1,000",
        "long name      2",
    ]


def test_cost_cells_tell_cpu_load_and_every_round() -> None:
    runs = [
        Measurement(2.0, 4.0, 0.5, 0.9, [{"tokens": 2000, "peak_bytes": 2**29}, {"peak_bytes": 2**30}]),
        Measurement(2.0, 2.0, 0.9, 1.5, [{"tokens": 4000}]),
    ]
    assert cost_cells(Contender("x", Layout(2, 1), "m:C", runs=runs)) == [
        "6.0 (75 %)",
        "0.5 > 1.5",
        "1.50",
        "1,000 2,000",
    ]


# -- who is measured when ---------------------------------------------------------------------------------------------


class FakeTeam:
    """Answers with the rate written in the order; keeps what it was asked."""

    asked: ClassVar[list[dict[str, Any]]] = []
    started: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, target: str, layout: Layout, options: dict[str, Any]) -> None:
        FakeTeam.started.append(options)

    def __enter__(self) -> FakeTeam:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def measure(self, order: dict[str, Any]) -> Measurement:
        FakeTeam.asked.append(order)
        return Measurement(1.0, 1.0, 0.0, 0.0, [{"tokens": order["rate"] + order["seed"]}])


def test_every_peer_runs_once_and_the_fastest_again_in_turn_with_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest_module, "Team", FakeTeam)
    monkeypatch.setattr(FakeTeam, "asked", [])
    monkeypatch.setattr(FakeTeam, "started", [])
    ours = [Contender("ours", Layout(2, 1), "m:Ours", {"rate": 100})]
    peers = [Contender(f"peer {r}", Layout(2, 1), "m:Peer", {"rate": r}) for r in (10, 30, 20)]
    contest(
        ours,
        peers,
        options={"checkpoint": "somewhere"},
        order={"requests": 4, "cap": 240},
        rounds=3,
        seed=5,
        finalists=lambda all_peers: fastest(all_peers, 1),
        warm_up={"cap": 24},
        screening={"requests": 1},
    )
    assert [order["requests"] for order in FakeTeam.asked if order["cap"] == 240] == [4, 1, 1, 1, 4, 4, 4, 4]
    timed = [order["rate"] for order in FakeTeam.asked if order["cap"] == 240]
    assert timed == [100, 10, 30, 20, 100, 30, 100, 30]
    assert [order["rate"] for order in FakeTeam.asked if order["cap"] == 24] == [100, 10, 30, 20]
    assert ours[0].rate() == 106, "the median of the seeds 5, 6 and 7"
    assert fastest(peers)[0].rate() == 36.5, "the median of the seeds 6 and 7: what chose it does not count"
    assert FakeTeam.started == [{"checkpoint": "somewhere"}] * 2, "equal targets and layouts share their processes"


def test_engine_measures_the_grid_of_the_specification() -> None:
    arguments = Namespace(recipe="tinyzero", slots=None, dtype="auto", native=True)
    ours, peers = engine.contenders(arguments)
    grid = {(str(p.layout), p.order["dtype"], p.order["batch"]) for p in peers}
    assert grid == set(itertools.product(["1 x 2 threads", "2 x 1 thread"], ["float32", "bfloat16"], [64, 256]))
    assert str(ours[0].layout) == "2 x 1 thread"
    assert not ours[0].order["deterministic"]
    assert ours[0].order["native"] == resolve_native("on")
    assert {o.order["native"] for o in ours} == {"off", "float32", resolve_native("on")}


def test_rl_step_measures_the_same_grid_and_counts_the_recipe_first() -> None:
    ours, peers = rl_step.contenders(Namespace(recipe="tinyzero", problems=32))
    grid = {(str(p.layout), p.options["dtype"], p.order["micro"]) for p in peers}
    assert grid == {
        *itertools.product(["1 x 2 threads"], ["float32", "bfloat16"], [16, 64, 256]),
        *itertools.product(["2 x 1 thread"], ["float32", "bfloat16"], [16, 64, 128]),
    }
    assert [(c.order["native"], c.order["drop"]) for c in ours] == [*itertools.product([True, False], repeat=2)]


@pytest.mark.parametrize("kind", train.KINDS)
def test_training_has_a_peer_for_every_layout_of_ours(kind: str) -> None:
    ours, peers = train.contenders(kind)
    assert {c.layout for c in ours} == {p.layout for p in peers}
    assert {p.order["dtype"] for p in peers} == {"float32", "bfloat16"}


def test_processes_run_together_and_answer() -> None:
    with Team("harness.machine:LinearBound", Layout(2, 1), {"seconds": 0.0}) as team:
        for _ in range(2):
            measured = team.measure({"dtype": "float32", "inputs": 8, "outputs": 8})
            assert len(measured.figures) == 2
            assert all({"gflops", "started", "ended", "cpu_seconds"} <= set(f) for f in measured.figures)


def test_a_failed_process_is_named_with_its_last_words() -> None:
    with pytest.raises(BenchmarkError, match=r"process 0 ended with code 1[\s\S]*has no attribute 'Missing'"):
        Team("harness.machine:Missing", Layout(1, 1), {})


# -- the same work ----------------------------------------------------------------------------------------------------


def test_a_benchmark_step_samples_all_groups_and_writes_nothing() -> None:
    recipe = read_recipe("tinyzero")
    for drop in (True, False):
        settings = rl_settings(recipe, problems=32, max_tokens=240, drop=drop)
        assert (settings.problems_per_step, settings.samples_per_problem, settings.sampling.max_tokens) == (32, 8, 240)
        assert settings.dynamic_sampling.max_factor == 1.0
        assert (settings.dynamic_sampling.enabled, settings.dynamic_sampling.carry) == (drop, False)
        assert (settings.evaluate.every, settings.rollouts_every) == (0, 0)
        assert settings.algorithm == recipe.stages["rl"].algorithm


def test_the_trl_peer_is_given_the_same_prompt_tokens() -> None:
    tokenizer, task = build_tiny_tokenizer(), make_task(read_recipe("tinyzero").task)
    for problem in task.problems("train")[:20]:
        assert tokenizer(text=[prompt_text(tokenizer, problem)])["input_ids"][0] == encode_prompt(tokenizer, problem)


def test_the_training_peer_has_our_loss(checkpoint: Path, tmp_path: Path) -> None:
    options = {"checkpoint": str(checkpoint), "recipe": "tinyzero", "store": "", "folder": str(tmp_path)}
    order = {"kind": "pretrain", "dtype": "float32", "micro": 1 << 20, "layout": "documents", "steps": 1, "seed": 0}
    batches = Batches(options, 0, 1)
    documents = batches.document_steps(order)[-1]
    stage = batches.pretraining
    session = Session(
        tmp_path / "none",
        World.single(),
        stage.optimizer,
        lambda: load_model(checkpoint),
        load_tokenizer(checkpoint),
        dtype="float32",
        keep_checkpoints=1,
    )
    ours, _ = train_step(session, documents, stage, 0.0)

    peer = TransformersTraining(options, 0, 1)
    peer.prepare({**order, "steps": 1})
    peer.model.load_state_dict(peer.model.__class__.from_pretrained(checkpoint, dtype="float32").state_dict())
    step: Step = peer.timed[0]
    assert step.scored == sum(len(d) - 1 for d in documents)
    assert peer._loss(step.rows).item() / step.scored == pytest.approx(ours, rel=1e-5)


def test_joined_rows_hold_every_token_once(checkpoint: Path, tmp_path: Path) -> None:
    options = {"checkpoint": str(checkpoint), "recipe": "tinyzero", "store": "", "folder": str(tmp_path)}
    order = {"kind": "pretrain", "dtype": "float32", "micro": 1 << 20, "layout": "rows", "steps": 1, "seed": 0}
    peer = TransformersTraining(options, 0, 1)
    peer.prepare(order)
    documents = peer.document_steps(order)[-1]
    rows = peer.timed[0].rows
    assert sum(len(r.inputs) + 1 for r in rows) in (sum(map(len, documents)), sum(map(len, documents)) - 1)
    assert {len(r.inputs) for r in rows[:-1]} == {peer.pretraining.document_length}


def test_a_missing_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="make quickstart"):
        newest_checkpoint(tmp_path, "rl")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # eleven configurations, each in processes of its own
def test_the_engine_benchmark_runs_to_its_last_line(checkpoint: Path) -> None:
    script = Path(engine.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--checkpoint", str(checkpoint), "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert list(row) == FIELDS
    assert row["name"] == "engine"
    assert row["ours"] > 0
    assert row["peer"] > 0
