"""The GPU's attention, whose mask and flash attention MAX can also run on the CPU, against float64 NumPy.

Compiling it takes minutes, and nothing but a GPU's model runs it, so it belongs to the step that compiles for GPUs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import Graph, TensorType, ops
from test_attention_kernel import BATCHES, LAYER, Case, Heads, config_of

from replit.cpu.layers import CPU as HOST
from replit.decoder.alibi import alibi_slopes
from replit.gpu import layers as layers_gpu
from replit.runtime.kv_cache import CacheInputs, cache_input_types
from replit.runtime.target import CPU_LIKE_GPU

pytestmark = pytest.mark.gpu_compile

HEADS = Heads(6, 2, 64)  # groups of three, and no power of two, as in replit-code-v1.5


@pytest.fixture(scope="module")
def attention() -> Any:
    """The queries, keys and values of a ragged batch, stored in the cache and attended."""
    h, k, d = HEADS
    types: list[Any] = [
        TensorType(DType.float32, ["tokens", (h + 2 * k) * d], HOST),
        TensorType(DType.uint32, ["offsets"], HOST),
        *cache_input_types(config_of(HEADS), HOST),
    ]
    with Graph("attention", input_types=types, custom_extensions=[CPU_LIKE_GPU.kernels]) as graph:
        qkv, offsets, *cache = graph.inputs
        slopes = ops.constant(alibi_slopes(h, 8.0), DType.float32, HOST)
        layer = ops.constant(LAYER, DType.uint32, HOST)
        graph.output(
            layers_gpu.attention(config_of(HEADS), qkv.tensor, offsets.tensor, CacheInputs.of(cache), slopes, layer)
        )
    session = InferenceSession(devices=[CPU()])
    return session.init(session.compile(graph))


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_attention_equals_its_definition(attention: Any, batch: list[tuple[int, int]]) -> None:
    case = Case(HEADS, batch, padded=False, heads_first=False)
    # Empty slots are zero as in our cache: MAX's CPU kernel multiplies what it masks.
    np.nan_to_num(case.memory, copy=False)
    inputs = case.inputs()
    inputs[6] = np.array([max(map(sum, batch))], np.uint32)  # MAX counts the new positions too
    output = attention.execute(*(x if isinstance(x, Buffer) else Buffer.from_numpy(x) for x in inputs))[0]
    np.testing.assert_allclose(output.to_numpy(), case.expected(), atol=2e-5, rtol=0)
