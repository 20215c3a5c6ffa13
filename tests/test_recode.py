"""Copies of codes from one block format to another, against gguf-py's decoding of both."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from replit.decoder.encodings import COMPUTED_IN
from weights.convert import encode_tensor, ggml_name
from weights.errors import UserError
from weights.quantization import dequantize
from weights.quantization.recode import EXACT
from weights.tensor import Encoding, Tensor

COLUMNS, ROWS = 768, 40


def random_tensor(encoding: Encoding) -> Tensor:
    """Random codes and scales; the float16 scales of blocks are those of a trained model's size."""
    rng = np.random.default_rng(5)
    shape = (ROWS, COLUMNS)
    data = rng.integers(0, 256, ROWS * encoding.row_bytes(COLUMNS), dtype=np.uint8).reshape(-1, encoding.block_bytes)
    scales = (rng.uniform(0.25, 1, (len(data), 2)) * 2**-9).astype("<f2").view(np.uint8)
    last = encoding.value in ("q2_k", "q3_k", "q6_k", "tq1_0", "tq2_0")
    width = 4 if encoding.value in ("q4_1", "q5_1", "q4_k", "q5_k", "q2_k") else 2
    if encoding is Encoding.MXFP4:
        data[:, 0] = rng.integers(110, 122, len(data))
    elif encoding is Encoding.NVFP4:
        data[:, :4] = rng.integers(1, 60, (len(data), 4))
    elif encoding is Encoding.IQ1_M:  # four bits of the scale on top of each 16-bit group of smaller ones
        groups = data[:, -8:].reshape(-1, 4, 2)
        digits = scales[:, :2].copy().view("<u2") >> np.uint16([0, 4, 8, 12]) & np.uint16(15)
        groups[:, :, 1] = groups[:, :, 1] & 15 | (digits << 4).astype(np.uint8)
    else:
        data[:, slice(-width, None) if last else slice(0, width)] = scales[:, :width]
    return Tensor("w", shape, encoding, data.reshape(-1))


def by_gguf_py(data: np.ndarray, encoding: Encoding) -> np.ndarray:
    if encoding in (Encoding.Q1_0, Encoding.Q2_0):  # newer than gguf-py: as ggml's dequantize_row_q1_0 and _q2_0
        blocks = data.reshape(-1, encoding.block_bytes)
        width = 8 * (encoding.block_bytes - 2) // encoding.block_size
        bits = np.array(
            [[int(byte) >> at & (1 << width) - 1 for byte in b[2:] for at in range(0, 8, width)] for b in blocks]
        )
        codes = 2 * bits - 1 if width == 1 else bits - 1
        return (codes.astype(np.float32) * blocks[:, :2].copy().view("<f2")).reshape(ROWS, -1)
    kind = gguf.GGMLQuantizationType[ggml_name(encoding)]
    return gguf.dequantize(data.reshape(ROWS, -1), kind)


@pytest.mark.parametrize(("source", "target"), EXACT)
def test_every_value_is_the_same(source: Encoding, target: Encoding) -> None:
    tensor = random_tensor(source)
    expected = by_gguf_py(tensor.data, source)
    assert np.isfinite(expected).all()
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(by_gguf_py(encode_tensor(tensor, target), target), expected)


@pytest.mark.parametrize("source", [encoding for encoding in COMPUTED_IN if encoding.is_quantized])
def test_what_is_computed_with_is_near(source: Encoding) -> None:
    """The root mean square of the difference, by that of the values: 0.5 % at most, as docs/models.md says."""
    tensor = random_tensor(source)
    expected = by_gguf_py(tensor.data, source).astype(np.float64)
    target = COMPUTED_IN[source]
    got = dequantize(encode_tensor(tensor, target), target, tensor.shape)
    error = np.sqrt(np.square(got - expected).mean() / np.square(expected).mean())
    print(source, target, error)
    assert error <= (0 if (source, target) in EXACT else 6e-3)


@pytest.mark.parametrize("source", [Encoding.TQ2_0, Encoding.Q3_K])
def test_a_scale_that_is_no_number_is_refused(source: Encoding) -> None:
    tensor = random_tensor(source)
    tensor.data[-2:] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
    with pytest.raises(UserError, match="tensor 'w' holds NaN or infinity: the source is damaged"):
        encode_tensor(tensor, COMPUTED_IN[source])
