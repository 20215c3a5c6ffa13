"""Copies codes from one block format to another that holds them, instead of rounding values a second time.

Exact are iq4_nl, q1_0, q2_0, tq1_0, tq2_0, q4_0 and q5_0 in q8_0, and q3_k in q6_k: scales and codes are copied, so
every value is the same float32. iq4_xs in q8_0 rounds only its scales, to float16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from weights.quantization import decode
from weights.quantization.decode import LAYOUT, Array, Blocks, Bytes, Integers
from weights.quantization.k_quants import pack_codes
from weights.tensor import Encoding

LARGEST_SCALE = 65504.0  # of float16


def _as_q8_0(scales: Array, codes: Integers) -> Bytes:
    """Blocks of 32 codes with a scale each."""
    blocks = np.empty(scales.size, LAYOUT[Encoding.Q8_0])
    blocks["d"] = scales.reshape(-1)
    blocks["qs"] = codes.reshape(-1, 32)
    return blocks.view(np.uint8)


def _of_few_bits(codes: Callable[[Blocks], Integers], count: int) -> Callable[[Blocks], Bytes]:
    """A longer block's one scale for each of the `count` blocks that it becomes."""
    return lambda blocks: _as_q8_0(np.repeat(blocks["d"], count), codes(blocks))


def _iq4_xs(blocks: Blocks) -> Bytes | None:
    scales, codes = decode.iq4_xs_codes(blocks)
    scale = blocks["d"].astype(np.float32)[:, None] * scales.astype(np.float32)
    return _as_q8_0(scale, codes) if (np.abs(scale) <= LARGEST_SCALE).all() else None


def _q3_k(blocks: Blocks) -> Bytes:
    scales, codes = decode.q3_k_codes(blocks)
    result = np.empty(len(blocks), LAYOUT[Encoding.Q6_K])
    result["d"], result["scales"] = blocks["d"], scales
    result["ql"], result["qh"] = pack_codes(codes.reshape(-1, 256))
    return result.view(np.uint8)


#: Formats whose codes and scales another one holds as they are.
EXACT: dict[tuple[Encoding, Encoding], Callable[[Blocks], Bytes]] = {
    (Encoding.Q5_0, Encoding.Q8_0): lambda blocks: _as_q8_0(blocks["d"], decode.q5_0_codes(blocks)),
    (Encoding.IQ4_NL, Encoding.Q8_0): lambda blocks: _as_q8_0(blocks["d"], decode.iq4_nl_codes(blocks)),
    (Encoding.TQ1_0, Encoding.Q8_0): _of_few_bits(decode.tq1_0_codes, 8),
    (Encoding.TQ2_0, Encoding.Q8_0): _of_few_bits(decode.tq2_0_codes, 8),
    (Encoding.Q1_0, Encoding.Q8_0): _of_few_bits(decode.q1_0_codes, 4),
    (Encoding.Q2_0, Encoding.Q8_0): _of_few_bits(decode.q2_0_codes, 2),
    (Encoding.Q4_0, Encoding.Q8_0): lambda blocks: _as_q8_0(blocks["d"], decode.q4_0_codes(blocks)),
    (Encoding.Q3_K, Encoding.Q6_K): _q3_k,
}
#: And those of which only the scales are rounded.
NEARLY: dict[tuple[Encoding, Encoding], Callable[[Blocks], Bytes | None]] = {
    (Encoding.IQ4_XS, Encoding.Q8_0): _iq4_xs,
}


def recode(data: Bytes, source: Encoding, target: Encoding) -> Bytes | None:
    """`data`, whole blocks of `source`, as blocks of `target`; None where that means to round its values."""
    action = EXACT.get((source, target)) or NEARLY.get((source, target))
    return None if action is None else action(data.reshape(-1).view(LAYOUT[source]))
