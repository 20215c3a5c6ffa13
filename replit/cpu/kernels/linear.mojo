"""Linear layers of the CPU graph: float32 activations `[T, K]`, weights `[N, K]` in panels, or as rows of their encoding.

Every op computes `epilogue(norm(x) @ weights^T)`; the norm is LayerNorm without bias, or none. Refact is made of them, and
the tests reach each norm and epilogue by them; Replit's blocks hold the same products (blocks.mojo).
"""

import extensibility
from extensibility import InputTensor, OutputTensor

from std.sys import size_of

from .linear_amx import tiles_if_allowed
from .linear_blocks import BlockFormat
from .linear_epilogue import AddResidual, Epilogue, Gelu, Identity
from .linear_floats import BFloat16Format, Float32Format, HAS_BF16_DOT
from .linear_formats import Bytes, Floats, Format, PANEL
from .linear_inputs import Norm
from .linear_panels import Weights
from .linear_product import Product
from .linear_superblocks import SuperblockFormat

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
    else BFloat16Format[HAS_BF16_DOT] if encoding == "bfloat16"
    else BlockFormat[8] if encoding == "q8_0"
    else BlockFormat[4] if encoding == "q4_0"
    else SuperblockFormat[4] if encoding == "q4_k"
    else SuperblockFormat[6]
)
"""The format of weights by the name of their encoding."""
comptime is_encoding[name: StaticString] = (
    name == "float32" or name == "bfloat16" or name == "q8_0" or name == "q4_0" or name == "q4_k" or name == "q6_k"
)


comptime Stored = InputTensor[rank=2, ...]
"""Weights `[N, bytes of a row]`, or `[panels, bytes of a panel]`."""


def weights_of[F: Format, panels: Bool](stored: Stored, rows: Int, depth: Int) raises -> Weights:
    """So many weight rows; raises if these are not those of `depth` inputs."""
    var bytes = stored.dim_size(1) * size_of[stored.dtype]()
    var start = rebind[Bytes](stored.unsafe_ptr().unsafe_bitcast[UInt8]())
    var weights = Weights(start, rows, bytes // PANEL if panels else bytes)
    weights.check[F, panels](stored.dim_size(0), depth)
    return weights


def run[
    E: Epilogue, //, encoding: StaticString, panels: Bool
](
    output: Result, x: Activations, weights: Stored, norm: Norm, epilogue: E
) raises:
    comptime assert is_encoding[encoding], "no kernel for this encoding of the weights"
    comptime F = format_of[encoding]
    Product[F, panels](
        rebind[Floats](x.unsafe_ptr()),
        weights_of[F, panels](weights, output.dim_size(1), x.dim_size(1)),
        rebind[Floats](output.unsafe_ptr()),
        x.dim_size(0),
        x.dim_size(1),
        norm,
        epilogue,
        tiles_if_allowed(),
    ).run()


@extensibility.register("replit.linear")
struct Linear:
    """`x @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString, panels: Bool
    ](output: Result, x: Activations, weights: Stored) raises:
        run[encoding, panels](output, x, weights, no_norm(x), Identity())


@extensibility.register("replit.linear_gelu")
struct LinearGelu:
    """`gelu(x @ weights^T)`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString, panels: Bool
    ](output: Result, x: Activations, weights: Stored) raises:
        run[encoding, panels](output, x, weights, no_norm(x), Gelu())


@extensibility.register("replit.linear_add")
struct LinearAdd:
    """`residual + x @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString, panels: Bool
    ](
        output: Result,
        residual: Activations,
        x: Activations,
        weights: Stored,
    ) raises:
        var epilogue = AddResidual(rebind[Floats](residual.unsafe_ptr()), output.dim_size(1))
        run[encoding, panels](output, x, weights, no_norm(x), epilogue)


@extensibility.register("replit.norm_linear")
struct NormLinear:
    """`layer_norm(x, gain, epsilon) @ weights^T`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString, panels: Bool
    ](
        output: Result,
        x: Activations,
        gain: Gain,
        weights: Stored,
        epsilon: Float32,
    ) raises:
        run[encoding, panels](output, x, weights, norm_of(gain, epsilon), Identity())


@extensibility.register("replit.norm_linear_gelu")
struct NormLinearGelu:
    """`gelu(layer_norm(x, gain, epsilon) @ weights^T)`."""

    @staticmethod
    def execute[
        target: StaticString, encoding: StaticString, panels: Bool
    ](
        output: Result,
        x: Activations,
        gain: Gain,
        weights: Stored,
        epsilon: Float32,
    ) raises:
        run[encoding, panels](output, x, weights, norm_of(gain, epsilon), Gelu())
