"""Packs the corpus into shards that travel to a lent machine (training/packed.py).

    python -m training.pack --data DIR --out DIR
    python -m training.pack --data DIR --out DIR --textbook --human-eval HumanEval.jsonl.gz
    python -m training.pack --data DIR --out DIR --textbook --human-eval HumanEval.jsonl.gz --focus is_prime bubble_sort

Every file is there whole, cut into segments rearranged for fill-in-the-middle, and as its functions and classes, one
after the other: so the compressor finds each again, and three times the tokens cost little more than once. OUT gets
part-0, part-1 … of at most `--part-bytes`, with tokenizer.json and heldout.npy (rows of held-out packages) in part-0.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Collection, Iterator
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training import contamination
from training.fim import END, rearrange, segments
from training.indents import IndentSplitter
from training.packed import KINDS, Ids, write_shard
from training.prepare import read_corpus
from training.snippets import snippets
from training.variants import collection, document

SHARD_CHARS = 14_000_000
HELDOUT_ROWS, HELDOUT_TOKENS = 64, 1025
VARIANTS, FEW = 60, 2  # of each definition of the collection
FIM_SHARE = 0.3  # of the textbook documents
# Packages that teach, or whose functions are short and stand for themselves.
TEACHING = set(
    """algorithms algorithmadts algorithms-lib algos-py algozen arprax-algorithms boltons core-algorithms
    core-data-structures cs-algorithms data-structure-hub data-structures-lib dsa-toolkit funcy humanize inflection
    more-itertools pydash pydatastructs pygorithm sortedcontainers textdistance toolz validators""".split()
)

Row = dict[str, str]


def documents(row: Row, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Kind and text of everything that a file gives."""
    yield "files", row["text"]
    for segment in segments(row["text"], rng):
        yield "fim", rearrange(segment, rng)
    for snippet in () if row["test"] else snippets(row["text"], rng):
        yield "snippets", snippet


def textbook_documents(
    rows: list[Row], problems: dict[str, set[int]], seed: int, focus: Collection[str] = ()
) -> list[tuple[str, str]]:
    """The collection in VARIANTS ways and the functions of teaching packages, some for fill-in-the-middle.

    With a `focus` only definitions of those names, in any of their ways, have so many; all others have FEW, and
    packages are left out. What shares a run of words with one of `problems` (training/contamination.py) is left out.
    """
    rng = random.Random(seed)
    known = collection()
    names = [each.called for each in known]
    if unknown := set(focus).difference(names):
        raise SystemExit(f"the textbook has no {min(unknown)}; expected names of its definitions")
    counts = [VARIANTS if not focus or name in focus else FEW for name in names]
    texts = [document(known, at, rng) for at, count in enumerate(counts) for _ in range(count)]
    for row in () if focus else rows:
        if row["package"] in TEACHING and not row["test"]:
            texts.extend(snippets(row["text"], rng))
    texts = [text for text in texts if not contamination.hits(text, problems)]
    rng.shuffle(texts)
    return [("textbook", rearrange(text, rng) if rng.random() < FIM_SHARE else text) for text in texts]


def encode(documents: list[tuple[str, str]], tokenizer: Tokenizer, seed: int) -> tuple[list[Ids], list[int]]:
    """Ids of each document with its end token and some split indents, and its kind."""
    split, rng = IndentSplitter(tokenizer), np.random.default_rng(seed)
    ids: list[Ids] = []
    for at in range(0, len(documents), 1000):
        encodings = tokenizer.encode_batch_fast([text + END for _, text in documents[at : at + 1000]])
        ids += [split(np.array(e.ids, np.uint16), rng, keep_length=False) for e in encodings]
    return ids, [KINDS.index(kind) for kind, _ in documents]


def pack_shard(job: tuple[int, list[Row], Path, Path]) -> tuple[int, int]:
    """Writes one shard; its bytes and tokens."""
    number, rows, tokenizer_json, path = job
    rng = random.Random(number)
    found = list(dict.fromkeys(d for row in rows for d in documents(row, rng)))  # the same text only once
    ids, kinds = encode(found, Tokenizer.from_file(str(tokenizer_json)), number)
    return write_shard(path, ids, kinds), sum(map(len, ids))


