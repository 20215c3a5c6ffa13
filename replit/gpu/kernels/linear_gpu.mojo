"""A matrix product by MAX with float32 results: logits rounded to bfloat16 would tie where the CPU's differ."""

import extensibility
from extensibility import InputTensor, OutputTensor
from linalg.matmul import matmul
from max.gpu.host import DeviceContext


@extensibility.register("replit.linear_float32")
struct LinearFloat32:
    """`output[T, out] = x[T, in] @ weight[out, in]^T`, summed and kept in float32."""

    @staticmethod
    def execute[
        dtype: DType, //, target: StaticString
    ](
        output: OutputTensor[dtype=.float32, rank=2, ...],
        x: InputTensor[dtype=dtype, rank=2, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        matmul[target=target, transpose_b=True](
            output.to_tile_tensor[.int64](),
            x.to_tile_tensor[.int64](),
            weight.to_tile_tensor[.int64](),
            Optional[DeviceContext](ctx),
        )
