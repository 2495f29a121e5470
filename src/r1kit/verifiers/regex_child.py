"""The worker behind `regex_worker`: run as a script, it needs the standard library and nothing of r1kit.

One JSON request a line on standard input; two lines back: "compiled" or an error, then "match" or "none". A timer
counts its CPU time during each request and ends the process: whoever reads a closed pipe knows which step was too
slow by the lines that came before.
"""

import json
import re
import resource
import signal
import sys


def serve() -> None:
    memory = 256 << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        # SIGPROF with its default action ends the process even inside the C code of the matcher.
        signal.setitimer(signal.ITIMER_PROF, request["cpu_seconds"])
        try:
            pattern = re.compile(request["pattern"], re.IGNORECASE if request["ignore_case"] else 0)
        except (re.error, RecursionError, OverflowError, MemoryError) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            _answer(f"error {type(error).__name__}: {error}"[:200])
            continue
        _answer("compiled")
        matcher = pattern.search if request["anywhere"] else pattern.fullmatch
        try:
            found = matcher(request["text"])
        except (MemoryError, RecursionError):
            _answer("limit")
            continue
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer("match" if found else "none")


def _answer(text: str) -> None:
    sys.stdout.write(text.replace("\n", " ") + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
