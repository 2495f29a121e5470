"""What a verdict costs: beside math-verify, beside one `bwrap python3` per program, beside one compilation per test.

    python benchmarks/verifiers.py            # all parts, ours and the peer in turn
    python benchmarks/verifiers.py --quick    # a check that it works; its figures mean nothing

integers: pairs with an integer gold, the exact tier against math-verify, one after the other in one thread.
mixed: pairs with golds of MATH as they come, all tiers from two threads against math-verify in one thread. Golds are
read from the shared data ($R1KIT_DATA, else ../shared/data); without it these two parts are left out and named.
programs: small Python programs through the sandbox's pool against one `bwrap python3` per program, two threads each.
solutions: whole verdicts on a function with ten assertions, beside solution and assertions run plainly together.
compilation: ten tests of one C++ program compiled once, beside one compilation for each.

Figures are medians over rounds; every verdict on programs is checked, and how often the two differ on the mixed pairs
is printed. Every part ends in a JSON object of its own; the last line is that of `mixed` (without data:
`compilation`).
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.arguments import run
from harness.machine import describe
from harness.report import result_line, table
from workers.code_judges import compilation_seconds, judge_rates
from workers.math_voters import (
    Rate,
    all_tiers,
    all_tiers_concurrent,
    exact_tier,
    integer_pairs,
    math_golds,
    math_verify_serial,
    measure,
    mixed_pairs,
    warm_up,
)
from workers.sandboxes import sandbox_rates

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    arguments = parse()
    machine = describe()
    print(f"{machine}, load {os.getloadavg()[0]:.1f}")
    lines = [*running(arguments, machine)]
    data = Path(os.environ.get("R1KIT_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (data / "math").is_dir():
        print(f"integers, mixed: left out, no MATH golds under {data} (set R1KIT_DATA)")
    else:
        lines += mathematics(math_golds(data), arguments, machine)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    print("\n".join(lines))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400, help="pairs of each kind in one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn of the programs")
    parser.add_argument("--quick", action="store_true", help="few pairs, one round, short turns")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.pairs, arguments.rounds, arguments.seconds = 20, 1, 0.3
    return arguments


def mathematics(golds: list[str], arguments: argparse.Namespace, machine: str) -> Iterator[str]:
    integers, mixed = integer_pairs(golds, arguments.pairs), mixed_pairs(golds, arguments.pairs)
    warm_up(mixed[: max(10, arguments.pairs // 10)])
    unit = "pairs/s"
    # The exact tier is so quick that one round of the peer's pairs would be over before the clock has settled.
    ours, peer = turns(
        arguments.rounds,
        lambda: measure(exact_tier, integers * 20),
        lambda: measure(math_verify_serial, integers),
    )
    print(f"integers: {compared(ours, peer)}, {ours[0].microseconds:.0f} us a pair")
    yield result_line("verifiers_integers", middle(ours), middle(peer), unit, machine)
    serial = [measure(all_tiers, mixed) for _ in range(arguments.rounds)]
    ours, peer = turns(
        arguments.rounds, lambda: all_tiers_concurrent(mixed), lambda: measure(math_verify_serial, mixed)
    )
    print(f"mixed: {compared(ours, peer)}; {middle(serial):,.0f} pairs/s from one thread")
    differ = [pair for pair in mixed if all_tiers(*pair) != math_verify_serial(*pair)]
    print(f"mixed: the two differ on {len(differ)} of {len(mixed)} pairs")
    yield result_line("verifiers", middle(ours), middle(peer), unit, machine)


def turns(rounds: int, *ways: Callable[[], Rate]) -> list[list[Rate]]:
    """Every way once per round, in turn: what disturbs the machine disturbs all of them."""
    found: list[list[Rate]] = [[] for _ in ways]
    for _ in range(rounds):
        for rates, way in zip(found, ways, strict=True):
            rates.append(way())
    return found


def middle(rates: list[Rate]) -> float:
    return statistics.median(rate.per_second for rate in rates)


def compared(ours: list[Rate], peer: list[Rate]) -> str:
    cpu = sum(r.cpu_seconds for r in ours), sum(r.cpu_seconds for r in peer)
    return (
        f"{middle(ours):,.0f} against {middle(peer):,.0f} pairs/s, {middle(ours) / middle(peer):.1f}x; CPU-seconds of "
        f"this process {cpu[0]:.1f} and {cpu[1]:.1f}"
    )


def running(arguments: argparse.Namespace, machine: str) -> Iterator[str]:
    options = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    for name, unit, rates in (
        ("verifiers_programs", "programs/s", sandbox_rates(**options)),
        ("verifiers_solutions", "solutions/s", judge_rates(**options)),
    ):
        medians = {way: statistics.median(figures) for way, figures in rates.items()}
        ways = list(medians)
        rows = [[way, f"{rate:.1f}", f"{rate / medians[ways[0]]:.2f}x"] for way, rate in medians.items()]
        print(table([name.partition("_")[2], unit, "ratio"], rows))
        if len(ways) > 1 and ways[0].startswith("one bwrap"):
            yield result_line(name, medians[ways[1]], medians[ways[0]], unit, machine)
    seconds = {
        name: statistics.median(figures)
        for name, figures in compilation_seconds(tests=10, rounds=min(2, arguments.rounds)).items()
    }
    print(", ".join(f"10 C++ tests, {name}: {value:.2f} s" for name, value in seconds.items()))
    once, each = seconds["one compilation"], seconds["one compilation per test"]
    yield result_line("verifiers_compilation", 1 / once, 1 / each, "runs of ten tests/s", machine)


if __name__ == "__main__":
    run(main)
