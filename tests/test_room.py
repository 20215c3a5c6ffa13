"""How long sequences are and how many run at once, where the command line does not say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.registry import ModelFiles, open_model
from pipelines.server.options import ServeOptions
from pipelines.server.room import PREFIX_CACHE_BYTES, SHARE, with_room
from replit.runtime.free_memory import cache_bytes
from replit.runtime.weight_memory import total_bytes, weight_types
from weights.tensor import Encoding

OPEN = ServeOptions(max_length=0, max_batch_size=0)


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return open_model("nano", None, None)


def free_for(files: ModelFiles, sequences: int, length: int) -> int:
    """Memory in which the caches of so many sequences, and one more, just fit."""
    cache = cache_bytes(files.config, sequences + 1, length, Encoding.FLOAT32)
    weights = total_bytes(weight_types(files.tensors, None))
    return int((cache + PREFIX_CACHE_BYTES) / SHARE) + weights + 16


@pytest.mark.parametrize(
    ("options", "fits", "expected"),
    [
        (OPEN, (100, 2048), (2048, 16)),
        (OPEN, (5, 2048), (2048, 5)),  # sequences at once give way
        (OPEN, (1, 2048), (2048, 1)),
        (OPEN, (1, 1024), (1024, 1)),  # then length
        (replace(OPEN, max_length=512), (4, 512), (512, 4)),
        (replace(OPEN, max_batch_size=8), (8, 1024), (1024, 8)),
        (replace(OPEN, max_length=512, max_batch_size=8), (1, 128), (512, 8)),  # what is given stays
    ],
)
def test_sequences_give_way_before_length(
    files: ModelFiles, options: ServeOptions, fits: tuple[int, int], expected: tuple[int, int]
) -> None:
    found = with_room(options, files, free_for(files, *fits))
    assert (found.max_length, found.max_batch_size) == expected


def test_there_is_always_some_room(files: ModelFiles) -> None:
    found = with_room(OPEN, files, 0)
    assert (found.max_length, found.max_batch_size) == (128, 1)
