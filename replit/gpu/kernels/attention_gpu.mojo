"""ALiBi attention by MAX's flash attention for paged ragged caches: prefill and split-k decode on GPUs.

Keys and values are in the cache already (`mo.kv_cache.store.paged.ragged`). On the CPU the same mask runs through
MAX's CPU kernel, which is how its arithmetic is tested where there is no GPU.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext
from nn.attention.cpu.mha import flash_attention_kv_cache as flash_attention_cpu
from nn.attention.gpu.mha import MHADecodeDispatchMetadata, flash_attention
from nn.kv_cache import generic_get_paged_cache
from std.collections import OptionalReg
from max.gpu.host.info import is_cpu

from .alibi_mask import AlibiMask


@extensibility.register("replit.attention_gpu")
struct FlashAlibiAttention:
    """`output[T, H, D]` from the queries `q[T, H, D]` of a ragged batch, see the module's head."""

    @staticmethod
    def execute[
        dtype: DType, //, target: StaticString
    ](
        output: OutputTensor[dtype=dtype, rank=3, ...],
        q: InputTensor[dtype=dtype, rank=3, ...],
        row_offsets: InputTensor[dtype=.uint32, rank=1, ...],
        blocks: MutableInputTensor[dtype=dtype, rank=6, ...],
        page_stride: InputTensor[dtype=.int64, rank=1, ...],
        cache_lengths: InputTensor[dtype=.uint32, rank=1, ...],
        lookup_table: InputTensor[dtype=.uint32, rank=2, ...],
        max_prompt_length: InputTensor[dtype=.uint32, rank=1, ...],
        max_cache_length: InputTensor[dtype=.uint32, rank=1, ...],
        slopes: InputTensor[dtype=.float32, rank=1, ...],
        layer_index: UInt32,
        scale: Float32,
        dispatch: InputTensor[dtype=.int64, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        if q.dim_size[0]() == 0:
            return
        var cache = generic_get_paged_cache(
            blocks, page_stride, cache_lengths, lookup_table, max_prompt_length, max_cache_length
        )
        var keys = cache.get_key_cache(Int(layer_index))
        var values = cache.get_value_cache(Int(layer_index))
        var mask = AlibiMask(slopes.unsafe_ptr().unsafe_mut_cast[False]().unsafe_origin_cast[ImmUntrackedOrigin]())
        comptime if is_cpu[target]():
            flash_attention_cpu(
                q.to_tile_tensor[.int64](),
                row_offsets.to_tile_tensor[.int64](),
                row_offsets.to_tile_tensor[.int64](),
                keys,
                values,
                mask,
                scale,
                output.to_tile_tensor[.int64](),
            )
        else:
            flash_attention[ragged=True](
                output.to_tile_tensor[.int64](),
                q.to_tile_tensor[.int64](),
                keys,
                values,
                mask,
                row_offsets.to_tile_tensor[.int64](),
                scale,
                ctx,
                decode_dispatch_metadata=OptionalReg[MHADecodeDispatchMetadata](metadata(dispatch)),
            )


def metadata(dispatch: InputTensor[dtype=.int64, rank=1, ...]) -> MHADecodeDispatchMetadata:
    """Sequences, most new tokens, partitions of the keys, most keys: resolved on the host, see replit/runtime/kv_cache.py."""
    var values = dispatch.unsafe_ptr()
    return MHADecodeDispatchMetadata(
        Int(values[unsafe_offset=0]),
        Int(values[unsafe_offset=1]),
        Int(values[unsafe_offset=2]),
        Int(values[unsafe_offset=3]),
    )
