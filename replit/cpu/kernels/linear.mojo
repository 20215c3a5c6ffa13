"""Linear layers of the CPU graph: float32 activations `[T, K]`, weights `[N, K]` as `[N, bytes]` of their encoding.

Every op computes `epilogue(norm(x) @ weights^T)`; the norm is LayerNorm without bias, or none. Refact is made of them, and
the tests reach each norm and epilogue by them; Replit's blocks hold the same products (blocks.mojo).
"""

import extensibility
from extensibility import InputTensor, OutputTensor

from std.sys import size_of

from .linear_blocks import BlockFormat
from .linear_epilogue import AddResidual, Epilogue, Gelu, Identity
from .linear_formats import BFloat16Format, Bytes, Float32Format, Floats, Format
from .linear_superblocks import SuperblockFormat
from .linear_inputs import Norm
from .linear_product import Product
from .linear_weights import Matrix

comptime Activations = InputTensor[dtype=DType.float32, rank=2, ...]
comptime Gain = InputTensor[rank=2, ...]
"""The float32 gains of a norm, one row."""
comptime Result = OutputTensor[dtype=DType.float32, rank=2, ...]


def no_norm(x: Activations) -> Norm:
    return Norm(rebind[Floats](x.unsafe_ptr()), -1)


def norm_of(gain: Gain, epsilon: Float32) -> Norm:
    return Norm(rebind[Floats](gain.unsafe_ptr().unsafe_bitcast[Float32]()), epsilon)


comptime format_of[encoding: StaticString] = (
    Float32Format if encoding == "float32"
    else BFloat16Format if encoding == "bfloat16"
    else BlockFormat[8] if encoding == "q8_0"
    else BlockFormat[4] if encoding == "q4_0"
    else SuperblockFormat[4] if encoding == "q4_k"
    else SuperblockFormat[6]
)
"""The format of weights by the name of their encoding."""
comptime is_encoding[name: StaticString] = (
    name == "float32" or name == "bfloat16" or name == "q8_0" or name == "q4_0" or name == "q4_k" or name == "q6_k"
)


def matrix_of[F: Format](weights: InputTensor[rank=2, ...], depth: Int) raises -> Matrix:
    """Weights as rows of bytes; raises if these are not those of `depth` inputs."""
    var row_bytes = weights.dim_size(1) * size_of[weights.dtype]()
    var matrix = Matrix(rebind[Bytes](weights.unsafe_ptr().unsafe_bitcast[UInt8]()), row_bytes)
    matrix.check[F](depth)
    return matrix


def run[
    E: Epilogue, //, encoding: StaticString
](
    output: Result, x: Activations, weights: InputTensor[rank=2, ...], norm: Norm, epilogue: E
) raises:
    comptime assert is_encoding[encoding], "no kernel for this encoding of the weights"
    comptime F = format_of[encoding]
    Product[F](
        rebind[Floats](x.unsafe_ptr()),
        matrix_of[F](weights, x.dim_size(1)),
        rebind[Floats](output.unsafe_ptr()),
        x.dim_size(0),
        weights.dim_size(0),
        x.dim_size(1),
        norm,
        epilogue,
    ).run()


@extensibility.register("replit.linear")
struct Linear:
    """`x @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString
    ](output: Result, x: Activations, weights: InputTensor[rank=2, ...]) raises:
        run[encoding](output, x, weights, no_norm(x), Identity())


@extensibility.register("replit.linear_gelu")
struct LinearGelu:
    """`gelu(x @ weights^T)`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString
    ](output: Result, x: Activations, weights: InputTensor[rank=2, ...]) raises:
        run[encoding](output, x, weights, no_norm(x), Gelu())


@extensibility.register("replit.linear_add")
struct LinearAdd:
    """`residual + x @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString
    ](
        output: Result,
        residual: Activations,
        x: Activations,
        weights: InputTensor[rank=2, ...],
    ) raises:
        var epilogue = AddResidual(rebind[Floats](residual.unsafe_ptr()), weights.dim_size(0))
        run[encoding](output, x, weights, no_norm(x), epilogue)


@extensibility.register("replit.norm_linear")
struct NormLinear:
    """`layer_norm(x, gain, epsilon) @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString
    ](
        output: Result,
        x: Activations,
        gain: Gain,
        weights: InputTensor[rank=2, ...],
        epsilon: Float32,
    ) raises:
        run[encoding](output, x, weights, norm_of(gain, epsilon), Identity())


@extensibility.register("replit.norm_linear_gelu")
struct NormLinearGelu:
    """`gelu(layer_norm(x, gain, epsilon) @ weights^T)`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString
    ](
        output: Result,
        x: Activations,
        gain: Gain,
        weights: InputTensor[rank=2, ...],
        epsilon: Float32,
    ) raises:
        run[encoding](output, x, weights, norm_of(gain, epsilon), Gelu())
