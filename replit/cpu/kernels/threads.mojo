"""Work handed to the threads: how many are worth waking, and pieces that each takes when it is idle."""

from std.atomic import Atomic
from std.ffi import external_call
from std.math import align_up, ceildiv
from std.runtime import parallelism_level

from max.algorithm import sync_parallelize

from .linear_formats import Bytes, LINE, scratch

comptime Counter = Atomic[Int64]
comptime SPINS = 100_000
"""Looks at a counter, about 100 microseconds of them, before the thread lets others have the core: for milliseconds, if
they want it."""
comptime SHARES = 8
"""Shares of the weight rows for each thread: a thread that is held up takes fewer."""
comptime STREAM_SHARES = 32
"""The same where the weights are read once: what the last share makes the others wait is 4 % with 8."""
comptime WORTH_A_SHARE = 65536
"""Bytes of weights below which a share costs more to hand out than it evens out."""
comptime WORTH_A_THREAD = 800_000
"""Bytes of weights that make up for waking a thread: 5 microseconds if it spins, up to 50 if it sleeps."""


def threads_for(work: Int) -> Int:
    """Threads worth waking for `work` bytes of weights read from the second-level cache."""
    return max(1, min(parallelism_level(), ceildiv(work, WORTH_A_THREAD)))


struct Phases:
    """Two counters on a cache line each for every phase of a team's work: pieces taken, and pieces finished."""

    var counters: Bytes

    def __init__(out self, count: Int):
        self.counters = scratch(count * 2 * LINE)
        for i in range(0, count * 2 * LINE, LINE):
            self.counters.unsafe_offset(i).unsafe_bitcast[Int64]().unsafe_store(0, 0)

    def __deinit__(deinit self):
        self.counters.unsafe_free()


struct Team:
    """One of the threads that go through the same phases together.

    A phase ends when all its pieces are finished. No thread waits for one that has not started: what that one does not
    take, the others do; so a team works with as many threads as there happen to be, also with one.
    """

    var counters: Bytes
    var phase: Int

    def __init__(out self, phases: Phases):
        self.counters = phases.counters
        self.phase = 0

    def finished(self) -> Pointer[Int64, MutUntrackedOrigin]:
        """The counter of the phase's finished pieces."""
        return self.counters.unsafe_offset(2 * LINE * self.phase + LINE).unsafe_bitcast[Int64]()

    def too_late(mut self, pieces: Int) -> Bool:
        """Whether the others have finished the phase; then it goes on to the next."""
        var late = Int(Counter.load(self.finished())) == pieces
        self.phase += 1 if late else 0
        return late

    @always_inline
    def share[Body: def(Int) -> None](mut self, body: Body, pieces: Int):
        """Calls `body(piece)` for every piece, each by the next idle thread, and waits for all of them."""
        var taken = self.counters.unsafe_offset(2 * LINE * self.phase).unsafe_bitcast[Int64]()
        var finished = self.finished()
        self.phase += 1
        var done = 0
        while True:
            var piece = Int(Counter.fetch_add(taken, Int64(1)))
            if piece >= pieces:
                break
            body(piece)
            done += 1
        if done > 0:
            _ = Counter.fetch_add(finished, Int64(done))
        var looks = 0
        while Int(Counter.load(finished)) < pieces:
            looks += 1
            if looks > SPINS:
                _ = external_call["sched_yield", Int32]()


@always_inline
def on_threads[Body: def(Int) -> None](body: Body, threads: Int):
    """Calls `body(thread)` on each thread."""
    if threads == 1:
        body(0)
    else:
        sync_parallelize(body, threads)


@always_inline
def in_shares[
    Body: def(Int, Int) -> None
](body: Body, width: Int, threads: Int, shares: Int, multiple: Int):
    """Calls `body(first, last)` for shares of `range(width)`, each by the next idle thread."""
    var share = width if threads == 1 else align_up(ceildiv(width, threads * shares), multiple)
    var phases = Phases(1)

    def piece(i: Int) {imm}:
        body(i * share, min(width, (i + 1) * share))

    def thread(number: Int) {imm}:
        var team = Team(phases)
        team.share(piece, ceildiv(width, share))

    on_threads(thread, threads)
    _ = phases^


@always_inline
def over_rows[Body: def(Int, Int) -> None](body: Body, rows: Int, threads: Int):
    """Calls `body(first, last)` for one equal share of the activation rows for each thread."""

    def thread(i: Int) {imm}:
        body(rows * i // threads, rows * (i + 1) // threads)

    on_threads(thread, threads)
