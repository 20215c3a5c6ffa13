"""Reads memory as fast as the machine can, to tell what share of that the products reach."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level
from std.memory import bitcast
from std.sys.intrinsics import PrefetchOptions, prefetch

from .linear_formats import LINE

comptime STEP = 4 * LINE
comptime AHEAD = 4096  # bytes; the distance that measured best


@extensibility.register("replit.read_bytes")
struct ReadBytes:
    """Every byte of `data`, once, split over all threads: `output[0]` is the sum of its 64-bit words."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        output: OutputTensor[dtype=DType.uint64, rank=1, ...],
        data: InputTensor[dtype=DType.uint8, rank=1, ...],
    ) raises:
        var workers = parallelism_level(None)
        var share = data.dim_size(0) // workers // STEP * STEP
        var start = data.unsafe_ptr()
        var sums = List[UInt64](length=workers * 8, fill=0)  # a line apart

        def read(worker: Int) {mut sums, imm}:
            var lines = Array[SIMD[DType.uint64, 8], 4](fill=0)
            var part = start.unsafe_offset(worker * share)
            for offset in range(0, share, STEP):
                comptime for i in range(4):
                    prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()](
                        part.unsafe_offset(offset + AHEAD + i * LINE)
                    )
                    lines[i] += bitcast[DType.uint64, 8](part.unsafe_load[width=LINE](offset + i * LINE))
            sums[worker * 8] = (lines[0] + lines[1] + lines[2] + lines[3]).reduce_add()

        sync_parallelize(read, workers)
        var total = UInt64(0)
        for worker in range(workers):
            total += sums[worker * 8]
        output.unsafe_ptr().unsafe_store(0, total)
