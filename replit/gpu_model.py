"""A compiled model on a GPU: its cache and inputs in the GPU's memory, and its decode steps as captured device graphs.

A greedy step brings back one id a sequence. For other sampling the most probable ids and their logits come back
(replit/top_logits.py); all logits only where they are asked for. The CPU can stand in for the GPU (`CPU_LIKE_GPU`),
without device graphs, which only GPUs have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from replit.architecture import DecoderConfig
from replit.gpu import PREFILL_TOKENS
from replit.kv_cache import CacheSlots, cache_shape
from replit.model import Inputs
from replit.target import Target
from replit.top_logits import TopK, TopLogits
from weights.tensor import Encoding

Floats = npt.NDArray[np.float32]

# Cache lengths are rounded up to this before the kernels' partitions are chosen, as MAX Serve does.
LENGTH_STEP = 256
# Of the graph's inputs, those that its kernels read: tokens, row offsets, rows, cache lengths, page table.
_ON_DEVICE = (0, 1, 2, 4, 5)


class GpuModel:
    """Logits, or what is sampled from them, of a batch of sequences, each in a slot of the cache."""

    def __init__(
        self,
        config: DecoderConfig,
        model: Any,
        slots: int,
        max_length: int,
        device: Any,
        target: Target,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        from max.driver import Buffer
        from max.dtype import DType

        self.config, self.slots, self.max_length = config, slots, max_length
        self.cache = CacheSlots(slots, max_length)
        self._model, self._device, self._note = model, device, note
        self._capture = target.on_gpu
        self._partitions = _partitions_of(device) if target.on_gpu else _one_partition
        dtype = DType.bfloat16 if target.activations is Encoding.BFLOAT16 else DType.float32
        self._blocks = Buffer.zeros(cache_shape(config, slots, max_length), dtype, device)
        self._steps: dict[tuple[int, int], _Step] = {}
        self._top = TopK(device)

    @property
    def executable(self) -> Any:
        """The compiled and bound graph, for a caller with a cache of its own (MAX Serve's)."""
        return self._model

    def prefill(self, slot: int, ids: Sequence[int]) -> Floats:
        """Starts a sequence in `slot`; the logits `[vocab]` after its last id."""
        row: Floats = self._prefill(slot, ids)[0].to_numpy()[0]
        return row

    def decode(self, slots: Sequence[int], ids: Sequence[int]) -> Floats:
        """Appends one id to each sequence; the logits `[len(slots), vocab]` after them."""
        logits: Floats = self._decode(slots, ids)[0].to_numpy()
        return logits

    def prefill_top(self, slot: int, ids: Sequence[int], k: int) -> TopLogits:
        """`prefill`, of which only the `k` highest logits leave the GPU; k 1: the id alone."""
        return self._top(self._prefill(slot, ids), k)[0]

    def decode_top(self, slots: Sequence[int], ids: Sequence[int], k: int) -> list[TopLogits]:
        """`decode`, of which only the `k` highest logits of a row leave the GPU; k 1: the ids alone."""
        return self._top(self._decode(slots, ids), k)

    def score(self, ids: Sequence[int]) -> Floats:
        """Logits `[len(ids), vocab]` after every id of a sequence, computed in slot 0."""
        self.cache.lengths[0] = 0
        parts = [ids[i : i + PREFILL_TOKENS] for i in range(0, len(ids), PREFILL_TOKENS)]
        return np.concatenate([self._run([0], [part], range(len(part)))[0].to_numpy() for part in parts])

    def _prefill(self, slot: int, ids: Sequence[int]) -> list[Any]:
        self.cache.lengths[slot] = 0
        outputs: list[Any] = []
        for start in range(0, len(ids), PREFILL_TOKENS):
            part = ids[start : start + PREFILL_TOKENS]
            outputs = self._run([slot], [part], [len(part) - 1])
        return outputs

    def _run(self, slots: Sequence[int], ids: Sequence[Sequence[int]], rows: Sequence[int]) -> list[Any]:
        inputs = Inputs(self._blocks, sum(map(len, ids)), len(slots), len(rows), self.cache.page_table.shape[1])
        inputs.fill(self.cache, slots, ids, rows)
        self._set_dispatch(inputs, len(slots), int(inputs.max_prompt_length[0]), int(inputs.max_cache_length[0]))
        outputs: list[Any] = self._model.execute(*_to_device(inputs, self._device))
        for slot, part in zip(slots, ids, strict=True):
            self.cache.lengths[slot] += len(part)
        return outputs

    def _decode(self, slots: Sequence[int], ids: Sequence[int]) -> list[Any]:
        length = int(self.cache.lengths[list(slots)].max()) + 1
        step = self._step(len(slots), length)
        step.inputs.fill(self.cache, slots, [[i] for i in ids], range(len(slots)))
        # The lengths that the step was prepared for: device graphs keep what they were captured with.
        self._set_dispatch(step.inputs, len(slots), 1, step.length)
        outputs = step.run(self._model)
        self.cache.lengths[list(slots)] += 1
        return outputs

    def _step(self, sequences: int, length: int) -> _Step:
        """The decode step for a batch whose longest sequence has `length` positions, the new one included."""
        bucket = -(-length // LENGTH_STEP) * LENGTH_STEP
        partitions = self._partitions(sequences, bucket, self.config.n_kv_heads)
        # One step serves all lengths with the same number of partitions; it is prepared for the longest.
        while (
            bucket < self.max_length
            and self._partitions(sequences, bucket + LENGTH_STEP, self.config.n_kv_heads) == partitions
        ):
            bucket += LENGTH_STEP
        key = (sequences, bucket)
        if key not in self._steps:
            inputs = Inputs(self._blocks, sequences, sequences, sequences, self.cache.page_table.shape[1])
            longest = min(bucket, self.max_length)
            number = sequences << 32 | bucket  # MAX numbers its graphs
            self._steps[key] = _Step(inputs, self._device, longest, self._capture, number, self._note)
        return self._steps[key]

    def _set_dispatch(self, inputs: Inputs, sequences: int, new_tokens: int, length: int) -> None:
        """What MAX's attention kernels are launched with, in the order of its `MHAAttnKey`."""
        partitions = self._partitions(sequences, length, self.config.n_kv_heads)
        inputs.max_cache_length[0] = length
        inputs.dispatch[:] = (sequences, new_tokens, partitions, length)


class _Step:
    """A decode step of a fixed number of sequences: inputs that stay where they are, and the captured graph."""

    def __init__(
        self,
        inputs: Inputs,
        device: Any,
        length: int,
        capture: bool,
        key: int,
        note: Callable[[str], None],
    ) -> None:
        self.inputs, self.length = inputs, length
        self._key, self._capture, self._note = key, capture, note
        self._device = device
        self._buffers: list[Any] | None = None
        self._outputs: list[Any] | None = None

    def run(self, model: Any) -> list[Any]:
        """One step over what `inputs` hold; captured at the first call, replayed from then on."""
        if self._buffers is None:
            self._buffers = _to_device(self.inputs, self._device)
        else:
            self._refresh(self._buffers)
        if not self._capture:
            outputs: list[Any] = model.execute(*self._buffers)
            return outputs
        if self._outputs is None:
            self._outputs = self._captured(model, self._buffers)
        if self._outputs is not None:
            model.replay(self._key, *self._buffers)
            return self._outputs
        return self.run(model)

    def _captured(self, model: Any, buffers: list[Any]) -> list[Any] | None:
        """The outputs that every replay writes; None, and no further try, if MAX cannot capture this graph."""
        model.execute(*buffers)  # loads the kernels; the step writes the same keys and values again
        try:
            outputs: list[Any] = model.capture(self._key, *buffers)
        except (RuntimeError, ValueError) as error:
            self._note(f"decoding without a device graph: {str(error).splitlines()[0]}")
            self._capture = False
            return None
        return outputs

    def _refresh(self, buffers: list[Any]) -> None:
        for index in _ON_DEVICE:
            if buffers[index] is not self.inputs.buffers[index]:
                buffers[index].inplace_copy_from(self.inputs.buffers[index])


def _to_device(inputs: Inputs, device: Any) -> list[Any]:
    """The inputs, those that kernels read in the memory of `device`."""
    buffers = list(inputs.buffers)
    if not device.is_host:
        for index in _ON_DEVICE:
            buffers[index] = buffers[index].to(device)
    return buffers


def _one_partition(sequences: int, length: int, n_kv_heads: int) -> int:
    return 1


def _partitions_of(device: Any) -> Callable[[int, int, int], int]:
    """In how many parts MAX's decode kernel splits the keys, by batch, length and key/value heads."""
    from functools import lru_cache

    from max._kv_cache_ops import mha_decode_num_partitions  # MAX Serve asks it too

    @lru_cache(maxsize=4096)
    def partitions(sequences: int, length: int, n_kv_heads: int) -> int:
        return int(mha_decode_num_partitions(sequences, length, n_kv_heads, device))

    return partitions
