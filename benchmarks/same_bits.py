"""Logits bit for bit the same whatever the passes a prompt is read in, the batch, the threads, the weights' layout.

python -m benchmarks.same_bits FOLDER --models nano 2 --prompts 300 --splits 5

A model is nano or so many layers of the 3.3B shape, whose files are made in FOLDER. Each prompt of 100 to 1 500 tokens
goes through in one pass, then in random splits, alone and with seven others. Prints a line for each run; exits with 1
if any logit differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weights.tensor import Encoding

ENCODINGS = ("float32", "bfloat16", "q8_0", "q4_0", "q4_k", "q6_k")
BATCH = 8
SAMPLED = 12  # positions of a prompt whose logits are compared, with the last
LONGEST = 1500
Generator = np.random.Generator
Logits = dict[int, npt.NDArray[np.float32]]  # by position


def split(length: int, random: Generator) -> list[int]:
    """Tokens of each pass: two to six parts, and at the end perhaps some tokens one by one."""
    singles = int(random.choice([0, 0, 1, 5]))
    cuts = np.sort(random.choice(np.arange(1, length - singles), int(random.integers(1, 6)), replace=False))
    edges = [0, *cuts.tolist(), length - singles]
    return [last - first for first, last in pairwise(edges)] + [1] * singles


def together(
    model: Any, prompts: Sequence[Sequence[int]], parts: Sequence[Sequence[int]], wanted: Sequence[set[int]]
) -> list[Logits]:
    """Logits at the wanted positions of prompts whose next parts go through together, pass after pass."""
    found: list[Logits] = [{} for _ in prompts]
    at = [0] * len(prompts)
    for slot in range(len(prompts)):
        model.truncate(slot, 0)
    for step in range(max(map(len, parts))):
        slots = [i for i, of in enumerate(parts) if step < len(of)]
        ids, rows, keys = [], [], []
        count = 0
        for slot in slots:
            size = parts[slot][step]
            ids.append(list(prompts[slot][at[slot] : at[slot] + size]))
            for position in sorted(wanted[slot].intersection(range(at[slot], at[slot] + size))):
                rows.append(count + position - at[slot])
                keys.append((slot, position))
            count += size
            at[slot] += size
        logits = model.extend(slots, ids, rows or [count - 1])
        for i, (slot, position) in enumerate(keys):
            row = rows[i] if count == len(slots) else i  # a decode step brings the logits of all
            found[slot][position] = np.array(logits[row])
    return found


def differences(a: Logits, b: Logits) -> int:
    """Positions whose logits differ in any bit."""
    return sum(not np.array_equal(a[p].view(np.uint32), b[p].view(np.uint32)) for p in a)


def check(model: Any, vocabulary: int, longest: int, prompts: int, splits: int) -> dict[str, Any]:
    """Counts of what was compared and what differs, and a digest of the logits of whole prompts."""
    random = np.random.default_rng(16)
    digest = hashlib.sha256()
    compared = different = 0
    for first in range(0, prompts, BATCH):
        lengths = random.integers(100, longest + 1, min(BATCH, prompts - first)).tolist()
        texts = [random.integers(0, vocabulary, length).tolist() for length in lengths]
        wanted = [{n - 1, *random.choice(n, SAMPLED, replace=False).tolist()} for n in lengths]
        whole = [together(model, [text], [[len(text)]], [keys])[0] for text, keys in zip(texts, wanted, strict=True)]
        for logits in whole:
            for position in sorted(logits):
                digest.update(logits[position].tobytes())
        for _ in range(splits):
            parts = [split(n, random) for n in lengths]
            runs = [together(model, texts, parts, wanted)]
            runs.append([together(model, [t], [p], [w])[0] for t, p, w in zip(texts, parts, wanted, strict=True)])
            for run in runs:
                for one, other in zip(whole, run, strict=True):
                    compared += len(one)
                    different += differences(one, other)
    return {"compared": compared, "different": different, "digest": digest.hexdigest()}


def child(arguments: argparse.Namespace) -> None:
    """One run in this process."""
    from pipelines.pipeline import load

    model, encoding, threads, layout = arguments.child
    longest = min(LONGEST, arguments.longest)
    pipeline = load(
        model, quantization_encoding=encoding or None, max_length=1536, max_batch_size=BATCH, threads=int(threads),
        mmap=layout == "mapped",
    )  # fmt: skip
    found = check(pipeline.model, pipeline.config.vocab_size, longest, arguments.prompts, arguments.splits)
    print(json.dumps(found))


def runs(arguments: argparse.Namespace) -> Iterator[tuple[str, str, list[str]]]:
    """Model, encoding, and the path and encoding that `load` takes."""
    from dataclasses import replace

    from benchmarks.random_model import SHAPES, write

    for model in arguments.models:
        for encoding in arguments.encodings:
            if model == "nano":
                yield model, encoding, ["nano", encoding]
                continue
            path = arguments.folder / f"{model}-{encoding}.gguf"
            if not path.exists():
                write(path, replace(SHAPES["v1_5-3b"], n_layers=int(model)), Encoding(encoding))
            yield model, encoding, [str(path), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["nano", "2"])
    parser.add_argument("--encodings", nargs="+", default=list(ENCODINGS))
    parser.add_argument("--threads", nargs="+", default=["1", "2"])
    parser.add_argument("--layouts", nargs="+", choices=["panels", "mapped"], default=["panels"])
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--longest", type=int, default=LONGEST)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    failed = 0
    for model, encoding, what in runs(arguments):
        digests = set()
        for threads in arguments.threads:
            for layout in arguments.layouts:
                options = ["--prompts", str(arguments.prompts), "--splits", str(arguments.splits)]
                options += ["--longest", str(arguments.longest), "--child", *what, threads, layout]
                command = [sys.executable, "-m", "benchmarks.same_bits", str(arguments.folder), *options]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
                if done.returncode:
                    raise SystemExit(f"{model} in {encoding}: ended with {done.returncode}")
                found = json.loads(done.stdout.splitlines()[-1])
                digests.add(found.pop("digest"))
                print(
                    json.dumps(
                        {"model": model, "encoding": encoding, "threads": int(threads), "layout": layout} | found
                    )
                )
                failed += found["different"]
        if len(digests) > 1:
            print(f"{model} in {encoding}: whole prompts differ between threads or layouts")
            failed += 1
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
