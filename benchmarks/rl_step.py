"""How fast whole RL steps are: the recipe's RL stage of r1kit against TRL's GRPOTrainer.

    python benchmarks/rl_step.py                      # from the quick start's final checkpoint
    python benchmarks/rl_step.py --checkpoint DIR     # from any other

One step: 32 problems, 8 responses each (cap 240, natural stops, temperature 1), rewards by rule, one AdamW
step on the clipped policy loss (token mean over the step, no KL). Both start anew from the checkpoint in
every round, take the same problems in the same order, warm up for one step and are timed over the next ones.

Ours runs with two processes of one thread, compiled (the recipe's `native: true`, training and sampling) and through
PyTorch, each twice: as the recipe does (groups whose responses all got the same reward have no gradient and are left
out of the update; nothing is sampled in their place here), and training on every group as TRL does. The first counts,
all are printed. The peer runs in each of {1 process x 2
threads, 2 x 1} x {float32, bfloat16} x per-device batch {16, 64, 256 or the process's whole share}; all are
measured in the first round, the fastest ones again in every later round, in turn with ours. Figures are
medians over rounds.

tokens/s: response tokens sampled, those of groups left out included, over wall seconds of whole steps. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness.arguments import newest_checkpoint, run, shared_parser
from harness.contest import Contender, contest, fastest
from harness.machine import describe
from harness.report import COST_HEADERS, cost_cells, percent, phase_table, result_line, table, thousands
from harness.team import Layout
from harness.workload import read_recipe, stage_of

TWO, THREADS = Layout(2, 1), Layout(1, 2)
OURS, PEER = "workers.rl:OurSteps", "workers.rl:TrlSteps"
UNIT = "response tokens/s over whole RL steps"
MICRO_BATCHES = (16, 64, 256)


def main() -> None:
    arguments = parse()
    machine = describe()
    print(machine)
    ours, peers = contenders(arguments)
    measure(ours, peers, arguments)
    show(ours, peers, arguments)
    print(result_line("rl_step", ours[0].rate(), fastest(peers)[0].rate(), UNIT, machine))


def parse() -> argparse.Namespace:
    parser = shared_parser(__doc__)
    parser.add_argument("--problems", type=int, default=32, help="problems of one step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of one round")
    parser.add_argument("--screen-steps", type=int, default=1, help="timed steps of each peer in the first round")
    parser.add_argument("--finalists", type=int, default=3, help="peers that run again after the first round")
    parser.add_argument("--quick", action="store_true", help="8 problems, cap 32, one step, one round: a check")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.problems, arguments.max_tokens, arguments.steps, arguments.repeats = 8, 32, 1, 1
    if arguments.checkpoint is None:
        arguments.checkpoint = newest_checkpoint(arguments.run, "rl")
    return arguments


def group_size(arguments: argparse.Namespace) -> int:
    return int(stage_of(read_recipe(arguments.recipe), "rl").samples_per_problem)


def contenders(arguments: argparse.Namespace) -> tuple[list[Contender], list[Contender]]:
    """Ours (the first one counts) and the peers."""
    ours = [
        Contender(f"r1kit{' native' if native else ''}, {groups}", TWO, OURS, {"drop": drop, "native": native})
        for native in (True, False)
        for groups, drop in (("groups without advantage left out", True), ("every group trained", False))
    ]
    rollouts = arguments.problems * group_size(arguments)
    peers = []
    for layout in (THREADS, TWO):
        share = rollouts // layout.processes
        for dtype in ("float32", "bfloat16"):
            for micro in dict.fromkeys(min(size, share) for size in MICRO_BATCHES):
                name = f"GRPOTrainer, {dtype}, per-device batch {micro}"
                # The mixed precision of a process is fixed by its first trainer: one team for each dtype.
                peers.append(Contender(name, layout, PEER, {"micro": micro}, {"dtype": dtype}))
    return ours, peers


def measure(ours: Sequence[Contender], peers: Sequence[Contender], arguments: argparse.Namespace) -> None:
    contest(
        ours,
        peers,
        options={
            "checkpoint": str(arguments.checkpoint),
            "recipe": arguments.recipe,
            "problems": arguments.problems,
            "max_tokens": arguments.max_tokens,
        },
        order={"steps": arguments.steps},
        rounds=arguments.repeats,
        seed=arguments.seed,
        finalists=lambda all_peers: fastest(all_peers, arguments.finalists),
        screening={"steps": arguments.screen_steps},
    )


def show(ours: Sequence[Contender], peers: Sequence[Contender], arguments: argparse.Namespace) -> None:
    """Print the tables: rates, then where the time goes, then the ratios."""
    ranked = [*ours, *fastest(peers, len(peers))]
    rows = []
    for c in ranked:
        length = c.total("tokens") / c.total("responses")
        row = [
            c.name,
            str(c.layout),
            thousands(c.rate()),
            f"{length:.0f}",
            percent(c.total("trained") / c.total("tokens")),
        ]
        rows.append([*row, *cost_cells(c)])
    print(
        f"\n{arguments.checkpoint}: {arguments.problems} problems x {group_size(arguments)} responses a step, ", end=""
    )
    print(f"cap {arguments.max_tokens}, {arguments.steps} timed steps a round")
    print(table(["", "layout", "tokens/s", "tokens/response", "trained", *COST_HEADERS], rows))
    print(f"\ntime by phase, last round\n{phase_table(ranked)}\n")
    peer = fastest(peers)[0]
    for c in ours:
        print(f"{c.name} against the fastest peer ({peer}): {c.rate() / peer.rate():.2f}x", end=", ")
        most = [max(run.peak_gib() for run in runs) for runs in (c.runs, peer.runs)]
        print(f"peak memory {most[0]:.2f} GiB against {most[1]:.2f}")


if __name__ == "__main__":
    run(main)
