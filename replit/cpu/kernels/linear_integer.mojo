"""Activations quantized to 8 bits for a product, and the 8-bit dot product on each processor."""

from std.memory import bitcast
from std.sys import CompilationTarget, llvm_intrinsic

from .linear_formats import Bytes, Floats, LANES, Vector

comptime Integers = SIMD[DType.int32, LANES]
comptime HAS_AVX512_VNNI = CompilationTarget._has_feature["avx512vnni"]()
comptime HAS_AVX512_BYTES = CompilationTarget._has_feature["avx512bw"]()
comptime HAS_AVX2 = CompilationTarget.has_avx2()


@always_inline
def dot4(
    sum: Integers, a: SIMD[DType.uint8, 4 * LANES], b: SIMD[DType.int8, 4 * LANES]
) -> Integers:
    """Adds the products of four neighbouring bytes to each lane, without saturation."""
    comptime if HAS_AVX512_VNNI and LANES == 16:
        return llvm_intrinsic["llvm.x86.avx512.vpdpbusd.512", Integers, has_side_effect=False](
            sum, a, b
        )
    elif (HAS_AVX512_BYTES and LANES == 16) or (HAS_AVX2 and LANES == 8):
        comptime NAME = "llvm.x86.avx512.pmaddw.d.512" if LANES == 16 else "llvm.x86.avx2.pmadd.wd"
        comptime Words = SIMD[DType.int16, 2 * LANES]
        var u = bitcast[DType.uint16, 2 * LANES](a)
        var s = bitcast[DType.int16, 2 * LANES](b)
        var even = llvm_intrinsic[NAME, Integers, has_side_effect=False](
            bitcast[DType.int16, 2 * LANES](u & 255), (s << 8) >> 8
        )
        var odd = llvm_intrinsic[NAME, Integers, has_side_effect=False](
            bitcast[DType.int16, 2 * LANES](u >> 8), s >> 8
        )
        return sum + even + odd
    else:
        var total = sum
        var u = bitcast[DType.int32, LANES](a)
        var s = bitcast[DType.int32, LANES](b)
        comptime for i in range(4):
            total += ((u >> Integers(8 * i)) & 255) * ((s << Integers(24 - 8 * i)) >> 24)
        return total


@always_inline
def round_to_bytes[width: Int](x: SIMD[DType.float32, width]) -> SIMD[DType.int8, width]:
    """Nearest integers, ties to even, of numbers within -128..127."""
    comptime SHIFT = Float32(12582912.0)  # 1.5 * 2^23: the integer is left in the low bits
    return bitcast[DType.int32, width](x + SHIFT).cast[DType.int8]()


@always_inline
def quantize[width: Int](x: SIMD[DType.float32, width]) -> Tuple[SIMD[DType.int8, width], Float32]:
    """Symmetric 8-bit integers and their scale: the largest magnitude becomes 127."""
    var largest = abs(x).reduce_max()
    var inverse = 127 / largest if largest > 0 else Float32(0)
    return (round_to_bytes(x * inverse), largest / 127)
