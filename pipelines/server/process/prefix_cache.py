"""MAX's paged cache, with reuse to the token.

MAX finds whole pages only. Here the page after them is found too: of all pages that continue the same prefix, in
sequences that ended, were cancelled or still run, the one with the longest common beginning is copied into the
sequence's own page, as far as it is common. What a page held stays known until MAX hands the page out again.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from max.dtype import DType
from max.pipelines.context import TextContext
from max.pipelines.kv_cache import PagedKVCacheManager
from max.pipelines.kv_cache.kv_connector import KVTransfer

from pipelines.engine.sequence import ALONE
from pipelines.server.process.page_store import ROOT, Bytes, Ids, PageStore, digest_of
from replit.runtime.kv_cache import PAGE_SIZE, copy_page

# What stands before a page: the hash of the page before it, or the salt of sequences that share.
Prefix = bytes | str | None


class PageIndex:
    """Which ids each page holds, and after which prefix."""

    def __init__(self) -> None:
        self._pages: dict[Prefix, dict[int, Ids]] = {}
        self._prefixes: dict[int, Prefix] = {}

    def add(self, page: int, prefix: Prefix, ids: Ids) -> None:
        """Notes what is in a page."""
        self.discard(page)
        self._pages.setdefault(prefix, {})[page] = ids
        self._prefixes[page] = prefix

    def discard(self, page: int) -> None:
        """Forgets a page that is going to be written."""
        if page not in self._prefixes:
            return
        prefix = self._prefixes.pop(page)
        pages = self._pages[prefix]
        del pages[page]
        if not pages:
            del self._pages[prefix]

    def best(self, prefix: Prefix, ids: Ids) -> tuple[int, int]:
        """The page that continues `prefix` with most of `ids`, and how many of them; some page and 0 if none does."""
        found = -1, 0
        for page, held in self._pages.get(prefix, {}).items():
            if found[1] < len(ids) and (count := common_length(held, ids)) > found[1]:
                found = page, count
        return found

    def __len__(self) -> int:
        return len(self._prefixes)


def common_length(first: Ids, second: Ids) -> int:
    """How many ids both begin with."""
    length = min(len(first), len(second))
    differ = first[:length] != second[:length]
    return int(differ.argmax()) if differ.any() else length


def stored_root(salt: str | None) -> bytes | None:
    """What stands before the first stored page of those who share a salt; None where nothing is stored."""
    if salt is None:
        return ROOT
    return None if salt.startswith(ALONE) else digest_of(salt.encode(), np.empty(0, np.int64))


class PageMemory(Protocol):
    """The memory of the cache's pages."""

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies the first `count` positions of a page, of all layers."""
        ...

    def __getitem__(self, page: int) -> Bytes:
        """All bytes of a page; not where they are in a GPU's memory."""
        ...


class HostPages:
    """Pages in main memory, as the CPU's attention lays them out."""

    def __init__(self, blocks: Any) -> None:
        # NumPy has no bfloat16
        bits = {DType.float32: DType.uint32, DType.bfloat16: DType.uint16}[blocks.dtype]
        self._blocks: npt.NDArray[np.generic] = blocks.view(bits, blocks.shape).to_numpy()

    def copy(self, source: int, target: int, count: int) -> None:
        """See PageMemory."""
        copy_page(self._blocks, source, target, count)

    def __getitem__(self, page: int) -> Bytes:
        """See PageMemory; what is written to them is in the page."""
        data: Bytes = self._blocks[page].reshape(-1).view(np.uint8)
        return data


class DevicePages:
    """Pages in a GPU's memory, copied there in the order of its passes."""

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks

    def copy(self, source: int, target: int, count: int) -> None:
        """See PageMemory; whole pages, which cost a GPU nothing."""
        rest = (slice(None),) * (len(self._blocks.shape) - 1)
        to, origin = (target, *rest), (source, *rest)
        self._blocks[to].inplace_copy_from(self._blocks[origin])

    def __getitem__(self, page: int) -> Bytes:
        """See PageMemory."""
        raise NotImplementedError("pages in a GPU's memory are not stored")


