"""The paged key-value cache: MAX's layout as graph inputs, and the memory of one batch for our own loop.

The inputs are spelled out here rather than taken from `max.nn`, whose import costs half a second (and, once in an
installation, a compilation of its own); a test holds them against MAX's. In our loop every
sequence has a slot with pages for the longest sequence; the operating system backs a page with memory when
it is first written. Sharing of pages between requests is MAX Serve's business, see docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from max.dtype import DType
from max.graph import BufferType, BufferValue, DeviceRef, TensorType, TensorValue, Type, Value

from replit.decoder.config import DecoderConfig
from weights.tensor import Encoding

# Positions of a page. A multiple of the attention kernel's KEY_BLOCK, and what MAX Serve uses.
PAGE_SIZE = 128
# Positions whose keys stand together in the CPU's pages (replit/cpu/kernels/attention_cache.mojo).
KEY_PANEL = 16


@dataclass(frozen=True)
class CacheInputs:
    """The graph's view of a paged cache, in the order of MAX's `KVCacheInputsPerDevice`."""

    blocks: BufferValue  # [pages, 2, layers, PAGE_SIZE, K, D]
    cache_lengths: TensorValue  # uint32 [B], positions before this call
    lookup_table: TensorValue  # uint32 [B, pages of a sequence]
    max_prompt_length: TensorValue  # uint32 [1]
    max_cache_length: TensorValue  # uint32 [1]
    page_stride: TensorValue  # int64 [1], in elements; -1: pages are packed
    dispatch_metadata: TensorValue  # int64 [4], for GPU kernels; on the CPU a slice of layers (replit/cpu/passes.py)

    @classmethod
    def of(cls, values: Sequence[Value]) -> CacheInputs:
        """From the graph's last inputs."""
        blocks, *tensors = values
        return cls(blocks.buffer, *(value.tensor for value in tensors))


def cache_input_types(config: DecoderConfig, device: DeviceRef, dtype: DType = DType.float32) -> list[Type]:
    """The types of `CacheInputs`, in order, for a cache of `dtype` on `device`."""
    host = DeviceRef.CPU()
    shape = ["pages", 2, config.n_layers, PAGE_SIZE, config.n_kv_heads, config.head_dim]
    return [
        BufferType(dtype, shape, device),
        TensorType(DType.uint32, ["batch"], device),
        TensorType(DType.uint32, ["batch", "pages_per_sequence"], device),
        TensorType(DType.uint32, [1], host),
        TensorType(DType.uint32, [1], host),
        TensorType(DType.int64, [1], host),
        TensorType(DType.int64, [4], host),
    ]


def cache_shape(config: DecoderConfig, slots: int, max_length: int) -> tuple[int, ...]:
    """The blocks of a cache for `slots` sequences of up to `max_length` positions, as MAX declares them.

    The CPU's kernel keeps a head's positions together inside a page (replit/cpu/kernels/attention_cache.mojo).
    """
    pages = slots * pages_for(max_length)
    return pages, 2, config.n_layers, PAGE_SIZE, config.n_kv_heads, config.head_dim  # 2: keys, values


def pages_for(length: int) -> int:
    """Pages that hold `length` positions."""
    return -(-length // PAGE_SIZE)


def copy_page(blocks: npt.NDArray[np.generic], source: int, target: int, count: int) -> None:
    """Copies the first `count` positions of a page in the CPU's layout, and the rest of their last panel of keys."""
    pages, halves, layers, positions, kv_heads, size = blocks.shape
    by_head = blocks.reshape(pages, halves * layers * kv_heads, positions * size)
    used = min(-(-count // KEY_PANEL) * KEY_PANEL, positions) * size
    by_head[target, :, :used] = by_head[source, :, :used]


class CacheSlots:
    """Which pages belong to a slot, and how many of its positions are filled; the pages themselves are elsewhere."""

    def __init__(self, slots: int, max_length: int) -> None:
        pages_per_slot = pages_for(max_length)
        self.page_table: npt.NDArray[np.uint32] = np.arange(slots * pages_per_slot, dtype=np.uint32).reshape(
            slots, pages_per_slot
        )
        self.lengths: npt.NDArray[np.uint32] = np.zeros(slots, np.uint32)
        self.max_length = max_length

    def truncate(self, slot: int, length: int) -> None:
        """Forgets what a slot holds after its first `length` positions; the next pass overwrites them."""
        if not 0 <= length <= self.lengths[slot]:
            raise ValueError(f"slot {slot} holds {self.lengths[slot]} positions; expected at least {length}")
        self.lengths[slot] = length

    @property
    def slots(self) -> int:
        """Sequences that it holds at once."""
        return len(self.lengths)


class PagedKVCache(CacheSlots):
    """Keys and values of up to `slots` sequences of up to `max_length` positions, in float32 or bfloat16."""

    def __init__(self, config: DecoderConfig, slots: int, max_length: int, encoding: Encoding) -> None:
        super().__init__(slots, max_length)
        self.encoding = encoding
        # NumPy has no bfloat16
        dtype = np.float32 if encoding is Encoding.FLOAT32 else np.uint16
        self.blocks: npt.NDArray[np.generic] = np.zeros(cache_shape(config, slots, max_length), dtype)

    def buffer(self) -> Any:
        """The blocks as the engine takes them, a `max.driver.Buffer`."""
        from max.driver import Buffer

        return Buffer.from_numpy(self.blocks).view(DType[str(self.encoding)], self.blocks.shape)

    @staticmethod
    def bytes_per_token(config: DecoderConfig, encoding: Encoding) -> int:
        """Memory of one position over all layers."""
        return 2 * config.n_layers * encoding.row_bytes(config.kv_dim)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Makes slot `target` hold the first `length` positions of slot `source`, in pages of its own."""
        if not 0 <= length <= self.lengths[source]:
            raise ValueError(f"slot {source} holds {self.lengths[source]} positions; expected at least {length}")
        if source != target:
            for number in range(pages_for(length)):
                count = min(PAGE_SIZE, length - number * PAGE_SIZE)
                copy_page(self.blocks, self.page_table[source, number], self.page_table[target, number], count)
        self.lengths[target] = length
