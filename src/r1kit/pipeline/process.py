"""Settings of a process that computes: threads, the allocator, the collector of cycles, its GPU."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

# glibc's mallopt parameters (malloc.h) and the values asked for. By default large arrays are mapped and
# unmapped on every step; keeping them saves the page faults (about 10 % of training time on small models).
_MALLOC = {
    "M_TRIM_THRESHOLD": (-1, (1 << 31) - 1),
    "M_TOP_PAD": (-2, 64 << 20),
    "M_MMAP_THRESHOLD": (-3, 1 << 30),
}

# Objects made before Python looks for dead cycles (700 by default). A step makes thousands and no cycle, and each look
# goes through all that the libraries hold (2 % of pre-training).
_COLLECT_AFTER = 50_000


def tune_process(device: str = "cpu") -> None:
    """One thread per process unless OMP_NUM_THREADS says otherwise, and an allocator that keeps its memory.

    Several processes with one thread each beat one process with several threads on these models, and stay
    fast when the machine is busy with something else. `device`: where it computes, "cpu" or such as "cuda:1".
    """
    import torch

    gc.set_threshold(_COLLECT_AFTER)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1").split(",")[0]))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for number, value in _MALLOC.values():
                libc.mallopt(number, value)
    if device != "cpu":
        torch.cuda.set_device(device)
        # float32 is float32: some containers turn TF32, 10 bits of each factor, on by an environment variable.
        torch.set_float32_matmul_precision("highest")
