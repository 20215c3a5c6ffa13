"""Trains nano's byte-level BPE tokenizer.

    python -m training.tokenizer --data DIR

The pre-split is that of llama.cpp's "refact" and "starcoder": every digit alone, then GPT-2's pattern. A newline
and the indent after it (but for its last blank, which belongs to the next word) become one token by merging.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from training.fim import SPECIAL_TOKENS

VOCAB_SIZE = 16384
SAMPLE_BYTES = 60_000_000


def sample(path: Path, seed: int) -> Iterator[str]:
    """Random files of the corpus, about SAMPLE_BYTES of them; test code at a quarter."""
    rng = random.Random(seed)
    keep = SAMPLE_BYTES / path.stat().st_size
    with path.open() as f:
        for line in f:
            row = json.loads(line)
            if rng.random() < keep * (0.25 if row["test"] else 1.25):
                yield row["text"]


def train(texts: Iterator[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Byte-level BPE over the texts; the special tokens take ids 0 to 4."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=48,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl")
    parser.add_argument("--vocab-size", type=int, default=VOCAB_SIZE)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokenizer = train(sample(args.data / "train.jsonl", args.seed), args.vocab_size)
    tokenizer.save(str(args.data / "tokenizer.json"))
    print(f"{tokenizer.get_vocab_size()} entries")


if __name__ == "__main__":
    main()
