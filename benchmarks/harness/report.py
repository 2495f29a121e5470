"""What the benchmarks print: plain tables, and JSON objects, one a line, that machines read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from harness.contest import Contender

# What `cost_cells` puts into a row.
COST_HEADERS = ("CPU-s", "load", "peak GiB", "each round")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned; the first one to the left, the others to the right."""
    cells = [list(headers), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

    return "\n".join([line(cells[0]), "  ".join("-" * w for w in widths), *map(line, cells[1:])])


def cost_cells(contender: Contender) -> list[str]:
    """What a contender's figures cost, and how steady they are: see COST_HEADERS.

    CPU-seconds of all rounds with their share of what the cores could give (well below 100 %: something else ran, or
    the processes waited for one another); the one-minute load average before the first and after the last round, in
    which our own processes count; most resident memory of any round, libraries included, summed over the processes;
    tokens/s of every round.
    """
    runs = contender.runs
    cpu, wall = sum(m.cpu_seconds for m in runs), sum(m.seconds for m in runs)
    return [
        f"{cpu:.1f} ({100 * cpu / (wall * contender.layout.cores):.0f} %)",
        f"{runs[0].load_before:.1f} > {runs[-1].load_after:.1f}",
        f"{max(m.peak_gib() for m in runs):.2f}",
        " ".join(thousands(m.total("tokens") / m.seconds) for m in runs),
    ]


def phase_table(contenders: Sequence[Contender]) -> str:
    """Where the time of each contender's last round went."""
    width = max(len(str(c)) for c in contenders)
    return "\n".join(f"{str(c).ljust(width)}  {shares(c.runs[-1].phases())}" for c in contenders)


def shares(phases: Mapping[str, float]) -> str:
    """'train 61 %, sample 39 %', the largest first."""
    total = sum(phases.values()) or 1.0
    ordered = sorted(phases.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in ordered)


def result_line(name: str, ours: float, peer: float, unit: str, machine: str) -> str:
    """{"name", "ratio", "ours", "peer", "unit", "machine"}: ratio = ours / peer, figures to four digits."""
    if not peer > 0:
        raise ValueError(f"{name}: the peer's figure is {peer}, expected a positive number; nothing was measured")
    row = {"name": name, "ratio": ours / peer, "ours": ours, "peer": peer, "unit": unit, "machine": machine}
    return json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()})


def thousands(value: float) -> str:
    return f"{value:,.0f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"
