"""A named array of a model file, exactly as stored, and the encodings it can be stored in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np
import numpy.typing as npt


class Encoding(str, Enum):
    """How the elements of a tensor are stored; the values are what users type."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"
    Q4_1 = "q4_1"
    Q5_0 = "q5_0"
    Q5_1 = "q5_1"
    Q4_K = "q4_k"
    Q5_K = "q5_k"
    Q6_K = "q6_k"
    Q2_K = "q2_k"
    Q3_K = "q3_k"
    IQ4_NL = "iq4_nl"
    IQ4_XS = "iq4_xs"
    Q1_0 = "q1_0"
    Q2_0 = "q2_0"
    TQ1_0 = "tq1_0"
    TQ2_0 = "tq2_0"
    IQ1_S = "iq1_s"
    IQ1_M = "iq1_m"
    IQ2_XXS = "iq2_xxs"
    IQ2_XS = "iq2_xs"
    IQ2_S = "iq2_s"
    IQ3_XXS = "iq3_xxs"
    IQ3_S = "iq3_s"
    MXFP4 = "mxfp4"
    NVFP4 = "nvfp4"

    def __str__(self) -> str:
        """The value itself, so that messages read alike on Python 3.10 and later."""
        return self.value

    @property
    def block_size(self) -> int:
        """Elements per block: 1 for the float encodings."""
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """Bytes per block."""
        return _BLOCKS[self][1]

    @property
    def is_quantized(self) -> bool:
        """Whether elements only exist as blocks with shared scales."""
        return self.block_size > 1

    def row_bytes(self, elements: int) -> int:
        """Bytes of a row of `elements`; ValueError unless whole blocks fill it."""
        if elements % self.block_size:
            raise ValueError(f"{elements} elements are no whole number of {self} blocks")
        return elements // self.block_size * self.block_bytes


# (elements, bytes) of one block, from ggml's block structures.
_BLOCKS = {
    Encoding.FLOAT64: (1, 8),
    Encoding.FLOAT32: (1, 4),
    Encoding.FLOAT16: (1, 2),
    Encoding.BFLOAT16: (1, 2),
    Encoding.Q8_0: (32, 34),
    Encoding.Q4_0: (32, 18),
    Encoding.Q4_1: (32, 20),
    Encoding.Q5_0: (32, 22),
    Encoding.Q5_1: (32, 24),
    Encoding.Q4_K: (256, 144),
    Encoding.Q5_K: (256, 176),
    Encoding.Q6_K: (256, 210),
    Encoding.Q2_K: (256, 84),
    Encoding.Q3_K: (256, 110),
    Encoding.IQ4_NL: (32, 18),
    Encoding.IQ4_XS: (256, 136),
    Encoding.Q1_0: (128, 18),
    Encoding.Q2_0: (64, 18),
    Encoding.TQ1_0: (256, 54),
    Encoding.TQ2_0: (256, 66),
    Encoding.IQ1_S: (256, 50),
    Encoding.IQ1_M: (256, 56),
    Encoding.IQ2_XXS: (256, 66),
    Encoding.IQ2_XS: (256, 74),
    Encoding.IQ2_S: (256, 82),
    Encoding.IQ3_XXS: (256, 98),
    Encoding.IQ3_S: (256, 110),
    Encoding.MXFP4: (32, 17),
    Encoding.NVFP4: (64, 36),
}

# bfloat16 has no NumPy type: its bits travel as uint16.
_VIEWS: dict[Encoding, npt.DTypeLike] = {
    Encoding.FLOAT64: np.float64,
    Encoding.FLOAT32: np.float32,
    Encoding.FLOAT16: np.float16,
    Encoding.BFLOAT16: np.uint16,
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a model file; `data` stays in the mapped file until somebody reads it."""

    name: str
    shape: tuple[int, ...]  # row-major: [rows, columns]
    encoding: Encoding
    data: npt.NDArray[np.uint8]  # 1-D, the stored bytes, possibly at an unaligned address

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return int(self.data.nbytes)

    @property
    def row_bytes(self) -> int:
        """Stored bytes of one row (the last dimension)."""
        return self.encoding.row_bytes(self.shape[-1] if self.shape else 1)

    def as_array(self) -> npt.NDArray[np.generic]:
        """The elements without a copy: float64, float32, float16, or bfloat16's bits as uint16.

        Raises ValueError for a quantized tensor, which has no elements to view.
        """
        if self.encoding.is_quantized:
            raise ValueError(f"{self.name} is {self.encoding}: use weights.quantization.to_float32")
        array: npt.NDArray[np.generic] = self.data.view(_VIEWS[self.encoding])
        return array.reshape(self.shape)


def stored_bytes(shape: tuple[int, ...], encoding: Encoding) -> int:
    """Bytes that a tensor of `shape` takes; ValueError if its rows are no whole blocks."""
    columns = shape[-1] if shape else 1
    return prod(shape[:-1]) * encoding.row_bytes(columns)
