"""Turns and stored pages where limits are met exactly, and files that are nearly right."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_page_store import PAGE, data, ids, open_store
from test_turns import context, turns

from pipelines.server.process.page_store import ROOT, PageStore, weights_digest
from pipelines.server.process.turns import PASS_SECONDS, Costs
from weights.tensor import Encoding, Tensor


def test_limits_of_a_pass_are_met() -> None:
    unknown = turns(6, None)
    turn = unknown.choose([context("short", 16)], [])
    assert (len(turn.together), turn.long) == (1, None)
    assert unknown.choose([context("longer", 17)], []).long is not None
    begun = context("begun", 30)
    assert turns(6, 0.0001).choose([begun], [begun]).long is begun  # a pass that is under way goes on
    slow = context("slow", 512)
    turns(1, 1.0).choose([slow], [])
    assert slow.tokens.chunks == [16]
    second = context("second", 400)
    turns(1, 0.00001).choose([context("first", 500, turn=-1.0), second], [])
    assert second.tokens.chunks == [12]
    fills, waits = [context("first", 500, turn=-2.0), context("next", 12, turn=-1.0)], context("waits", 400)
    assert turns(1, 0.00001).choose([*fills, waits], []).together == fills
    assert waits.tokens.chunks == []
    whole = context("whole", 512)
    assert turns(1, 0.0008).choose([whole], []).together == [whole]  # longer than a pass may take, alone
    assert whole.tokens.chunks == []
    warm = context("warm", 10, background=True)
    turn = turns(32, 0.0001).choose([warm, context("prompt", 600)], [])
    assert warm not in [*turn.together, turn.long]


def test_time_for_layers_is_what_is_left_and_at_least_half() -> None:
    measured = turns(32, 0.001)
    layer = 0.512 / 32
    assert measured.layers(512, 0.05) == int((PASS_SECONDS - 0.05) / layer)
    assert measured.layers(512, 0.15) == int(PASS_SECONDS / 2 / layer)
    costs = Costs()
    costs.measured(64, 0.64)
    costs.measured(50, 0.5)  # as much a row
    assert costs.of(50) == pytest.approx(0.5)


def test_pages_that_do_not_fit_or_are_gone(tmp_path: Path) -> None:
    size = PAGE + 100
    small = open_store(tmp_path / "small", limit=PAGE)
    small.write(ROOT, ids(1), data(0))
    assert (len(small), list((tmp_path / "small").rglob("*.page"))) == (0, [])
    other = open_store(tmp_path, "other" * 8, limit=2 * size)
    other.write(ROOT, ids(1), data(1))
    store = open_store(tmp_path, limit=2 * size)
    for number in range(3):
        store.write(ROOT, ids(number), data(number))
    assert len(list(tmp_path.rglob("k*/*.page"))) == 2  # another model's page has gone, and the first of its own
    assert not list(tmp_path.rglob("other*/*.page"))
    assert sorted(int(page.ids[0]) for page in store.candidates(ROOT)) == [1, 2]


def test_files_that_are_nearly_right(tmp_path: Path) -> None:
    open_store(tmp_path).write(ROOT, ids(1, 2), data(0))
    (path,) = tmp_path.rglob("*.page")
    assert len(PageStore(tmp_path, "k" * 32, PAGE - 8, 1 << 20)) == 0  # another size of pages
    store = open_store(tmp_path)
    (page,) = store.candidates(ROOT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert store.read(page) is None
    assert (len(store), path.exists()) == (0, False)
    path.write_bytes(whole[: struct.calcsize("<8s32sII") + 5])
    assert len(open_store(tmp_path)) == 0


def test_weights_of_another_shape_or_type_have_another_digest() -> None:
    tensor = Tensor("x", (64, 32), Encoding.FLOAT32, np.zeros(64 * 32 * 4, np.uint8))
    others = [replace(tensor, shape=(32, 64)), replace(tensor, shape=(64, 64), encoding=Encoding.BFLOAT16)]
    others.append(replace(tensor, encoding=Encoding.FLOAT16, shape=(64, 64)))
    assert len({weights_digest({"x": one}) for one in [tensor, *others]}) == 4
