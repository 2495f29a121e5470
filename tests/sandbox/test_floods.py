"""A program that takes more than its share, of time, memory, disk, output or processes, is ended and named for it; what
runs next is unaffected.

Run in every isolated tier that this machine holds. Not exercised: memory that the kernel keeps for pipes and sockets,
which is bounded and not counted.
"""

from __future__ import annotations

import textwrap
import time

import pytest

from r1kit.sandbox import CellPool, Limits
from r1kit.sandbox.inside import watch
from r1kit.sandbox.protocol import MIB

from .programs import SMALL, assert_unharmed, output, python


def test_no_program_steps_back_behind_others(isolated: CellPool) -> None:
    """On a busy machine a program of idle priority would hold its worker for as long as others compute."""
    source = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        for action in (lambda: os.nice(5), lambda: os.setpriority(os.PRIO_PROCESS, 0, 19),
                       lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)),
                       lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))):
            try:
                action()
                print("done")
            except OSError as error:
                print(type(error).__name__)
    """
    assert output(isolated, source) == "PermissionError\n" * 4


def test_a_program_that_stops_itself_is_asleep(isolated: CellPool) -> None:
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nprint('went on')"
    result = isolated.run(python(source, limits=Limits(wall_seconds=1.0)))
    assert (result.status, result.stdout) == ("wall_limit", b""), result


def test_fork_bomb(isolated: CellPool) -> None:
    source = """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
    """
    result = isolated.run(python(source, limits=Limits(cpu_seconds=0.5, memory_bytes=512 * MIB, processes=8)))
    # Without a process namespace the bomb is ended when it is counted, else when its CPU time is used up.
    assert result.status in (("failed", "cpu_limit") if isolated.tier == "landlock" else ("cpu_limit",)), result
    assert_unharmed(isolated)


STORMS = {
    "orphans": """
        for _ in range(200):
            child = os.fork()
            if not child:
                if not os.fork(): burn()
                os._exit(0)
            os.waitpid(child, 0)
            time.sleep(0.012)  # dead before anybody looks
    """,
    "ignored": """
        import signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for _ in range(200):
            if not os.fork(): burn()
            time.sleep(0.012)
    """,
    "brothers": """
        import ctypes
        for _ in range(200):
            child = ctypes.CDLL(None, use_errno=True).syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine],
                                                              0x8000 | 17, 0, 0, 0, 0)
            if child < 0: raise OSError(ctypes.get_errno(), "clone")
            if not child: burn()
            time.sleep(0.012)
    """,
}


@pytest.mark.parametrize("storm", STORMS)
def test_a_storm_of_short_children_is_counted(isolated: CellPool, storm: str) -> None:
    """Two hundred children of 10 ms each, against a limit of 0.2 s: at most a tenth of them may have had their time."""
    burn = """
        import os, time
        def burn():
            end = time.process_time() + 0.01
            while time.process_time() < end: pass
            os.write(3, b"x")
            os._exit(0)
    """
    source = textwrap.dedent(burn) + textwrap.dedent(STORMS[storm])
    result = isolated.run(python(source, limits=Limits(cpu_seconds=0.2, processes=16)))
    if storm == "orphans":
        assert result.status == "cpu_limit", result
    else:
        # Children that nobody waits for stay as dead entries, up to the number allowed; brothers are refused. On a busy
        # machine the limit on time comes first.
        assert result.status in ("failed", "cpu_limit"), result
    assert len(result.reply) <= 40, result


def test_memory_bomb(isolated: CellPool) -> None:
    source = """
        kept = []
        while True:
            kept.append(b"x" * 2_000_000)
    """
    result = isolated.run(python(source, limits=Limits(memory_bytes=100 * MIB)))
    assert result.status == "memory_limit", result
    assert 100 * MIB < result.peak_memory_bytes < 800 * MIB
    assert_unharmed(isolated)


def test_memory_behind_a_dead_leader_is_counted(isolated: CellPool) -> None:
    """A process whose first thread has ended shows no memory of its own. One that merely ends is not over any limit."""
    source = """
        import ctypes, os, sys, threading, time
        def hold():
            kept = b"x" * int(sys.argv[1])
            time.sleep(1.5)
            os._exit(len(kept) & 1)
        threading.Thread(target=hold).start()
        time.sleep(0.2)
        ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
    """
    limits = Limits(memory_bytes=150 * MIB)
    assert isolated.run(python(source, "1000", limits=limits)).status == "ok"
    result = isolated.run(python(source, "300000000", limits=limits))
    assert result.status == "memory_limit", result
    assert result.peak_memory_bytes < 1 << 30


def test_memory_is_summed_over_the_tree(isolated: CellPool) -> None:
    source = """
        import os, time
        for _ in range(4):
            if not os.fork():
                kept = b"x" * 60_000_000
                time.sleep(60)
        time.sleep(60)
    """
    result = isolated.run(python(source, limits=Limits(memory_bytes=150 * MIB, wall_seconds=40.0)))
    assert result.status == "memory_limit", result


def test_disk_flood(isolated: CellPool) -> None:
    source = """
        import os
        for directory in (os.getcwd(), os.environ["HOME"], "/tmp", "/dev/shm", "/var/tmp"):
            try:
                for number in range(100):
                    with open(f"{directory}/flood{number}", "wb") as file:
                        file.write(bytes(1_000_000))
            except OSError:
                pass
        total = 0
        for directory in {os.getcwd(), os.path.realpath(os.environ["HOME"]), "/dev/shm"}:
            total += sum(os.path.getsize(f"{directory}/{name}") for name in os.listdir(directory) if "flood" in name)
        print(total)
    """
    result = isolated.run(python(source, limits=SMALL))
    if isolated.tier == "landlock":
        assert result.status == "failed", result  # no file system of a given size: ended when it is seen
        assert "bytes of disk" in result.detail or b"Permission" in result.stderr
    else:
        assert 10_000_000 < int(result.stdout) <= 16 * MIB, result
    assert_unharmed(isolated)


def test_a_flood_of_empty_files(isolated: CellPool) -> None:
    if isolated.tier == "bubblewrap-single":
        pytest.skip("bubblewrap gives its file system a size, and no number of files: memory and CPU time bound them")
    source = """
        for number in range(50_000):
            open(f"flood{number}", "w").close()
        print("all")
    """
    result = isolated.run(python(source, limits=SMALL))
    assert (result.status, result.stdout) == ("failed", b""), result
    assert_unharmed(isolated)


def test_output_flood(isolated: CellPool) -> None:
    limits = Limits(cpu_seconds=5.0, output_bytes=1 * MIB, reply_bytes=1 * MIB)
    for descriptor, status in ((1, "output_limit"), (3, "output_limit"), (2, "cpu_limit")):
        source = f"import os\nwhile True: os.write({descriptor}, b'x' * 100_000)"
        result = isolated.run(python(source, limits=Limits(0.3) if descriptor == 2 else limits))
        assert result.status == status, (descriptor, result.status, result.detail)
        assert len(result.stdout) <= MIB
        assert len(result.reply) <= MIB
        assert len(result.stderr) <= 64 * 1024
    assert_unharmed(isolated)


def test_orphan_daemons_die(isolated: CellPool) -> None:
    source = """
        import os, time
        if not os.fork():
            os.setsid()
            if not os.fork():
                for fd in range(64):
                    try: os.close(fd)
                    except OSError: pass
                while True: time.sleep(1000)
            os._exit(0)
        os.wait(); print("gone")
    """
    began = time.monotonic()
    assert output(isolated, source) == "gone\n"
    assert time.monotonic() - began < 30
    assert _left_over(isolated) == 0
    assert_unharmed(isolated)


def _left_over(sandbox: CellPool) -> int:
    """Processes below idle cells beyond the two that belong there, once the last guard has had time to end."""
    deadline = time.monotonic() + 20
    while True:
        trees = [watch.descendants(cell.process) for cell in sandbox._idle]
        living = [len([process for process in tree if not watch.is_dead(process)]) for tree in trees]
        left = sum(max(0, number - 2) for number in living)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)
