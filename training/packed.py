"""Token arrays that travel: shards of documents with their kind, compressed.

A shard is an .npz in xz with `ids` (uint16, every document with its end token), `lengths` (of the documents, in
tokens) and `kinds` (uint8, an index into KINDS). Shards are read by as many processes as there are cores.
"""

from __future__ import annotations

import io
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

KINDS = ("files", "fim", "snippets", "textbook")
# Ids are pairs of bytes, which the compressor may know.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26, "lc": 0, "lp": 1, "pb": 1}]

Ids = npt.NDArray[np.uint16]


def write_shard(path: Path, documents: list[Ids], kinds: list[int]) -> int:
    """Writes one shard; returns its size in bytes."""
    buffer = io.BytesIO()
    lengths = np.array([len(d) for d in documents], np.uint32)
    np.savez(buffer, ids=np.concatenate(documents), lengths=lengths, kinds=np.array(kinds, np.uint8))
    path.write_bytes(lzma.compress(buffer.getvalue(), lzma.FORMAT_XZ, filters=FILTERS))
    return path.stat().st_size


def _read_shard(path: Path) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as file:
        return dict(file)


def read_shards(paths: list[Path]) -> dict[str, tuple[Ids, npt.NDArray[np.int64]]]:
    """By kind: the ids of all its documents, and where each document starts. Kinds without documents are left out."""
    if not paths:
        raise FileNotFoundError("no shards; expected files *.xz as training.pack writes them: pack the corpus first")
    with ThreadPoolExecutor() as pool:  # the decompressor lets other threads run
        shards = list(pool.map(_read_shard, paths))
    out = {}
    for kind, name in enumerate(KINDS):
        parts, lengths = [], []
        for shard in shards:
            of_kind = shard["kinds"] == kind
            parts.append(shard["ids"][np.repeat(of_kind, shard["lengths"])])
            lengths.append(shard["lengths"][of_kind])
        sizes = np.concatenate(lengths).astype(np.int64)
        if len(sizes):
            out[name] = np.concatenate(parts), np.cumsum(sizes) - sizes
    return out
