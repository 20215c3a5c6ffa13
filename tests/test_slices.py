"""A pass over a prompt that is interrupted between layers, for other passes, has the bits of one that is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pipelines.pipeline import Pipeline
from replit.cpu.model import CpuModel
from replit.cpu.passes import CpuPasses, SlicedPass
from replit.runtime.passes import describe_cache, describe_prompt


def sliced(model: CpuModel, passes: CpuPasses, ids: list[int], rows: range) -> SlicedPass:
    """Over the pages of slot 0, from its beginning."""
    graph, *parts = passes.sliced(len(ids), len(rows))
    for part, wanted in zip(parts, (rows[-1:], rows), strict=True):
        describe_prompt(part.inputs, [len(ids)], wanted)
        describe_cache(part.inputs, [0], len(ids))
        part.inputs.tokens[:] = ids
        part.inputs.lookup_table[:] = model.cache.page_table[[0]]
    return graph


@pytest.fixture(scope="module")
def model(nano: Pipeline) -> Iterator[CpuModel]:
    """nano's, whose pipeline goes on with what its slots held before."""
    assert isinstance(nano.model, CpuModel)
    cache = nano.model.cache
    blocks, lengths = cache.blocks.copy(), cache.lengths.copy()
    yield nano.model
    cache.blocks[:], cache.lengths[:] = blocks, lengths


@pytest.mark.parametrize("count", [2, 9, 17, 65, 300])
@pytest.mark.parametrize("layers", [1, 4, 100])
def test_slices_have_the_bits_of_one_pass(model: CpuModel, count: int, layers: int) -> None:
    rng = np.random.default_rng(count)
    ids, other = (rng.integers(5, 8000, n).tolist() for n in (count, 3))
    rows = range(count - 2, count)
    pages = model.cache.blocks[: model.cache.page_table.shape[1]]
    pages[:] = 0
    model.truncate(0, 0)
    whole = model.extend([0], [ids], rows)
    written = pages.copy()
    pages[:] = 0
    graph = sliced(model, model.passes, ids, rows)
    outputs = None
    while outputs is None:
        outputs = graph.run(layers)
        if outputs is None:  # another sequence's pass between the slices
            model.truncate(1, 0)
            model.extend([1], [other], [2])
    np.testing.assert_array_equal(outputs[0].to_numpy(), whole)
    np.testing.assert_array_equal(pages, written)
