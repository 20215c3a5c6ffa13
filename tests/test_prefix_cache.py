"""Reuse to the token over MAX's paged cache: what is found is what was written, whoever wrote it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef
from max.nn.kv_cache import MHAKVCacheParams
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.modeling.types import RequestID

from pipelines.server.process.prefix_cache import PrefixCache
from replit.runtime.engine import Engine
from replit.runtime.kv_cache import KEY_PANEL, PAGE_SIZE

LAYERS, HEADS, SIZE = 2, 3, 4


@pytest.fixture(scope="module")
def session() -> InferenceSession:
    return Engine.get().session


class Writer:
    """Runs sequences over a cache; in the place of keys and values it writes what determines them: the ids so far."""

    def __init__(self, session: InferenceSession, pages: int) -> None:
        params = MHAKVCacheParams(
            dtype=DType.float32, head_dim=SIZE, num_layers=LAYERS, n_kv_heads=HEADS, devices=[DeviceRef.CPU()],
            page_size=PAGE_SIZE, enable_prefix_caching=True,
        )  # fmt: skip
        self.cache = PrefixCache(params, session, pages, max_batch_size=4)
        blocks: Any = self.cache.blocks.to_numpy()
        pages_, two, layers, slots, heads, size = blocks.shape
        self.keys = blocks.reshape(pages_, two, layers, heads, slots // KEY_PANEL, size, KEY_PANEL)[:, 0]
        self.values = blocks.reshape(pages_, two, layers, heads, slots, size)[:, 1]
        self.names = 0

    def start(self, ids: list[int], salt: str | None = None) -> TextContext:
        self.names += 1
        context = TextContext(
            request_id=RequestID(str(self.names)), max_length=4096, tokens=TokenBuffer(np.array(ids, np.int64)),
            cache_salt=salt,
        )  # fmt: skip
        self.cache.claim(context)
        self.cache.alloc(context)
        self.check(context)
        return context

    def run(self, context: TextContext, count: int) -> None:
        """A pass over the next `count` ids of the prompt, or over the newest one."""
        tokens = context.tokens
        if count < tokens.active_length:
            tokens.chunk(count)
        for position in range(tokens.processed_length, tokens.processed_length + tokens.active_length):
            for place in self.places(context, position):
                place[...] = self.value(context, position)
        if tokens.actively_chunked:
            tokens.advance_chunk()
        else:
            tokens.advance_with_token(7)
        self.cache.step(context)

    def places(self, context: TextContext, position: int) -> Any:
        """Where a position's keys and values are, of all layers and heads, as the CPU's attention lays them out."""
        (pages,) = self.cache.get_req_blocks_per_leaf(context).values()
        page, slot = pages[position // PAGE_SIZE], position % PAGE_SIZE
        return self.keys[page, :, :, slot // KEY_PANEL, :, slot % KEY_PANEL], self.values[page, :, :, slot]

    def value(self, context: TextContext, position: int) -> float:
        ids = context.tokens.all[: position + 1]
        return float(hash((context.cache_salt, *ids.tolist())) % 1_000_003)

    def check(self, context: TextContext) -> None:
        """Every position that counts as read holds what reading it would have written."""
        for position in range(context.tokens.processed_length):
            for place in self.places(context, position):
                assert (place == self.value(context, position)).all(), position


@pytest.fixture
def writer(session: InferenceSession) -> Writer:
    return Writer(session, 24)


def ids_of(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(1000), k=count)


@pytest.mark.parametrize("common", [1, 100, 127, 128, 129, 200, 255, 256, 299])
def test_an_ended_sequence_is_found_to_the_token(writer: Writer, common: int) -> None:
    first = writer.start(ids_of(300))
    assert first.tokens.processed_length == 0
    writer.run(first, 300)
    writer.cache.release(first)
    again = writer.start(ids_of(300)[:common] + [5000] * 20)
    assert again.tokens.processed_length == common
    assert again.cached_prefix_length == common


def test_the_last_id_always_runs(writer: Writer) -> None:
    first = writer.start(ids_of(300))
    writer.run(first, 300)
    again = writer.start(ids_of(300))
    assert (again.tokens.processed_length, again.tokens.active_length) == (299, 1)


def test_a_running_and_a_cancelled_sequence_are_found_as_far_as_they_came(writer: Writer) -> None:
    first = writer.start(ids_of(500))
    writer.run(first, 200)
    second = writer.start(ids_of(500))
    assert second.tokens.processed_length == 200
    writer.run(second, 70)
    writer.cache.release(second)
    third = writer.start(ids_of(400))
    assert third.tokens.processed_length == 270
    writer.run(first, 300)  # goes on beside it
    writer.check(first)
    writer.check(third)


def test_generated_ids_are_found(writer: Writer) -> None:
    first = writer.start(ids_of(130))
    for _ in range(10):
        writer.run(first, 130)
        writer.cache.alloc(first)
    writer.cache.release(first)
    again = writer.start([*ids_of(130), *[7] * 9, 8, 8])
    assert again.tokens.processed_length == 139


def test_a_page_is_not_trusted_once_it_was_given_away(session: InferenceSession) -> None:
    writer = Writer(session, 4)
    first = writer.start(ids_of(300))
    writer.run(first, 300)
    writer.cache.release(first)
    other = writer.start(ids_of(500, seed=1))  # takes all four pages
    writer.run(other, 500)
    writer.cache.release(other)
    again = writer.start(ids_of(300))
    assert again.tokens.processed_length == 0


def test_what_a_failed_pass_wrote_is_not_shared(writer: Writer) -> None:
    first = writer.start(ids_of(100))
    first.tokens.advance_with_token(0)  # as if it had run
    writer.cache.distrust(first)
    assert writer.start(ids_of(100)).tokens.processed_length == 0
    writer.cache.release(first)
    assert writer.start(ids_of(100)).tokens.processed_length == 0


def test_sequences_of_different_salts_share_nothing(writer: Writer) -> None:
    first = writer.start(ids_of(200), salt="a")
    writer.run(first, 200)
    assert writer.start(ids_of(200), salt="b").tokens.processed_length == 0
    assert writer.start(ids_of(200)).tokens.processed_length == 0
    assert writer.start(ids_of(200), salt="a").tokens.processed_length == 199


def test_five_hundred_random_edits(session: InferenceSession) -> None:
    rng = random.Random(18)
    writer = Writer(session, 40)
    texts = [ids_of(rng.randrange(1, 900), seed) for seed in range(3)]
    running: list[TextContext] = []
    read = []
    for _ in range(500):
        text = rng.choice(texts)
        place = rng.randrange(len(text) + 1) if rng.random() < 0.2 else len(text)
        text[place : place + rng.randrange(3)] = rng.choices(range(1000), k=rng.randrange(4))
        del text[1000:]
        running.append(writer.start([*text, 1]))
        read.append(running[-1].tokens.active_length)
        while running and (len(running) > 3 or rng.random() < 0.5):
            context = rng.choice(running)
            if rng.random() < 0.6 and context.tokens.generated_length < 20:
                writer.run(context, rng.choice([1, 60, 128, 500]))
                writer.cache.alloc(context)
            else:
                writer.check(context)
                writer.cache.release(context)
                running = [other for other in running if other is not context]
    assert sorted(read)[len(read) // 2] < 60  # many were cancelled before they were read


def test_a_prompt_that_waits_cut_finds_all_that_another_has_read(session: InferenceSession) -> None:
    """Cut for a pass of four pages that has not run, while a sequence with the same prompt read all of it."""
    writer, ids = Writer(session, 64), list(range(1, 1400))
    waits, reads = writer.start(ids), writer.start(ids)
    waits.tokens.chunk(512)
    while reads.tokens.processed_length < len(ids):
        writer.run(reads, 512)
    writer.cache.alloc(waits)
    writer.check(waits)
    assert waits.tokens.processed_length == len(ids) - 1
