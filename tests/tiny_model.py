"""Writes a small model with random weights as the hub holds one: safetensors, config, tokenizer."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from click.testing import CliRunner, Result
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from pipelines.commands.convert import convert
from weights.quantization import quantize
from weights.tensor import Encoding

Array = npt.NDArray[np.float32]

CONFIG: dict[str, Any] = {
    "architectures": ["MPTForCausalLM"],
    "model_type": "mpt",
    "d_model": 256,
    "n_heads": 4,
    "n_layers": 2,
    "expansion_ratio": 4,
    "vocab_size": 640,
    "max_seq_len": 512,
    "no_bias": True,
    "attn_config": {
        "alibi": True,
        "alibi_bias_max": 8,
        "attn_type": "grouped_query_attention",
        "kv_n_heads": 2,
    },
}
TEXT = Path(__file__).read_text()


def weights(config: Mapping[str, Any] = CONFIG) -> dict[str, Array]:
    """Random weights by hub name, all of them exact in bfloat16."""
    rng = np.random.default_rng(11)
    size = config["d_model"]
    kv = size // config["n_heads"] * config["attn_config"]["kv_n_heads"]
    ffn = size * config["expansion_ratio"]
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (config["vocab_size"], size)}
    for layer in range(config["n_layers"]):
        shapes |= {
            f"blocks.{layer}.norm_1.weight": (size,),
            f"blocks.{layer}.attn.Wqkv.weight": (size + 2 * kv, size),
            f"blocks.{layer}.attn.out_proj.weight": (size, size),
            f"blocks.{layer}.norm_2.weight": (size,),
            f"blocks.{layer}.ffn.up_proj.weight": (ffn, size),
            f"blocks.{layer}.ffn.down_proj.weight": (size, ffn),
        }
    shapes["norm_f.weight"] = (size,)
    result = {}
    for name, shape in shapes.items():
        mean, deviation = (1.0, 0.1) if len(shape) == 1 else (0.0, 0.05)
        exact = rng.normal(mean, deviation, shape).astype(np.float32).view(np.uint32)
        result[f"transformer.{name}"] = (exact & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return result


def write_safetensors(path: Path, tensors: Mapping[str, Array], encoding: Encoding) -> None:
    """The format by hand: the length of a JSON header, the header, the data."""
    kind = {Encoding.FLOAT32: "F32", Encoding.FLOAT16: "F16", Encoding.BFLOAT16: "BF16"}[encoding]
    header, blobs, offset = {}, [], 0
    for name, array in tensors.items():
        blob = quantize(array, encoding).tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    head = json.dumps(header).encode()
    path.write_bytes(b"".join([struct.pack("<Q", len(head)), head, *blobs]))


def write_tokenizer(path: Path, digits_apart: bool = False, composed: bool = False) -> None:
    """A byte-level BPE trained on this file; with `composed`, text is brought into Unicode's NFC."""
    tokenizer = Tokenizer(models.BPE())
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    split: Any = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if digits_apart:
        digits = pre_tokenizers.Digits(individual_digits=True)
        split = pre_tokenizers.Sequence([digits, split])
    tokenizer.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(path))


def write_model(
    directory: Path,
    encoding: Encoding = Encoding.BFLOAT16,
    tensors: Mapping[str, Array] | None = None,
) -> Path:
    """A hub-style directory; returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    write_safetensors(directory / "model.safetensors", tensors or weights(), encoding)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    write_tokenizer(directory / "tokenizer.json")
    return directory


def run_convert(*arguments: object) -> Result:
    """`replit convert`, which must succeed."""
    result = CliRunner().invoke(convert, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result
