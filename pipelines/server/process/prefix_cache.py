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

from replit.runtime.kv_cache import PAGE_SIZE, copy_page

Ids = npt.NDArray[np.int64]
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


class PageMemory(Protocol):
    """The memory of the cache's pages."""

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies the first `count` positions of a page, of all layers."""
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


class DevicePages:
    """Pages in a GPU's memory, copied there in the order of its passes."""

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks

    def copy(self, source: int, target: int, count: int) -> None:
        """See PageMemory; whole pages, which cost a GPU nothing."""
        self._blocks[target].inplace_copy_from(self._blocks[source])


class PrefixCache(PagedKVCacheManager):  # type: ignore[misc]  # MAX's package has no types here
    """MAX's cache manager as the scheduler uses it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        (blocks,) = self.get_device_buffer(0).all_buffers
        self.blocks = blocks
        self._memory: PageMemory = HostPages(blocks) if blocks.device.is_host else DevicePages(blocks)
        self._index = PageIndex()
        self._running: dict[str, TextContext] = {}
        self._known: dict[str, tuple[int, int]] = {}  # pages of each running sequence, and how many were full

    def alloc(self, ctx: TextContext) -> KVTransfer:
        """See PagedKVCacheManager; the window of a sequence is advanced past what was found, to the token."""
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
        """Fills the page after those that MAX found from another sequence's, and forgets what the new ones held."""
        start = ctx.tokens.processed_length
        fresh = start
        if start % PAGE_SIZE == 0 and ctx.tokens.active_length > 1:
            for other in self._running.values():
                self._note(other)
            stop = min(start + PAGE_SIZE, start + ctx.tokens.active_length - 1)
            source, count = self._index.best(self._prefix(ctx, start // PAGE_SIZE), ctx.tokens.all[start:stop])
            if count:
                target = pages[start // PAGE_SIZE]
                if source != target:
                    self._memory.copy(source, target, count)
                ctx.tokens.skip_processing(count)
                ctx.cached_prefix_length = (ctx.cached_prefix_length or 0) + count
        for page in pages[-(-fresh // PAGE_SIZE) :]:
            self._index.discard(page)

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
        ids = ctx.tokens.all
        for number, page in enumerate(self._pages(ctx)[: -(-processed // PAGE_SIZE)]):
            start = number * PAGE_SIZE
            held = ids[start : min(start + PAGE_SIZE, processed)].copy()
            self._index.add(page, self._prefix(ctx, number), held)

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
