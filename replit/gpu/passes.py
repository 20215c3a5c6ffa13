"""Passes of a bound graph on a GPU: inputs copied to its memory, decode steps as captured device graphs.

The CPU can stand in for the GPU (`CPU_LIKE_GPU`), without device graphs, which only GPUs have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replit.runtime.passes import Inputs
from replit.runtime.target import Target

# Cache lengths are rounded up to this before the kernels' partitions are chosen, as MAX Serve does.
LENGTH_STEP = 256
# Of the graph's inputs, those that its kernels read: tokens, row offsets, rows, cache lengths, page table; and of these
# the ones that change from one step to the next.
_ON_DEVICE = (0, 1, 2, 4, 5)
_CHANGING = (0, 4, 5)
# Steps that are kept: each has outputs and working memory of its own on the GPU.
KEPT_STEPS = 64

# In how many parts MAX's decode kernel splits the keys, by sequences, length and key/value heads.
Partitions = Callable[[int, int, int], int]


class GpuPasses:
    """The passes of a graph on a GPU over `blocks`, a cache for sequences of up to `max_length` positions."""

    def __init__(
        self,
        model: Any,
        blocks: Any,
        pages: int,
        max_length: int,
        n_kv_heads: int,
        device: Any,
        target: Target,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._model, self._blocks, self._pages = model, blocks, pages
        self._max_length, self._n_kv_heads = max_length, n_kv_heads
        self._device, self._note = device, note
        self.capture = target.on_gpu
        self._partitions: Partitions = _partitions_of(device) if target.on_gpu else _one_partition
        self.steps: dict[tuple[int, int], DecodeStep] = {}  # by sequences and length

    def prompt(self, tokens: int, sequences: int, rows: int) -> PromptPass:
        """See `Passes.prompt`."""
        inputs = Inputs(self._blocks, tokens, sequences, rows, self._pages)
        return PromptPass(self._model, inputs, self._device, self._partitions, self._n_kv_heads)

    def decode(self, sequences: int, length: int) -> DecodeStep:
        """See `Passes.decode`. One step serves all lengths with the same number of partitions."""
        bucket = -(-length // LENGTH_STEP) * LENGTH_STEP
        partitions = self._partitions(sequences, bucket, self._n_kv_heads)
        # It is prepared for the longest of them.
        while (
            bucket < self._max_length
            and self._partitions(sequences, bucket + LENGTH_STEP, self._n_kv_heads) == partitions
        ):
            bucket += LENGTH_STEP
        key = (sequences, bucket)
        if key in self.steps:
            self.steps[key] = self.steps.pop(key)  # the one used last is kept longest
        else:
            if len(self.steps) == KEPT_STEPS:
                self.steps.pop(next(iter(self.steps))).release()
            inputs = Inputs.of_decode_step(self._blocks, sequences, self._pages)
            longest = min(bucket, self._max_length)
            dispatch = (sequences, 1, self._partitions(sequences, longest, self._n_kv_heads), longest)
            number = sequences << 32 | bucket  # MAX numbers its graphs
            self.steps[key] = DecodeStep(
                self._model, inputs, self._device, dispatch, number if self.capture else None, self._note
            )
        return self.steps[key]


class PromptPass:
    """A pass that is run once."""

    def __init__(self, model: Any, inputs: Inputs, device: Any, partitions: Partitions, n_kv_heads: int) -> None:
        self.inputs = inputs
        self._model, self._device = model, device
        self._partitions, self._n_kv_heads = partitions, n_kv_heads

    def run(self) -> list[Any]:
        """See `Pass.run`."""
        sequences, length = len(self.inputs.cache_lengths), int(self.inputs.max_cache_length[0])
        partitions = self._partitions(sequences, length, self._n_kv_heads)
        # What MAX's attention kernels are launched with, in the order of its `MHAAttnKey`.
        self.inputs.dispatch[:] = (sequences, int(self.inputs.max_prompt_length[0]), partitions, length)
        outputs: list[Any] = self._model.execute(*_to_device(self.inputs, self._device))
        return outputs


class DecodeStep:
    """A decode step of a fixed number of sequences: inputs that stay where they are, and the captured graph."""

    def __init__(
        self,
        model: Any,
        inputs: Inputs,
        device: Any,
        dispatch: tuple[int, int, int, int],
        graph: int | None,
        note: Callable[[str], None],
    ) -> None:
        """`graph` is the captured graph's number, None if none is to be captured."""
        self.inputs = inputs
        self._model, self._device, self._dispatch = model, device, dispatch
        self._graph, self._note = graph, note
        self._buffers: list[Any] | None = None
        self._outputs: list[Any] | None = None

    @property
    def captured(self) -> bool:
        """Whether it runs as a device graph."""
        return self._outputs is not None

    def run(self) -> list[Any]:
        """See `Pass.run`. Captured at the first call, replayed from then on."""
        # The lengths that the step was prepared for: device graphs keep what they were captured with.
        self.inputs.dispatch[:] = self._dispatch
        self.inputs.max_cache_length[0] = self._dispatch[3]
        if self._buffers is None:
            self._buffers = _to_device(self.inputs, self._device)
        else:
            self._refresh(self._buffers)
        if self._graph is not None and self._outputs is None:
            self._capture(self._graph, self._buffers)
        if self._outputs is None:
            outputs: list[Any] = self._model.execute(*self._buffers)
            return outputs
        self._model.replay(self._graph, *self._buffers)
        return self._outputs

    def release(self) -> None:
        """Gives the captured graph's memory back."""
        if self._outputs is not None:
            self._outputs = None  # MAX cannot take back what is still referred to
            self._model.release_captured_graph(self._graph)

    def _capture(self, graph: int, buffers: list[Any]) -> None:
        """Sets the outputs that every replay writes; if MAX cannot capture the step, says so and tries no more."""
        self._model.execute(*buffers)  # loads the kernels; the step writes the same keys and values again
        try:
            self._outputs = self._model.capture(graph, *buffers)
        except (RuntimeError, ValueError) as error:
            self._note(f"decoding without a device graph: {str(error).splitlines()[0]}")
            self._graph = None

    def _refresh(self, buffers: list[Any]) -> None:
        for index in _CHANGING:
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


def _partitions_of(device: Any) -> Partitions:
    from functools import lru_cache

    from max._kv_cache_ops import mha_decode_num_partitions  # MAX Serve asks it too

    @lru_cache(maxsize=4096)
    def partitions(sequences: int, length: int, n_kv_heads: int) -> int:
        return int(mha_decode_num_partitions(sequences, length, n_kv_heads, device))

    return partitions
