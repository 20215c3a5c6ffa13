"""Small model files with random weights, written by gguf-py and by the safetensors library."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from weights.tokenizers.byte_level import byte_alphabet

Array = npt.NDArray[Any]

# Every byte, a few merges, an added run of spaces, fill-in-the-middle and end-of-text tokens.
MERGES = ["d e", "de f", "Ġ a", "r e", "re t", "ret u", "retu r", "retur n", "Ġ Ġ", "1 2", "s e"]
CONTROL = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"]
USER_DEFINED = ["     ", "\n\n"]


def vocabulary() -> tuple[list[str], list[int]]:
    """Tokens and their ggml types."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*CONTROL, *byte_alphabet(), *merged, *USER_DEFINED]
    types = [3] * len(CONTROL) + [1] * (256 + len(merged)) + [4] * len(USER_DEFINED)
    return tokens, types


@dataclass
class ModelFile:
    """What to write; a test changes one thing and reads the file back."""

    d_model: int = 24
    n_heads: int = 6
    n_kv_heads: int = 2
    n_layers: int = 2
    ffn_size: int = 96
    keys: dict[str, Any] = field(default_factory=dict)  # None leaves a key out
    pre: str | None = "replit"
    bfloat16: bool = False

    def tensors(self) -> dict[str, Array]:
        """Random weights by canonical name, [out, in]."""
        random = np.random.default_rng(0)
        head = self.d_model // self.n_heads
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(vocabulary()[0]), self.d_model)}
        for layer in range(self.n_layers):
            block = f"blk.{layer}."
            shapes |= {
                block + "attn_norm.weight": (self.d_model,),
                block + "attn_qkv.weight": (
                    self.d_model + 2 * self.n_kv_heads * head,
                    self.d_model,
                ),
                block + "attn_output.weight": (self.d_model, self.d_model),
                block + "ffn_norm.weight": (self.d_model,),
                block + "ffn_up.weight": (self.ffn_size, self.d_model),
                block + "ffn_down.weight": (self.d_model, self.ffn_size),
            }
        shapes["output_norm.weight"] = (self.d_model,)
        return {
            name: (random.standard_normal(shape) * 0.2 + (len(shape) == 1)).astype(np.float32)
            for name, shape in shapes.items()
        }

    def metadata(self) -> dict[str, Any]:
        """The keys under "mpt." with the changes in `keys`."""
        keys: dict[str, Any] = {
            "context_length": 128,
            "embedding_length": self.d_model,
            "block_count": self.n_layers,
            "feed_forward_length": self.ffn_size,
            "attention.head_count": self.n_heads,
            "attention.head_count_kv": self.n_kv_heads,
            "attention.layer_norm_epsilon": 1e-5,
            "attention.max_alibi_bias": 8.0,
        }
        return {key: value for key, value in (keys | self.keys).items() if value is not None}


def write_gguf(path: Path, model: ModelFile, tensors: dict[str, Array] | None = None) -> Path:
    """Write a GGUF file as llama.cpp's converter would."""
    writer = gguf.GGUFWriter(path, "mpt")
    for key, value in model.metadata().items():
        add_key(writer, f"mpt.{key}", value)
    add_tokenizer(writer, model.pre)
    for name, array in (model.tensors() if tensors is None else tensors).items():
        if model.bfloat16 and array.ndim > 1:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_uint32(key, value)


def add_tokenizer(writer: gguf.GGUFWriter, pre: str | None) -> None:
    tokens, types = vocabulary()
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(0)


HUB_NAMES = {
    "token_embd": "wte",
    "output_norm": "norm_f",
    "attn_norm": "norm_1",
    "attn_qkv": "attn.Wqkv",
    "attn_output": "attn.out_proj",
    "ffn_norm": "norm_2",
    "ffn_up": "ffn.up_proj",
    "ffn_down": "ffn.down_proj",
}


def hub_name(canonical: str) -> str:
    """The name that llm-foundry and transformers give a weight."""
    parts = canonical.removesuffix(".weight").split(".")
    layer = f"blocks.{parts[1]}." if parts[0] == "blk" else ""
    return f"transformer.{layer}{HUB_NAMES[parts[-1]]}.weight"


def config_json(model: ModelFile, **changes: Any) -> dict[str, Any]:
    """A config.json as llm-foundry writes it; keys in `changes` replace or, if None, stay null."""
    return {
        "architectures": ["MPTForCausalLM"],
        "model_type": "mpt",
        "d_model": model.d_model,
        "n_heads": model.n_heads,
        "n_layers": model.n_layers,
        "expansion_ratio": model.ffn_size // model.d_model,
        "max_seq_len": 128,
        "vocab_size": len(vocabulary()[0]),
        "no_bias": True,
        "norm_type": "low_precision_layernorm",
        "learned_pos_emb": True,
        "logit_scale": None,
        "attn_config": {
            "attn_type": "grouped_query_attention",
            "kv_n_heads": model.n_kv_heads,
            "alibi": True,
            "alibi_bias_max": 8,
            "clip_qkv": None,
            "prefix_lm": False,
            "qk_ln": False,
            "softmax_scale": None,
        },
    } | changes


def write_hub_directory(directory: Path, model: ModelFile, **changes: Any) -> Path:
    """A directory as a hub repository has it: config.json and model.safetensors."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config_json(model, **changes)))
    arrays = {hub_name(name): array for name, array in model.tensors().items()}
    save_file(arrays, directory / "model.safetensors")
    return directory
