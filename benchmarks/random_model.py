"""Writes a GGUF file of a published model's shape with random weights: speed does not depend on their values.

python -m benchmarks.random_model OUT.gguf --layers 4 --encoding bfloat16
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np

from pipelines.registry import open_model
from replit.config import ReplitConfig
from replit.weight_names import expected_shapes
from weights.quantization import quantize
from weights.tensor import Encoding

# replit-code-v1_5-3b and replit-code-v1-3b, by the facts of their model cards.
SHAPES = {
    "v1_5-3b": ReplitConfig(3072, 24, 8, 32, 12288, 32768, 4096, 8.0, 1e-5, 128**-0.5, None, None, True),
    "v1-3b": ReplitConfig(2560, 32, 32, 32, 10240, 32768, 2048, 8.0, 1e-5, 80**-0.5, None, None, True),
}
_TYPES = {
    Encoding.FLOAT32: gguf.GGMLQuantizationType.F32,
    Encoding.BFLOAT16: gguf.GGMLQuantizationType.BF16,
    Encoding.Q8_0: gguf.GGMLQuantizationType.Q8_0,
    Encoding.Q4_0: gguf.GGMLQuantizationType.Q4_0,
    Encoding.Q4_K: gguf.GGMLQuantizationType.Q4_K,
    Encoding.Q6_K: gguf.GGMLQuantizationType.Q6_K,
}


def write(path: Path, config: ReplitConfig, encoding: Encoding) -> None:
    """Writes the file; every matrix repeats the same megabyte of random rows, so that gigabytes take seconds."""
    writer = gguf.GGUFWriter(path, "mpt", use_temp_file=False)
    _metadata(writer, config)
    shared = Encoding.Q8_0 if encoding in (Encoding.Q4_0, Encoding.Q4_K) else encoding
    chosen: dict[str, tuple[Encoding, tuple[int, ...]]] = {}
    for name, shape in expected_shapes(config).items():
        kind = Encoding.FLOAT32 if len(shape) == 1 else shared if name == "token_embd.weight" else encoding
        chosen[name] = kind, shape
        stored = shape if kind is Encoding.FLOAT32 else (*shape[:-1], kind.row_bytes(shape[-1]))
        size = int(np.prod(stored)) * (4 if kind is Encoding.FLOAT32 else 1)
        dtype = np.dtype(np.float32 if kind is Encoding.FLOAT32 else np.uint8)
        writer.add_tensor_info(name, list(stored), dtype, size, None if kind is Encoding.FLOAT32 else _TYPES[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for kind, shape in chosen.values():
        writer.write_tensor_data(_tensor(kind, shape))
    writer.close()


def _tensor(encoding: Encoding, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(0)
    if len(shape) == 1:
        return 1 + generator.standard_normal(shape, np.float32) / 10
    rows = generator.standard_normal((min(64, shape[0]), shape[1]), np.float32) / np.sqrt(shape[1])
    block = quantize(rows, encoding).reshape(len(rows), -1)
    return np.resize(block, (shape[0], block.shape[1]))


def _metadata(writer: gguf.GGUFWriter, config: ReplitConfig) -> None:
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_size)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_max_alibi_bias(config.alibi_bias_max)
    # nano's tokenizer, filled up to the size of the vocabulary: readers insist on one.
    nano = open_model("nano", None, None).checkpoint.metadata
    tokens = list(nano["tokenizer.ggml.tokens"])
    filler = config.vocab_size - len(tokens)
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
