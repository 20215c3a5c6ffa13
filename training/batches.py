"""Training rows from the prepared token arrays: which row a step sees is a function of the seed and the step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.indents import IndentSplitter
from training.loops import ORDINARY, line_starts, make_loop

SOURCES = ("files", "fim", "snippets", "loops")


def aligned_rows(starts: np.ndarray, total: int, length: int) -> np.ndarray:
    """Row starts that are document starts: each row begins at the first document after the row before it."""
    rows, position = [], 0
    while position + length + 1 <= total:
        rows.append(position)
        following = np.searchsorted(starts, position + length)
        if following == len(starts):
            break
        position = int(starts[following])
    return np.array(rows)


class Batches:
    """Rows of `seq_len` + 1 ids; `files` are cut anywhere, the other sources only begin at a document.

    `loops` are made of the snippets, in another order.
    """

    def __init__(self, data: Path, counts: dict[str, int], seq_len: int, seed: int) -> None:
        """`counts` says how many rows of a batch each of SOURCES gives."""
        self.seq_len, self.seed, self.counts = seq_len, seed, counts
        self._ids: dict[str, np.ndarray] = {}
        self._rows: dict[str, np.ndarray] = {}
        self._order: dict[tuple[str, int], np.ndarray] = {}
        tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
        self._line_starts, self._split_indents = line_starts(tokenizer), IndentSplitter(tokenizer)
        for name in counts:
            with np.load(data / f"{'snippets' if name == 'loops' else name}.npz") as file:
                ids, starts = file["ids"], file["starts"]
            self._ids[name] = ids
            cut_anywhere = np.arange(0, len(ids) - seq_len - 1, seq_len)
            self._rows[name] = cut_anywhere if name == "files" else aligned_rows(starts, len(ids), seq_len)

    def _start(self, name: str, index: int) -> int:
        rows = self._rows[name]
        epoch, at = divmod(index, len(rows))
        if (name, epoch) not in self._order:
            rng = np.random.default_rng([self.seed, epoch, len(name)])
            self._order = {k: v for k, v in self._order.items() if k[0] != name or k[1] >= epoch - 1}
            self._order[name, epoch] = rng.permutation(len(rows))
        return int(rows[self._order[name, epoch][at]])

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, targets and what stands where in loops (`Nano.loss`), each int64 [rows, seq_len], of a step."""
        rows, earlier = [], []
        for name, count in self.counts.items():
            for i in range(count):
                start = self._start(name, step * count + i)
                row = self._ids[name][start : start + self.seq_len + 1]
                rng = np.random.default_rng([self.seed, step, len(rows)])
                marks = np.full(self.seq_len, ORDINARY)
                if name == "loops":
                    row, marks = make_loop(row, self._line_starts, rng)
                else:
                    row = self._split_indents(row, rng)
                rows.append(row)
                earlier.append(marks)
        both = torch.from_numpy(np.stack(rows).astype(np.int64))
        return both[:, :-1], both[:, 1:], torch.from_numpy(np.stack(earlier))


def heldout_rows(data: Path, rows: int, seq_len: int) -> tuple[Tensor, Tensor]:
    """Evenly spaced rows of the held-out packages."""
    with np.load(data / "heldout.npz") as file:
        ids = file["ids"].astype(np.int64)
    starts = np.linspace(0, len(ids) - seq_len - 2, rows).astype(int)
    both = torch.from_numpy(np.stack([ids[s : s + seq_len + 1] for s in starts]))
    return both[:, :-1], both[:, 1:]
