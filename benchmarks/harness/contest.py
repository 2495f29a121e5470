"""Ours and the peers in turn, within one run: what loads the machine loads both.

The first round measures every contender; later rounds measure ours and the peers that were fastest so far. Figures are
medians over rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from harness.team import Layout, Measurement, Team


@dataclass
class Contender:
    """One program in one configuration, and what was measured of it.

    `options` make its processes (contenders of equal target, layout and options share them), `order` is what each
    measurement adds to the common order.
    """

    name: str
    layout: Layout
    target: str
    order: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    runs: list[Measurement] = field(default_factory=list)

    def rate(self, figure: str = "tokens") -> float:
        """Median over the rounds of a figure per wall second."""
        return float(median(run.total(figure) / run.seconds for run in self.runs))

    def total(self, figure: str) -> float:
        return sum(run.total(figure) for run in self.runs)

    def __str__(self) -> str:
        return f"{self.name}, {self.layout}"


def fastest(contenders: Sequence[Contender], count: int = 1) -> list[Contender]:
    """The `count` contenders of the highest rate, the fastest first."""
    return sorted(contenders, key=lambda c: -c.rate())[:count]


def contest(
    ours: Sequence[Contender],
    peers: Sequence[Contender],
    *,
    options: Mapping[str, Any],
    order: Mapping[str, Any],
    rounds: int,
    seed: int,
    finalists: Callable[[Sequence[Contender]], Sequence[Contender]],
    warm_up: Mapping[str, Any] | None = None,
    screening: Mapping[str, Any] | None = None,
) -> None:
    """Measure everyone in round 0, ours and `finalists(peers)` in each later one. Round r samples with seed + r.

    screening: what the order of the peers is changed by in round 0 (None: nothing), to make the choice cheaper; such a
    measurement counts until there is a whole one.
    warm_up: what the order is changed by for an untimed measurement before a contender's first (None: the target warms
    itself up when it prepares).
    """
    with ExitStack() as stack:
        teams: dict[str, Team] = {}
        screened: set[int] = set()
        for turn in range(rounds):
            for c in [*ours, *(finalists(peers) if turn else peers)]:
                key = f"{c.target} {c.layout} {c.options}"
                if key not in teams:
                    teams[key] = stack.enter_context(Team(c.target, c.layout, {**options, **c.options}))
                changed = screening if screening and not turn and c in peers else {}
                turn_order = {**order, "seed": seed + turn, **c.order, **changed}
                if not c.runs and warm_up is not None:
                    teams[key].measure({**turn_order, **warm_up})
                measured = teams[key].measure(turn_order)
                if not changed and id(c) in screened:
                    c.runs.clear()
                    screened.discard(id(c))
                elif changed:
                    screened.add(id(c))
                c.runs.append(measured)
