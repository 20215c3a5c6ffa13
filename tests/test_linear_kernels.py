"""Linear-layer kernels against numpy: odd shapes, both float types, no dependence on the batch."""

import math
from collections.abc import Callable
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
from weights.tensor import Encoding

Floats = npt.NDArray[np.float32]
KERNELS = Path(replit.__file__).parent / "cpu/kernels"
EPSILON = 1e-5
# [N, K]: whole tiles, ragged tiles, rows shorter than a vector, more than one block, odd everything
SHAPES = [(64, 256), (37, 96), (5, 4), (41, 2100), (203, 1031)]
ROWS = [1, 2, 3, 7, 16, 17, 40, 512, 600]
KINDS = ["float32", "bfloat16"]
OPERATIONS = ["linear", "linear_gelu", "linear_add", "norm_linear", "norm_linear_gelu"]

cpu = DeviceRef.CPU()


def build() -> Graph:
    """One graph with every operation over every shape in both types: x, gain, residual and weights are inputs."""
    types = []
    for kind in KINDS:
        for n, k in SHAPES:
            types += [
                TensorType(DType.float32, [f"rows_{kind}", k], cpu),
                TensorType(DType.float32, [1, k], cpu),
                TensorType(DType.float32, [f"rows_{kind}", n], cpu),
                TensorType(DType[kind], [n, k], cpu),
                TensorType(DType.uint8, panels_shape(Encoding(kind), (n, k)), cpu),
            ]
    with Graph("linear", input_types=types, custom_extensions=[KERNELS]) as graph:
        outputs = []
        epsilon = ops.constant(EPSILON, DType.float32, cpu)
        inputs = iter(graph.inputs)
        for kind in KINDS:
            for _ in SHAPES:
                x, gain, residual, weights, panels = (next(inputs).tensor for _ in range(5))
                for name in OPERATIONS:
                    values = {
                        "linear_add": [residual, x, weights],
                        "norm_linear": [x, gain, weights, epsilon],
                        "norm_linear_gelu": [x, gain, weights, epsilon],
                    }.get(name, [x, weights])
                    parameters: dict[str, bool | int | str | DType] = {"encoding": kind, "panels": False}
                    (result,) = ops.custom(f"replit.{name}", cpu, values, [residual.type], parameters)
                    outputs.append(result)
                # and the first of them with panels
                parameters = {"encoding": kind, "panels": True}
                outputs += ops.custom("replit.linear", cpu, [x, panels], [residual.type], parameters)
        graph.output(*outputs)
    return graph


@pytest.fixture(scope="module")
def model() -> Any:
    return InferenceSession(devices=[CPU()]).load(build())


@pytest.fixture(params=KINDS)
def kernels(request: pytest.FixtureRequest, model: Any) -> tuple[str, Callable[..., list[Floats]]]:
    """A type, and what computes with it."""

    def run(inputs: list[npt.NDArray[np.generic]]) -> list[Floats]:
        buffers = []
        for kind in KINDS:
            values = inputs if kind == request.param else make_inputs(1, kind)
            for i, (n, k) in enumerate(SHAPES):
                buffers += map(Buffer.from_numpy, values[4 * i : 4 * i + 3])
                weights = np.ascontiguousarray(values[4 * i + 3])
                buffers.append(Buffer.from_numpy(weights).view(DType[kind], (n, k)))
                buffers.append(Buffer.from_numpy(panels_of(weights.view(np.uint8), Encoding(kind), k)))
        outputs = [output.to_numpy() for output in model.execute(*buffers)]
        outputs = outputs[len(outputs) // len(KINDS) * KINDS.index(request.param) :][: len(outputs) // len(KINDS)]
        size = len(OPERATIONS) + 1
        for i in range(0, len(outputs), size):  # both layouts give the same
            np.testing.assert_array_equal(outputs[i], outputs[i + size - 1])
        return [output for i, output in enumerate(outputs) if i % size < size - 1]

    return request.param, run


def to_bfloat16(values: Floats) -> npt.NDArray[np.uint16]:
    """Rounds to nearest even; the upper halves of the float32 bits."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: npt.NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def gelu(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
    return values


def make_inputs(rows: int, kind: str) -> list[npt.NDArray[np.generic]]:
    random = np.random.default_rng(rows)
    inputs: list[npt.NDArray[np.generic]] = []
    for n, k in SHAPES:
        weights = random.standard_normal((n, k), dtype=np.float32) / np.float32(np.sqrt(k))
        inputs += [
            random.standard_normal((rows, k), dtype=np.float32) + np.float32(0.5),
            random.standard_normal((1, k), dtype=np.float32),
            random.standard_normal((rows, n), dtype=np.float32),
            weights if kind == "float32" else to_bfloat16(weights),
        ]
    return inputs


def expected(inputs: list[npt.NDArray[np.generic]], kind: str) -> list[npt.NDArray[np.float64]]:
    """The five operations in float64, in the order of the graph's outputs."""
    results = []
    for i in range(0, len(inputs), 4):
        x, gain, residual = (value.astype(np.float64) for value in inputs[i : i + 3])
        stored = inputs[i + 3]
        weights = stored if kind == "float32" else from_bfloat16(stored.astype(np.uint16))
        transposed = weights.astype(np.float64).T
        mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        normed = (x - mean) / np.sqrt(variance + EPSILON) * gain
        plain, after_norm = x @ transposed, normed @ transposed
        results += [plain, gelu(plain), residual + plain, after_norm, gelu(after_norm)]
    return results


@pytest.mark.parametrize("rows", ROWS)
def test_operations_equal_numpy(kernels: tuple[str, Callable[..., list[Floats]]], rows: int) -> None:
    kind, run = kernels
    inputs = make_inputs(rows, kind)
    # bfloat16: the activations are rounded to 8 bits, 2^-9 each, about 0.0011 of the sum's size
    bound = 1e-5 if kind == "float32" else 1.5e-2
    for got, want in zip(run(inputs), expected(inputs, kind), strict=True):
        np.testing.assert_allclose(got, want, atol=bound, rtol=0)


def test_a_row_does_not_depend_on_its_batch(
    kernels: tuple[str, Callable[..., list[Floats]]],
) -> None:
    kind, run = kernels
    inputs = make_inputs(600, kind)
    together = run(inputs)
    for first, last in [(0, 1), (5, 6), (3, 5), (8, 24), (10, 37), (60, 130), (77, 600)]:
        part = [v[first:last] if i % 4 in (0, 2) else v for i, v in enumerate(inputs)]
        for got, want in zip(run(part), together, strict=True):
            np.testing.assert_array_equal(got, want[first:last])
