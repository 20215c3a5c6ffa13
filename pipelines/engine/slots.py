"""The cache's slots of one model: who has which, what is in them, and one pass at a time.

A slot keeps what was read after its sequence has ended; the next prompt takes the slot, or a copy of it, whose ids
begin like its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence as Several
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from pipelines.engine.sequence import Sequence
from replit.gpu.model import GpuModel
from replit.gpu.top_logits import TopLogits
from replit.runtime.slot_model import SlotModel
from weights.errors import UserError

Floats = npt.NDArray[np.float32]
# One pass at a time, of whatever model: the engine and its threads are one.
engine_lock = threading.RLock()
Rows = Floats | Several[TopLogits]


@dataclass(frozen=True)
class Part:
    """What a pass takes of a sequence: its next ids, of which the last `rows` get logits."""

    sequence: Sequence
    slot: int
    ids: Several[int]
    rows: int = 1


class Slots:
    """Runs sequences in the slots of one model. Safe for threads, each with sequences of its own."""

    def __init__(self, model: SlotModel) -> None:
        self._model, self.most_rows = model, model.prompt_chunk
        # The ids whose keys and values a slot has, at least: a pass that was interrupted may have left more.
        self._held: list[list[int]] = [[] for _ in range(model.slots)]
        self._users: list[object] = [None] * model.slots
        self._released = [0] * model.slots  # when, counted
        self._process = os.getpid()

    def take(self, prompt: Several[int], user: object, fresh: bool = False) -> int | None:
        """A slot for a prompt, with as much of it cached as any slot has, or `fresh` nothing; None if all are taken.

        It is the `user`'s from then on, also where Ctrl-C comes before anybody has heard of it.
        """
        self._check_process()
        with engine_lock:
            free = [slot for slot, taken in enumerate(self._users) if taken is None]
            if not free:
                return None
            common = [0 if fresh else common_length(held, prompt) for held in self._held]
            best = int(np.argmax(common))
            # A text that mostly goes on elsewhere stays for whoever comes back to it.
            goes_on = best in free and 2 * common[best] > len(self._held[best])
            slot = best if goes_on else min(free, key=lambda slot: self._released[slot])
            self._users[slot] = user
            length = min(common[best], len(prompt) - 1)  # the last id runs in any case: its logits are wanted
            if slot != best and common[slot] < length:
                self._held[slot] = []
                self._model.copy_prefix(best, slot, length)
                self._held[slot] = list(prompt[:length])
            self._keep(slot, min(common_length(self._held[slot], prompt), length))
            return slot

    def release(self, slot: int) -> None:
        """Gives a slot back; what is in it stays until the slot is taken for something else."""
        self._released[slot] = max(self._released) + 1
        self._users[slot] = None

    def release_all(self, user: object) -> None:
        """Gives back whatever slots are a user's."""
        for slot, taken in enumerate(self._users):
            if taken is user:
                self.release(slot)

    def __len__(self) -> int:
        return self._model.slots

    def cached(self, slot: int) -> int:
        """Positions of a slot that are filled."""
        return len(self._held[slot])

    def next_part(self, sequence: Sequence, slot: int, most: int) -> Part:
        """Of its prompt at most so many ids that are not cached yet."""
        start = self.cached(slot)
        ids = sequence.request.prompt_ids[start : start + most]
        return Part(sequence, slot, ids, len(ids) if sequence.request.prompt_logprobs else 1)

    def advance(self, parts: Several[Part]) -> list[Rows]:
        """One pass over what comes next of each sequence; for each its rows of logits."""
        self._check_process()
        slots, ids = [part.slot for part in parts], [part.ids for part in parts]
        needed = [part.sequence.logits_needed for part in parts]
        ends = list(accumulate(map(len, ids)))
        rows = [row for part, end in zip(parts, ends, strict=True) for row in range(end - part.rows, end)]
        logits: Rows
        with engine_lock:
            if all(needed) and isinstance(self._model, GpuModel):
                logits = self._model.extend_top(slots, ids, rows, max(needed))
                self._hold(slots, ids)
            else:
                logits = self._extend(slots, ids, rows)
        ends = list(accumulate(part.rows for part in parts))
        return [logits[end - part.rows : end] for part, end in zip(parts, ends, strict=True)]

    def settle(self, sequence: Sequence, slot: int) -> None:
        """Takes out of the cache what was guessed and not accepted."""
        self._keep(slot, min(self.cached(slot), sequence.length - 1))

    def logits(self, ids: Several[int]) -> Floats:
        """Logits `[len(ids), vocab]` after every id. Raises UserError if every slot is taken."""
        user = object()
        try:
            slot = self.take(ids, user, fresh=True)
            if slot is None:
                raise busy(self._model.slots)
            parts = [ids[i : i + self.most_rows] for i in range(0, len(ids), self.most_rows)]
            with engine_lock:
                return np.concatenate([self._extend([slot], [part], range(len(part))) for part in parts])
        finally:
            self.release_all(user)

    def _extend(self, slots: Several[int], ids: Several[Several[int]], rows: Several[int]) -> Floats:
        logits = self._model.extend(slots, ids, rows)
        self._hold(slots, ids)
        return logits

    def _hold(self, slots: Several[int], ids: Several[Several[int]]) -> None:
        for slot, part in zip(slots, ids, strict=True):
            self._held[slot] += part

    def _keep(self, slot: int, length: int) -> None:
        with engine_lock:
            del self._held[slot][length:]
            self._model.truncate(slot, len(self._held[slot]))

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise UserError(
                "the model was loaded in another process, whose threads a fork does not copy; "
                "expected one that loads it itself: load only after the fork, or start processes by spawn"
            )


def busy(slots: int) -> UserError:
    """All sequences are in use."""
    return UserError(
        f"all {slots} sequences of this model are in use by streams that are still open; expected a free one: "
        "finish or close a stream, or load the model with a larger max_batch_size"
    )


def common_length(first: Several[int], second: Several[int]) -> int:
    """How many ids both begin with."""
    most = min(len(first), len(second))
    if first[:most] == second[:most]:
        return most
    low, high = 0, most  # the first `low` are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle)
    return low
