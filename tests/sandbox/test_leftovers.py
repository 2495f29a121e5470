"""What uses a sandbox may be killed at any moment: cells that stayed behind would fill a machine over a week of runs.

The owner is a process of its own, killed while its cells are idle, while they run programs that left daemons, and while
a child that it had forked holds the connections open. Not exercised: a machine that loses power.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from r1kit.sandbox import TIERS
from r1kit.sandbox.inside import watch

from .conftest import open_or_skip
from .programs import python

OWNER = """
import json, os, sys, threading, time
from r1kit.sandbox import CellPool, Job
from r1kit.sandbox.inside import watch

tier, moment = sys.argv[1:]
sandbox = CellPool(tier, "private", 1)
def job(source): return Job(("python", "p.py"), files={"p.py": source.encode()})
assert sandbox.run(job("print(1)")).status == "ok"
if moment == "running":
    source = "import os, time\\nif not os.fork(): os.setsid()\\nopen('mark', 'w').close()\\ntime.sleep(500)"
    threading.Thread(target=sandbox.run, args=(job(source),), daemon=True).start()
    while len(watch.descendants(os.getpid())) < 4: time.sleep(0.01)  # the program and its daemon
    time.sleep(0.1)
heir = os.fork() if moment == "forked" else -1
if not heir:
    time.sleep(30)
    os._exit(0)
cells = [process for process in watch.descendants(os.getpid()) if process != heir]
print(json.dumps([cells, sandbox._idle[0].box if sandbox._idle else ""]), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("moment", ["idle", "running", "forked"])
@pytest.mark.parametrize("tier", TIERS)
def test_nothing_is_left_of_a_killed_owner(tier: str, moment: str) -> None:
    open_or_skip(tier, workers=1).close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", OWNER, tier, moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as owner:
        assert owner.stdout is not None
        cells, box = json.loads(owner.stdout.readline())
        try:
            # A cell for one program is gone when that has run.
            assert len(cells) >= (2 if moment == "running" or tier != "bubblewrap-single" else 0)
            owner.kill()
            end = time.monotonic() + 5
            while time.monotonic() < end and not all(map(watch.is_dead, cells)):
                time.sleep(0.02)
            assert [process for process in cells if not watch.is_dead(process)] == []
            assert not (box and Path(box).exists())
        finally:
            os.killpg(owner.pid, signal.SIGKILL)  # the forked child


@pytest.mark.parametrize("tier", ["bubblewrap", "unshare", "landlock"])
@pytest.mark.parametrize("generation", [1, 2])
def test_a_killed_part_takes_its_program_with_it(tier: str, generation: int) -> None:
    """Generation 1 holds the supervisor (or what stands above it), 2 the zygote: a program that sleeps has nobody else
    to end it, and the job is run again in a fresh cell.
    """
    sleeper = python("import os, time\nif not os.fork(): time.sleep(500)\ntime.sleep(1)\nprint(1)")
    with open_or_skip(tier, workers=1) as sandbox, ThreadPoolExecutor(1) as pool:
        cell = sandbox._idle[0]
        running = pool.submit(sandbox.run, sleeper)
        time.sleep(0.5)
        line = [cell.process]
        while len(line) < generation + 1:
            line.append(watch.descendants(line[-1])[0])
        tree = watch.descendants(cell.process)
        os.kill(line[generation], signal.SIGKILL)
        result = running.result()
        assert (result.status, result.stdout) == ("ok", b"1\n"), result
        assert [process for process in tree if not watch.is_dead(process)] == []
