"""Passes of a bound graph on the CPU: the engine reads their inputs in place, and decode steps reuse them."""

from __future__ import annotations

from typing import Any

import numpy as np

from replit.runtime.passes import Inputs

# Tokens of a pass whose inputs are kept and filled again.
_KEPT_TOKENS = 16


class CpuPass:
    """A pass on the CPU."""

    def __init__(self, model: Any, inputs: Inputs) -> None:
        self.inputs = inputs
        self._model = model

    def run(self) -> list[Any]:
        """See `Pass.run`."""
        outputs: list[Any] = self._model.execute(*self.inputs.buffers)
        return outputs


class SlicedPass:
    """A pass over a prompt that can be interrupted between two layers, for other passes or for good.

    The graph reads from the dispatch metadata which layers it goes through, and where what is between two of them is
    kept. It has the same bits as the pass in one.
    """

    def __init__(self, middle: CpuPass, last: CpuPass, layers: int, width: int) -> None:
        """`middle` and `last` are the same pass; `middle`, which never gets to the logits, has one row of them."""
        self._middle, self._last = middle, last
        self._kept = np.empty((len(last.inputs.tokens), width), np.float32)
        self.layers = layers
        self.done = 0  # of them

    def run(self, count: int) -> list[Any] | None:
        """Goes through the next `count` layers; the graph's outputs after the last, else None."""
        stop = min(self.done + count, self.layers)
        graph = self._last if stop == self.layers else self._middle
        graph.inputs.dispatch[:3] = self.done, stop % self.layers, self._kept.ctypes.data
        outputs = graph.run()
        self.done = stop
        return outputs if graph is self._last else None


class CpuPasses:
    """The passes of a graph on the CPU over `blocks`, a cache with `pages` pages for each sequence."""

    def __init__(self, model: Any, blocks: Any, pages: int, layers: int = 1, width: int = 0) -> None:
        """`layers`, each `width` wide, that a pass may be cut between; 1: it runs in one."""
        self._model, self._blocks, self._pages = model, blocks, pages
        self.layers, self._width = layers, width
        self._decoding: dict[int, CpuPass] = {}  # by the number of sequences
        self._small: dict[tuple[int, int, int], CpuPass] = {}

    def prompt(self, tokens: int, sequences: int, rows: int) -> CpuPass:
        """See `Passes.prompt`. Small ones are kept: a pass that checks guesses comes again and again."""
        if tokens > _KEPT_TOKENS:
            return CpuPass(self._model, Inputs(self._blocks, tokens, sequences, rows, self._pages))
        shape = (tokens, sequences, rows)
        if shape not in self._small:
            self._small[shape] = CpuPass(self._model, Inputs(self._blocks, *shape, self._pages))
        return self._small[shape]

    def sliced(self, tokens: int, rows: int) -> tuple[SlicedPass, CpuPass, CpuPass]:
        """A pass over one sequence's prompt, layer by layer, and the two passes whose inputs are to be filled alike.

        Of the first one the last row gets logits, which nobody reads.
        """
        middle, last = (CpuPass(self._model, Inputs(self._blocks, tokens, 1, r, self._pages)) for r in (1, rows))
        return SlicedPass(middle, last, self.layers, self._width), middle, last

    def decode(self, sequences: int, length: int) -> CpuPass:
        """See `Passes.decode`."""
        if sequences not in self._decoding:
            inputs = Inputs.of_decode_step(self._blocks, sequences, self._pages)
            self._decoding[sequences] = CpuPass(self._model, inputs)
        return self._decoding[sequences]
