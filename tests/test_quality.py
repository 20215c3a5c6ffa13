"""What quantization costs nano, and llama.cpp's agreement, on the standard library's code."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="compares with llama.cpp")

from benchmarks.quality import llama_cpp, llama_quantize, ours, score, texts, windows
from pipelines.registry import locate
from replit.architecture import REPLIT
from replit.decoder import gguf_export
from weights.files.checkpoint import open_checkpoint
from weights.tensor import Encoding
from weights.tokenizers.load import load_tokenizer

#: llama-quantize's type, and how much more than it our file may lose: the noise of 1 000 tokens.
PEERS = {Encoding.Q8_0: "Q8_0", Encoding.Q4_0: "Q4_0", Encoding.Q4_K: "Q4_K_M", Encoding.Q6_K: "Q6_K"}
NOISE = 0.001


@pytest.mark.slow
@pytest.mark.parametrize("encoding", PEERS)
def test_a_quantized_nano_loses_no_more_than_llama_cpps(encoding: Encoding, tmp_path: Path) -> None:
    source = open_checkpoint(locate("nano", None, None))
    tokenizer = load_tokenizer(source)
    sample = windows(texts([Path(argparse.__file__), Path(subprocess.__file__)]), tokenizer, 1_500)
    files = {e: tmp_path / f"{e}.gguf" for e in (Encoding.FLOAT32, encoding)}
    for target, path in files.items():
        gguf_export.write(gguf_export.plan(source, "nano", target, REPLIT), path)
    theirs = llama_quantize(files[Encoding.FLOAT32], tmp_path / "theirs.gguf", PEERS[encoding])
    exact = score(llama_cpp(files[Encoding.FLOAT32]), sample).bits_per_byte
    own = score(ours(files[encoding]), sample)
    peer = score(llama_cpp(theirs), sample)
    assert own.bits_per_byte - exact <= 1.05 * (peer.bits_per_byte - exact) + NOISE
    same = score(llama_cpp(files[encoding]), sample).best == own.best
    assert len(same) >= 1_000
    assert np.mean(same) >= 0.98
