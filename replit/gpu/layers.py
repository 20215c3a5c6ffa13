"""The operations of a decoder on a GPU: what replit/cpu/layers.py has for the CPU, from MAX's operations and kernels.

Activations have the cache's type, bfloat16 on a GPU; norms are computed in float32, and so are the logits.
"""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, TensorType, TensorValue, Value, ops

from replit.cpu.layers import Stored
from replit.decoder.config import DecoderConfig
from replit.runtime.kv_cache import CacheInputs

HOST = DeviceRef.CPU()


def lookup(ids: TensorValue, table: Stored, width: int) -> TensorValue:
    """Rows `table[ids]`, `[T, width]`."""
    return ops.gather(table.value, ids, axis=0)


def linear(x: TensorValue, weight: Stored) -> TensorValue:
    """`x @ weight^T`, `[T, out]`."""
    return x @ weight.value.T


def linear_add(residual: TensorValue, x: TensorValue, weight: Stored) -> TensorValue:
    """`residual + x @ weight^T`, `[T, out]`; MAX fuses the sum into the product."""
    return residual + linear(x, weight)


def norm_linear(x: TensorValue, gain: Stored, weight: Stored, eps: float) -> TensorValue:
    """`layer_norm(x) @ weight^T`, `[T, out]`; the norm has a gain and no bias."""
    return linear(_norm(x, gain, eps), weight)


def norm_linear_gelu(x: TensorValue, gain: Stored, weight: Stored, eps: float) -> TensorValue:
    """`gelu(layer_norm(x) @ weight^T)` with the exact (erf) GELU, `[T, out]`."""
    return ops.gelu(norm_linear(x, gain, weight, eps))


def logits(x: TensorValue, gain: Stored, weight: Stored, eps: float) -> TensorValue:
    """`layer_norm(x) @ weight^T` in float32, `[R, vocab]`."""
    out = TensorType(DType.float32, [x.shape[0], weight.value.shape[0]], x.device)
    return ops.custom("replit.linear_float32", x.device, [_norm(x, gain, eps), weight.value], [out])[0].tensor


def attention(
    config: DecoderConfig,
    qkv: TensorValue,
    row_offsets: TensorValue,
    cache: CacheInputs,
    slopes: TensorValue,
    layer: TensorValue,
) -> TensorValue:
    """Causal ALiBi attention of `qkv` `[T, (H + 2K) * D]` over the cache, which it extends: `[T, H * D]`."""
    parts = ops.split(qkv, [config.n_heads * config.head_dim, config.kv_dim, config.kv_dim], axis=-1)
    q, keys, values = (part.reshape((-1, part.shape[1] // config.head_dim, config.head_dim)) for part in parts)
    for which, part in enumerate((keys, values)):
        _store(part, which, row_offsets, cache, layer)
    return attend(config, q, row_offsets, cache, slopes, layer)


def norm_queries(
    config: DecoderConfig,
    x: TensorValue,
    gain: Stored,
    weight: Stored,
    row_offsets: TensorValue,
    cache: CacheInputs,
    layer: TensorValue,
) -> TensorValue:
    """The queries `[T, H, D]` of `layer_norm(x) @ weight^T`, which writes its keys and values into their pages.

    MAX's own operation: three kernels a layer fewer than splitting the product.
    """
    x = _norm(x, gain, config.layer_norm_eps)
    arguments: list[Value] = [
        x,
        row_offsets,
        weight.value,
        cache.blocks,
        cache.page_stride,
        cache.cache_lengths,
        cache.lookup_table,
        cache.max_prompt_length,
        cache.max_cache_length,
        layer,
    ]
    out = TensorType(x.dtype, [x.shape[0], config.n_heads * config.head_dim], x.device)
    q = ops.inplace_custom("mo.fused_qkv_matmul.ragged.paged", x.device, arguments, [out])[0].tensor
    return q.reshape((-1, config.n_heads, config.head_dim))


def attend(
    config: DecoderConfig,
    q: TensorValue,
    row_offsets: TensorValue,
    cache: CacheInputs,
    slopes: TensorValue,
    layer: TensorValue,
) -> TensorValue:
    """Causal ALiBi attention of the queries `[T, H, D]` over the cache, which has their keys already: `[T, H * D]`."""
    arguments: list[Value] = [
        q,
        row_offsets,
        cache.blocks,
        cache.page_stride,
        cache.cache_lengths,
        cache.lookup_table,
        cache.max_prompt_length,
        cache.max_cache_length,
        slopes,
        layer,
        ops.constant(config.softmax_scale, DType.float32, HOST),
        cache.dispatch_metadata,
    ]
    out = TensorType(q.dtype, q.shape, q.device)
    attended = ops.inplace_custom("replit.attention_gpu", q.device, arguments, [out])[0].tensor
    return attended.reshape((-1, config.n_heads * config.head_dim))


def _store(rows: TensorValue, which: int, row_offsets: TensorValue, cache: CacheInputs, layer: TensorValue) -> None:
    """Writes new keys (`which` 0) or values (1), `[T, K, D]`, into their pages: MAX's own operation."""
    arguments: list[Value] = [
        rows,
        cache.blocks,
        cache.page_stride,
        cache.cache_lengths,
        cache.lookup_table,
        row_offsets,
        cache.max_prompt_length,
        cache.max_cache_length,
        layer,
    ]
    ops.inplace_custom("mo.kv_cache.store.paged.ragged", rows.device, arguments, parameters={"key_or_value": which})


def _norm(x: TensorValue, gain: Stored, eps: float) -> TensorValue:
    wide = x.cast(DType.float32)
    bias = ops.constant(0.0, DType.float32, x.device).broadcast_to(gain.value.shape)
    return ops.layer_norm(wide, gain.value, bias, eps).cast(x.dtype)
