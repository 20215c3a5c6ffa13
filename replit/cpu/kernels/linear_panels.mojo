"""Panels: how 32 weight rows lie in memory so that a product reads them as one stream, with the rows in the lanes.

`[unit][word][row]`: the first four bytes of 32 rows, the next four, and so on; where a unit of a row is no whole number
of words, two bytes of each, `[unit][row]`, follow at the end of the panel. replit/cpu/panels.py lays them out
when weights are read into memory. Mapped weights keep the order of their file, row after row, and are laid out block by
block while they are multiplied: the same arithmetic, more slowly.
"""

from std.math import ceildiv

from .linear_formats import Bytes, COLUMNS, Format, HALVES, LINE, PANEL, PanelBlock, WORD, words_of

comptime Words = SIMD[DType.uint32, COLUMNS]

@fieldwise_init
struct Weights(TrivialRegisterPassable):
    """The weights `[rows, depth]` of a product: panels, or rows as they are stored."""

    var start: Bytes
    var rows: Int
    var row_bytes: Int
    """From one stored row to the next; in panels a 32nd of what is from one panel to the next."""

    def row(self, n: Int) -> Bytes:
        return self.start.unsafe_offset(n * self.row_bytes)

    def check[F: Format, panels: Bool](self, found: Int, depth: Int) raises:
        """Raises if so many stored rows, or panels, are not those of `depth` inputs."""
        var expected = ceildiv(depth, F.UNIT) * F.UNIT_BYTES if panels else depth * F.UNIT_BYTES // F.UNIT
        if self.row_bytes != expected or found != (ceildiv(self.rows, PANEL) if panels else self.rows):
            var what = " panels of " if panels else " rows of "
            raise Error(found, what, self.row_bytes, " bytes a row do not hold weights [", self.rows, ", ", depth, "]")

    @always_inline
    def block[F: Format, panels: Bool](self, panel: Int, block: Int, space: Bytes) -> PanelBlock:
        """A block of a panel where it lies, or laid out in `space`."""
        comptime UNITS = F.BLOCK // F.UNIT
        comptime WORDS = words_of[F]
        comptime if panels:
            var units = self.row_bytes // F.UNIT_BYTES
            var words = self.row(panel * PANEL)
            var shorts = words.unsafe_offset(units * WORDS * HALVES * LINE)
            var first = block * UNITS
            var next = first + UNITS
            var next_words = words.unsafe_offset(next * WORDS * HALVES * LINE)
            var next_shorts = shorts.unsafe_offset(next * 2 * PANEL)
            if next >= units:  # the first block of the next panel
                next_words = words.unsafe_offset(PANEL * self.row_bytes)
                next_shorts = shorts.unsafe_offset(PANEL * self.row_bytes)
            return PanelBlock(
                words.unsafe_offset(first * WORDS * HALVES * LINE),
                shorts.unsafe_offset(first * 2 * PANEL),
                next_words,
                next_shorts,
            )
        else:
            var shorts = space.unsafe_offset(UNITS * WORDS * HALVES * LINE)
            lay_out[F](self, panel * PANEL, block * UNITS, space, shorts)
            return PanelBlock(space, shorts, space, shorts)


@always_inline
def put_transposed(a: Words, b: Words, c: Words, d: Words, dest: Bytes):
    """Four words from each of 16 rows, `a` having those of rows 0, 4, 8, 12: one vector for each word."""
    var ab_low = a.shuffle[0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29](b)
    var ab_high = a.shuffle[2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31](b)
    var cd_low = c.shuffle[0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29](d)
    var cd_high = c.shuffle[2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31](d)
    var place = dest.unsafe_bitcast[UInt32]()
    comptime NEXT = HALVES * COLUMNS
    place.unsafe_store(0, ab_low.shuffle[0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29](cd_low))
    place.unsafe_store(NEXT, ab_low.shuffle[2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31](cd_low))
    place.unsafe_store(2 * NEXT, ab_high.shuffle[0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29](cd_high))
    place.unsafe_store(3 * NEXT, ab_high.shuffle[2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31](cd_high))


