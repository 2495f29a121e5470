"""Runs the jobs of rank_jobs.py in several processes joined by gloo, and brings their arrays back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]

# results[job][rank] -> arrays by name
Results = dict[str, list[dict[str, np.ndarray]]]


def run_jobs(jobs: Sequence[str], directory: Path, *, size: int, timeout: float = 240.0) -> Results:
    """Every job in `size` fresh processes of its own; fails with their output where one of them fails."""
    paths = [str(TESTS.parent / "src"), str(TESTS)]
    done = subprocess.run(
        [sys.executable, "-m", "training.rank_jobs", str(directory), str(size), *jobs],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    results: Results = {}
    for job in jobs:
        results[job] = []
        for rank in range(size):
            with np.load(directory / f"{job}-{rank}.npz") as arrays:
                results[job].append(dict(arrays))
    return results
