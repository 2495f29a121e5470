"""How much memory a merge holds, by the size of the models: two models and a base of random tensors.

    python benchmarks/merging.py                       # 4, 8 and 32 tensors of 32 MiB in each model; 3 GiB of disk
    python benchmarks/merging.py --tensors 4 --mib 8   # does it work?

Each merge runs in a process of its own, which merges small models first (so that what is loaded once counts nothing)
and then waits. From outside, `Anonymous` of /proc/PID/smaps_rollup is read every millisecond: memory of the process's
own, without the pages of the files that it maps. The figure is the highest reading above the one before the merge, in
MiB; a shorter peak may be missed. CPU-seconds are those of the merge.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from harness.arguments import run
from harness.machine import describe
from harness.report import table
from harness.team import BenchmarkError
from r1kit.models.merge_methods import Recipe
from r1kit.models.merging import merge_checkpoints
from r1kit.models.tiny_tokenizer import build_tiny_tokenizer

METHODS = ("linear", "slerp", "ties", "dare", "dare_ties")
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tensors", type=int, nargs="+", default=[4, 8, 32], help="tensors in each model")
    parser.add_argument("--mib", type=int, default=32, help="size of a tensor")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--folder", type=Path, help="where the models are made (default: the system's)")
    parser.add_argument("--merge", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.merge:
        merge(*options.merge, options.methods[0])
        return
    rows = []
    for count in options.tensors:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            make_models(Path(folder), count, options.mib)
            cells = [watched(Path(folder), method) for method in options.methods]
            rows.append([f"{count} (three models: {3 * count * options.mib} MiB)", *cells])
    print(describe())
    print(f"load {os.getloadavg()[0]:.1f}")
    print(table([f"tensors of {options.mib} MiB", *options.methods], rows))


def make_models(folder: Path, count: int, mib: int) -> None:
    """Directories a, b and base of `count` random tensors each, and small, of tiny ones."""
    for number, name in enumerate(("a", "b", "base", "small")):
        directory, generator = folder / name, torch.Generator().manual_seed(number)
        directory.mkdir()
        rows = 8 if name == "small" else mib * MIB // (4 * 1024)
        tensors = {f"layer.{i}": torch.randn(rows, 1024, generator=generator) for i in range(count)}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
        build_tiny_tokenizer().save_pretrained(directory)


def merge(folder: Path, target: Path, method: str) -> None:
    """The watched process: a small merge, a line, and once it is told to go the merge and its CPU-seconds."""
    recipe = Recipe(method=method)  # type: ignore[arg-type]
    models, base = [folder / "a", folder / "b"], folder / "base" if recipe.needs_base else None
    small = folder / "small"
    merge_checkpoints([small, small], target / "small", recipe, base=small if base else None)
    print("ready", flush=True)
    sys.stdin.readline()
    started = os.times()
    merge_checkpoints(models, target / "merged", recipe, base=base)
    ended = os.times()
    print(ended.user + ended.system - started.user - started.system, flush=True)


def watched(folder: Path, method: str) -> str:
    """A merge in a process of its own, its memory watched: "MiB, CPU-seconds"."""
    with tempfile.TemporaryDirectory(dir=folder) as target:
        command = [sys.executable, __file__, "--merge", str(folder), target, "--methods", method]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise BenchmarkError(f"{method}: the merging process ended before it began; its own lines say why")
            before = peak = own_memory(process.pid)
            process.stdin.write("go\n")
            process.stdin.flush()
            while process.poll() is None:
                peak = max(peak, own_memory(process.pid))
                time.sleep(0.001)
            seconds = process.stdout.read()
        if process.returncode:
            raise BenchmarkError(f"{method}: the merge failed; its own lines say why")
    return f"{(peak - before) / MIB:.0f} MiB, {float(seconds):.1f} s"


def own_memory(pid: int) -> int:
    """Bytes of memory that are the process's own; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("Anonymous:")]
    return 1024 * int(found[0]) if found else 0


if __name__ == "__main__":
    run(main)
