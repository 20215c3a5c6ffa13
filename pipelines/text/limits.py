"""llama.cpp's limits on lines, as a filter: `n_indent` and `t_max_predict_ms`."""

from __future__ import annotations

from collections.abc import Callable


class LineLimits:
    """Ends a completion where a line is indented less than `indent`, or at the first line end once `late()`.

    Both as in llama.cpp: the first line is never cut. A `TextFilter`. Lines end where editors end them, at LF. `late`
    is asked at every piece, so that it may count from the first.
    """

    def __init__(self, indent: int, late: Callable[[], bool]) -> None:
        self._indent = indent
        self._late = late
        self._held = ""  # a line's beginning that is still only white space
        self._decided = True  # whether the line under way may stand; the first one may
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of `text` that can be shown."""
        late = self._late()
        lines = (self._held + text).split("\n")
        lines = [line + "\n" for line in lines[:-1]] + [line for line in lines[-1:] if line]
        self._held = ""
        shown = ""
        for line in lines:
            whole, blank = line.endswith("\n"), not line.strip()
            if self._indent and not self._decided:
                if blank and not whole:
                    self._held = line
                    return shown
                self.stopped = not blank and len(line) - len(line.lstrip(" \t")) < self._indent
                if self.stopped:
                    return shown
            shown += line
            self._decided = not whole
            self.stopped = whole and late
            if self.stopped:
                return shown
        return shown

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        return "" if self.stopped else self._held
