"""ALiBi's slopes: the bias of head h for a key that lies n positions back is -slope[h] * n."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def alibi_slopes(n_heads: int, bias_max: float) -> npt.NDArray[np.float32]:
    """The slope of each head, `[n_heads]`, all positive.

    Powers of 2 ** -(bias_max / n) for n heads; where n is no power of two, every second slope of the next power of
    two, then the others (llm-foundry's `gen_slopes`).
    """
    n = 2 ** (n_heads - 1).bit_length()
    slopes = 2.0 ** (-bias_max / n * np.arange(1, n + 1))
    if n != n_heads:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[:n_heads]
    result: npt.NDArray[np.float32] = slopes.astype(np.float32)
    return result
