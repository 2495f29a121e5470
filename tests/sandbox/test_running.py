"""How a program's end becomes a Result: one limit reported as another, or our trouble as its own, is a wrong verdict.
Statuses, exit codes, streams, files and the likeness of the warm interpreter to a fresh one.

Attacks are in test_probes.py; restarts, threads and overload in test_pool.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from r1kit.sandbox import CellPool, Job, Limits
from r1kit.sandbox.pool import check_job
from r1kit.sandbox.protocol import MIB

from .programs import SMALL, assert_ok, output, python


@pytest.mark.parametrize(
    ("source", "status", "code", "number"),
    [
        ("print(1)", "ok", 0, None),
        ("raise SystemExit", "ok", 0, None),
        ("raise SystemExit(3)", "failed", 3, None),
        ("import sys; sys.exit('words')", "failed", 1, None),
        ("1 / 0", "failed", 1, None),
        ("def f(:", "failed", 1, None),
        ("import os; os._exit(7)", "failed", 7, None),
        ("import os; os.kill(os.getpid(), 9)", "failed", None, 9),
        ("import os; os.abort()", "failed", None, 6),
        ("while True: pass", "cpu_limit", None, None),
        ("import time; time.sleep(100)", "wall_limit", None, None),
        ("import os, time; os.fork() or time.sleep(100); os.wait()", "wall_limit", None, None),
        ("while True: print('x' * 10_000)", "output_limit", None, None),
    ],
)
def test_statuses(every_form: CellPool, source: str, status: str, code: int | None, number: int | None) -> None:
    limits = Limits(cpu_seconds=0.4, wall_seconds=3.0, memory_bytes=256 * MIB)
    result = every_form.run(python(source, limits=limits))
    assert (result.status, result.exit_code, result.signal) == (status, code, number), result
    if status == "cpu_limit":
        assert 0.4 < result.cpu_seconds < 3.0


def test_time_of_children_counts(every_form: CellPool) -> None:
    source = """
        import os
        for _ in range(3):
            if not os.fork():
                while True: pass
        while True: os.wait()
    """
    result = every_form.run(python(source, limits=Limits(cpu_seconds=0.6)))
    assert result.status == "cpu_limit", result


def test_streams_and_files(every_form: CellPool, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.write_text("#!/bin/sh\necho shown $1\n")
    source = """
        import os, subprocess, sys
        print(sorted(os.listdir()), sys.argv[1:], open("sub/data").read())
        print("error", file=sys.stderr)
        os.write(3, b"reply\\x00\\xff")
        print(subprocess.run(["./tool", "me"], capture_output=True).stdout, flush=True)
        open("out", "w").write("kept")
        os.symlink("/etc/passwd", "link")
        sys.stdout.buffer.write(sys.stdin.buffer.read())
    """
    job = python(
        source, "a", "b c", stdin=b"\x00\xff in", files={"sub/data": b"data"}, mounts={"tool": shown},
        collect=("out", "link", "absent"),
    )  # fmt: skip
    result = every_form.run(job)
    assert_ok(result)
    expected = b"['program.py', 'sub', 'tool'] ['a', 'b c'] data\nb'shown me\\n'\n\x00\xff in"
    assert (result.stdout, result.stderr, result.reply) == (expected, b"error\n", b"reply\x00\xff")
    assert result.collected == {"out": b"kept"}


def test_other_commands(every_form: CellPool) -> None:
    result = every_form.run(Job(("sh", "-c", "read a; echo got $a; exit 4"), stdin=b"x\n", limits=SMALL))
    assert (result.status, result.exit_code, result.stdout) == ("failed", 4, b"got x\n"), result
    result = every_form.run(Job(("python", "-c", "import sys; print(sys.argv, sys.flags.no_site)", "z"), limits=SMALL))
    assert result.stdout == b"['-c', 'z'] 1\n", result
    result = every_form.run(Job(("no-such-program",), limits=SMALL))
    assert (result.status, result.exit_code) == ("failed", 127)


def test_a_compiled_program(bubblewrap: CellPool, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
    (tmp_path / "p.cpp").write_text('#include <cstdio>\nint main(){int a,b;scanf("%d%d",&a,&b);printf("%d\\n",a+b);}\n')
    subprocess.run(["g++", "-O1", "-o", "p", "p.cpp"], cwd=tmp_path, check=True)
    result = bubblewrap.run(Job(("./p",), mounts={"p": tmp_path / "p"}, stdin=b"4 5", limits=SMALL))
    assert (result.status, result.stdout) == ("ok", b"9\n"), result


def test_the_warm_interpreter_is_like_a_fresh_one(every_form: CellPool, tmp_path: Path) -> None:
    """The same program, in the pool and by the interpreter: same output, errors and exit code."""
    sources = [
        "print(__name__, __file__)\nimport helper\nprint(helper.x)",
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()",
        "import atexit\natexit.register(print, 'at exit')\nprint('now', end='')",
        "f = open('o', 'w'); f.write('unclosed')\nimport atexit\natexit.register(lambda: print('x'))",
        "def f():\n    raise ValueError('deep')\nf()",
        "print('no newline', end='')\nraise SystemExit('said')",
        "import sys\nsys.stdout.write('é ' + sys.stdin.readline())\nprint(sys.stdin.read().split())",
        "import os, sys\nif not os.fork():\n    print('child')\n    sys.exit(0)\nos.wait()\nprint('p')",
        "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 5\nprint(asyncio.run(f()))",
        "import sys\nsys.setrecursionlimit(20000)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(15000))",
        "print(hash('a'), {'a', 'b', 'c'})",
        "import signal, os\nsignal.signal(signal.SIGTERM, lambda *a: print('term'))\nos.kill(os.getpid(), 15)",
    ]
    for source in sources:
        (tmp_path / "program.py").write_text(source)
        (tmp_path / "helper.py").write_text("x = 5")
        fresh = subprocess.run(
            [sys.executable, "-S", "program.py"], cwd=tmp_path, input="l1 é\nl2\nl3 x".encode(), capture_output=True,
            env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
        )  # fmt: skip
        job = Job(
            ("python", "program.py"), files={"program.py": source.encode(), "helper.py": b"x = 5"},
            stdin="l1 é\nl2\nl3 x".encode(), limits=SMALL,
        )  # fmt: skip
        warm = every_form.run(job)
        wanted = fresh.stdout.replace(str(tmp_path).encode() + b"/", b"")
        assert (warm.exit_code, warm.stdout) == (fresh.returncode, wanted), (source, warm, fresh)
        assert warm.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:], source


def test_unclosed_files_are_flushed(every_form: CellPool) -> None:
    result = every_form.run(python("f = open('o', 'w'); f.write('unclosed')", collect=("o",)))
    assert result.collected == {"o": b"unclosed"}


def test_set_order_and_random_numbers_are_the_same_in_every_run(bubblewrap: CellPool) -> None:
    source = "import random; print(random.random(), list({str(i) for i in range(50)}))"
    assert len({output(bubblewrap, source) for _ in range(4)}) == 1


def test_a_deep_stack_is_a_memory_matter(bubblewrap: CellPool) -> None:
    source = """
        import threading
        threading.stack_size(64 << 20)
        thread = threading.Thread(target=print, args=(1,))
        thread.start()
        thread.join()
    """
    assert output(bubblewrap, source) == "1\n"


def test_limits_of_the_protocol() -> None:
    assert Limits().wall() == 50.0
    assert Limits(cpu_seconds=0.5).wall() == 15.0
    assert Limits(wall_seconds=3.0).wall() == 3.0


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (Job(()), "empty command"),
        (Job(("python", "x"), files={"../x": b""}), "'../x'"),
        (Job(("python", "x"), files={"/x": b""}), "'/x'"),
        (Job(("python", "x"), collect=("a/../../x",)), "a/../../x"),
        (Job(("./x",), files={"x": b""}, mounts={"x": Path("/bin/true")}), "in files and in mounts: x"),
        (Job(("./x",), mounts={"": Path("/bin/true")}), "mounts: ''"),
    ],
)
def test_malformed_jobs_are_the_callers_mistake(job: Job, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_job(job)


def test_an_absent_mount_is_named(bubblewrap: CellPool, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent"):
        bubblewrap.run(Job(("./x",), mounts={"x": tmp_path / "absent"}))
    assert output(bubblewrap, "print(1)") == "1\n"
