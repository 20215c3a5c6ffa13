"""Linear layers of the CPU graph: float32 activations `[T, K]`, weights `[N, K]` in their stored type.

Every op computes `epilogue(norm(x) @ weights^T)`; the norm is LayerNorm without bias, or none.
"""

import extensibility
from extensibility import InputTensor, OutputTensor

from std.sys import size_of

from .linear_blocks import BlockFormat
from .linear_epilogue import AddResidual, Epilogue, Gelu, Identity
from .linear_formats import BFloat16Format, Bytes, Float32Format, Floats, Format
from .linear_superblocks import SuperblockFormat
from .linear_inputs import Norm
from .linear_product import linear
from .linear_weights import Matrix

comptime Activations = InputTensor[dtype=DType.float32, rank=2, ...]
comptime Result = OutputTensor[dtype=DType.float32, rank=2, ...]


def no_norm(x: Activations) -> Norm:
    return Norm(rebind[Floats](x.unsafe_ptr()), -1)


def norm_of(gain: InputTensor[dtype=DType.float32, rank=1, ...], epsilon: Float32) -> Norm:
    return Norm(rebind[Floats](gain.unsafe_ptr()), epsilon)


def run[
    F: Format, E: Epilogue
](
    output: Result, x: Activations, weights: InputTensor[rank=2, ...], norm: Norm, epilogue: E
) raises:
    var depth = x.dim_size(1)
    var row_bytes = weights.dim_size(1) * size_of[weights.dtype]()
    if row_bytes * F.STEP != depth * F.WEIGHT_BYTES:
        raise Error("weights have rows of ", row_bytes, " bytes, not those of ", depth, " inputs")
    linear[F](
        rebind[Floats](x.unsafe_ptr()),
        Matrix(rebind[Bytes](weights.unsafe_ptr().unsafe_bitcast[UInt8]()), row_bytes),
        rebind[Floats](output.unsafe_ptr()),
        x.dim_size(0),
        weights.dim_size(0),
        depth,
        norm,
        epilogue,
    )


def dispatch[
    E: Epilogue, //, encoding: StaticString
](
    output: Result, x: Activations, weights: InputTensor[rank=2, ...], norm: Norm, epilogue: E
) raises:
    """Chooses the format by the type of the weights, and by their encoding where it is bytes."""
    comptime if weights.dtype == DType.float32:
        run[Float32Format](output, x, weights, norm, epilogue)
    elif weights.dtype == DType.bfloat16:
        run[BFloat16Format](output, x, weights, norm, epilogue)
    elif encoding == "q8_0":
        run[BlockFormat[8]](output, x, weights, norm, epilogue)
    elif encoding == "q4_0":
        run[BlockFormat[4]](output, x, weights, norm, epilogue)
    elif encoding == "q4_k":
        run[SuperblockFormat[4]](output, x, weights, norm, epilogue)
    elif encoding == "q6_k":
        run[SuperblockFormat[6]](output, x, weights, norm, epilogue)
    else:
        comptime assert False, "no kernel for this encoding of the weights"


@extensibility.register("replit.linear")
struct Linear:
    """`x @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString = ""
    ](output: Result, x: Activations, weights: InputTensor[rank=2, ...]) raises:
        dispatch[encoding](output, x, weights, no_norm(x), Identity())


@extensibility.register("replit.linear_gelu")
struct LinearGelu:
    """`gelu(x @ weights^T)`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString = ""
    ](output: Result, x: Activations, weights: InputTensor[rank=2, ...]) raises:
        dispatch[encoding](output, x, weights, no_norm(x), Gelu())


@extensibility.register("replit.linear_add")
struct LinearAdd:
    """`residual + x @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString = ""
    ](
        output: Result,
        residual: Activations,
        x: Activations,
        weights: InputTensor[rank=2, ...],
    ) raises:
        var epilogue = AddResidual(rebind[Floats](residual.unsafe_ptr()), weights.dim_size(0))
        dispatch[encoding](output, x, weights, no_norm(x), epilogue)


@extensibility.register("replit.norm_linear")
struct NormLinear:
    """`layer_norm(x, gain, epsilon) @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString = ""
    ](
        output: Result,
        x: Activations,
        gain: InputTensor[dtype=DType.float32, rank=1, ...],
        weights: InputTensor[rank=2, ...],
        epsilon: Float32,
    ) raises:
        dispatch[encoding](output, x, weights, norm_of(gain, epsilon), Identity())


@extensibility.register("replit.norm_linear_gelu")
struct NormLinearGelu:
    """`gelu(layer_norm(x, gain, epsilon) @ weights^T)`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString = ""
    ](
        output: Result,
        x: Activations,
        gain: InputTensor[dtype=DType.float32, rank=1, ...],
        weights: InputTensor[rank=2, ...],
        epsilon: Float32,
    ) raises:
        dispatch[encoding](output, x, weights, norm_of(gain, epsilon), Gelu())
