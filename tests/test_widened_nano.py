"""nano in the body of the 3.3B model computes what nano computes: greedy text, logits, the same tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.widened_nano import widen
from pipelines.pipeline import Pipeline, load
from pipelines.registry import open_model
from replit.decoder.alibi import alibi_slopes
from weights.tensor import Encoding

PROMPTS = (
    "def fibonacci(n):\n",
    "import os\n\n\ndef read_lines(path):\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(",
)


def test_heads_have_the_slopes_of_those_they_become() -> None:
    np.testing.assert_allclose(alibi_slopes(24, 8.0)[[3, 7, 11, 15]], alibi_slopes(4, 8.0), rtol=1e-6)


def test_vocabulary_smaller_than_nanos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected at least nano's 6 and 8192"):
        widen(open_model("nano", None, None), tmp_path / "wide.gguf", 8, Encoding.Q4_0, 4096)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [None, 10240])
def test_greedy_text_is_nanos(tmp_path: Path, vocabulary: int | None) -> None:
    path = tmp_path / "wide.gguf"
    widen(open_model("nano", None, None), path, 7, Encoding.FLOAT32, vocabulary)
    nano: Pipeline = load(max_length=256, quantization_encoding="float32")
    wide = load(weight_path=str(path), max_length=256)
    assert (wide.config.d_model, wide.config.n_heads, wide.config.n_layers) == (3072, 24, 7)
    for prompt in PROMPTS:
        assert wide.generate(prompt, max_new_tokens=48).token_ids == nano.generate(prompt, max_new_tokens=48).token_ids
    ids = nano.encode("".join(PROMPTS))
    logits = wide.logits(ids)[:, : nano.tokenizer.vocab_size]
    np.testing.assert_allclose(logits, nano.logits(ids), atol=2e-3)
