"""Work handed to the threads: how many are worth waking, and shares of the weight rows for each."""

from std.atomic import Atomic
from std.math import align_up, ceildiv
from std.runtime import parallelism_level

from max.algorithm import sync_parallelize

comptime SHARES = 8
"""Shares of the weight rows for each thread: a thread that is held up takes fewer."""
comptime STREAM_SHARES = 32
"""The same where the weights are read once: what the last share makes the others wait is 4 % with 8."""
comptime WORTH_A_THREAD = 800_000
"""Bytes of weights that make up for waking a thread: 5 microseconds if it spins, up to 50 if it sleeps."""


def threads_for(work: Int) -> Int:
    """Threads worth waking for `work` bytes of weights read from the second-level cache."""
    return max(1, min(parallelism_level(), ceildiv(work, WORTH_A_THREAD)))


@always_inline
def in_shares[
    Body: def(Int, Int) -> None
](body: Body, width: Int, threads: Int, shares: Int, multiple: Int):
    """Calls `body(first, last)` for shares of `range(width)`, each by the next idle thread."""
    if threads == 1:
        body(0, width)
        return
    var share = align_up(ceildiv(width, threads * shares), multiple)
    var next = Atomic(Int64(0))

    def thread(i: Int) {mut next, imm}:
        while True:
            var first = Int(next.fetch_add(1)) * share
            if first >= width:
                break
            body(first, min(width, first + share))

    sync_parallelize(thread, threads)


@always_inline
def over_rows[Body: def(Int, Int) -> None](body: Body, rows: Int, threads: Int):
    """Calls `body(first, last)` for one equal share of the activation rows for each thread."""

    def thread(i: Int) {imm}:
        body(rows * i // threads, rows * (i + 1) // threads)

    if threads == 1:
        body(0, rows)
    else:
        sync_parallelize(thread, threads)