@no_inline
def lay_out[F: Format](weights: Weights, row: Int, first: Int, words: Bytes, shorts: Bytes):
    """A block of rows from `row` on, as a panel has it, from unit `first` on; rows beyond the last repeat it."""
    comptime UNITS = F.BLOCK // F.UNIT
    comptime WORDS = words_of[F]
    comptime START = 2 if F.SHORT_AT == 0 else 0  # of the words
    comptime TOGETHER = WORDS // 4 * 4 if WORDS >= 4 else 4  # words that follow each other, a multiple of 4
    var bytes = min(UNITS * F.UNIT_BYTES, weights.row_bytes - first * F.UNIT_BYTES)
    for half in range(HALVES):
        var rows = Array[Bytes, COLUMNS](
            fill_with=lambda (n: Int) -> Bytes: weights.row(
                min(row + half * COLUMNS + n, weights.rows - 1)
            ).unsafe_offset(first * F.UNIT_BYTES)
        )
        var dest = words.unsafe_offset(half * LINE)
        comptime if WORDS >= 4:
            for unit in range(bytes // F.UNIT_BYTES):
                for word in range(0, WORDS, 4):
                    var at = unit * F.UNIT_BYTES + START + word * WORD
                    put_words(rows, at, dest.unsafe_offset((unit * WORDS + word) * HALVES * LINE))
                comptime if F.SHORT_AT >= 0:
                    var place = shorts.unsafe_offset(unit * 2 * PANEL + half * 2 * COLUMNS).unsafe_bitcast[UInt16]()
                    comptime for n in range(COLUMNS):
                        var at = rows[n].unsafe_offset(unit * F.UNIT_BYTES + F.SHORT_AT)
                        place.unsafe_store(n, at.unsafe_bitcast[UInt16]().unsafe_load[alignment=1]())
        else:
            var whole = bytes // (4 * WORD) * 4 * WORD
            for at in range(0, whole, 4 * WORD):
                put_words(rows, at, dest.unsafe_offset(at // WORD * HALVES * LINE))
            for at in range(whole, bytes, WORD):  # the last words, the last of them perhaps half of one
                for n in range(COLUMNS):
                    for i in range(WORD):
                        var byte = rows[n].unsafe_load(at + i) if at + i < bytes else UInt8(0)
                        dest.unsafe_store(at // WORD * HALVES * LINE + n * WORD + i, byte)


@always_inline
def put_words(rows: Array[Bytes, COLUMNS], at: Int, dest: Bytes):
    """Four words of each row from byte `at` on."""
    comptime Four = SIMD[DType.uint32, 4]
    var lines = Array[Words, 4](fill=Words(0))
    comptime for i in range(4):
        var parts = Array[Four, 4](fill=Four(0))
        comptime for lane in range(4):
            parts[lane] = rows[4 * lane + i].unsafe_offset(at).unsafe_bitcast[UInt32]().unsafe_load[
                width=4, alignment=1
            ]()
        lines[i] = parts[0].join(parts[1]).join(parts[2].join(parts[3]))
    put_transposed(lines[0], lines[1], lines[2], lines[3], dest)


@no_inline
def copy_row[F: Format, panels: Bool](weights: Weights, n: Int, row: Bytes):
    """A row as it is stored, out of its panel or from where it lies."""
    comptime WORDS = words_of[F]
    comptime START = 2 if F.SHORT_AT == 0 else 0
    comptime if not panels:
        for i in range(weights.row_bytes):
            row.unsafe_store(i, weights.row(n).unsafe_load(i))
    else:
        var units = weights.row_bytes // F.UNIT_BYTES
        var words = weights.row(n // PANEL * PANEL)
        var shorts = words.unsafe_offset(units * WORDS * HALVES * LINE).unsafe_bitcast[UInt16]()
        for unit in range(units):
            var place = row.unsafe_offset(unit * F.UNIT_BYTES)
            comptime for word in range(WORDS):
                var at = (unit * WORDS + word) * PANEL + n % PANEL
                var value = words.unsafe_bitcast[UInt32]().unsafe_load(at)
                place.unsafe_offset(START + word * WORD).unsafe_bitcast[UInt32]().unsafe_store[alignment=1](0, value)
            comptime if F.SHORT_AT >= 0:
                var value = shorts.unsafe_load(unit * PANEL + n % PANEL)
                place.unsafe_offset(F.SHORT_AT).unsafe_bitcast[UInt16]().unsafe_store[alignment=1](0, value)
