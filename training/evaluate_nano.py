"""Measures nano on the held-out packages through the product's Python interface.

    python -m training.evaluate_nano --data DIR [--model FILE.gguf] [--count 500]

Greedy. Prints one JSON object: how often a completed function parses, exact match of the next line and of a middle
line with and without the text after it, bits per byte beside gzip -9 and xz, and samples drawn by seed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

import pipelines
from pipelines.prompts.fim import fim_prompt
from training import heldout_tasks as tasks
from training.filters import parses

WINDOW = 1024  # tokens; each token is scored with at least WINDOW / 2 before it where the file has them


def generate(
    model: pipelines.Pipeline, prompts: list[str] | list[list[int]], **sampling: object
) -> Iterator[pipelines.Completion]:
    """Greedy completions in order, 16 prompts at a time."""
    for at in tqdm(range(0, len(prompts), 16), desc="generate", mininterval=5):
        yield from model.generate_batch(prompts[at : at + 16], top_k=1, **sampling)


def parse_rates(model: pipelines.Pipeline, files: list[str], count: int) -> dict[str, float]:
    """Share of completed functions (96 tokens) that parse, cut at the last line or logical line."""
    heads = tasks.completions(files, count)
    texts = []
    for head, completion in zip(heads, generate(model, heads, max_new_tokens=96), strict=True):
        ended = "\n" if completion.finish_reason == "stop" else ""
        texts.append(head + completion.text + ended)
    return {
        "parse": sum(parses(tasks.cut_at_line(t)) for t in texts) / count,
        "parse_logical_line": sum(parses(tasks.cut_at_logical_line(t)) for t in texts) / count,
    }


def line_matches(model: pipelines.Pipeline, files: list[str], count: int) -> dict[str, float]:
    """Exact match of a line: from the text before it, up to its newline, and filled in before the text after it."""
    lines = tasks.lines(files, count)
    following = generate(model, [line.prefix for line in lines], max_new_tokens=40)
    between = [fim_prompt(model.tokenizer, x.prefix, x.suffix, 2 * WINDOW - 40).ids for x in lines]
    filled = generate(model, between, max_new_tokens=40, stop="\n")
    answers = zip(lines, following, filled, strict=True)
    hits = [(tasks.first_line(a.text) == x.target, b.text.rstrip() == x.target) for x, a, b in answers]
    next_line, middle = np.mean(hits, axis=0)
    return {"next_line": float(next_line), "middle_line_with_suffix": float(middle)}


def _nats(model: pipelines.Pipeline, ids: list[int]) -> float:
    """Negative log likelihood of the ids after the first, in overlapping windows."""
    total, scored, start = 0.0, 1, 0
    while scored < len(ids):
        window = ids[start : start + WINDOW]
        logits = model.logits(window).astype(np.float64)
        peak = logits.max(axis=1)
        log_sum = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        at = np.arange(scored - start, len(window))
        total += float((log_sum[at - 1] - logits[at - 1, np.array(window)[at]]).sum())
        scored = start + len(window)
        start += WINDOW // 2
    return total


def bits_per_byte(model: pipelines.Pipeline, files: list[str], count: int) -> dict[str, float]:
    """Of `count` files drawn by seed; gzip and xz compress the same files joined into one."""
    chosen = random.Random(3).sample(files, min(count, len(files)))
    end = model.tokenizer.encode("<|endoftext|>")
    nats = sum(_nats(model, [*end, *model.tokenizer.encode(text)]) for text in tqdm(chosen, desc="score"))
    joined = "".join(chosen).encode()
    return {
        "bytes": len(joined),
        "bits_per_byte": nats / np.log(2) / len(joined),
        "gzip": 8 * len(gzip.compress(joined, 9)) / len(joined),
        "xz": 8 * len(lzma.compress(joined, preset=9 | lzma.PRESET_EXTREME)) / len(joined),
    }


def samples(model: pipelines.Pipeline, files: list[str]) -> list[str]:
    """Four function heads drawn by seed, completed."""
    heads = tasks.completions(files, 504)[500:]
    return [h + c.text for h, c in zip(heads, generate(model, heads, max_new_tokens=96), strict=True)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with heldout.jsonl")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=500, help="questions of each kind")
    parser.add_argument("--score-files", type=int, default=60, help="files for bits per byte")
    args = parser.parse_args()
    files = tasks.read_files(args.data / "heldout.jsonl")
    model = pipelines.load(args.model, max_length=2 * WINDOW, max_batch_size=16)
    started = time.time()
    result: dict[str, object] = {"model": args.model, "count": args.count}
    measures = (
        (parse_rates, args.count),
        (line_matches, args.count),
        (bits_per_byte, args.score_files),
    )
    for measure, count in measures:
        found = measure(model, files, count)
        print(json.dumps(found), file=sys.stderr)  # kept if a later measure is cut off
        result |= found
    result |= {"samples": samples(model, files), "seconds": round(time.time() - started)}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