def shards_of(rows: list[Row]) -> Iterator[list[Row]]:
    """Rows by package, so that like stands beside like, in shards of about SHARD_CHARS."""
    shard: list[Row] = []
    size = 0
    for row in sorted(rows, key=lambda r: (r["package"], r["path"])):
        shard.append(row)
        size += len(row["text"])
        if size > SHARD_CHARS:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def heldout_rows(path: Path, tokenizer: Tokenizer) -> Ids:
    """Evenly spaced rows [HELDOUT_ROWS, HELDOUT_TOKENS] of the held-out packages without tests."""
    with path.open() as file:
        texts = [row["text"] + END for row in map(json.loads, file) if not row["test"]]
    ids = np.concatenate([np.array(e.ids, np.uint16) for e in tokenizer.encode_batch_fast(texts)])
    starts = np.linspace(0, len(ids) - HELDOUT_TOKENS, HELDOUT_ROWS).astype(int)
    return np.stack([ids[s : s + HELDOUT_TOKENS] for s in starts])


def into_parts(shards: list[Path], out: Path, part_bytes: int) -> int:
    """Moves shards into OUT/part-N as they fit; returns how many parts there are."""
    part = size = 0
    for shard in shards:
        if size and size + shard.stat().st_size > part_bytes:
            part, size = part + 1, 0
        folder = out / f"part-{part}"
        folder.mkdir(exist_ok=True)
        size += shard.stat().st_size
        shard.rename(folder / shard.name)
    return part + 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="with train.jsonl, heldout.jsonl, tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the parts")
    parser.add_argument("--part-bytes", type=int, default=40 << 20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--textbook", action="store_true", help="only the textbook")
    parser.add_argument("--human-eval", type=Path, help="HumanEval.jsonl.gz to keep out of the textbook")
    parser.add_argument("--focus", nargs="+", default=(), metavar="NAME", help="definitions of the textbook to repeat")
    parser.add_argument("--every", type=int, default=1, help="only each N-th shard, where cores train instead of a GPU")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.textbook and args.human_eval is None:
        parser.error("--textbook needs --human-eval")
    if args.focus and not args.textbook:
        parser.error("--focus is for --textbook")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes share the cores already
    tokenizer_json = args.data / "tokenizer.json"
    args.out.mkdir(parents=True, exist_ok=True)
    if args.textbook:
        rows = [] if args.focus else read_corpus(args.data / "train.jsonl", args.seed)
        found = textbook_documents(rows, contamination.human_eval(args.human_eval), args.seed, args.focus)
        ids, kinds = encode(found, Tokenizer.from_file(str(tokenizer_json)), args.seed)
        size = write_shard(args.out / "textbook.xz", ids, kinds)
        print(f"{len(ids)} documents, {sum(map(len, ids))} tokens, {size} bytes")
        return
    pack_corpus(args, tokenizer_json)


def pack_corpus(args: argparse.Namespace, tokenizer_json: Path) -> None:
    """Everything but the textbook."""
    shards = list(shards_of(read_corpus(args.data / "train.jsonl", args.seed)))[:: args.every]
    jobs = [(i, rows, tokenizer_json, args.out / f"shard-{i:02}.xz") for i, rows in enumerate(shards)]
    tokens = size = 0
    with Pool(args.processes) as pool:
        for found in pool.imap(pack_shard, jobs):
            size, tokens = size + found[0], tokens + found[1]
            print(f"{size / 1e6:.1f} MB, {tokens / 1e6:.1f} million tokens", flush=True)
    parts = into_parts([path for *_, path in jobs], args.out, args.part_bytes)
    shutil.copy(tokenizer_json, args.out / "part-0")
    heldout = heldout_rows(args.data / "heldout.jsonl", Tokenizer.from_file(str(tokenizer_json)))
    np.save(args.out / "part-0" / "heldout.npy", heldout)
    print(f"{parts} parts")


if __name__ == "__main__":
    main()
