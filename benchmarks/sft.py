"""How fast supervised fine-tuning is: r1kit's step beside TRL's SFTTrainer with its packing on.

    python benchmarks/sft.py                        # speed, then loss curves on equal batches
    python benchmarks/sft.py --memory               # peak memory of a loss over 32k tokens and 152k words

Speed: the miniature model of the recipe (random weights), made-up sequences of mixed length (16 to 512 tokens, spread
evenly over the logarithm; the first quarter is context). Ours runs with one process and with two, in C++ (with the
products of `native: true` and in float32) and in PyTorch; TRL in {1 process x 2 threads, 2 x 1} x {float32, bfloat16}
x packing: "bfd" keeps documents apart, "wrapped" joins them and lets them see their neighbours. All run in the first
round, the fastest again in every later one, in turn with ours. tokens/s: tokens the model must process over wall
seconds, padding apart.

Curves: both trainers on the same batches from the same weights, TRL in float32; printed is the largest difference of a
step's loss. Memory: the peak of a fresh process above what it held before the step: hidden states [T, D] and the head
[V, D] exist, log-probs and both gradients are made. No logits [T, V] ever exist: they alone would take T * V * 4 bytes.

The last line of speed is a JSON object {"name": "sft", "ratio", ...}; that of memory {"name": "sft_memory", ...}, in
GiB against the limit of 4.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from harness.arguments import run
from harness.contest import Contender, contest, fastest
from harness.machine import describe
from harness.report import COST_HEADERS, cost_cells, phase_table, result_line, table, thousands
from harness.team import Layout, Team
from r1kit.config.machine import resolve_native

ONE, TWO = Layout(1, 2), Layout(2, 1)
OURS, PEER = "workers.supervised:OurSteps", "workers.supervised:TrlSteps"
LIMIT_GIB = 4.0


def main() -> None:
    arguments = parse()
    machine = describe()
    if arguments.measure_memory:
        return print(json.dumps(loss_memory(arguments)))
    print(machine)
    if arguments.memory:
        return memory(arguments, machine)
    ours, peers = contenders(arguments)
    order = {
        "steps": arguments.steps,
        "sequences": arguments.sequences,
        "longest": arguments.longest,
        "budget": arguments.budget,
    }
    options = {"recipe": arguments.recipe}
    contest(
        ours, peers, options=options, order=order, rounds=arguments.repeats, seed=arguments.seed, finalists=finalists
    )
    show(ours, peers)
    curves(options, {**order, "steps": arguments.curve_steps, "seed": arguments.seed})
    best, peer = fastest(ours)[0], fastest(peers)[0]
    print(result_line("sft", best.rate(), peer.rate(), "tokens/s", machine))


# What computes ours, the fastest first, and the setting that says so.
FORMS = {
    **{f"C++ in {products}": products for products in (resolve_native("on"), "float32")},
    "PyTorch": "off",
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tinyzero", help="recipe whose base is the miniature model")
    parser.add_argument("--sequences", type=int, default=96, help="sequences of one optimiser step")
    parser.add_argument("--longest", type=int, default=512, help="longest sequence, in tokens")
    parser.add_argument("--budget", type=int, default=4096, help="ours: tokens of one micro-batch")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of one round")
    parser.add_argument("--curve-steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; figures are medians over them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few steps, short sequences, one round: a check")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    parser.add_argument("--tokens", type=int, default=32_768, help="memory: T")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="memory: V")
    parser.add_argument("--width", type=int, default=896, help="memory: D")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="memory: of weights")
    parser.add_argument("--measure-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sequences, arguments.longest, arguments.budget = 8, 64, 512
        arguments.steps, arguments.curve_steps, arguments.repeats = 2, 3, 1
    return arguments


def contenders(arguments: argparse.Namespace) -> tuple[list[Contender], list[Contender]]:
    """Ours, those that count first, and TRL in the grid of the specification."""
    ours = [
        Contender(f"r1kit, {computing}", layout, OURS, {"native": native})
        for computing, native in FORMS.items()
        for layout in (TWO, ONE)
    ]
    length = arguments.longest
    packings = [
        (f"bfd, 1 row of {length}", {"strategy": "bfd", "rows": 1, "row_length": length}),
        (f"bfd, 4 rows of {length}", {"strategy": "bfd", "rows": 4, "row_length": length}),
        (f"wrapped, 8 rows of {length}", {"strategy": "wrapped", "rows": 8, "row_length": length}),
    ]
    peers = [
        Contender(f"trl, {dtype}, {name}", layout, PEER, packing, {"dtype": dtype})
        for layout in (ONE, TWO)
        for dtype in ("float32", "bfloat16")
        for name, packing in packings
    ]
    return ours, peers


def finalists(peers: Sequence[Contender]) -> list[Contender]:
    """The fastest, and the fastest that keeps documents apart as ours does."""
    apart = fastest([p for p in peers if p.order["strategy"] == "bfd"])
    return list({id(p): p for p in (*fastest(peers), *apart)}.values())


def show(ours: Sequence[Contender], peers: Sequence[Contender]) -> None:
    ranked = [*ours, *fastest(peers, len(peers))]
    rows = [[c.name, str(c.layout), thousands(c.rate()), *cost_cells(c)] for c in ranked]
    print(f"\n{table(['', 'layout', 'tokens/s', *COST_HEADERS], rows)}")
    print(f"\ntime by phase, last round\n{phase_table([*ours, *finalists(peers)])}\n")
    best = fastest(ours)[0]
    for peer in finalists(peers):
        print(f"{best}: {best.rate() / peer.rate():.2f}x {peer}")


def curves(options: dict[str, Any], order: dict[str, Any]) -> None:
    """Losses of both trainers on equal batches, and how far they are apart."""
    found: dict[str, list[float]] = {}
    common = {**order, "curve": True}
    jobs = {
        **{f"r1kit, {computing}": (OURS, {"native": native}, {}) for computing, native in FORMS.items()},
        "trl": (PEER, {"strategy": "none", "rows": order["sequences"], "row_length": 0}, {"dtype": "float32"}),
    }
    for name, (target, own, made_with) in jobs.items():
        with Team(target, Layout(1, 1), {**options, **made_with}) as team:
            found[name] = team.measure({**common, **own}).figures[0]["losses"]
    print(f"\nloss on equal batches, {order['steps']} steps")
    for name, losses in found.items():
        shown = " ".join(f"{loss:.4f}" for loss in losses[:: max(1, len(losses) // 5)])
        apart = max(abs(a - b) / b for a, b in zip(losses, found["trl"], strict=True))
        print(f"{name:<24}{shown}   farthest from trl: {apart:.1e} of the loss")


def memory(arguments: argparse.Namespace, machine: str) -> None:
    """The peak of one loss step, in a process of its own."""
    command = [sys.executable, __file__, "--measure-memory", "--dtype", arguments.dtype]
    for name in ("tokens", "vocabulary", "width"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"the measuring process failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    logits = arguments.tokens * arguments.vocabulary * 4 / 2**30
    print(
        f"loss over {arguments.tokens} tokens, {arguments.vocabulary} words, width {arguments.width}, "
        f"{arguments.dtype}: {found['peak_gib']:.2f} GiB above hidden states and head, {found['seconds']:.0f} s; "
        f"the logits alone would take {logits:.1f} GiB"
    )
    print(result_line("sft_memory", found["peak_gib"], LIMIT_GIB, "GiB above the model", machine))


def loss_memory(arguments: argparse.Namespace) -> dict[str, float]:
    """Peak resident memory of forward and backward of the loss, above what stood before."""
    import torch

    from r1kit.algorithms.entropy import chunked_logprobs
    from r1kit.models.loading import DTYPES
    from r1kit.pipeline.usage import reset_peak, resident_bytes

    dtype = DTYPES[arguments.dtype]
    hidden = torch.empty(arguments.tokens, arguments.width, dtype=dtype).normal_().requires_grad_()
    head = torch.empty(arguments.vocabulary, arguments.width, dtype=dtype).normal_(std=0.02).requires_grad_()
    targets = torch.randint(arguments.vocabulary, (arguments.tokens,))
    reset_peak()  # making the arrays is not what is measured
    before = resident_bytes("VmRSS")
    started = time.perf_counter()
    logprobs, _ = chunked_logprobs(hidden, head, targets)
    (-logprobs.mean()).backward()
    return {"peak_gib": (resident_bytes("VmHWM") - before) / 2**30, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    run(main)
