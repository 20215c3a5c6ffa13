"""The highest logits of each row, chosen on the device that holds them: a small graph, compiled when first needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# As many come back whatever is asked for, so that one graph serves; 512 bytes a row.
MOST = 64


@dataclass(frozen=True)
class TopLogits:
    """The highest logits of a row and their ids, highest first. One id alone comes with a logit of 0."""

    ids: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


class TopK:
    """Rows of logits on a device to `TopLogits`."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._model: Any = None

    def __call__(self, outputs: list[Any], k: int) -> list[TopLogits]:
        """The `k` (at most MOST) highest logits of each row, from the graph's logits and most probable ids."""
        if k == 1:
            best: npt.NDArray[np.int64] = outputs[1].to_numpy()
            return [TopLogits(best[row : row + 1], np.zeros(1, np.float32)) for row in range(len(best))]
        logits = outputs[0]
        if self._model is None:
            self._model = self._compile(logits.shape[1])
        values, ids = (output.to_numpy() for output in self._model.execute(logits))
        return [TopLogits(row_ids[:k].astype(np.int64), row[:k]) for row_ids, row in zip(ids, values, strict=True)]

    def _compile(self, vocab: int) -> Any:
        from max.dtype import DType
        from max.graph import DeviceRef, Graph, TensorType, ops

        from replit.runtime.engine import Engine

        device = DeviceRef.from_device(self._device)
        with Graph("top_logits", input_types=[TensorType(DType.float32, ["rows", vocab], device)]) as graph:
            graph.output(*ops.top_k(graph.inputs[0].tensor, min(MOST, vocab)))
        session = Engine.get().session
        return session.init(session.compile(graph))
