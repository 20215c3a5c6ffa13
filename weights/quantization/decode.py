"""Block formats of GGUF, as byte layouts and their expansion to float32.

Layouts and arithmetic follow ggml's block structs; every result equals gguf-py's bit for bit
(the order of the float32 operations matters for that). Encoding is in encode.py and k_quants.py; formats
with tables of their own (iq1 to iq3, mxfp4, nvfp4) are left to gguf-py itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from weights.tensor import Encoding

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int8]
Blocks = npt.NDArray[np.void]

#: One block of each format, field by field. `d` and `dmin` are float16 scales; the `qs` fields hold
#: two 4-bit values a byte (low nibbles first), `qh` the bits above them.
LAYOUT: dict[Encoding, np.dtype[np.void]] = {
    Encoding.Q8_0: np.dtype([("d", "<f2"), ("qs", "i1", 32)]),
    Encoding.Q4_0: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    Encoding.Q4_1: np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)]),
    Encoding.Q5_0: np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)]),
    Encoding.Q5_1: np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)]),
    Encoding.Q4_K: np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", (4, 32))]),
    Encoding.Q5_K: np.dtype(
        [
            ("d", "<f2"),
            ("dmin", "<f2"),
            ("scales", "u1", 12),
            ("qh", "u1", 32),
            ("qs", "u1", (4, 32)),
        ]
    ),
    Encoding.Q6_K: np.dtype([("ql", "u1", (2, 64)), ("qh", "u1", (2, 32)), ("scales", "i1", 16), ("d", "<f2")]),
    Encoding.Q2_K: np.dtype([("scales", "u1", 16), ("qs", "u1", (2, 32)), ("d", "<f2"), ("dmin", "<f2")]),
    Encoding.Q3_K: np.dtype([("hmask", "u1", 32), ("qs", "u1", (2, 32)), ("scales", "u1", 12), ("d", "<f2")]),
    Encoding.IQ4_NL: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    Encoding.IQ4_XS: np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", (8, 16))]),
    Encoding.Q1_0: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    Encoding.Q2_0: np.dtype([("d", "<f2"), ("qs", "u1", 16)]),
    Encoding.TQ1_0: np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")]),
    Encoding.TQ2_0: np.dtype([("qs", "u1", (2, 32)), ("d", "<f2")]),
}

#: What the 4-bit codes of iq4_nl and iq4_xs stand for, before the scale.
_IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)


def _float(field: npt.NDArray[np.float16], axes: int = 1) -> Array:
    """A column of float16 scales as float32, with `axes` axes of length 1 appended."""
    return field.astype(np.float32).reshape(-1, *[1] * axes)


def _nibbles(qs: Bytes) -> Bytes:
    """[blocks, n] bytes to [blocks, 2n] 4-bit values: all low nibbles, then all high ones."""
    return np.concatenate([qs & 15, qs >> 4], axis=-1)


def _five_bits(blocks: Blocks) -> Bytes:
    """q5_0 and q5_1: the nibbles of `qs` with the bits of `qh` as their fifth."""
    high = np.unpackbits(blocks["qh"], axis=-1, bitorder="little")
    values: Bytes = _nibbles(blocks["qs"]) | (high << np.uint8(4))
    return values


def _signed(codes: Bytes, offset: int) -> Integers:
    signed: Integers = codes.view(np.int8) - np.int8(offset)
    return signed


def unpack_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The eight 6-bit scales and eight 6-bit minima that q4_k and q5_k pack in 12 bytes.

    Bytes 0..3 and 4..7 hold scales and minima 0..3 in their low six bits; the low four bits of
    scales and minima 4..7 share bytes 8..11, their top two bits sit on top of bytes 0..7.
    """
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = [first & 63, (third & 15) | ((first >> 2) & 48)]
    minima = [second & 63, (third >> 4) | ((second >> 2) & 48)]
    return np.concatenate(scales, axis=1), np.concatenate(minima, axis=1)


