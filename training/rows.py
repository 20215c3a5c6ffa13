"""Training rows made on the device that trains: cut, looped and repeated there, so that a GPU waits for no Python loop.

Shapes: B rows, T tokens. The same rows as training/batches.py, which makes them one by one for a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.loops import FEWEST, FIRST_TOKENS, IGNORED, MOST, ORDINARY, WORDS_SHARE

END_ID = 0
#: Where rows of a source come from; `loops` and `repeats` change what they read.
KIND_OF = {"loops": "snippets", "repeats": "files"}


@dataclass
class Source:
    """The ids [N] of one kind on the device, the starts of its documents, and the rows left of this epoch."""

    ids: Tensor
    starts: Tensor
    anywhere: bool  # rows may begin in the middle of a document
    left: Tensor
    epochs: float = 0.0

    def row_starts(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Starts [count] of the next rows of `length` + 1 ids; each epoch cuts elsewhere and shuffles anew."""
        while len(self.left) < count:
            self.left = torch.cat([self.left, self._epoch(length, generator)])
        taken, self.left = self.left[:count], self.left[count:]
        self.epochs += count * length / len(self.ids)
        return taken

    def _epoch(self, length: int, generator: torch.Generator) -> Tensor:
        device, last = self.ids.device, len(self.ids) - length - 1
        offset = int(torch.randint(length, (), generator=generator, device=device))
        at = torch.arange(min(offset, last), last + 1, length, device=device)
        if not self.anywhere:
            at = self.starts[torch.searchsorted(self.starts, at).clamp_max(len(self.starts) - 1)].clamp_max(last)
        return at[torch.randperm(len(at), generator=generator, device=device)]


class Rows:
    """Batches of rows by source, the same for the same seed and device."""

    def __init__(
        self,
        arrays: Mapping[str, tuple[np.ndarray, np.ndarray]],
        counts: Mapping[str, int],
        length: int,
        starts_line: np.ndarray,
        seed: int,
        device: str,
    ) -> None:
        """`arrays` as `read_shards` gives them, `counts` rows of a batch by source, `starts_line` [V] of loops.py."""
        self.counts, self.length, self.device = {k: n for k, n in counts.items() if n}, length, device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._starts_line = torch.from_numpy(starts_line).to(device)
        self._kinds = {name: self._upload(name, *arrays[name]) for name in arrays}
        missing = {KIND_OF.get(name, name) for name in self.counts} - set(self._kinds)
        if missing:
            raise ValueError(
                f"no documents of {', '.join(sorted(missing))}; expected some: pack them, or ask for 0 rows"
            )

    def _upload(self, name: str, ids: np.ndarray, starts: np.ndarray) -> Source:
        empty = torch.zeros(0, dtype=torch.long, device=self.device)
        on_device = [torch.from_numpy(a).to(self.device) for a in (ids.astype(np.int32), starts)]
        return Source(*on_device, anywhere=name == "files", left=empty)

    def epochs(self) -> dict[str, float]:
        """How often each kind was seen."""
        return {name: round(source.epochs, 2) for name, source in self._kinds.items()}

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids, targets, `earlier` of `Nano.loss` and documents, each int64 [B, T]."""
        rows, marks = [], []
        for name, count in self.counts.items():
            source = self._kinds[KIND_OF.get(name, name)]
            start = source.row_starts(count, self.length, self._generator)
            row = source.ids[start[:, None] + torch.arange(self.length + 1, device=self.device)].long()
            earlier = torch.full((count, self.length), ORDINARY, device=self.device)
            if name == "loops":
                row, earlier = loops(row, self._starts_line, self._generator)
            elif name == "repeats":
                row = repeats(row, self._generator)
            rows.append(row)
            marks.append(earlier)
        both = torch.cat(rows)
        return both[:, :-1], both[:, 1:], torch.cat(marks), self._documents(both[:, :-1])

    def _documents(self, ids: Tensor) -> Tensor:
        """Which document of its row each token is in; an end token begins the next one half of the time.

        So a document is learned with and without the token before it, as prompts come.
        """
        ends = ids == END_ID
        coin = torch.rand(ids.shape, generator=self._generator, device=self.device) < 0.5
        begins = (ends & coin).long()
        begins[:, 1:] += (ends & ~coin)[:, :-1]
        return begins.cumsum(1).clamp_max(255)


def _uniform(rows: int, low: int | Tensor, high: int | Tensor, generator: torch.Generator) -> Tensor:
    """Integers [rows] from `low` to below `high`."""
    share = torch.rand(rows, generator=generator, device=generator.device)
    return (low + share * (high - low)).long()


def loops(rows: Tensor, starts_line: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`make_loop` of training/loops.py for all rows [B, T + 1] at once: the rows, and `earlier` [B, T].

    Rows without lines that could repeat come back as they are.
    """
    count, size = rows.shape
    half = size // 2
    place = torch.arange(size, device=rows.device)
    line = starts_line[rows]
    after = torch.where(line, place, size).flip(1).cummin(1).values.flip(1)  # the first line start from here on
    first = _uniform(count, 1, half, generator)
    begin = after.gather(1, first[:, None])[:, 0].clamp_max(size - 2)
    end = begin
    lines = _uniform(count, 1, 4, generator)
    for i in range(3):
        following = after.gather(1, (end + 1).clamp_max(size - 1)[:, None])[:, 0]
        end = torch.where(lines > i, following, end)
    words = torch.rand(count, generator=generator, device=rows.device) < WORDS_SHARE
    begin = torch.where(words, first, begin)
    end = torch.where(words, first + _uniform(count, FEWEST, 9, generator), end)
    period = end - begin
    possible = (period >= FEWEST) & (period <= MOST) & (end < half + MOST)
    begin, end, period = (x[:, None] for x in (begin, end, period.clamp_min(1)))
    within = (place - begin) % period
    looped = torch.where(place < end, rows, rows.gather(1, (begin + within).clamp_max(size - 1)))
    looped = torch.where(possible[:, None], looped, rows)
    # How far into its line a token is; loops of words count from their beginning.
    last_line = torch.where(starts_line[looped] & ~words[:, None], place, -1).cummax(1).values
    into = torch.where(words[:, None], within, place - last_line)
    targets = place[1:]
    marks = torch.where(into[:, 1:] < FIRST_TOKENS, targets - 1 - period, IGNORED)
    marks = torch.where((targets >= end) & possible[:, None], marks, ORDINARY)
    return looped, marks


def repeats(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows [B, T + 1] in which a piece of the first half stands once more later on: what comes next can be copied."""
    count, size = rows.shape
    place = torch.arange(size, device=rows.device)
    length = _uniform(count, size // 16, size // 3, generator)
    begin = _uniform(count, 0, size // 2 - size // 3 + 1, generator)
    again = _uniform(count, begin + length, size - length, generator)
    begin, length, again = (x[:, None] for x in (begin, length, again))
    copied = (place >= again) & (place < again + length)
    return torch.where(copied, rows.gather(1, (place - again + begin).clamp(0, size - 1)), rows)
