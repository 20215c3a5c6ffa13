"""ALiBi as a mask of MAX's flash attention: a visible score gets `-slope[head] * (query - key)` added.

Which keys are visible is CausalMask's business. A biased tile is never "not masked": the kernels would skip the mask
there and with it the bias. The bias belongs to the scaled score, so log2(e) must come after it.
"""

from layout import LayoutTensor
from nn.attention.mha_mask import CausalMask, MaskStrategy, MHAMask, TileMaskStatus
from std.builtin.device_passable import DevicePassable, DeviceTypeEncoder
from std.math import iota
from std.utils import StaticTuple
from std.utils.index import IndexList


@fieldwise_init
struct AlibiMask(MHAMask, TrivialRegisterPassable):
    """Causal attention with a slope for each query head, `slopes[head]`, in the memory of the device that attends."""

    comptime apply_log2e_after_mask: Bool = True
    comptime mask_out_of_bound: Bool = CausalMask.mask_out_of_bound
    comptime mask_safe_out_of_bounds: Bool = True
    comptime check_mask_during_decoding: Bool = False
    comptime causal = CausalMask()

    var slopes: Pointer[Float32, ImmUntrackedOrigin]

    comptime device_type: AnyType = Self

    def _to_device_type(self, mut encoder: Some[DeviceTypeEncoder], target: MutOpaquePointer[_]):
        encoder.encode_fields[Self](self, target)

    @staticmethod
    def get_type_name() -> String:
        return "AlibiMask"

    @staticmethod
    def name() -> String:
        return "AlibiMask"

    @inline(.always)
    def mask[
        dtype: DType, width: SIMDLength, //, *, element_type: DType = .uint32
    ](self, coord: IndexList[4, element_type=element_type], score_vec: SIMD[dtype, width]) -> SIMD[dtype, width]:
        # The table never changes: an invariant load leaves the loop over the keys.
        var slope = self.slopes.unsafe_load[invariant=True](coord[1]).cast[dtype]()
        var back = SIMD[.int32, width](Int32(coord[2])) - iota[.int32, width](Int32(coord[3]))
        return Self.causal.mask(coord, score_vec - slope * back.cast[dtype]())

    @inline(.always)
    def status[
        *, element_type: DType = .uint32
    ](
        self,
        seq_id: UInt32,
        tile_offset: IndexList[2, element_type=element_type],
        tile_size: IndexList[2, element_type=element_type],
    ) -> TileMaskStatus:
        var status = Self.causal.status(seq_id, tile_offset, tile_size)
        return status if status == TileMaskStatus.FULL_MASK else TileMaskStatus.PARTIAL_MASK

    @inline(.always)
    def start_column[BM: Int, BN: Int, page_size: Int](self, seq_id: UInt32, row: UInt32) -> UInt32:
        return Self.causal.start_column[BM, BN, page_size](seq_id, row)

    @staticmethod
    def start_column_alignment[BM: Int, BN: Int, page_size: Int]() -> Int:
        return CausalMask.start_column_alignment[BM, BN, page_size]()

    @inline(.always)
    def total_iters[
        BM: Int, BN: Int, page_size: Int
    ](self, seq_id: UInt32, row: UInt32, num_cols: UInt32) -> UInt32:
        return Self.causal.total_iters[BM, BN, page_size](seq_id, row, num_cols)

    @staticmethod
    def count_nonfull_sets(BM: Int, BN: Int) -> Int:
        return 1

    @inline(.always)
    def masked_set_ends[
        BM: Int, BN: Int, page_size: Int
    ](self, seq_id: UInt32, row: UInt32, num_cols: UInt32) -> StaticTuple[UInt32, Self.count_nonfull_sets(BM, BN)]:
        return {self.total_iters[BM, BN, page_size](seq_id, row, num_cols)}

    @inline(.always)
    def last_masked_set_end[
        BM: Int, BN: Int, page_size: Int
    ](self, seq_id: UInt32, row: UInt32, num_cols: UInt32) -> UInt32:
        return self.total_iters[BM, BN, page_size](seq_id, row, num_cols)

    @staticmethod
    def nonfull_sets[BM: Int, BN: Int]() -> StaticTuple[TileMaskStatus, Self.count_nonfull_sets(BM, BN)]:
        return {TileMaskStatus.PARTIAL_MASK}

    @staticmethod
    def mask_strategies[BM: Int, BN: Int]() -> StaticTuple[MaskStrategy, Self.count_nonfull_sets(BM, BN)]:
        return {MaskStrategy.COMPUTED | MaskStrategy.OUT_OF_BOUNDS}

    @inline(.always)
    def mask_bits(self, seq_id: UInt32, score_row: Int32, col_start: Int32, num_keys: Int32) -> UInt32:
        return UInt32(0xFFFF_FFFF)  # unused: the strategy is to compute

    @staticmethod
    def sliding_window_size() -> Int:
        return 0
