"""Microseconds to choose a token in each of the ways that clients ask for, most of them without `top_k`.

    python -m benchmarks.sampling                                   # nano's logits of a module of Python's library
    python -m benchmarks.sampling --model MODEL.gguf --text FILE
    python -m benchmarks.sampling --vocabulary 50368                # random logits, no model

Medians over the positions of the text. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.engine.sampling import LLAMA_ORDER, SamplingParams, sample

POSITIONS = 300
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "greedy, repetition penalty": {"temperature": 0.0, "repetition_penalty": 1.1},
    "OpenAI's defaults": {"temperature": 1.0, "top_k": 0},
    "temperature 0.2": {"temperature": 0.2, "top_k": 0},
    "top_p 0.95": {"temperature": 0.8, "top_k": 0, "top_p": 0.95},
    "min_p 0.05": {"temperature": 0.8, "top_k": 0, "min_p": 0.05},
    "top_k 40": {"temperature": 0.8, "top_k": 40},
    "llama.cpp's defaults": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "order": LLAMA_ORDER},
}


def model_logits(model: str, text: str) -> tuple[list[int], npt.NDArray[np.float32]]:
    """The first ids of a text, and the logits `[n, vocab]` after them."""
    from pipelines.pipeline import load

    pipeline = load(model, max_length=POSITIONS + 1, draft="none")
    ids = pipeline.tokenizer.encode(text)[:POSITIONS]
    return ids, pipeline.logits(ids)


def random_logits(vocabulary: int) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Ids and logits `[n, vocab]` as flat as a model's that knows nothing."""
    generator = np.random.default_rng(0)
    ids: list[int] = generator.integers(0, vocabulary, POSITIONS).tolist()
    return ids, 3 * generator.standard_normal((POSITIONS, vocabulary), np.float32)


def microseconds(ids: list[int], logits: npt.NDArray[np.float32], params: SamplingParams) -> float:
    """Median time of a token."""
    generator = np.random.default_rng(0)
    seconds = []
    for position, row in enumerate(logits):
        begun = time.perf_counter()
        sample(row, params, ids[:position], (), generator)
        seconds.append(time.perf_counter() - begun)
    return 1e6 * median(seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--text", type=Path, default=Path(textwrap.__file__))
    parser.add_argument("--vocabulary", type=int, help="random logits of so many ids instead of a model's")
    args = parser.parse_args()
    if args.vocabulary:
        ids, logits = random_logits(args.vocabulary)
    else:
        ids, logits = model_logits(args.model, args.text.read_text(encoding="utf-8"))
    found = {name: round(microseconds(ids, logits, SamplingParams(**params)), 1) for name, params in WAYS.items()}
    print(json.dumps({"vocabulary": logits.shape[1], "positions": len(logits)} | found))


if __name__ == "__main__":
    main()
