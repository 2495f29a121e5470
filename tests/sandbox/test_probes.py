"""What an untrusted program tries first, tried: each probe has to fail, and the next programs have to be unaffected.

Run in every isolated tier that this machine holds. Not exercised: holes of the kernel itself, timing channels between
programs, and machines of another architecture than this one.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1kit.sandbox import CellPool, Limits
from r1kit.sandbox.launch import user_options

from .programs import assert_ok, assert_unharmed, output, python


@pytest.fixture
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of the host that everybody may read."""
    path = Path("/tmp") / f"r1kit-secret-{os.getpid()}"
    path.write_text("token of the host")
    path.chmod(0o644)
    yield path
    path.unlink()


def test_no_network(isolated: CellPool) -> None:
    source = """
        import ctypes, socket
        for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM),
                             (socket.AF_UNIX, socket.SOCK_STREAM), (16, socket.SOCK_RAW)):
            try:
                socket.socket(family, kind)
                print("open", family)
            except OSError as error:
                print(type(error).__name__)
        a, b = socket.socketpair()  # stays: asyncio cannot do without
        a.send(b"pair"); print(b.recv(4))
    """
    assert output(isolated, source) == "PermissionError\n" * 4 + "b'pair'\n"


def test_nothing_of_the_host_is_readable(isolated: CellPool, secret: Path) -> None:
    source = """
        import os, sys
        paths = [sys.argv[1], "/etc/passwd", "/etc/hostname", "/root", "/home", "/var/log", "/sys/kernel", "/run"]
        for path in paths:
            try:
                print(path, os.listdir(path) if os.path.isdir(path) else open(path).read())
            except OSError:
                pass
        print(sorted(os.environ), any(sys.argv[1][5:] in names for _, _, names in os.walk("/tmp")))
    """
    names = ["HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "TMPDIR"]
    assert output(isolated, source, str(secret)) == f"{names} False\n"


def test_the_system_is_read_only(isolated: CellPool) -> None:
    source = """
        import os, sys
        for path in ("/usr/x", "/x", "/dev/x", "/etc/x", "/lib/x", sys.executable):
            try:
                open(path, "ab").close()
                print("written", path)
            except OSError:
                pass
        os.mkdir("here"); open("here/x", "w").write("fine"); print(open("here/x").read())
    """
    assert output(isolated, source) == "fine\n"


def test_other_processes_are_out_of_sight_and_reach(isolated: CellPool) -> None:
    source = """
        import os, signal, sys
        try:
            seen = len([name for name in os.listdir("/proc") if name.isdigit()])
        except OSError:
            seen = 0
        print(seen < 6)  # at most those of its own cell
        host = int(sys.argv[1])
        for what in (lambda: os.kill(host, 0), lambda: os.kill(os.getppid() or 1, signal.SIGKILL),
                     lambda: open(f"/proc/{host}/environ").read(), lambda: os.kill(-1, signal.SIGKILL)):
            try:
                what()
            except OSError:
                pass
        print("alive")
    """
    with subprocess.Popen(["sleep", "100"], **user_options()) as bystander:
        result = isolated.run(python(source, str(bystander.pid)))
        assert bystander.poll() is None, "a process of the host was killed"
        bystander.kill()
    # In a namespace of its own the last line, kill(-1), has only itself to find.
    assert result.status == "ok", result
    assert result.stdout == b"True\nalive\n"
    assert_unharmed(isolated)


def test_no_more_rights_and_no_namespaces(isolated: CellPool) -> None:
    source = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        for call in (lambda: libc.unshare(0x10000000), lambda: libc.unshare(0x20000), lambda: libc.setns(0, 0),
                     lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, None), lambda: libc.umount2(b"/proc", 2),
                     lambda: libc.chroot(b"."), lambda: libc.ptrace(16, os.getppid() or 1, 0, 0),
                     lambda: libc.syscall(425, 1, 0), lambda: libc.memfd_create(b"x", 0), lambda: libc.setuid(0)
                     if os.getuid() else -1, lambda: libc.syscall(500), lambda: libc.personality(0x40000)):
            assert call() == -1, call
        print("refused")
    """
    assert output(isolated, source) == "refused\n"


def test_nothing_is_inherited_and_nothing_of_ours_can_be_read(isolated: CellPool) -> None:
    """Four descriptors; of the processes that can be seen no memory, descriptors or environment."""
    source = """
        import os
        def is_open(fd):
            try: return bool(os.fstat(fd))
            except OSError: return False
        print([fd for fd in range(1000) if is_open(fd)])
        for process in range(1, 100):
            for name in ("mem", "environ", "maps", "fd", "cwd", "root", "exe", "auxv", "stack", "io"):
                path = f"/proc/{process}/{name}"
                if process == os.getpid():
                    continue
                try:
                    if name in ("cwd", "root", "exe"): found = os.readlink(path)
                    elif name == "fd": found = os.listdir(path)
                    else: found = open(path, "rb").read(64)
                    print("read", path, found)
                except OSError:
                    pass
    """
    assert output(isolated, source) == "[0, 1, 2, 3]\n"


def test_links_and_renames_bring_back_no_file_of_the_system(isolated: CellPool) -> None:
    source = """
        import os
        os.mkdir("d"); open("d/f", "w").write("own"); os.rename("d", "e")
        os.symlink("/etc/alternatives", "d"); os.symlink("/etc/ld.so.cache", "out"); os.mkfifo("pipe")
        os.link("e/f", "hard"); os.truncate("hard", 1 << 20)
    """
    result = isolated.run(python(source, collect=("out", "d/awk", "pipe", "d", "hard", "e/f")))
    assert result.status == "ok", result
    assert {name: len(data) for name, data in result.collected.items()} == {"hard": 1 << 20, "e/f": 1 << 20}


def test_a_crash_leaves_no_core(isolated: CellPool) -> None:
    source = "import ctypes, resource\nprint(resource.getrlimit(resource.RLIMIT_CORE), flush=True)\nctypes.string_at(0)"
    result = isolated.run(python(source, collect=("core",)))
    assert (result.signal, result.stdout, dict(result.collected)) == (11, b"(0, 0)\n", {}), result


@pytest.mark.parametrize("place", ["work", "/tmp", "/dev/shm", "$HOME"])
def test_nothing_is_left_for_the_next_program(isolated: CellPool, place: str) -> None:
    write = f"""
        import os
        place = os.path.expandvars({place!r}) if {place!r} != "work" else os.getcwd()
        try:
            os.makedirs(place + "/closed/deep")
            open(place + "/left", "w").write("mine")
            os.chmod(place + "/closed", 0)
        except OSError as error:
            print(error)
    """
    find = """
        import os
        print([p for top in ("/tmp", "/dev/shm", "/box", os.getcwd(), os.environ["HOME"])
               for p, _, names in os.walk(top) if "left" in names or "closed" in p])
    """
    for _ in range(2 * isolated.workers):  # every cell
        assert_ok(isolated.run(python(write)))
    for _ in range(2 * isolated.workers):
        assert output(isolated, find) == "[]\n"


def test_a_box_that_was_taken_apart_is_whole_again(isolated: CellPool) -> None:
    """Directories renamed, replaced by links, or nested deeper than a recursive removal goes."""
    attack = """
        import os
        for action in (lambda: os.rename("../work", "../moved"), lambda: os.symlink("/usr", "../work"),
                       lambda: os.rename("../shm", "../shm2"), lambda: os.mkdir("../shm")):
            try: action()
            except OSError: pass
        for _ in range(3000):
            os.mkdir("d"); os.chdir("d")
    """
    use = """
        import os
        open("x", "w").write("1"); open(os.environ["HOME"] + "/x", "w").write("2")
        if os.path.exists("/box/shm"): open("/dev/shm/x", "w").write("3")
        print(os.getcwd().endswith("/work"), sorted(os.listdir()))
    """
    for _ in range(2 * isolated.workers):
        result = isolated.run(python(attack))
        # Where the disk is counted, a nest too deep to be looked into ends the program.
        assert result.status == "ok" or "disk" in result.detail, result
        assert output(isolated, use) == "True ['program.py', 'x']\n"


def test_no_other_programs_memory(bubblewrap: CellPool) -> None:
    """A program starts as a copy of the zygote; what earlier programs were given must never have been in there."""
    first = "import sys; kept = sys.stdin.read() * 3; print(len(kept))"
    scan = """
        import re, sys
        word = sys.argv[1][::-1].encode()
        found = 0
        with open("/proc/self/mem", "rb") as memory:
            for line in open("/proc/self/maps"):
                if "rw" not in line.split()[1]:
                    continue
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                memory.seek(start)
                try:
                    found += memory.read(end - start).count(word[::1]) - 0
                except OSError:
                    pass
        print(found)
    """
    word = "SECRET-OF-ANOTHER-" + "XYZZY"
    for _ in range(4):
        bubblewrap.run(python(first, stdin=word.encode() * 50, files={"data": word.encode() * 50}))
    # The program itself holds the word once or twice, for looking; the 100 copies of the others are not there.
    assert int(output(bubblewrap, scan, word[::-1])) < 10


@pytest.mark.parametrize("attack", ["kill", "read"])
def test_siblings_cannot_be_harmed(isolated: CellPool, attack: str) -> None:
    """Two programs at once, in both workers; one attacks whatever it finds for as long as the other computes."""
    attacks = {
        "kill": """
            import os, signal, time
            end = time.time() + 1.0
            mine = os.getpid()
            while time.time() < end:
                for process in {*range(1, 64), *range(max(1, mine - 50), mine + 50)}:
                    if process != mine:
                        try: os.kill(process, signal.SIGKILL)
                        except OSError: pass
                time.sleep(0.05)
        """,
        "read": """
            import os, time
            end = time.time() + 1.0
            while time.time() < end:
                for top in ("/tmp", "/box", "/dev/shm", ".."):
                    for path, _, names in os.walk(top):
                        for name in names:
                            try: text = open(f"{path}/{name}", "rb").read(100)
                            except OSError: continue
                            if b"not yours" in text and b"import" not in text: print("read", path, name)
                time.sleep(0.05)
        """,
    }
    victim = """
        import os, time
        open("mine", "w").write("not yours"); open(os.environ["HOME"] + "/mine", "w").write("not yours")
        end = time.time() + 1.0
        while time.time() < end: time.sleep(0.01)
        print(open("mine").read())
    """
    results = {}

    def run(name: str, source: str) -> None:
        results[name] = isolated.run(python(source, limits=Limits(20.0)))

    threads = [threading.Thread(target=run, args=pair) for pair in (("victim", victim), ("attacker", attacks[attack]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results["victim"].status == "ok", results["victim"]
    assert results["victim"].stdout == b"not yours\n"
    assert results["attacker"].status == "ok", results["attacker"]
    assert results["attacker"].stdout == b""
    assert_unharmed(isolated)