def _affine_super_block(blocks: Blocks, values: Bytes) -> Array:
    """q4_k and q5_k: d * scale * value - dmin * minimum, for eight runs of 32 values."""
    scales, minima = unpack_scales(blocks["scales"])
    scale = (_float(blocks["d"]) * scales.astype(np.float32))[:, :, None]
    minimum = (_float(blocks["dmin"]) * minima.astype(np.float32))[:, :, None]
    return scale * values.reshape(-1, 8, 32).astype(np.float32) - minimum


def _q8_0(blocks: Blocks) -> Array:
    values: Array = blocks["qs"].astype(np.float32)
    return values * _float(blocks["d"])


def q4_0_codes(blocks: Blocks) -> Integers:
    """[blocks, 32], -8 to 7."""
    return _signed(_nibbles(blocks["qs"]), 8)


def _q4_1(blocks: Blocks) -> Array:
    return _float(blocks["d"]) * _nibbles(blocks["qs"]) + _float(blocks["m"])


def q5_0_codes(blocks: Blocks) -> Integers:
    """[blocks, 32], -16 to 15."""
    return _signed(_five_bits(blocks), 16)


def _q5_1(blocks: Blocks) -> Array:
    return _float(blocks["d"]) * _five_bits(blocks) + _float(blocks["m"])


def _q4_k(blocks: Blocks) -> Array:
    return _affine_super_block(blocks, _nibbles(blocks["qs"]))


def _q5_k(blocks: Blocks) -> Array:
    # Bit j of qh[i] is the fifth bit of value i in run j.
    bits = np.arange(8, dtype=np.uint8)[:, None]
    high: Bytes = (blocks["qh"][:, None, :] >> bits & np.uint8(1)) << np.uint8(4)
    return _affine_super_block(blocks, _nibbles(blocks["qs"]).reshape(-1, 8, 32) | high)


def _q6_k(blocks: Blocks) -> Array:
    # Each half of 128 values: low nibbles of 64 bytes, then their high ones; two bits from qh.
    low = _nibbles(blocks["ql"]).reshape(-1, 2, 4, 32)
    bits = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high: Bytes = (blocks["qh"][:, :, None, :] >> bits & np.uint8(3)) << np.uint8(4)
    values = _signed(low | high, 32)
    scale = _float(blocks["d"]) * blocks["scales"].astype(np.float32)
    result: Array = scale[:, :, None] * values.reshape(-1, 16, 16)
    return result


def _two_bits(qs: Bytes) -> Bytes:
    """[blocks, 2, 32] bytes to [blocks, 2, 4, 32] values: all lowest bit pairs first."""
    pairs: Bytes = qs[:, :, None, :] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & np.uint8(3)
    return pairs


def _q2_k(blocks: Blocks) -> Array:
    scale = _float(blocks["d"]) * (blocks["scales"] & 15).astype(np.float32)
    minimum = _float(blocks["dmin"]) * (blocks["scales"] >> 4).astype(np.float32)
    values = _two_bits(blocks["qs"]).reshape(-1, 16, 16).astype(np.float32)
    result: Array = scale[:, :, None] * values - minimum[:, :, None]
    return result


def q3_k_codes(blocks: Blocks) -> tuple[Integers, Integers]:
    """The scales [blocks, 16], -32 to 31, and codes [blocks, 16, 16], -4 to 3, of q3_k."""
    low, high = blocks["scales"][:, :8], blocks["scales"][:, 8:]
    nibbles = np.concatenate([low & 15, low >> 4], axis=1)
    tops = (high[:, None, :] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & np.uint8(3)).reshape(-1, 16)
    scales = _signed(nibbles | (tops << np.uint8(4)), 32)
    # A bit of hmask that is not set takes 4 off.
    bits = np.arange(8, dtype=np.uint8)[:, None]
    missing = (blocks["hmask"][:, None, :] >> bits & np.uint8(1) ^ np.uint8(1)) << np.uint8(2)
    codes = _two_bits(blocks["qs"]).view(np.int8).reshape(-1, 16, 16) - missing.view(np.int8).reshape(-1, 16, 16)
    return scales, codes


