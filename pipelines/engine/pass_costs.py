"""What a pass costs by the number of its rows, as measured while it runs: what a guess has to be worth."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

# How much dearer each further row is taken to be until it was measured, as a share of a pass with one.
_SLOPE = 0.04
_WEIGHT = 0.15  # of a new measurement


class PassCosts:
    """Seconds of passes by rows: running means, and straight lines between the numbers of rows that were seen."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._rows: list[int] = []  # sorted

    def observe(self, rows: int, seconds: float) -> None:
        """Takes in a pass. What disturbs the machine for a moment counts little."""
        known = self._seconds.get(rows)
        if known is None:
            self._seconds[rows] = seconds
            self._rows.insert(bisect_left(self._rows, rows), rows)
            return
        bounded = min(seconds, 3 * known)
        self._seconds[rows] = known + _WEIGHT * (bounded - known)

    def seconds(self, rows: int) -> float:
        """What a pass of so many rows is expected to take; 0 before anything was measured."""
        if rows in self._seconds:
            return self._seconds[rows]
        if not self._rows:
            return 0.0
        right = bisect_right(self._rows, rows)
        if right == 0:
            return self._seconds[self._rows[0]]
        low = self._rows[right - 1]
        if right == len(self._rows):
            return self._seconds[low] * (1 + _SLOPE * (rows - low))
        high = self._rows[right]
        share = (rows - low) / (high - low)
        return self._seconds[low] + share * (self._seconds[high] - self._seconds[low])
