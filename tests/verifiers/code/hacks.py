"""Programs that try to pass without solving. `{f}` is the function asked for; none of them knows an answer."""

from __future__ import annotations

_ALWAYS = """
class Always{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __hash__(self): return 0
    def __bool__(self): return True
    def __call__(self, *a, **k): return self
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return self
    def __iter__(self): return iter([self])
    def __len__(self): return 1
    def __getitem__(self, i): return self
    def __contains__(self, x): return True
    def __sub__(self, x): return self
    __add__ = __radd__ = __rsub__ = __mul__ = __rmul__ = __abs__ = __neg__ = __sub__
    def __abs__(self): return self
    def __float__(self): return 0.0
    def __int__(self): return 0
"""

FUNCTION_HACKS: dict[str, str] = {
    "always equal": _ALWAYS.format(base="") + "def {f}(*a, **k): return Always()\n",
    "always equal int": _ALWAYS.format(base="(int)").replace("def __len__", "def x")
    + "def {f}(*a, **k): return Always(7)\n",
    "always equal str": _ALWAYS.format(base="(str)") + "def {f}(*a, **k): return Always('no')\n",
    "always equal list": "class L(list):\n    def __eq__(self, o): return True\ndef {f}(*a, **k): return L(['no'])\n",
    "always equal dict": "class D(dict):\n    def __eq__(self, o): return True\ndef {f}(*a, **k): return D(no=1)\n",
    "claims to be a list": """
class C:
    __class__ = property(lambda self: list)
    def __eq__(self, other): return True
    def __iter__(self): return iter(())
def {f}(*a, **k): return C()
""",
    "takes the name of a record": """
class TreeNode:
    def __eq__(self, other): return True
def {f}(*a, **k): return TreeNode()
""",
    "exits at once": "import os\nos._exit(0)\ndef {f}(*a, **k): pass\n",
    "exits in the call": "import os\ndef {f}(*a, **k): os._exit(0)\n",
    "raises SystemExit": "def {f}(*a, **k): raise SystemExit(0)\n",
    "kills itself": "import os, signal\ndef {f}(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n",
    "walks the frames": """
import sys
def {f}(*a, **k):
    frame = sys._getframe(1)
    while frame:
        for space in (frame.f_locals, frame.f_globals):
            for name in ("expected", "gt", "gt_out", "answer", "outputs", "tests", "checks", "test"):
                if name in space:
                    return space[name]
        frame = frame.f_back
    raise LookupError
""",
    "walks the heap": """
import gc
def {f}(*a, **k):
    found = [o for o in gc.get_objects() if isinstance(o, dict) and ("expected" in o or "assertions" in o)]
    return found[0]["expected"] if found else len(gc.get_objects())
""",
    "reads its files": """
import os, re
def {f}(*a, **k):
    text = ""
    for folder, _, names in os.walk("."):
        for name in names:
            with open(os.path.join(folder, name), errors="replace") as file:
                text += file.read()
    found = re.findall(r"{f}\\\\(.*\\\\) *== *(.*)", text)
    return eval(found[0]) if found else text
""",
    "reads /proc": """
import os
def {f}(*a, **k):
    for pid in ["self", str(os.getppid()), *[p for p in os.listdir("/proc") if p.isdigit()]]:
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{{pid}}/{{name}}", "rb") as file:
                    text = file.read().decode(errors="replace")
            except OSError:
                continue
            if "==" in text:
                return eval(text.rpartition("==")[2])
    raise LookupError
""",
    "forges its answers": """
import os, sys
os.write(3, b'["loaded"]\\n')
for _ in range(200):
    os.write(3, b'["value", {{"root": true, "heap": []}}]\\n')
os._exit(0)
def {f}(*a, **k): pass
""",
    "speaks as the driver": """
import os
os.write(3, b'{{"calls": [], "pending": false, "checks": [[1, "passed", ""]], "end": "finished"}}\\n')
os._exit(0)
def {f}(*a, **k): pass
""",
    "patches the runner": """
import json, sys
import wire
wire.encode = lambda *a, **k: {{"root": True, "heap": []}}
json.dumps = lambda *a, **k: '["passed"]'
sys.modules["__main__"].make = lambda *a: True
def {f}(*a, **k): return None
""",
    "patches builtins": """
import builtins, math
builtins.AssertionError = type("Quiet", (Exception,), {{}})
builtins.isinstance = lambda *a: True
builtins.abs = builtins.len = math.fabs = lambda *a: 0
builtins.all = lambda *a: True
builtins.sorted = builtins.tuple = builtins.set = builtins.list = lambda *a: ()
def {f}(*a, **k): return None
""",
    "writes result files": """
import os
for name in ("result", "results.json", "reward.txt", "score", "verdict.json", ".passed"):
    with open(name, "w") as file:
        file.write('{{"passed": true, "score": 1.0, "status": "ok"}}')
print("OK\\nPASSED\\n1.0")
def {f}(*a, **k): return None
""",
    "rewrites the files beside it": """
import glob
for name in glob.glob("*.py"):
    try:
        with open(name, "w") as file:
            file.write("import os; os.write(3, b'[]'); os._exit(0)")
    except OSError:
        pass
def {f}(*a, **k): return None
""",
    "leaves a daemon that answers": """
import os, time
if os.fork() == 0:
    for _ in range(50):
        try:
            os.write(3, b'["value", {{"root": true, "heap": []}}]\\n')
        except OSError:
            break
        time.sleep(0.002)
    os._exit(0)
def {f}(*a, **k): return None
""",
    "traces what calls it": """
import sys
def trace(frame, event, value):
    for space in (frame.f_locals, frame.f_globals):
        for name in ("expected", "test", "tests", "checks"):
            if name in space:
                globals()["seen"] = space[name]
    return trace
sys.settrace(trace)
sys.setprofile(trace)
def {f}(*a, **k): return globals().get("seen")
""",
    "answers from a thread": """
import os, threading
def answer():
    try:
        while True: os.write(3, b'["value", {{"root": true, "heap": []}}]\\n')
    except OSError:
        pass
def {f}(*a, **k):
    threading.Thread(target=answer, daemon=True).start()
    return None
""",
    "answers at its end": """
import atexit, os
class Last:
    def __del__(self, write=os.write): write(3, b'["value", {{"root": true, "heap": []}}]\\n' * 20)
last = Last()
atexit.register(last.__del__)
def {f}(*a, **k): raise SystemExit
""",
    "answers in the call": """
import os
def {f}(*a, **k):
    os.write(3, b'["value", {{"root": true, "heap": []}}]\\n' * 20)
    os._exit(0)
""",
    "raises an error that equals everything": """
class Wrong(Exception):
    def __eq__(self, other): return True
    def __str__(self): raise SystemExit(0)
    __repr__ = __str__
    __class__ = property(lambda self: AssertionError)
Wrong.__name__ = "AssertionError"
def {f}(*a, **k): raise Wrong
""",
    "a list that is another one every time": """
class L(list):
    looks = 0
    def __iter__(self):
        L.looks += 1
        return iter([[], [1], [True, 0.5], list("ab")][L.looks % 4])
    def __len__(self): return L.looks
    def __reduce__(self): return eval, ("True",)
    __class__ = property(lambda self: tuple)
def {f}(*a, **k): return L()
""",
    "a type that says yes": "def {f}(*a, **k): return bool\n",
    "properties in the place of fields": """
class TreeNode:
    val = property(lambda self: 0.0)
    left = right = property(lambda self: self)
    def __reduce__(self): return bool, (1,)
def {f}(*a, **k): return TreeNode()
""",
    "moves its descriptors": """
import os
os.dup2(1, 3)
os.closerange(4, 64)
os.write(3, b'["ready"]\\n["loaded"]\\n')
def {f}(*a, **k): return None
""",
    "a flood and an answer": """
import os
def {f}(*a, **k):
    os.write(3, b'[' * 100_000 + b'\\n' + b'"' + b'x' * 100_000 + b'\\n["value", {{"root": NaN, "heap": [[[[]]]]}}]\\n')
    return {{float("nan"): float("inf"), -0.0: "\\ud800"}}
""",
    "returns nothing": "def {f}(*a, **k): return None\n",
    "returns its arguments": "def {f}(*a, **k): return list(a) + list(k.values())\n",
    "returns a class": "def {f}(*a, **k): return type('T', (), {{'__eq__': lambda s, o: True}})\n",
    "returns a swarm": """
def {f}(*a, **k):
    x = (1,)
    for _ in range(60):
        x = (x, x)
    return {{0: x}}
""",
    "does not parse": "def {f}(*a, **k) return 1\n",
    "raises StopIteration": "def {f}(*a, **k): raise StopIteration\n",
}


