"""Passes of a bound graph on the CPU: the engine reads their inputs in place, and decode steps reuse them."""

from __future__ import annotations

from typing import Any

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


class CpuPasses:
    """The passes of a graph on the CPU over `blocks`, a cache with `pages` pages for each sequence."""

    def __init__(self, model: Any, blocks: Any, pages: int) -> None:
        self._model, self._blocks, self._pages = model, blocks, pages
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

    def decode(self, sequences: int, length: int) -> CpuPass:
        """See `Passes.decode`."""
        if sequences not in self._decoding:
            inputs = Inputs.of_decode_step(self._blocks, sequences, self._pages)
            self._decoding[sequences] = CpuPass(self._model, inputs)
        return self._decoding[sequences]
