"""How a row of weights is stored, read and multiplied: one struct for each weight type.

A row is read in steps of `STEP` elements; a step adds its products to one vector of partial sums, so
the order of the additions is the same in every kernel that uses the format.
"""

from std.sys import CompilationTarget, llvm_intrinsic, simd_width_of
from std.memory import bitcast
from std.memory.alloc import unsafe_alloc

comptime Bytes = MutPointer[UInt8, MutUntrackedOrigin]
comptime Floats = MutPointer[Float32, MutUntrackedOrigin]
comptime LANES = simd_width_of[DType.float32]()
comptime Vector = SIMD[DType.float32, LANES]
comptime REGISTERS = 16 if CompilationTarget.is_x86() and LANES < 16 else 32
comptime FLOAT_TILE_ROWS = 4
comptime FLOAT_TILE_COLUMNS = 6 if REGISTERS == 32 else 2
comptime HAS_BF16_DOT = CompilationTarget._has_feature["avx512bf16"]()


def scratch(count: Int) -> Bytes:
    """Memory for a while, to be freed. Not from the stack: what is written there through the pointer
    that the allocation gives, and read through one without its origin, is removed as dead."""
    return rebind[Bytes](unsafe_alloc[UInt8](count, alignment=64))


trait Format:
    comptime Weights: TrivialRegisterPassable
    comptime Inputs: TrivialRegisterPassable
    comptime STEP: Int
    """Elements of a row in one step."""
    comptime WEIGHT_BYTES: Int
    """Bytes of a stored row in one step."""
    comptime INPUT_BYTES: Int
    """Bytes of a packed activation row in one step."""
    comptime TILE_ROWS: Int
    comptime TILE_COLUMNS: Int
    """Activation and weight rows whose sums, with what is multiplied, fit in the registers."""
    comptime SMALL_ROWS: Int
    """Up to so many activation rows the weights are streamed, row after row."""
    comptime BFLOAT16: Bool
    """Whether more rows than that are multiplied in bfloat16."""
    comptime EXPANDED: Bool
    """Whether the weights are expanded for that."""
    comptime GROUP: Int
    """Elements decoded together, and activations that share a scale."""
    comptime CODE_GROUP: Int = 0
    """Elements that share a scale: `scale * (code - CODE_OFFSET) - minimum`; 0: they are no integers."""
    comptime CODE_OFFSET: Int = 0
    comptime HAS_MINIMUM: Bool = False

    @staticmethod
    def pack_step(x: Floats, step: Bytes):
        """Writes the `STEP` activations at `x` as `add_product` wants them."""
        ...

    @staticmethod
    def load_weights(step: Bytes) -> Self.Weights:
        ...

    @staticmethod
    def load_inputs(step: Bytes) -> Self.Inputs:
        ...

    @staticmethod
    def add_product(sum: Vector, weights: Self.Weights, inputs: Self.Inputs) -> Vector:
        ...

    @staticmethod
    def decode(row: Bytes, group: Int) -> SIMD[DType.float32, Self.GROUP]:
        """Elements `GROUP * group` and following of a stored row."""
        ...

    @staticmethod
    def unpack(row: Bytes, group: Int, codes: Bytes, scales: Floats, minimums: Floats, stride: Int):
        """The same elements as unsigned codes; scales and minimums are written `stride` apart."""
        comptime assert Self.CODE_GROUP == 0, "a format of integers must say how they are unpacked"


struct Float32Format(Format):
    comptime Weights = Vector
    comptime Inputs = Vector
    comptime STEP = LANES
    comptime WEIGHT_BYTES = 4 * LANES
    comptime INPUT_BYTES = 4 * LANES
    comptime TILE_ROWS = FLOAT_TILE_ROWS
    comptime TILE_COLUMNS = FLOAT_TILE_COLUMNS
    comptime SMALL_ROWS = 16
    comptime BFLOAT16 = False
    comptime EXPANDED = False
    comptime GROUP = 1

    @staticmethod
    @always_inline
    def pack_step(x: Floats, step: Bytes):
        step.unsafe_bitcast[Float32]().unsafe_store(0, x.unsafe_load[width=LANES]())

    @staticmethod
    @always_inline
    def load_weights(step: Bytes) -> Vector:
        return step.unsafe_bitcast[Float32]().unsafe_load[width=LANES, alignment=1]()

    @staticmethod
    @always_inline
    def load_inputs(step: Bytes) -> Vector:
        return step.unsafe_bitcast[Float32]().unsafe_load[width=LANES]()

    @staticmethod
    @always_inline
    def add_product(sum: Vector, weights: Vector, inputs: Vector) -> Vector:
        return weights.fma(inputs, sum)

    @staticmethod
    @always_inline
    def decode(row: Bytes, group: Int) -> SIMD[DType.float32, 1]:
        return row.unsafe_bitcast[Float32]().unsafe_load[alignment=1](group)


