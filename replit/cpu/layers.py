"""The operations of a decoder on the CPU: our Mojo kernels as functions on graph values.

Activations are float32 matrices over the T tokens of a ragged batch. A weight keeps its stored encoding, as panels or
rows of bytes; the gains of a norm are one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from max.dtype import DType
from max.graph import DeviceRef, TensorType, TensorValue, Value, ops

from replit.decoder.config import DecoderConfig
from replit.runtime.kv_cache import CacheInputs
from weights.tensor import Encoding

CPU = DeviceRef.CPU()


@dataclass(frozen=True)
class Stored:
    """A weight: on the CPU `[panels, bytes of a panel]` or `[out, bytes of a row]`, on a GPU `[out, in]`."""

    value: TensorValue
    encoding: Encoding = Encoding.FLOAT32
    rows: int = 0  # out, where it is known
    panels: bool = False

    @property
    def parameters(self) -> dict[str, bool | int | str | DType]:
        """What kernels have to know of it."""
        return {"encoding": str(self.encoding), "panels": self.panels}


def scalar(value: float) -> TensorValue:
    """A float32 that a kernel takes by value."""
    return ops.constant(value, DType.float32, CPU)


def lookup(ids: TensorValue, table: Stored, width: int) -> TensorValue:
    """Rows `table[ids]` as float32, `[T, width]`."""
    return _call("embedding", [ids, table.value], ids, width, table.parameters | {"rows": table.rows})


def linear_add(residual: TensorValue, x: TensorValue, weight: Stored) -> TensorValue:
    """`residual + x @ weight^T`, `[T, out]`."""
    return _call("linear_add", [residual, x, weight.value], x, weight.rows, weight.parameters)


def norm_linear(x: TensorValue, gain: Stored, weight: Stored, eps: float) -> TensorValue:
    """`layer_norm(x) @ weight^T`, `[T, out]`; the norm has a gain and no bias."""
    return _call(
        "norm_linear",
        [x, gain.value, weight.value, scalar(eps)],
        x,
        weight.rows,
        weight.parameters,
    )


def logits(x: TensorValue, gain: Stored, weight: Stored, eps: float) -> TensorValue:
    """`norm_linear` for the last product, `[R, vocab]`."""
    return norm_linear(x, gain, weight, eps)


def blocks(
    config: DecoderConfig,
    x: TensorValue,
    weights: Sequence[Sequence[Stored]],
    clip: float | None,
    row_offsets: TensorValue,
    cache: CacheInputs,
    slopes: TensorValue,
    first: TensorValue,
) -> TensorValue:
    """Blocks of the Replit decoder from layer `first` on, `[T, E]` to `[T, E]`, as one op.

    `weights` are those of each block: attention's norm, queries with keys and values, attention's output, the
    feed-forward's norm, up, down, with the same encodings in every block. Queries, keys and values are clipped.
    Which of the layers a pass goes through is read from the dispatch metadata (replit/cpu/passes.py).
    """
    _, qkv, output, _, up, down = weights[0]
    values: list[Value] = [
        x,
        *(weight.value for block in weights for weight in block),
        *_over_cache(config, row_offsets, cache, slopes, first, cache.dispatch_metadata),
        scalar(config.layer_norm_eps),
        scalar(math.inf if clip is None else clip),
    ]
    parameters: dict[str, bool | int | str | DType] = {
        "head_size": config.head_dim,
        "n_heads": config.n_heads,
        "count": len(weights),
        "qkv_encoding": str(qkv.encoding),
        "output_encoding": str(output.encoding),
        "up_encoding": str(up.encoding),
        "down_encoding": str(down.encoding),
        "panels": down.panels,
    }
    heads = config.n_heads * config.head_dim
    widths = (config.d_model, qkv.rows, heads, config.d_model, up.rows)
    results = [TensorType(DType.float32, [x.shape[0], width], CPU) for width in widths]
    return ops.inplace_custom("replit.blocks", CPU, values, results, parameters)[0].tensor


def attention(
    config: DecoderConfig,
    qkv: TensorValue,
    row_offsets: TensorValue,
    cache: CacheInputs,
    slopes: TensorValue,
    layer: TensorValue,
) -> TensorValue:
    """Causal ALiBi attention of `qkv` `[T, (H + 2K) * D]` over the cache, which it extends: `[T, H * D]`."""
    values = [qkv, *_over_cache(config, row_offsets, cache, slopes, layer)]
    width = config.n_heads * config.head_dim
    return ops.inplace_custom(
        "replit.attention",
        CPU,
        values,
        [TensorType(DType.float32, [qkv.shape[0], width], CPU)],
        {"head_size": config.head_dim, "n_heads": config.n_heads},
    )[0].tensor


def _over_cache(
    config: DecoderConfig,
    row_offsets: TensorValue,
    cache: CacheInputs,
    slopes: TensorValue,
    layer: TensorValue,
    *more: TensorValue,
) -> list[Value]:
    """What attention over a layer of the cache takes besides what it attends with."""
    tables = (row_offsets, cache.blocks, cache.page_stride, cache.cache_lengths, cache.lookup_table)
    return [*tables, *more, slopes, layer, scalar(config.softmax_scale)]


def _call(
    name: str, values: list[Value], rows: TensorValue, width: int, parameters: dict[str, bool | int | str | DType]
) -> TensorValue:
    out = TensorType(DType.float32, [rows.shape[0], width], CPU)
    return ops.custom(f"replit.{name}", CPU, values, [out], parameters)[0].tensor
