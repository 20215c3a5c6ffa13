"""Exact and near duplicates among files: sha256 of the text, then MinHash over runs of three lines.

Two files whose estimated Jaccard similarity reaches the threshold are duplicates; the first one is kept.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

BANDS, ROWS = 16, 4  # similarity 0.8 is found with probability 0.9998, 0.5 with 0.64 (then compared)
_PRIME = (1 << 31) - 1
_rng = np.random.default_rng(5)
_MULTIPLY = _rng.integers(1, _PRIME, (BANDS * ROWS, 1), dtype=np.int64)
_ADD = _rng.integers(0, _PRIME, (BANDS * ROWS, 1), dtype=np.int64)


def shingles(text: str) -> np.ndarray:
    """Hashes of all runs of three consecutive non-blank lines, int64 below 2^31."""
    lines = [s for s in (line.strip() for line in text.splitlines()) if s]
    runs = ("\n".join(lines[i : i + 3]) for i in range(max(1, len(lines) - 2)))
    return np.unique(np.fromiter((zlib.crc32(r.encode()) & _PRIME for r in runs), dtype=np.int64))


def signature(hashes: np.ndarray) -> np.ndarray:
    """MinHash signature [BANDS * ROWS]: the minimum of each hash function over the set."""
    return ((hashes * _MULTIPLY + _ADD) % _PRIME).min(axis=1)


class Deduplicator:
    """Remembers what it has seen; `is_new` is False for a copy or a near copy of it."""

    def __init__(self, threshold: float = 0.7) -> None:
        self.threshold = threshold
        self.exact = self.near = 0
        self._seen: set[bytes] = set()
        self._signatures: list[np.ndarray] = []
        self._buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)

    def is_new(self, text: str) -> bool:
        """Checks one file and remembers it if it is new."""
        digest = hashlib.sha256(text.encode()).digest()
        if digest in self._seen:
            self.exact += 1
            return False
        self._seen.add(digest)
        sig = signature(shingles(text))
        keys = [(b, sig[b * ROWS : (b + 1) * ROWS].tobytes()) for b in range(BANDS)]
        candidates = {i for key in keys for i in self._buckets[key]}
        if any((self._signatures[i] == sig).mean() >= self.threshold for i in candidates):
            self.near += 1
            return False
        for key in keys:
            self._buckets[key].append(len(self._signatures))
        self._signatures.append(sig)
        return True


def unique(texts: Iterable[str], dedup: Deduplicator) -> Iterator[str]:
    """The texts that are new to `dedup`, in order."""
    return (text for text in texts if dedup.is_new(text))
