"""The read bandwidth of this machine's memory, as our own kernel reaches it."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from replit.runtime.engine import Executable

# Larger than the last-level cache of any processor.
BYTES = 1 << 30


def read_bandwidth(repeats: int = 5) -> float:
    """Bytes per second that all threads of the engine read together, the best of `repeats`."""
    model = _compiled()
    memory = np.ones(BYTES, np.uint8)  # written, so that every page is backed
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.execute(memory)
        seconds.append(time.perf_counter() - start)
    return BYTES / min(seconds)


@cache
def _compiled() -> Executable:
    from max.dtype import DType
    from max.graph import DeviceRef, Graph, TensorType, ops

    from replit.runtime.engine import Engine, Executable
    from replit.runtime.target import CPU

    host = DeviceRef.CPU()
    data = TensorType(DType.uint8, ["bytes"], host)
    with Graph("read_bandwidth", input_types=[data], custom_extensions=[CPU.kernels]) as graph:
        total = ops.custom("replit.read_bytes", host, [graph.inputs[0]], [TensorType(DType.uint64, [1], host)])
        graph.output(*total)
    engine = Engine.get()
    return Executable(engine.session.init(engine.compile(graph)))
