"""How fast a fixed queue of responses is sampled: the local engine against `generate` of Transformers.

    python benchmarks/engine.py                                   # the quick start's final checkpoint and its base
    python benchmarks/engine.py --checkpoint DIR [--base DIR]     # any other

The queue is 1,024 requests: the first 1,024 held-out problems of the recipe, one response each, natural stops, cap 240,
temperature 1, no top-p and no top-k. Ours runs with two processes of one thread, decoding in compiled C++
(`engine.native: true`: bfloat16 products where the processor has them; `--no-native` leaves it out); one process,
float32 products, PyTorch alone, and deterministic mode are shown beside it.
The peer loads the same checkpoint plainly and runs in each of {1 process x 2 threads, 2 x 1} x {float32, bfloat16} x
batch {64, 256}. All are measured in the first round, the fastest peers again in every later one,
in turn with ours. Figures are medians over rounds.

tokens/s: sampled response tokens, <eos> included, padding not, over wall seconds (first start to last end).
tokens/row: those tokens over the rows the model ran while decoding; what is missing from 1 was padding.
GFLOP/s: 2 x matmul parameters x those tokens / second, beside the best F.linear at M = 8192 on the same threads, in
whichever of float32 and bfloat16 is faster.

The last line is one JSON object, the ratio to the fastest peer; before it stand the share of the bound and both figures
of the base.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.arguments import newest_checkpoint, run, shared_parser
from harness.contest import Contender, contest, fastest
from harness.machine import describe, linear_bounds, model_shapes
from harness.report import COST_HEADERS, cost_cells, percent, result_line, shares, table, thousands
from harness.team import Layout
from harness.workload import read_recipe, stage_of
from r1kit.config.machine import resolve_dtype, resolve_native
from r1kit.models.checkpoint import from_hf_config, read_config

ONE, TWO, THREADS = Layout(1, 1), Layout(2, 1), Layout(1, 2)
OURS, PEER = "workers.sampling:OurEngine", "workers.sampling:TransformersGenerate"
UNIT = "sampled response tokens/s"
# Enough steps to touch all code, too few to take long.
WARM_UP_TOKENS = 24


def main() -> None:
    arguments = parse()
    machine = describe()
    print(machine)
    shapes = model_shapes(_config(arguments.checkpoint))
    limits = linear_bounds([ONE, TWO, THREADS], shapes, arguments.bound_seconds)
    bounds = {layout: bound.gflops for layout, bound in limits.items()}
    lines: list[str] = []
    for name, checkpoint in (("engine_base", arguments.base), ("engine", arguments.checkpoint)):
        if checkpoint is not None:
            ours, peers = contenders(arguments)
            measure(checkpoint, ours, peers, arguments)
            lines += show(name, checkpoint, ours, peers, bounds, machine)
    print("\n".join(lines))


def parse() -> argparse.Namespace:
    parser = shared_parser(__doc__)
    parser.add_argument("--base", type=Path, help="measured too, before the other (default: --run's base)")
    parser.add_argument("--requests", type=int, default=1024)
    parser.add_argument("--finalists", type=int, default=2, help="peers that run again after the first round")
    parser.add_argument("--slots", type=int, help="slots of our engine (default: the recipe's)")
    parser.add_argument("--native", action=argparse.BooleanOptionalAction, default=True, help="compiled decoding")
    parser.add_argument("--dtype", default="auto", help="of our engine: auto, float32 or bfloat16")
    parser.add_argument("--quick", action="store_true", help="128 requests, cap 32, one round: a check, no figure")
    arguments = parser.parse_args()
    arguments.bound_seconds = 0.5
    if arguments.quick:
        arguments.requests, arguments.max_tokens, arguments.repeats, arguments.bound_seconds = 128, 32, 1, 0.05
    if arguments.checkpoint is None:
        arguments.checkpoint = newest_checkpoint(arguments.run, "rl")
        arguments.base = arguments.base or newest_checkpoint(arguments.run, "base")
    return arguments


def contenders(arguments: argparse.Namespace) -> tuple[list[Contender], list[Contender]]:
    """Ours (the first one counts, the others are shown) and the peers."""
    slots = arguments.slots or stage_of(read_recipe(arguments.recipe), "rl").engine.slots
    options = {"dtype": resolve_dtype(arguments.dtype)}

    def ours(layout: Layout, native: str = "off", deterministic: bool = False) -> Contender:
        # A compiled pass is bound by reading the cache: half the slots keep it nearer to the core.
        count = slots if native == "off" else slots // 2
        compiled = "" if native == "off" else f" compiled in {native}"
        name = f"r1kit{compiled}, {count} slots{', deterministic' if deterministic else ''}"
        order = {"slots": count, "deterministic": deterministic, "native": native}
        return Contender(name, layout, OURS, order, options)

    peers = [
        Contender(f"transformers, {dtype}, batch {batch}", layout, PEER, {"dtype": dtype, "batch": batch})
        for layout in (THREADS, TWO)
        for dtype in ("float32", "bfloat16")
        for batch in (64, 256)
    ]
    best = resolve_native("on")
    compiled = [ours(TWO, best), ours(ONE, best), ours(TWO, best, True)]
    if best != "float32":
        compiled.append(ours(TWO, "float32"))
    return [*(compiled if arguments.native else []), ours(TWO), ours(ONE), ours(TWO, deterministic=True)], peers


def measure(
    checkpoint: Path, ours: Sequence[Contender], peers: Sequence[Contender], arguments: argparse.Namespace
) -> None:
    contest(
        ours,
        peers,
        options={"checkpoint": str(checkpoint), "recipe": arguments.recipe},
        order={"requests": arguments.requests, "max_tokens": arguments.max_tokens},
        rounds=arguments.repeats,
        seed=arguments.seed,
        finalists=lambda all_peers: fastest(all_peers, arguments.finalists),
        warm_up={"max_tokens": min(WARM_UP_TOKENS, arguments.max_tokens)},
    )


def show(
    name: str,
    checkpoint: Path,
    ours: Sequence[Contender],
    peers: Sequence[Contender],
    bounds: dict[Layout, float],
    machine: str,
) -> list[str]:
    """Print the tables of one checkpoint; returns its JSON lines, the ratio to the peer last."""
    parameters = _config(checkpoint).matmul_parameters

    def gflops(c: Contender) -> float:
        return 2 * parameters * c.rate() / 1e9

    rows = []
    for c in [*ours, *fastest(peers, len(peers))]:
        row = [c.name, str(c.layout), thousands(c.rate()), f"{gflops(c):.1f}", percent(gflops(c) / bounds[c.layout])]
        rows.append([*row, f"{c.total('tokens') / c.total('rows'):.2f}", *cost_cells(c)])
    first, peer = ours[0], fastest(peers)[0]
    requests = first.total("requests")
    truncated, length = first.total("truncated") / requests, first.total("tokens") / requests
    print(f"\n{checkpoint}")
    print(
        f"{int(requests) // len(first.runs)} requests, {length:.0f} tokens a response, {percent(truncated)} at the cap"
    )
    print(table(["", "layout", "tokens/s", "GFLOP/s", "of bound", "tokens/row", *COST_HEADERS], rows))
    print(f"r1kit, time by phase: {shares(first.runs[-1].phases())}")
    for c in (c for c in ours if c.layout == TWO):
        print(f"{c.name} against the fastest peer ({peer}): {c.rate() / peer.rate():.2f}x")
    return [
        result_line(f"{name}_share_of_bound", gflops(first), bounds[first.layout], "GFLOP/s", machine),
        result_line(name, first.rate(), peer.rate(), UNIT, machine),
    ]


def _config(checkpoint: Path) -> Any:
    return from_hf_config(read_config(checkpoint))


if __name__ == "__main__":
    run(main)
