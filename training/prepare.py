"""Turns the corpus into token arrays: whole files, fill-in-the-middle segments, and single functions and classes.

    python -m training.prepare --data DIR

Half of the files go to `files`, half are cut into segments and rearranged (`fim`). From all of them the functions
and classes make `snippets`. Writes DIR/{files,fim,snippets,heldout}.npz with `ids` (uint16) and `starts`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from training.fim import END, SPECIAL_TOKENS, rearrange, segments
from training.snippets import snippets

PACKAGE_CAP = 16_000_000  # bytes of one package at most: no project's manner should dominate
TEST_SHARE = 0.25  # of the test files
SOURCES = ("files", "fim", "snippets")


def read_corpus(path: Path, seed: int) -> list[dict[str, str]]:
    """The files in random order, packages capped and tests thinned out."""
    rng = random.Random(seed)
    with path.open() as f:
        rows = [json.loads(line) for line in f]
    rng.shuffle(rows)
    taken: defaultdict[str, int] = defaultdict(int)
    kept = []
    for row in rows:
        if (row["test"] and rng.random() > TEST_SHARE) or any(t in row["text"] for t in SPECIAL_TOKENS):
            continue
        if taken[row["package"]] < PACKAGE_CAP:
            taken[row["package"]] += len(row["text"])
            kept.append(row)
    return kept


def documents(rows: list[dict[str, str]], seed: int) -> dict[str, list[str]]:
    """The texts of each source."""
    rng, snippet_rng = random.Random(seed), random.Random(seed + 1)
    out: dict[str, list[str]] = {name: [] for name in SOURCES}
    seen: set[bytes] = set()
    for row in tqdm(rows, desc="cut"):
        if rng.random() < 0.5:
            out["files"].append(row["text"])
        else:
            out["fim"].extend(rearrange(s, rng) for s in segments(row["text"], rng))
        for snippet in () if row["test"] else snippets(row["text"], snippet_rng):
            digest = hashlib.sha256(snippet.encode()).digest()
            if digest not in seen:
                seen.add(digest)
                out["snippets"].append(snippet)
    rng.shuffle(out["fim"])
    rng.shuffle(out["snippets"])
    return out


def encode(texts: list[str], tokenizer: Tokenizer, name: str) -> dict[str, np.ndarray]:
    """All texts as ids, each followed by the end token, and the position where each starts."""
    pieces, starts, position = [], [], 0
    for at in tqdm(range(0, len(texts), 500), desc=name):
        for encoding in tokenizer.encode_batch_fast([t + END for t in texts[at : at + 500]]):
            pieces.append(np.array(encoding.ids, dtype=np.uint16))
            starts.append(position)
            position += len(encoding.ids)
    return {"ids": np.concatenate(pieces), "starts": np.array(starts, dtype=np.int64)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and tokenizer.json")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.data / "tokenizer.json"))
    texts = documents(read_corpus(args.data / "train.jsonl", args.seed), args.seed)
    with (args.data / "heldout.jsonl").open() as f:
        texts["heldout"] = [r["text"] for r in map(json.loads, f) if not r["test"]]
    for name, rows in texts.items():
        arrays = encode(rows, tokenizer, name)
        np.savez(args.data / f"{name}.npz", **arrays)
        size = sum(len(t.encode()) for t in rows)
        print(f"{name}: {len(rows)} documents, {size} bytes, {len(arrays['ids'])} tokens")


if __name__ == "__main__":
    main()