struct BFloat16Rounded(Format):
    """AVX512-BF16: activations rounded to bfloat16, products and sums in float32."""

    comptime Weights = SIMD[DType.bfloat16, 2 * LANES]
    comptime Inputs = SIMD[DType.bfloat16, 2 * LANES]
    comptime STEP = 2 * LANES
    comptime WEIGHT_BYTES = 4 * LANES
    comptime INPUT_BYTES = 4 * LANES
    comptime TILE_ROWS = FLOAT_TILE_ROWS
    comptime TILE_COLUMNS = FLOAT_TILE_COLUMNS
    comptime SMALL_ROWS = 16
    comptime BFLOAT16 = True
    comptime EXPANDED = False
    comptime GROUP = 1

    @staticmethod
    @always_inline
    def pack_step(x: Floats, step: Bytes):
        var rounded = x.unsafe_load[width=2 * LANES]().cast[DType.bfloat16]()
        step.unsafe_bitcast[BFloat16]().unsafe_store(0, rounded)

    @staticmethod
    @always_inline
    def load_weights(step: Bytes) -> Self.Weights:
        return step.unsafe_bitcast[BFloat16]().unsafe_load[width=2 * LANES, alignment=1]()

    @staticmethod
    @always_inline
    def load_inputs(step: Bytes) -> Self.Inputs:
        return step.unsafe_bitcast[BFloat16]().unsafe_load[width=2 * LANES]()

    @staticmethod
    @always_inline
    def add_product(sum: Vector, weights: Self.Weights, inputs: Self.Inputs) -> Vector:
        return llvm_intrinsic[
            "llvm.x86.avx512bf16.dpbf16ps.512", Vector, has_side_effect=False
        ](sum, weights, inputs)

    @staticmethod
    @always_inline
    def decode(row: Bytes, group: Int) -> SIMD[DType.float32, 1]:
        return row.unsafe_bitcast[BFloat16]().unsafe_load[alignment=1](group).cast[DType.float32]()


struct BFloat16Widened(Format):
    """Without AVX512-BF16: weights widened to float32, even and odd elements apart."""

    comptime Weights = SIMD[DType.uint32, LANES]
    comptime Inputs = SIMD[DType.float32, 2 * LANES]
    comptime STEP = 2 * LANES
    comptime WEIGHT_BYTES = 4 * LANES
    comptime INPUT_BYTES = 8 * LANES
    comptime TILE_ROWS = FLOAT_TILE_ROWS
    comptime TILE_COLUMNS = FLOAT_TILE_COLUMNS
    comptime SMALL_ROWS = 16
    comptime BFLOAT16 = True
    comptime EXPANDED = False
    comptime GROUP = 1

    @staticmethod
    @always_inline
    def pack_step(x: Floats, step: Bytes):
        var pairs = x.unsafe_load[width=2 * LANES]().deinterleave()
        step.unsafe_bitcast[Float32]().unsafe_store(0, pairs[0].join(pairs[1]))

    @staticmethod
    @always_inline
    def load_weights(step: Bytes) -> Self.Weights:
        return step.unsafe_bitcast[UInt32]().unsafe_load[width=LANES, alignment=1]()

    @staticmethod
    @always_inline
    def load_inputs(step: Bytes) -> Self.Inputs:
        return step.unsafe_bitcast[Float32]().unsafe_load[width=2 * LANES]()

    @staticmethod
    @always_inline
    def add_product(sum: Vector, weights: Self.Weights, inputs: Self.Inputs) -> Vector:
        var even = bitcast[DType.float32, LANES](weights << 16)
        var odd = bitcast[DType.float32, LANES](weights & 0xFFFF0000)
        return odd.fma(inputs.slice[LANES, offset=LANES](), even.fma(inputs.slice[LANES](), sum))

    @staticmethod
    @always_inline
    def decode(row: Bytes, group: Int) -> SIMD[DType.float32, 1]:
        return row.unsafe_bitcast[BFloat16]().unsafe_load[alignment=1](group).cast[DType.float32]()


comptime BFloat16Format = BFloat16Rounded if HAS_BF16_DOT else BFloat16Widened
