"""One turn of a way to do a job: several threads that go on for a fixed time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def turn(job: Callable[[int], None], threads: int, seconds: float) -> float:
    """Jobs a second. `job(n)` does a thread's n-th job and raises where its result is wrong; the first such error ends
    the turn.
    """
    counts, errors, start = [0] * threads, [], time.monotonic()

    def work(index: int) -> None:
        try:
            while time.monotonic() < start + seconds:
                job(counts[index])
                counts[index] += 1
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return sum(counts) / (time.monotonic() - start)
