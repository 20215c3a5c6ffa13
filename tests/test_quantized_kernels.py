"""Quantized linear layers and embedding against numpy products with the decoded weights, in rows and in panels."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType, ops
from panels import panels_of

import replit
from replit.cpu.panels import panels_shape
from weights.quantization import dequantize, quantize
from weights.tensor import Encoding

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Run = Callable[[list[npt.NDArray[np.generic]]], list[Floats]]
KERNELS = Path(replit.__file__).parent / "cpu/kernels"
ENCODINGS = [Encoding.Q8_0, Encoding.Q4_0, Encoding.Q4_K, Encoding.Q6_K]
# tiles of 1 to 6 rows; up to 16 rows are packed by every thread for itself, more by all of them together
ROWS = [1, 3, 8, 16, 17, 200]
IDS = np.array([3, 0, 9], np.int64)
cpu = DeviceRef.CPU()


def shapes(encoding: Encoding) -> list[tuple[int, int]]:
    """[N, K] with ragged tiles, an odd number of blocks, and more than one block."""
    if encoding.block_size == 32:
        return [(37, 96), (70, 3072 + 32)]
    return [(37, 256), (70, 3072 + 256)]


def build() -> Graph:
    """One graph with both operations over every shape in every encoding and layout."""
    types = []
    for encoding in ENCODINGS:
        for n, k in shapes(encoding):
            types += [
                TensorType(DType.float32, [f"rows_{encoding}", k], cpu),
                TensorType(DType.uint8, [n, encoding.row_bytes(k)], cpu),
                TensorType(DType.uint8, panels_shape(encoding, (n, k)), cpu),
            ]
    with Graph("quantized", input_types=types, custom_extensions=[KERNELS]) as graph:
        ids = ops.constant(IDS, DType.int64, cpu)
        outputs = []
        inputs = iter(graph.inputs)
        for encoding in ENCODINGS:
            for n, k in shapes(encoding):
                x, *stored = (next(inputs).tensor for _ in range(3))
                linear = TensorType(DType.float32, [f"rows_{encoding}", n], cpu)
                looked_up = TensorType(DType.float32, [len(IDS), k], cpu)
                for weights, panels in zip(stored, (False, True), strict=True):
                    parameters: dict[str, bool | int | str | DType] = {"encoding": str(encoding), "panels": panels}
                    outputs += ops.custom("replit.linear", cpu, [x, weights], [linear], parameters)
                    of_table = parameters | {"rows": n}
                    outputs += ops.custom("replit.embedding", cpu, [ids, weights], [looked_up], of_table)
        graph.output(*outputs)
    return graph


@pytest.fixture(scope="module")
def model() -> Any:
    return InferenceSession(devices=[CPU()]).load(build())


@pytest.fixture(params=ENCODINGS, ids=str)
def kernels(request: pytest.FixtureRequest, model: Any) -> tuple[Encoding, Run]:
    """An encoding, and what computes with it."""

    def run(inputs: list[npt.NDArray[np.generic]]) -> list[Floats]:
        """Products and table rows of each shape, which are the same with both layouts."""
        all_inputs = []
        for encoding in ENCODINGS:
            values = inputs if encoding is request.param else make_inputs(encoding, 1)
            for i, (_, k) in enumerate(shapes(encoding)):
                x, weights = values[2 * i : 2 * i + 2]
                all_inputs += [x, weights, panels_of(weights.astype(np.uint8), encoding, k)]
        outputs = [output.to_numpy() for output in model.execute(*map(Buffer.from_numpy, all_inputs))]
        size = len(outputs) // len(ENCODINGS)
        outputs = outputs[size * ENCODINGS.index(request.param) :][:size]
        for i in range(0, size, 4):
            np.testing.assert_array_equal(outputs[i], outputs[i + 2])
            np.testing.assert_array_equal(outputs[i + 1], outputs[i + 3])
        return [output for i in range(0, size, 4) for output in outputs[i : i + 2]]

    return request.param, run


@cache
def make_inputs(encoding: Encoding, rows: int) -> list[npt.NDArray[np.generic]]:
    random = np.random.default_rng(rows)
    inputs: list[npt.NDArray[np.generic]] = []
    for n, k in shapes(encoding):
        weights = random.standard_normal((n, k), dtype=np.float32) / np.float32(np.sqrt(k))
        x = random.standard_normal((rows, k), dtype=np.float32)
        inputs += [x, quantize(weights, encoding)]
    return inputs


def decoded(stored: npt.NDArray[np.generic], encoding: Encoding, k: int) -> Floats:
    return dequantize(stored.astype(np.uint8).reshape(-1), encoding, (len(stored), k))


@pytest.mark.parametrize("rows", ROWS)
def test_products_and_rows_equal_those_of_the_decoded_weights(kernels: tuple[Encoding, Run], rows: int) -> None:
    encoding, run = kernels
    inputs = make_inputs(encoding, rows)
    results = run(inputs)
    for i, (_, k) in enumerate(shapes(encoding)):
        weights = decoded(inputs[2 * i + 1], encoding, k)
        error = results[2 * i] - inputs[2 * i].astype(np.float64) @ weights.astype(np.float64).T
        # Results are of size 1. A standard normal block of 256 reaches 3 to 4, so that its steps of
        # 1/127 of that err by 0.009; blocks of 32 by 0.005.
        assert np.sqrt(np.mean(error**2)) < (0.012 if encoding.block_size == 256 else 0.007)
        assert np.abs(error).max() < 0.06
        np.testing.assert_array_equal(results[2 * i + 1], weights[IDS])


def test_a_row_does_not_depend_on_its_batch(kernels: tuple[Encoding, Run]) -> None:
    encoding, run = kernels
    inputs = make_inputs(encoding, 600)
    together = run(inputs)[::2]
    for first, last in [(0, 1), (5, 6), (8, 24), (10, 37), (60, 130), (77, 600)]:
        part = [v[first:last] if i % 2 == 0 else v for i, v in enumerate(inputs)]
        for got, want in zip(run(part)[::2], together, strict=True):
            np.testing.assert_array_equal(got, want[first:last])


def test_outliers_keep_their_block_apart(kernels: tuple[Encoding, Run]) -> None:
    """A single large activation may coarsen its own block, not the others."""
    encoding, run = kernels
    inputs = make_inputs(encoding, 2)
    loud = [v.copy() for v in inputs]
    for x in loud[::2]:
        x[:, -1] = 1000.0
    for i, (_, k) in enumerate(shapes(encoding)):
        others = slice(0, k - encoding.block_size)
        weights = decoded(inputs[2 * i + 1], encoding, k).astype(np.float64)
        own = slice(k - encoding.block_size, k)
        error = run(loud)[2 * i] - loud[2 * i].astype(np.float64) @ weights.T
        step = 1000 / 127
        bound = 5 * step * np.sqrt(np.sum(weights[:, own] ** 2, axis=1) / 12) + 0.06
        assert others.stop < k
        assert (np.abs(error) < bound).all()
