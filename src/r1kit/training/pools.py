"""The stream of training problems: every problem once a round, or more often those that teach, and a wished mix.

Preference thins the stream instead of replacing it: the next problem of the round is taken with a chance that depends
on what is known of it, else it is passed over. So the place in the stream and the pass rates are all the state there
is, and with nothing preferred the stream is the plain one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from r1kit.algorithms.pass_rates import PassRate, preference
from r1kit.config.errors import ConfigError
from r1kit.config.suggest import nearest
from r1kit.records import Problem
from r1kit.training.exchange import SampledGroup
from r1kit.training.sampling import derived_seed, problem_at

# A step passes over at most so many problems for each one it asks; after that it takes what comes.
PATIENCE = 64


def check_mix(mix: Iterable[str], sources: Collection[str]) -> None:
    """ConfigError where a wished mix names a source that no training problem is from."""
    for name in mix:
        if name not in sources:
            raise ConfigError(
                f"pools.mix names the source {name!r}{nearest(name, sources)}: "
                f"the training problems come from {', '.join(sources)}"
            )


class ProblemPool:
    """Draws the problems of each step and learns from what became of them."""

    def __init__(self, problems: Sequence[Problem], seed: int, state: Mapping[str, Any]) -> None:
        self.problems, self.seed = problems, seed
        self.cursor = int(state.get("cursor", 0))
        self.rates = {name: PassRate(*counts) for name, counts in state.get("pass_rates", {}).items()}
        self._sources: Counter[str] | None = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        rates = {name: [rate.right, rate.wrong] for name, rate in self.rates.items()}
        return {"cursor": self.cursor, **({"pass_rates": rates} if rates else {})}

    def draw(self, count: int, settings: Any) -> list[Problem]:
        """The next `count` problems by `settings`, a PoolSettings; fewer where the same came twice."""
        if not settings.enabled and not settings.mix:
            drawn = [problem_at(self.problems, self.cursor + i, self.seed) for i in range(count)]
            self.cursor += count
            return list({p.id: p for p in drawn}.values())
        factors = self._mix(settings.mix)
        chosen: dict[str, Problem] = {}
        for passed in range(count * PATIENCE):
            if len(chosen) == count:
                break
            problem = problem_at(self.problems, self.cursor, self.seed)
            coin = derived_seed("pool", self.seed, self.cursor) / (1 << 63)
            self.cursor += 1
            factor = factors.get(problem.source, 0.0) if factors else 1.0
            chance = factor * self._preference(problem, settings)
            # Out of patience a step takes what comes, but never of a source that the mix leaves out.
            if problem.id not in chosen and factor > 0 and (coin < chance or passed >= count * (PATIENCE - 4)):
                chosen[problem.id] = problem
        return list(chosen.values())

    def observe(self, fresh: Iterable[SampledGroup], settings: Any) -> None:
        """Learn from judged groups; failed ones say nothing."""
        if not settings.enabled:
            return
        for sampled in fresh:
            group = sampled.group
            if group.failed or any("accuracy" not in r.verdicts for r in group):
                continue
            right = sum(r.verdicts["accuracy"].correct for r in group)
            rate = self.rates.get(group.problem.id, PassRate())
            self.rates[group.problem.id] = rate.observe(right, len(group), memory=settings.memory)

    def metrics(self, settings: Any) -> dict[str, float]:
        """Where the problems asked so far stand: shares of them by posterior mean, and their share of all."""
        if not settings.enabled or not self.rates:
            return {}
        means = [rate.mean(settings.prior) for rate in self.rates.values()]
        count = len(means)
        return {
            "pool_asked": count / len(self.problems),
            "pool_hard": sum(m < settings.low for m in means) / count,
            "pool_band": sum(settings.low <= m <= settings.high for m in means) / count,
            "pool_easy": sum(m > settings.high for m in means) / count,
        }

    def _preference(self, problem: Problem, settings: Any) -> float:
        if not settings.enabled:
            return 1.0
        rate = self.rates.get(problem.id, PassRate())
        return preference(rate, low=settings.low, high=settings.high, floor=settings.floor, prior=settings.prior)

    def _mix(self, mix: Mapping[str, float]) -> dict[str, float]:
        """Chance of each source relative to the likeliest, so that what is taken comes out in the wished shares."""
        if not mix:
            return {}
        if self._sources is None:
            self._sources = Counter(problem.source for problem in self.problems)
        check_mix(mix, self._sources)
        wished = {name: share / self._sources[name] for name, share in mix.items() if share > 0}
        most = max(wished.values())
        return {name: value / most for name, value in wished.items()}
