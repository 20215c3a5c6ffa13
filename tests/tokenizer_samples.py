"""Texts and tokenizers that the tests of tokenizers share."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from model_files import (
    MERGES,
    vocabulary,
)

from weights.files.checkpoint import Checkpoint

ROOT = Path(__file__).parent.parent
TOKENS, TYPES = vocabulary()
IDS = {token: index for index, token in enumerate(TOKENS)}

SAMPLES = [
    "",
    "def add(a, b):\n    return a + b\n",
    "  \t leading and trailing \n\n\n",
    "x = 'déjà vu'  # naïve — “quotes” …",
    "数字 12 и 3.14e-10, ½ ² ٣",
    "🦙🧑‍💻 \u200b\u00a0\ufeff",
    "it's we'll I'M DON'T 's",
    "0123456789 v1_5 1234567",
    "\r\n\x00\x01\x7f\x80\uffff\U0010ffff",
    "<|endoftext|><fim_prefix>a<fim_suffix> b<fim_middle>",
    " " * 33 + "x" + " " * 7,
]


def checkpoint_of(**keys: Any) -> Checkpoint:
    """A checkpoint with only a tokenizer in it; a key of None is left out."""
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "replit",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": 0,
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    kept = {key: value for key, value in metadata.items() if value is not None}
    return Checkpoint(Path("m.gguf"), "gguf", {}, kept)


def random_code(count: int) -> list[str]:
    """Lines of this project, cut and joined at random."""
    lines = [
        line for file in sorted((ROOT / "weights").glob("*.py")) for line in file.read_text().splitlines(keepends=True)
    ]
    source = random.Random(0)
    return ["".join(source.sample(lines, 3))[source.randrange(9) :] for _ in range(count)]


def library_lines(count: int) -> list[str]:
    """Random lines of Python's own library, their indentation and end included."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    lines = [
        line for file in files for line in file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    ]
    return random.Random(1).sample(lines, count)
