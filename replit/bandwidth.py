"""The read bandwidth of this machine's memory, as our own kernel reaches it."""

from __future__ import annotations

import time

import numpy as np

# Larger than the last-level cache of any processor.
BYTES = 1 << 30


def read_bandwidth(repeats: int = 5) -> float:
    """Bytes per second that all threads of the engine read together, the best of `repeats`."""
    from max.dtype import DType
    from max.graph import DeviceRef, Graph, TensorType, ops

    from replit.graph import KERNELS
    from replit.log_thread import rarely_polling
    from replit.model import Engine
    from replit.weight_memory import return_unused_memory

    host = DeviceRef.CPU()
    data = TensorType(DType.uint8, ["bytes"], host)
    with Graph("read_bandwidth", input_types=[data], custom_extensions=[KERNELS]) as graph:
        total = ops.custom("replit.read_bytes", host, [graph.inputs[0]], [TensorType(DType.uint64, [1], host)])
        graph.output(*total)
    session = Engine.get().session
    model = session.init(session.compile(graph))
    return_unused_memory()
    memory = np.ones(BYTES, np.uint8)  # written, so that every page is backed
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        with rarely_polling():
            model.execute(memory)
        seconds.append(time.perf_counter() - start)
    return BYTES / min(seconds)
