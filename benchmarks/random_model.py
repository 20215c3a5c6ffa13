"""Writes a GGUF file of a published model's shape with random weights: speed does not depend on their values.

python -m benchmarks.random_model OUT.gguf --layers 4 --encoding bfloat16
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np

from pipelines.registry import open_model
from refact.architecture import REFACT
from refact.config import RefactConfig
from refact.weight_names import expected_shapes as refact_shapes
from replit.architecture import REPLIT
from replit.config import ReplitConfig
from replit.weight_names import expected_shapes
from weights.quantization import quantize
from weights.tensor import Encoding

# The published models, by the facts of their model cards.
SHAPES: dict[str, ReplitConfig | RefactConfig] = {
    "v1_5-3b": ReplitConfig(
        d_model=3072, n_heads=24, n_kv_heads=8, n_layers=32, ffn_size=12288, vocab_size=32768, max_seq_len=4096,
        alibi_bias_max=8.0, layer_norm_eps=1e-5, softmax_scale=128**-0.5, clip_qkv=None, tied_embeddings=True,
    ),
    "v1-3b": ReplitConfig(
        d_model=2560, n_heads=32, n_kv_heads=32, n_layers=32, ffn_size=10240, vocab_size=32768, max_seq_len=2048,
        alibi_bias_max=8.0, layer_norm_eps=1e-5, softmax_scale=80**-0.5, clip_qkv=None, tied_embeddings=True,
    ),
    "refact-1_6b": RefactConfig(
        d_model=2048, n_heads=32, n_kv_heads=1, n_layers=32, ffn_size=5632, vocab_size=49216, max_seq_len=4096,
        alibi_bias_max=8.0, layer_norm_eps=1e-5, softmax_scale=64**-0.5, tied_embeddings=False,
    ),
}  # fmt: skip
_TYPES = {
    Encoding.FLOAT32: gguf.GGMLQuantizationType.F32,
    Encoding.BFLOAT16: gguf.GGMLQuantizationType.BF16,
    Encoding.Q8_0: gguf.GGMLQuantizationType.Q8_0,
    Encoding.Q4_0: gguf.GGMLQuantizationType.Q4_0,
    Encoding.Q4_K: gguf.GGMLQuantizationType.Q4_K,
    Encoding.Q6_K: gguf.GGMLQuantizationType.Q6_K,
}


def write(path: Path, config: ReplitConfig | RefactConfig, encoding: Encoding) -> None:
    """Writes the file. Quantized matrices repeat the same megabyte of random rows, so that gigabytes take seconds;
    bfloat16 has no two rows alike, so that logits can be compared."""
    architecture = REFACT if isinstance(config, RefactConfig) else REPLIT
    shapes = refact_shapes(config) if isinstance(config, RefactConfig) else expected_shapes(config)
    writer = gguf.GGUFWriter(path, architecture.gguf_name, use_temp_file=False)
    architecture.add_gguf_config(writer, config)
    _add_tokenizer(writer, config.vocab_size)
    shared = Encoding.Q8_0 if encoding in (Encoding.Q4_0, Encoding.Q4_K) else encoding
    chosen: dict[str, tuple[Encoding, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        kind = Encoding.FLOAT32 if len(shape) == 1 else shared if name == "token_embd.weight" else encoding
        chosen[name] = kind, shape
        stored = shape if kind is Encoding.FLOAT32 else (*shape[:-1], kind.row_bytes(shape[-1]))
        size = int(np.prod(stored)) * (4 if kind is Encoding.FLOAT32 else 1)
        dtype = np.dtype(np.float32 if kind is Encoding.FLOAT32 else np.uint8)
        writer.add_tensor_info(name, list(stored), dtype, size, None if kind is Encoding.FLOAT32 else _TYPES[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for seed, (kind, shape) in enumerate(chosen.values()):
        writer.write_tensor_data(_tensor(kind, shape, seed))
    writer.close()


def _tensor(encoding: Encoding, shape: tuple[int, ...], seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if len(shape) == 1:
        return 1 + generator.standard_normal(shape, np.float32) / 10
    if encoding is Encoding.BFLOAT16:
        return _random_bfloat16(generator, shape)
    rows = generator.standard_normal((min(64, shape[0]), shape[1]), np.float32) / np.sqrt(shape[1])
    block = quantize(rows, encoding).reshape(len(rows), -1)
    return np.resize(block, (shape[0], block.shape[1]))


def _random_bfloat16(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes of signed values between s and 2 s, s the power of two that makes their mean square about 1 / columns."""
    bits = np.frombuffer(generator.bytes(2 * int(np.prod(shape))), np.uint16)
    exponent = 127 + round(np.log2(1 / (1.53 * np.sqrt(shape[1]))))  # 1.53: root mean square of 1 to 2
    bits = (bits & np.uint16(0x807F)) | np.uint16(exponent << 7)
    return bits.view(np.uint8).reshape(shape[0], -1)


def _add_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    # nano's tokenizer, filled up to the size of the vocabulary: readers insist on one.
    nano = open_model("nano", None, None).checkpoint.metadata
    tokens = list(nano["tokenizer.ggml.tokens"])
    filler = vocab_size - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(nano["tokenizer.ggml.pre"]))
    writer.add_token_list(tokens + [f"[UNUSED{i}]" for i in range(filler)])
    writer.add_token_types([int(t) for t in nano["tokenizer.ggml.token_type"]] + [5] * filler)
    writer.add_token_merges(list(nano["tokenizer.ggml.merges"]))
    writer.add_eos_token_id(int(nano["tokenizer.ggml.eos_token_id"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="v1_5-3b")
    parser.add_argument("--layers", type=int, help="default: the model's own number")
    parser.add_argument("--encoding", type=Encoding, default=Encoding.BFLOAT16)
    arguments = parser.parse_args()
    from dataclasses import replace

    config = SHAPES[arguments.shape]
    write(arguments.out, replace(config, n_layers=arguments.layers or config.n_layers), arguments.encoding)


if __name__ == "__main__":
    main()
