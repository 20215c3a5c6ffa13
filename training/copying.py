"""How well a model copies: what a token costs in a text that stands twice.

    python -m training.copying --data DIR [--model FILE.gguf] [--count 40]

Each text is 200 tokens from a held-out file followed by the same 200 tokens; counted are the nats of the second time.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

import pipelines
from training.heldout_tasks import read_files

LENGTH = 200  # tokens that are repeated


def nats_of_repetition(model: pipelines.Pipeline, texts: list[str], count: int) -> tuple[float, float]:
    """Mean nats a token of the first and the second time, over pieces of `count` files drawn by seed."""
    rng = random.Random(4)
    found = []
    while len(found) < count:
        ids = model.tokenizer.encode(rng.choice(texts))
        if len(ids) < 3 * LENGTH:
            continue
        start = rng.randrange(len(ids) - LENGTH)
        piece = ids[start : start + LENGTH]
        twice = piece + piece
        logits = model.logits(twice).astype(np.float64)
        peak = logits.max(axis=1)
        log_sum = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        nats = log_sum[:-1] - logits[np.arange(len(twice) - 1), twice[1:]]
        found.append((nats[: LENGTH - 1].mean(), nats[LENGTH:].mean()))
    first, second = np.mean(found, axis=0)
    return float(first), float(second)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with heldout.jsonl")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=40)
    args = parser.parse_args()
    model = pipelines.load(args.model, max_length=1024)
    first, second = nats_of_repetition(model, read_files(args.data / "heldout.jsonl"), args.count)
    print(f"{first:.3f} nats a token the first time, {second:.3f} the second time, {LENGTH} tokens later")


if __name__ == "__main__":
    main()
