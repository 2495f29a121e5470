"""How fast training alone is: pre-training steps and RL updates against the machine's bound and Transformers.

    python benchmarks/train.py                      # from the quick start's final checkpoint
    python benchmarks/train.py --checkpoint DIR     # from any other

Two kinds of step, both whole (batches made, forward, backward, all-reduce, clipping, optimiser):

pretrain: the recipe's documents at its batch size; in ours documents never attend to one another.
rl: the policy update on rollouts sampled from the checkpoint (32 problems x 8, cap 240) before the clock starts.

Ours runs with one process and with two, one thread each, compiled (the recipe's `native: true`) and through PyTorch;
compiled with two counts. The peer is Transformers' forward and backward on the same
batches, padded, with AdamW, in {1 x 1 thread, 2 x 1} x {float32, bfloat16} x batch layouts; for pre-training also on
rows of joined documents, which need no padding but mix documents. All are measured in the first round, on a tenth of
the steps, the fastest for each number of processes on all of them in every later one, in turn with ours. Figures are
medians over rounds.

tokens/s: tokens in the loss (pretrain: all, rl: those of responses) over wall seconds. GFLOP/s: 6 x matmul parameters
x useful tokens / second; padding is not useful, and the head counts only for tokens in the loss. Beside it stands the
best F.linear at M = 8192 on the same threads, in whichever of float32 and bfloat16 is faster: all shapes are measured
first, the best of each layout again in every round, beside ours, since the machine's speed drifts.

The last lines are JSON objects: for each kind the ratio to the peer and the share of the bound, then "train", the
smaller of the two shares (ours: GFLOP/s, peer: the bound).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from harness.arguments import newest_checkpoint, run, shared_parser
from harness.contest import Contender, contest, fastest
from harness.machine import Bound, describe, linear_bounds, model_shapes
from harness.report import COST_HEADERS, cost_cells, percent, phase_table, result_line, table, thousands
from harness.team import Layout
from r1kit.models.checkpoint import from_hf_config, read_config

ONE, TWO = Layout(1, 1), Layout(2, 1)
KINDS = ("pretrain", "rl")
OURS = {"pretrain": "workers.training:OurPretraining", "rl": "workers.training:OurUpdate"}
PEER = "workers.plain_training:TransformersTraining"
LIMIT = "harness.machine:LinearBound"
UNITS = {"pretrain": "tokens/s", "rl": "response tokens/s"}
# All rows of a process in one forward pass.
WHOLE = 1 << 20


def main() -> None:
    arguments = parse()
    machine = describe()
    print(machine)
    shapes = model_shapes(from_hf_config(read_config(arguments.checkpoint)))
    bounds = linear_bounds([ONE, TWO], shapes, arguments.bound_seconds)
    lines: list[str] = []
    for kind in arguments.kinds:
        ours, peers = contenders(kind)
        if arguments.alone:
            ours, peers = [c for c in ours if c.order["native"]], []
        limits = limits_beside(bounds)
        measure(kind, [*limits, *ours], peers, arguments)
        lines += show(kind, ours, peers, limits, machine)
    shares = [row for row in map(json.loads, lines) if row["name"].endswith("share_of_bound")]
    print("\n".join([*lines, json.dumps({**min(shares, key=lambda row: row["ratio"]), "name": "train"})]))


def parse() -> argparse.Namespace:
    parser = shared_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--problems", type=int, default=32, help="problems of one RL step")
    parser.add_argument("--pretrain-steps", type=int, default=20, help="timed steps of one round")
    parser.add_argument("--rl-steps", type=int, default=3, help="timed updates of one round")
    parser.add_argument("--alone", action="store_true", help="ours beside the bound only, without the slow peers")
    parser.add_argument("--quick", action="store_true", help="few steps, short responses, one round: a check")
    arguments = parser.parse_args()
    arguments.bound_seconds = 0.5
    if arguments.quick:
        arguments.problems, arguments.max_tokens, arguments.repeats = 8, 32, 1
        arguments.pretrain_steps, arguments.rl_steps, arguments.bound_seconds = 4, 1, 0.05
    if arguments.checkpoint is None:
        arguments.checkpoint = newest_checkpoint(arguments.run, "rl")
    return arguments


def contenders(kind: str) -> tuple[list[Contender], list[Contender]]:
    """Ours (the first counts) and the peers."""
    batches: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "pretrain": [
            ("padded documents", {"layout": "documents", "micro": WHOLE}),
            ("padded documents by 16", {"layout": "documents", "micro": 16}),
            ("joined rows", {"layout": "rows", "micro": WHOLE}),
        ],
        "rl": [(f"padded batches of {n}", {"micro": n}) for n in (16, 64)],
    }
    ours = [
        Contender(f"r1kit{' native' if native else ''}", layout, OURS[kind], {"native": native})
        for native in (True, False)
        for layout in (TWO, ONE)
    ]
    peers = [
        Contender(f"transformers, {dtype}, {name}", layout, PEER, {"kind": kind, "dtype": dtype, **batch})
        for layout in (TWO, ONE)
        for dtype in ("float32", "bfloat16")
        for name, batch in batches[kind]
    ]
    return ours, peers


def limits_beside(bounds: Mapping[Layout, Bound]) -> list[Contender]:
    """The bound of each layout as something that is measured in every round."""
    return [Contender("F.linear", layout, LIMIT, bound.order) for layout, bound in bounds.items()]


def measure(kind: str, ours: Sequence[Contender], peers: Sequence[Contender], arguments: argparse.Namespace) -> None:
    steps = arguments.pretrain_steps if kind == "pretrain" else arguments.rl_steps
    contest(
        ours,
        peers,
        options={
            "checkpoint": str(arguments.checkpoint),
            "recipe": arguments.recipe,
            "seconds": arguments.bound_seconds,
        },
        order={"steps": steps, "problems": arguments.problems, "max_tokens": arguments.max_tokens},
        rounds=arguments.repeats,
        seed=arguments.seed,
        screening={"steps": min(steps, max(3, steps // 10))},
        finalists=lambda all_peers: [fastest_in(all_peers, layout) for layout in (TWO, ONE) if all_peers],
    )


def fastest_in(contenders: Sequence[Contender], layout: Layout) -> Contender:
    return fastest([c for c in contenders if c.layout == layout])[0]


def show(
    kind: str,
    ours: Sequence[Contender],
    peers: Sequence[Contender],
    limits: Sequence[Contender],
    machine: str,
) -> list[str]:
    """Print the tables of one kind; returns its JSON lines."""
    bounds = {c.layout: median(run.total("gflops") for run in c.runs) for c in limits}
    ranked = [*ours, *fastest(peers, len(peers))]
    rows = []
    for c in ranked:
        gflops = c.rate("gflop")
        row = [c.name, str(c.layout), thousands(c.rate()), f"{gflops:.1f}", percent(gflops / bounds[c.layout])]
        rows.append([*row, *cost_cells(c)])
    print(f"\n{kind}")
    for c in limits:
        rounds = ", ".join(f"{run.total('gflops'):.0f}" for run in c.runs)
        print(f"bound, {c.layout}: {bounds[c.layout]:.0f} GFLOP/s (each round: {rounds})")
    print(table(["", "layout", UNITS[kind], "GFLOP/s", "of bound", *COST_HEADERS], rows))
    print(f"\ntime by phase, last round\n{phase_table(ranked)}\n")
    first, lines = ours[0], []
    for c in ours if peers else ():
        peer = fastest_in(peers, c.layout)
        print(f"{kind}, {c}: {c.rate() / peer.rate():.2f}x the fastest peer ({peer.name})")
        if c is first:
            lines.append(result_line(f"train_{kind}", c.rate(), peer.rate(), UNITS[kind], machine))
    share = result_line(f"train_{kind}_share_of_bound", first.rate("gflop"), bounds[first.layout], "GFLOP/s", machine)
    return [*lines, share]


if __name__ == "__main__":
    run(main)