def _q3_k(blocks: Blocks) -> Array:
    scales, codes = q3_k_codes(blocks)
    result: Array = (_float(blocks["d"]) * scales.astype(np.float32))[:, :, None] * codes.astype(np.float32)
    return result


def iq4_nl_codes(blocks: Blocks) -> Integers:
    """[blocks, 32], -127 to 113."""
    return _IQ4_VALUES[_nibbles(blocks["qs"])]


def iq4_xs_codes(blocks: Blocks) -> tuple[Integers, Integers]:
    """The scales [blocks, 8], -32 to 31, and codes [blocks, 8, 32], -127 to 113, of iq4_xs."""
    low = blocks["scales_l"][:, :, None] >> np.array([0, 4], np.uint8) & np.uint8(15)
    high = (blocks["scales_h"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16) & np.uint16(3)).astype(np.uint8)
    scales = _signed(low.reshape(-1, 8) | (high << np.uint8(4)), 32)
    return scales, _IQ4_VALUES[_nibbles(blocks["qs"])]


def _iq4_xs(blocks: Blocks) -> Array:
    scales, codes = iq4_xs_codes(blocks)
    result: Array = (_float(blocks["d"]) * scales.astype(np.float32))[:, :, None] * codes.astype(np.float32)
    return result


def q1_0_codes(blocks: Blocks) -> Integers:
    """[blocks, 128], -1 or 1: a bit each, the lowest first."""
    bits = np.unpackbits(blocks["qs"], axis=-1, bitorder="little").view(np.int8)
    codes: Integers = bits * np.int8(2) - np.int8(1)
    return codes


def q2_0_codes(blocks: Blocks) -> Integers:
    """[blocks, 64], -1 to 2: two bits each, a byte's four values side by side."""
    pairs = blocks["qs"][:, :, None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)
    return _signed(pairs.reshape(-1, 64), 1)


def tq1_0_codes(blocks: Blocks) -> Integers:
    """[blocks, 256], -1 to 1: five values in base 3 a byte (four in the last ones), as fractions of 256."""
    parts = [
        (digits[:, None, :] * np.array([3**n for n in range(count)], np.uint8)[:, None]).reshape(len(digits), -1)
        for digits, count in ((blocks["qs"][:, :32], 5), (blocks["qs"][:, 32:], 5), (blocks["qh"], 4))
    ]
    fractions = np.concatenate(parts, axis=1).astype(np.uint16)
    codes: Integers = (fractions * np.uint16(3) >> np.uint16(8)).astype(np.int8) - np.int8(1)
    return codes


def tq2_0_codes(blocks: Blocks) -> Integers:
    """[blocks, 256], -1 to 2."""
    return _signed(_two_bits(blocks["qs"]), 1).reshape(-1, 256)


DECODERS: dict[Encoding, Callable[[Blocks], Array]] = {
    Encoding.Q8_0: _q8_0,
    Encoding.Q4_0: lambda blocks: _float(blocks["d"]) * q4_0_codes(blocks),
    Encoding.Q4_1: _q4_1,
    Encoding.Q5_0: lambda blocks: _float(blocks["d"]) * q5_0_codes(blocks),
    Encoding.Q5_1: _q5_1,
    Encoding.Q4_K: _q4_k,
    Encoding.Q5_K: _q5_k,
    Encoding.Q6_K: _q6_k,
    Encoding.Q2_K: _q2_k,
    Encoding.Q3_K: _q3_k,
    Encoding.IQ4_NL: lambda blocks: _float(blocks["d"]) * iq4_nl_codes(blocks),
    Encoding.IQ4_XS: _iq4_xs,
    Encoding.Q1_0: lambda blocks: _float(blocks["d"]) * q1_0_codes(blocks),
    Encoding.Q2_0: lambda blocks: _float(blocks["d"]) * q2_0_codes(blocks),
    Encoding.TQ1_0: lambda blocks: _float(blocks["d"]) * tq1_0_codes(blocks),
    Encoding.TQ2_0: lambda blocks: _float(blocks["d"]) * tq2_0_codes(blocks),
}
