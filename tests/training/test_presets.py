"""Every preset's update, cut up in every way that must not matter: ranks, micro-batches, packing, order.

Why this matters: a mean taken per micro-batch, a baseline or a whitening that sees one rank only, an entropy threshold
of a part: each trains a little differently on another machine, and no curve shows it.

Not exercised here: that a preset is what its paper says (tests/algorithms, test_credit.py); that it learns.
"""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from r1kit.config.presets import PRESETS
from r1kit.training.parallel import World

from .preset_updates import VARIATIONS, Cut, gradients_on_ranks, preset_gradients
from .rank_jobs import REAL_RANK_PRESETS
from .ranks import Results
from .stage import write_base

ALL = [*PRESETS, *VARIATIONS]
# Every property at once, on one rank and on two.
CUTS = [Cut(parts=4, segment_cost=0, reverse=True), Cut(ranks=2, parts=2, segment_cost=10_000)]
EVERY_CUT = [Cut(*values) for values in product((1, 2), (1, 2, 4), (0, 10_000), (False, True))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray], what: str) -> None:
    """Gradients as vectors to 1e-5, metrics to the rounding of their sums."""
    assert sorted(got) == sorted(want)
    for name in want:
        if name == "metrics":
            np.testing.assert_allclose(got[name], want[name], rtol=3e-5, atol=1e-6, err_msg=what)
        else:
            difference = np.linalg.norm(got[name] - want[name])
            assert difference <= 1e-5 * np.linalg.norm(want[name]), f"{what}: {name}"


def check(name: str, base: Path, cuts: list[Cut]) -> None:
    whole = preset_gradients(World.single(), name, base, Cut())
    assert all(np.linalg.norm(v) > 0 for v in whole.values())
    for cut in cuts:
        for rank, got in enumerate(gradients_on_ranks(name, base, cut)):
            assert_same(got, whole, f"{name}, {cut}, rank {rank}")


@pytest.mark.parametrize("name", ALL)
def test_how_the_step_is_cut_up_does_not_matter(name: str, base: Path) -> None:
    check(name, base, CUTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_no_combination_of_cuts_matters(name: str, base: Path) -> None:
    check(name, base, EVERY_CUT)


@pytest.mark.parametrize("name", REAL_RANK_PRESETS)
def test_two_processes_make_the_same_step_as_one(name: str, base: Path, two_ranks: Results) -> None:
    whole = preset_gradients(World.single(), name, base, Cut())
    for rank, arrays in enumerate(two_ranks["presets"]):
        got = {key.removeprefix(f"{name}/"): v for key, v in arrays.items() if key.startswith(f"{name}/")}
        assert_same(got, whole, f"{name}, rank {rank}")


@pytest.mark.parametrize("cut", [Cut(ranks=2, parts=2), Cut(parts=4, segment_cost=0), Cut(ranks=2, parts=4)])
def test_the_twelve_minibatches_of_a_critic_are_those_of_the_whole_step(cut: Cut, base: Path) -> None:
    """ORZ's own setting. In one order of the responses; which of them share a minibatch depends on that."""
    check("ppo_orz with its twelve minibatches", base, [cut])


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (g++)")
@pytest.mark.parametrize("name", ["grpo", "vapo", "prime", "reinforce_pp", "shared critic"])
def test_compiled_roles_give_what_pytorch_gives(name: str, base: Path) -> None:
    """Reference, critic and process reward model run compiled where the policy does."""
    found, wanted = (
        preset_gradients(World.single(), name, base, Cut(parts=2), native) for native in ("float32", "off")
    )
    for key, value in wanted.items():
        assert np.linalg.norm(found[key] - value) <= 3e-5 * np.linalg.norm(value), key
