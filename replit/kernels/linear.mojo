"""Linear layers of the CPU graph: float32 activations `[T, K]`, weights `[N, K]` in their stored type.

Every op computes `epilogue(norm(x) @ weights^T)`; the norm is LayerNorm without bias, or none.
"""

import extensibility
from extensibility import InputTensor, OutputTensor

from .linear_epilogue import AddResidual, Epilogue, Gelu, Identity
from .linear_formats import BFloat16Format, Bytes, Float32Format, Floats, Format
from .linear_product import Norm, linear

comptime Activations = InputTensor[dtype=DType.float32, rank=2, ...]
comptime Result = OutputTensor[dtype=DType.float32, rank=2, ...]


def no_norm(x: Activations) -> Norm:
    return Norm(rebind[Floats](x.unsafe_ptr()), -1)


def norm_of(gain: InputTensor[dtype=DType.float32, rank=1, ...], epsilon: Float32) -> Norm:
    return Norm(rebind[Floats](gain.unsafe_ptr()), epsilon)


def apply[
    F: Format, E: Epilogue
](output: Result, x: Activations, weights: InputTensor[rank=2, ...], row_bytes: Int, norm: Norm, epilogue: E):
    linear[F](
        rebind[Floats](x.unsafe_ptr()),
        rebind[Bytes](weights.unsafe_ptr().unsafe_bitcast[UInt8]()),
        row_bytes,
        rebind[Floats](output.unsafe_ptr()),
        x.dim_size(0),
        weights.dim_size(0),
        x.dim_size(1),
        norm,
        epilogue,
    )


def dispatch[
    E: Epilogue
](output: Result, x: Activations, weights: InputTensor[rank=2, ...], norm: Norm, epilogue: E) raises:
    """Chooses the format by the type of the weights."""
    if x.dim_size(1) != weights.dim_size(1):
        raise Error("weights have rows of ", weights.dim_size(1), " for inputs of ", x.dim_size(1))
    comptime if weights.dtype == DType.float32:
        apply[Float32Format](output, x, weights, 4 * weights.dim_size(1), norm, epilogue)
    elif weights.dtype == DType.bfloat16:
        apply[BFloat16Format](output, x, weights, 2 * weights.dim_size(1), norm, epilogue)
    else:
        comptime assert False, "linear layers take float32 or bfloat16 weights"


@extensibility.register("replit.linear")
struct Linear:
    """`x @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString
    ](output: Result, x: Activations, weights: InputTensor[rank=2, ...]) raises:
        dispatch(output, x, weights, no_norm(x), Identity())


@extensibility.register("replit.linear_gelu")
struct LinearGelu:
    """`gelu(x @ weights^T)`."""

    @staticmethod
    def execute[
        target: StaticString
    ](output: Result, x: Activations, weights: InputTensor[rank=2, ...]) raises:
        dispatch(output, x, weights, no_norm(x), Gelu())


@extensibility.register("replit.linear_add")
struct LinearAdd:
    """`residual + x @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        output: Result,
        residual: Activations,
        x: Activations,
        weights: InputTensor[rank=2, ...],
    ) raises:
        var epilogue = AddResidual(rebind[Floats](residual.unsafe_ptr()), weights.dim_size(0))
        dispatch(output, x, weights, no_norm(x), epilogue)


@extensibility.register("replit.norm_linear")
struct NormLinear:
    """`layer_norm(x, gain, epsilon) @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        output: Result,
        x: Activations,
        gain: InputTensor[dtype=DType.float32, rank=1, ...],
        weights: InputTensor[rank=2, ...],
        epsilon: Float32,
    ) raises:
        dispatch(output, x, weights, norm_of(gain, epsilon), Identity())


@extensibility.register("replit.norm_linear_gelu")
struct NormLinearGelu:
    """`gelu(layer_norm(x, gain, epsilon) @ weights^T)`."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        output: Result,
        x: Activations,
        gain: InputTensor[dtype=DType.float32, rank=1, ...],
        weights: InputTensor[rank=2, ...],
        epsilon: Float32,
    ) raises:
        dispatch(output, x, weights, norm_of(gain, epsilon), Gelu())
