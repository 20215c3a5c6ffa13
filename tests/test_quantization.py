"""Block codecs against gguf-py (bit for bit) and llama.cpp's quantizer (error of the K-quants)."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weights.errors import UserError
from weights.quantization import ENCODABLE, LARGEST, dequantize, quantize
from weights.quantization.decode import unpack_scales
from weights.quantization.feedback import encode_with_feedback
from weights.quantization.k_quants import pack_scales
from weights.tensor import Encoding

# The last two are newer than gguf-py's decoders; tests/test_recode.py has them.
QUANTIZED = [e for e in Encoding if e.is_quantized and e not in (Encoding.Q1_0, Encoding.Q2_0)]
GGML_NAMES = {"FLOAT32": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16"}

Array = npt.NDArray[np.float32]


def ggml_type(encoding: Encoding) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[GGML_NAMES.get(encoding.name, encoding.name)]


def matrix(distribution: str, rows: int = 64, columns: int = 1024) -> Array:
    """Weights of the size that a trained model has."""
    rng = np.random.default_rng(7)
    draw: dict[str, Any] = {
        "normal": lambda: rng.standard_normal((rows, columns)),
        "heavy tails": lambda: rng.standard_t(4, (rows, columns)),
        "uniform": lambda: rng.uniform(-1, 1, (rows, columns)),
        "shifted": lambda: rng.standard_normal((rows, columns)) + 1.5,
    }
    return np.asarray(draw[distribution]() * 0.02, np.float32)


def rms(values: npt.NDArray[np.floating[Any]]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def error(array: Array, data: npt.NDArray[np.uint8], encoding: Encoding) -> float:
    return rms(dequantize(data.reshape(-1), encoding, array.shape) - array)


@pytest.mark.parametrize("encoding", QUANTIZED)
def test_dequantize_is_gguf_py_bit_for_bit_on_random_bytes(encoding: Encoding) -> None:
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, (64, 40 * encoding.block_bytes), dtype=np.uint8)
    with np.errstate(invalid="ignore"):  # some of the random scales are NaN or infinite
        expected = gguf.dequantize(data, ggml_type(encoding))
    got = dequantize(data.reshape(-1), encoding, expected.shape)
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("encoding", [Encoding.FLOAT32, Encoding.FLOAT16, Encoding.BFLOAT16])
def test_float_encodings_round_trip_as_gguf_py(encoding: Encoding) -> None:
    array = matrix("normal")
    data = quantize(array, encoding)
    expected = gguf.quantize(array, ggml_type(encoding))
    np.testing.assert_array_equal(data.reshape(-1), expected.view(np.uint8).reshape(-1))
    back = dequantize(data.reshape(-1), encoding, array.shape)
    np.testing.assert_array_equal(back, gguf.dequantize(expected, ggml_type(encoding)))


def test_bfloat16_rounds_ties_to_even() -> None:
    bits = np.array([[0x3F808000, 0x3F818000, 0x3F808001, 0xBF818000]], np.uint32)
    rounded = quantize(bits.view(np.float32), Encoding.BFLOAT16).view(np.uint16)
    assert rounded.tolist() == [[0x3F80, 0x3F82, 0x3F81, 0xBF82]]


@pytest.mark.parametrize("encoding", [Encoding.Q8_0, Encoding.Q4_0])
@pytest.mark.parametrize("distribution", ["normal", "heavy tails", "uniform", "shifted"])
def test_simple_quantizers_are_gguf_py_bit_for_bit(encoding: Encoding, distribution: str) -> None:
    array = matrix(distribution)
    array[0, :32] = 0
    array[1, :64] = np.tile([0.5, -0.5], 32)  # a tie for the greatest magnitude
    array[2, :32] = np.linspace(-127, 127, 32) / 2  # halves, for the direction of rounding
    expected = gguf.quantize(array, ggml_type(encoding))
    np.testing.assert_array_equal(quantize(array, encoding), expected)


#: Below 1e-30 ggml divides by a subnormal scale and the codes of its zero blocks are arbitrary.
values = st.floats(-1000, 1000, width=32).map(lambda value: value if abs(value) > 1e-30 else 0.0)


@given(arrays(np.float32, (2, 64), elements=values))
@settings(deadline=None)
def test_q8_0_and_q4_0_equal_gguf_py_on_any_values(array: Array) -> None:
    for encoding in (Encoding.Q8_0, Encoding.Q4_0):
        expected = gguf.quantize(array, ggml_type(encoding))
        np.testing.assert_array_equal(quantize(array, encoding), expected)


@given(arrays(np.float32, (2, 256), elements=st.floats(-100, 100, width=32)))
@settings(deadline=None)
def test_k_quants_stay_within_the_range_of_their_run(array: Array) -> None:
    """No value is off by more than a bad but bounded share of the greatest one near it."""
    for encoding, share in ((Encoding.Q4_K, 0.25), (Encoding.Q6_K, 0.06)):
        back = dequantize(quantize(array, encoding).reshape(-1), encoding, array.shape)
        bound = share * np.abs(array).max(axis=1, keepdims=True) + 1e-4
        assert (np.abs(back - array) <= bound).all()


@pytest.mark.parametrize("encoding", [Encoding.Q4_K, Encoding.Q6_K])
@pytest.mark.parametrize("value", [0.0, 0.25, -0.25, 1e-30, 3000.0])
def test_k_quants_keep_constant_blocks(encoding: Encoding, value: float) -> None:
    array = np.full((2, 512), value, np.float32)
    back = dequantize(quantize(array, encoding).reshape(-1), encoding, array.shape)
    np.testing.assert_allclose(back, array, rtol=2e-3, atol=1e-7)


@pytest.fixture(scope="module")
def ggml() -> ctypes.CDLL:
    """llama.cpp's own quantizer; the same code that llama-quantize runs without a calibration."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="compares with llama.cpp's quantizer")
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(folder.glob("*ggml-base.[sd]*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    sizes = [ctypes.c_int64] * 3
    pointers = [ctypes.c_void_p] * 2
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, *pointers, *sizes, ctypes.c_void_p]
    return library


def ggml_quantize(library: ctypes.CDLL, array: Array, encoding: Encoding) -> Any:
    rows, columns = array.shape
    out = np.empty((rows, encoding.row_bytes(columns)), np.uint8)
    kind = int(ggml_type(encoding))
    written = library.ggml_quantize_chunk(kind, array.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    assert written == out.nbytes
    return out


@pytest.mark.parametrize("encoding", [Encoding.Q4_K, Encoding.Q6_K])
@pytest.mark.parametrize("distribution", ["normal", "heavy tails", "uniform", "shifted"])
def test_k_quant_error_is_within_3_percent_of_llama_cpp(
    ggml: ctypes.CDLL, encoding: Encoding, distribution: str
) -> None:
    array = matrix(distribution)
    ours = error(array, quantize(array, encoding), encoding)
    theirs = error(array, ggml_quantize(ggml, array, encoding), encoding)
    assert ours <= 1.03 * theirs


@pytest.mark.parametrize("encoding", [Encoding.Q8_0, Encoding.Q4_0])
def test_simple_quantizers_are_llama_cpp_bit_for_bit(ggml: ctypes.CDLL, encoding: Encoding) -> None:
    array = matrix("heavy tails")
    np.testing.assert_array_equal(quantize(array, encoding), ggml_quantize(ggml, array, encoding))


@pytest.mark.parametrize("encoding", ENCODABLE)
def test_large_arrays_go_through_threads_unchanged(encoding: Encoding) -> None:
    """Chunks meet at the right places: many chunks give the bytes of row after row."""
    array = matrix("normal", rows=600)
    rows = [quantize(row[None], encoding) for row in array[::97]]
    whole = quantize(array, encoding)
    np.testing.assert_array_equal(whole[::97], np.concatenate(rows))
    back = dequantize(whole.reshape(-1), encoding, array.shape)
    np.testing.assert_array_equal(back[97], dequantize(rows[1].reshape(-1), encoding, (1024,)))


def test_scales_pack_and_unpack() -> None:
    rng = np.random.default_rng(5)
    scales, minima = rng.integers(0, 64, (2, 100, 8), dtype=np.uint8)
    unpacked = unpack_scales(pack_scales(scales, minima))
    np.testing.assert_array_equal(unpacked, [scales, minima])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ENCODABLE)
def test_nan_and_infinity_are_refused(encoding: Encoding, value: float) -> None:
    array = matrix("normal")
    array[3, 5] = value
    with pytest.raises(UserError, match="holds NaN or infinity: the source is damaged"):
        quantize(array, encoding)


def test_values_beyond_a_format_are_refused() -> None:
    array = np.full((1, 256), 1e6, np.float32)
    with pytest.raises(UserError, match=r"^holds 1e\+06, above 5.24e\+05, the largest value of q4_0; "):
        quantize(array, Encoding.Q4_0)
    np.testing.assert_allclose(
        dequantize(quantize(array, Encoding.Q4_K).reshape(-1), Encoding.Q4_K, (1, 256)),
        array,
        rtol=1e-3,
    )


@pytest.mark.parametrize("encoding", [Encoding.Q4_0, Encoding.Q4_K, Encoding.Q6_K])
def test_any_importance_weights_any_values(encoding: Encoding) -> None:
    """Nothing but ratios counts, columns that a text left out count too, and the largest values are held."""
    array, largest = matrix("uniform", rows=4), LARGEST[encoding] * 0.999
    array *= largest / np.abs(array).max()
    plain = np.ones(1024, np.float32)
    half = np.where(np.arange(1024) < 512, np.float32(0), np.float32(1))
    expected = quantize(array, encoding, plain)
    for importance in (plain * np.float32(1e-30), plain * np.float32(1e30), plain * 0, half):
        found = quantize(array, encoding, importance)
        np.testing.assert_allclose(
            dequantize(found.reshape(-1), encoding, array.shape), array, atol=0.2 * largest, err_msg=str(importance)
        )
        if importance is not half:
            np.testing.assert_array_equal(found, expected)
    for products in (np.eye(1024), np.zeros((1024, 1024)), np.eye(1024) * 1e30):
        found = encode_with_feedback(array, encoding, [products.astype(np.float32)])
        assert np.abs(dequantize(found.reshape(-1), encoding, array.shape) - array).max() < 0.2 * largest


def test_row_lengths_that_the_blocks_do_not_divide_are_refused() -> None:
    array = np.ones((2, 96), np.float32)
    message = "^rows of 96 values: q4_k needs a multiple of 256; choose float32, float16, bfloat16, q8_0, q4_0$"
    with pytest.raises(UserError, match=message):
        quantize(array, Encoding.Q4_K)


def test_encodings_without_an_encoder_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="q5_k is read but not written; choose one of float32"):
        quantize(np.ones((1, 256), np.float32), Encoding.Q5_K)


def test_data_that_does_not_fill_the_shape_is_refused() -> None:
    data = np.zeros(33, np.uint8)
    with pytest.raises(UserError, match=r"33 bytes for a q8_0 tensor of shape \[32\]: expected 34"):
        dequantize(data, Encoding.Q8_0, (32,))
