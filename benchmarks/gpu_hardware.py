"""What a device can do, measured through MAX: bandwidth by a copy in its memory, and the rate of a large product."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any


def timed(action: Callable[[], Any], repeats: int) -> float:
    """Median seconds of an action that ends when its results are there; the first run is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def open_session(name: str) -> tuple[Any, Any]:
    """Session and device, by the device's name in `pipelines.load`."""
    from max.driver import CPU
    from max.engine import InferenceSession

    from replit.gpu.device import open_device

    device = open_device(name)[1] or CPU()
    return InferenceSession([device]), device


def copy_bandwidth(device: Any, size: int, repeats: int) -> float:
    """Bytes read and written a second by a copy of `size` bytes."""
    from max.driver import Buffer
    from max.dtype import DType

    source, copy = (Buffer.zeros((size,), DType.uint8, device) for _ in range(2))

    def run() -> None:
        copy.inplace_copy_from(source)
        device.synchronize()

    return 2 * size / timed(run, repeats)


def matrix_rate(session: Any, device: Any, n: int, repeats: int) -> float:
    """Operations a second of an `n` x `n` x `n` product in bfloat16, in float32 on a CPU."""
    from max.driver import Buffer
    from max.dtype import DType
    from max.graph import DeviceRef, Graph, TensorType

    dtype = DType.float32 if device.is_host else DType.bfloat16
    kind = TensorType(dtype, [n, n], DeviceRef.from_device(device))
    with Graph("product", input_types=[kind, kind]) as graph:
        graph.output(graph.inputs[0].tensor @ graph.inputs[1].tensor.T)
    product = session.init(session.compile(graph))
    a, b = (Buffer.zeros((n, n), dtype, device) for _ in range(2))

    def run() -> None:
        for _ in range(10):
            product.execute(a, b)
        device.synchronize()

    return 20 * n**3 / timed(run, repeats)