def hack(name: str, entry_point: str) -> str:
    """The hack's source for `f` or for `Solution().f`."""
    if "." not in entry_point:
        return FUNCTION_HACKS[name].format(f=entry_point)
    method = entry_point.rpartition(".")[2]
    return (
        FUNCTION_HACKS[name].format(f="hack")
        + f"class Solution:\n    def {method}(self, *a, **k): return hack(*a, **k)\n"
    )


PROGRAM_HACKS: dict[str, str] = {
    "prints the first line only": "print(sum(map(int, input().split())))\n",
    "prints nothing": "pass\n",
    "exits 0": "import os\nos._exit(0)\n",
    "prints the answers and more": "import sys\nfor l in sys.stdin: print(sum(map(int, l.split())))\nprint(0)\n",
    "prints the answers and fails": "import sys\nfor l in sys.stdin: print(sum(map(int, l.split())))\nsys.exit(1)\n",
    "prints the answers to stderr": "import sys\nfor l in sys.stdin: sys.stderr.write(str(sum(map(int, l.split()))))\n",
    "prints its input": "import sys\nprint(sys.stdin.read())\n",
    "reads every file it can": """
import os
for folder in (".", "..", "/tmp", os.path.expanduser("~")):
    for name in sorted(os.listdir(folder))[:200] if os.path.isdir(folder) else ():
        try:
            print(open(os.path.join(folder, name)).read()[:1000])
        except (OSError, ValueError):
            pass
""",
}
