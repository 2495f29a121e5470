"""Two processes over gloo: what they exchange, and what one does when the other is gone.

Why this matters: every rank must hold the same numbers, or the two policies drift apart unseen; and a run whose peer
has died must end with a sentence that says so, not hang for ever.

Not exercised here: more than two processes; the pipeline that starts them (tests/pipeline).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from r1kit.config.errors import UserError
from r1kit.training import shared_memory
from r1kit.training.parallel import PeerError, World

from .rank_jobs import DEADLINE_SECONDS
from .ranks import Results


def test_one_process_is_its_own_world() -> None:
    world = World.single()
    tensor = torch.ones(2)
    assert world.all_reduce_(tensor) is tensor
    assert world.broadcast_(tensor) is tensor
    assert tensor.tolist() == [1.0, 1.0]
    assert world.sum([0.1, 0.2]) == [0.1, 0.2]
    assert world.gather_bytes(b"x") == [b"x"]
    assert world.gather({"a": (1,)}) == [{"a": (1,)}]
    assert world.broadcast("x") == "x"
    assert world.shard([1, 2, 3]) == [1, 2, 3]
    assert world.is_main
    world.barrier()
    world.close()
    assert World.connect("never opened", 0, 1) == world


def test_both_ranks_end_with_the_same_values(two_ranks: Results) -> None:
    for rank, got in enumerate(two_ranks["collectives"]):
        # Lengths differ by rank, 0 included.
        assert got["gathered"].tolist() == ["|BBB", "AAAAA|"]
        assert got["gather"] == 1
        assert got["broadcast"] == 7
        assert got["broadcast_"].tolist() == [1.0, 1.0]
        assert got["all_reduce_"].tolist() == [3.0, 3.0]
        assert got["sum"].tolist() == [2.0, 0.1 + 0.2]
        assert got["shard"].tolist() == ([0, 2, 4] if rank == 0 else [1, 3])


def test_shards_cover_everything_once() -> None:
    for size in range(1, 5):
        parts = [World(rank, size).shard(range(7)) for rank in range(size)]
        assert sorted(i for part in parts for i in part) == list(range(7))


@pytest.mark.parametrize("job", ["peer_dies", "window_peer_dies"])
def test_a_dead_peer_is_reported_with_rank_and_stage(job: str, two_ranks: Results) -> None:
    survivor = two_ranks[job][0]
    assert "rank 0 of 2: lost another process while waiting at 'gradients'" in str(survivor["error"])
    assert survivor["seconds"] < 10 * DEADLINE_SECONDS


def test_a_silent_peer_is_given_up_at_the_deadline(two_ranks: Results) -> None:
    survivor = two_ranks["peer_hangs"][0]
    assert "lost another process while waiting at 'checkpoint'" in str(survivor["error"])
    assert DEADLINE_SECONDS * 0.5 < survivor["seconds"] < 10 * DEADLINE_SECONDS


def test_peers_that_never_come_up_are_reported(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"rank 0 of 2: the other processes did not come up within 1 s") as caught:
        World.connect(tmp_path / "store", 0, 2, timeout=1.0)
    assert f"{tmp_path}/rank-N.log" in str(caught.value)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("interfaces", "chosen"), [(["eth0", "lo"], "lo"), (["lo0", "en0"], "lo0"), (["en0"], None)])
def test_the_loopback_is_found_by_the_systems_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interfaces: list[str], chosen: str | None
) -> None:
    seen: list[str | None] = []
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr("socket.if_nameindex", lambda: list(enumerate(interfaces)))

    def meet(*_: object, **__: object) -> None:
        seen.append(os.environ.pop("GLOO_SOCKET_IFNAME", None))

    monkeypatch.setattr("torch.distributed.init_process_group", meet)
    monkeypatch.setattr("r1kit.training.shared_memory.available", lambda world: False)
    World.connect(tmp_path / "store", 0, 2)
    assert seen == [chosen]


def test_windows_are_summed_as_by_gloo(two_ranks: Results) -> None:
    first, second = two_ranks["shared_memory"]
    for name, values in first.items():
        assert np.array_equal(values, second[name]), name
        if name.startswith("window"):
            assert np.array_equal(values, first[name.replace("window", "gloo")]), name
    assert first["common"].tolist() == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert first["shares"] or not sys.platform.startswith("linux")


def test_one_process_has_windows_and_common_vectors_of_its_own() -> None:
    world = World.single()
    assert not world.shares
    window = world.window(3, torch.bfloat16)
    assert window.dtype == torch.bfloat16
    assert world.all_reduce_(window) is window
    assert world.common(2) is None
    assert world.part(7) == slice(0, 7)


def test_parts_cover_everything_once() -> None:
    for size in range(1, 5):
        parts = [range(11)[World(rank, size).part(11)] for rank in range(size)]
        assert [i for part in parts for i in part] == list(range(11))


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory without a name (Linux)")
def test_shared_memory_that_cannot_be_had_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"64 MiB of memory shared by 1 processes could not be had: .*No space left"):
        shared_memory.allocate(World.single(), 1 << 24, torch.float32)


def test_ranks_agree_bitwise_after_every_job(two_ranks: Results) -> None:
    for job in ("muon", "update", "rl_stage"):
        first, second = two_ranks[job]
        assert first.keys() == second.keys()
        for name in first:
            assert np.array_equal(first[name], second[name]), f"{job}: {name}"