class PrefixCache(PagedKVCacheManager):  # type: ignore[misc]  # MAX's package has no types here
    """MAX's cache manager as the scheduler uses it."""

    def __init__(self, *arguments: Any, store: PageStore | None = None, **keywords: Any) -> None:
        """As MAX's; `store` keeps pages over a restart."""
        super().__init__(*arguments, **keywords)
        self._store = store
        self._unsaved: dict[int, tuple[bytes, Ids]] = {}  # pages to store, oldest first
        (blocks,) = self.get_device_buffer(0).all_buffers
        self.blocks = blocks
        self._memory: PageMemory = HostPages(blocks) if blocks.device.is_host else DevicePages(blocks)
        self._index = PageIndex()
        self._running: dict[str, TextContext] = {}
        self._known: dict[str, tuple[int, int]] = {}  # pages of each running sequence, and how many were full

    def alloc(self, ctx: TextContext) -> KVTransfer:
        """See PagedKVCacheManager; the window of a sequence is advanced past what was found, to the token."""
        if ctx.tokens.actively_chunked:
            # A prompt that was cut for a pass and not yet run. MAX looks for all of it, and finds more than the cut
            # holds once another sequence has read the same: that would end the worker. The scheduler cuts it again.
            cut = ctx.tokens.active_length
            ctx.tokens.advance_chunk()
            ctx.tokens.rewind_processing(cut)
        transfer = super().alloc(ctx)
        if not self.params.enable_prefix_caching:
            return transfer
        name = str(ctx.request_id)
        pages = self._pages(ctx)
        place = len(pages), ctx.tokens.processed_length // PAGE_SIZE
        if self._known.get(name) != place:  # once a page: a pass may come back here before it is through
            self._continue(ctx, pages)
            self._running[name] = ctx
            self._known[name] = place
        return transfer

    def _continue(self, ctx: TextContext, pages: Several[int]) -> None:
        """Fills pages after those that MAX found, from other sequences' or stored ones; forgets what the rest held."""
        first = -(-ctx.tokens.processed_length // PAGE_SIZE)
        if ctx.tokens.processed_length % PAGE_SIZE == 0 and ctx.tokens.active_length > 1:
            for other in self._running.values():
                self._note(other)
            while self._fill(ctx, pages) == PAGE_SIZE:
                pass
        for page in pages[first:]:
            self._forget(page)

    def _fill(self, ctx: TextContext, pages: Several[int]) -> int:
        """Fills the sequence's next page as far as anything is known of it; how many positions those are."""
        start, tokens = ctx.tokens.processed_length, ctx.tokens
        ids = tokens.all[start : start + min(PAGE_SIZE, tokens.active_length - 1)]
        if not len(ids):
            return 0
        number = start // PAGE_SIZE
        source, count = self._index.best(self._prefix(ctx, number), ids)
        target = pages[number]
        stored = self._load(ctx, number, ids, target, count) if self._store and count < len(ids) else 0
        if not stored and count and source != target:
            self._memory.copy(source, target, count)
        if stored or source != target:
            self._forget(target)
        count = stored or count
        if count:
            tokens.skip_processing(count)
            ctx.cached_prefix_length = (ctx.cached_prefix_length or 0) + count
        return count

    def _load(self, ctx: TextContext, number: int, ids: Ids, target: int, least: int) -> int:
        """Reads a stored page that holds more than `least` of the ids; how many, 0 if there is none."""
        assert self._store is not None
        prefix = stored_root(ctx.cache_salt)
        if prefix is None:
            return 0
        for before in range(number):
            prefix = digest_of(prefix, ctx.tokens.all[before * PAGE_SIZE : (before + 1) * PAGE_SIZE])
        found = [(common_length(page.ids, ids), page) for page in self._store.candidates(prefix)]
        for count, page in sorted(found, key=lambda known: -known[0]):
            if count <= least:
                break
            if (data := self._store.read(page)) is not None:
                self._memory[target][:] = data
                return count
        return 0

    def _forget(self, page: int) -> None:
        self._index.discard(page)
        self._unsaved.pop(page, None)

    @property
    def unsaved(self) -> bool:
        """Whether there are pages to store."""
        return bool(self._unsaved)

    def save_one(self) -> None:
        """Stores the next page."""
        page = next(iter(self._unsaved))
        prefix, ids = self._unsaved.pop(page)
        if self._store is not None:
            self._store.write(prefix, ids, self._memory[page])

    def release(self, ctx: TextContext) -> None:
        """See PagedKVCacheManager; what the pages hold stays known."""
        if self._running.pop(str(ctx.request_id), None) is not None:
            del self._known[str(ctx.request_id)]
            self._note(ctx)
        super().release(ctx)

    def distrust(self, ctx: TextContext) -> None:
        """Keeps what a sequence wrote from others: its last pass failed."""
        if self._running.pop(str(ctx.request_id), None) is not None:
            del self._known[str(ctx.request_id)]

    def _note(self, ctx: TextContext) -> None:
        """Enters a sequence's pages in the index, as far as they were written."""
        self._block_manager.compute_hashes_for_request(ctx)
        processed = ctx.tokens.processed_length
        ids, digest = ctx.tokens.all, stored_root(ctx.cache_salt)
        for number, page in enumerate(self._pages(ctx)[: -(-processed // PAGE_SIZE)]):
            start = number * PAGE_SIZE
            held = ids[start : min(start + PAGE_SIZE, processed)].copy()
            self._index.add(page, self._prefix(ctx, number), held)
            if self._store is not None and digest is not None:
                if not self._store.has(digest, held):
                    self._unsaved[page] = digest, held
                digest = digest_of(digest, held)

    def _prefix(self, ctx: TextContext, number: int) -> Prefix:
        """What stands before a sequence's page of that number."""
        if number == 0:
            salt: str | None = ctx.cache_salt
            return salt
        before: bytes = self._block_manager.req_to_hashes[ctx.request_id][number - 1]
        return before

    def _pages(self, ctx: TextContext) -> list[int]:
        pages: list[int] = self._block_manager.get_req_blocks(ctx)
        return pages
