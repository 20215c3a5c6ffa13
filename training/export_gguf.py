"""Writes a trained nano and its tokenizer as one GGUF file of llama.cpp's `mpt` architecture.

python -m training.export_gguf --checkpoint FILE --tokenizer tokenizer.json --output nano.gguf

`--flat FOLDER` reads what `training.train_timed` wrote instead. `--mix-with FILE.gguf --share 0.95` takes so much of
the new weights and the rest of that file's. Matrices are stored as q8_0, or with `--bfloat16` so.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from training import flat_weights
from training.fim import END, MIDDLE, PAD, PREFIX, SPECIAL_TOKENS, SUFFIX
from training.model import ModelConfig, Nano
from weights.tokenizers.byte_level import SUFFIX_FIRST_KEY

_BLOCK_NAMES = {
    "norm_1": "attn_norm",
    "attn.wqkv": "attn_qkv",
    "attn.out_proj": "attn_output",
    "norm_2": "ffn_norm",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """GGUF name of one of the training model's parameters."""
    if not name.startswith("blocks."):
        return {"wte.weight": "token_embd.weight", "norm_f.weight": "output_norm.weight"}[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{_BLOCK_NAMES[rest.removesuffix('.weight')]}.weight"


def _add_config(writer: gguf.GGUFWriter, c: ModelConfig, file_type: gguf.LlamaFileType) -> None:
    writer.add_name("nano")
    writer.add_license("Apache-2.0")
    writer.add_context_length(c.max_seq_len)
    writer.add_embedding_length(c.d_model)
    writer.add_block_count(c.n_layers)
    writer.add_feed_forward_length(4 * c.d_model)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.n_kv_heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_max_alibi_bias(c.alibi_bias_max)
    writer.add_file_type(file_type)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    control = set(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("refact")
    tokens = sorted(vocab, key=vocab.__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in control else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(vocab[END])
    writer.add_eos_token_id(vocab[END])
    writer.add_pad_token_id(vocab[PAD])
    writer.add_uint32("tokenizer.ggml.fim_pre_token_id", vocab[PREFIX])
    writer.add_uint32("tokenizer.ggml.fim_suf_token_id", vocab[SUFFIX])
    writer.add_uint32("tokenizer.ggml.fim_mid_token_id", vocab[MIDDLE])
    writer.add_uint32("tokenizer.ggml.fim_pad_token_id", vocab[PAD])
    writer.add_bool(SUFFIX_FIRST_KEY, True)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)


def _stored(x: torch.Tensor, bfloat16: bool) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """Data and type of a matrix as the file holds it."""
    if bfloat16:  # torch rounds to nearest even
        return x.to(torch.bfloat16).view(torch.uint16).numpy(), gguf.GGMLQuantizationType.BF16
    kind = gguf.GGMLQuantizationType.Q8_0
    return gguf.quants.quantize(x.float().numpy(), kind), kind


def export(model: Nano, tokenizer_json: Path, output: Path, *, bfloat16: bool = False) -> None:
    """Writes the file: matrices in q8_0 or bfloat16, norms in float32; no output.weight, since it is tied."""
    writer = gguf.GGUFWriter(str(output), "mpt")
    file_type = gguf.LlamaFileType.MOSTLY_BF16 if bfloat16 else gguf.LlamaFileType.MOSTLY_Q8_0
    _add_config(writer, model.config, file_type)
    _add_tokenizer(writer, json.loads(tokenizer_json.read_text()))
    for name, p in model.state_dict().items():
        if p.ndim == 1:
            writer.add_tensor(gguf_name(name), p.float().cpu().numpy())
        else:
            data, kind = _stored(p.cpu().contiguous(), bfloat16)
            writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_checkpoint(*paths: Path) -> Nano:
    """The model of a training checkpoint with its running average of the weights; of several, the mean of these."""
    states = [torch.load(path, map_location="cpu", weights_only=True) for path in paths]
    model = Nano(ModelConfig(**states[0]["model_config"]))
    mean = {name: sum(state["model"][name] for state in states) / len(states) for name in states[0]["model"]}
    model.load_state_dict(mean)
    return model.eval()


def load_gguf(path: Path) -> Nano:
    """The training model with the weights of a file that `export` wrote."""
    reader = gguf.GGUFReader(path)

    def number(key: str) -> int:
        return int(reader.fields[f"mpt.{key}"].contents())

    tensors = {t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy()) for t in reader.tensors}
    config = ModelConfig(
        vocab_size=len(tensors["token_embd.weight"]),
        d_model=number("embedding_length"),
        n_layers=number("block_count"),
        n_heads=number("attention.head_count"),
        n_kv_heads=number("attention.head_count_kv"),
        max_seq_len=number("context_length"),
    )
    model = Nano(config)
    model.load_state_dict({name: tensors[gguf_name(name)] for name in model.state_dict()})
    return model.eval()


def mix(model: Nano, other: Nano, share: float) -> None:
    """Changes `model` to `share` of its weights and the rest of `other`'s, which has to be of the same shape."""
    if model.config != other.config:
        raise SystemExit(f"cannot mix {model.config} with {other.config}: expected one shape")
    with torch.no_grad():
        for weight, beside in zip(model.parameters(), other.parameters(), strict=True):
            weight.copy_(share * weight + (1 - share) * beside)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--checkpoint", type=Path, nargs="+", help="of training.train; of several, the mean is taken")
    weights.add_argument("--flat", type=Path, help="folder that training.train_timed wrote")
    parser.add_argument("--mix-with", type=Path, help="a GGUF file that this program wrote")
    parser.add_argument("--share", type=float, help="of the new weights in the mix")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bfloat16", action="store_true", help="instead of q8_0")
    args = parser.parse_args()
    if (args.mix_with is None) != (args.share is None):
        parser.error("--mix-with and --share go together")
    model = flat_weights.load(args.flat) if args.flat else load_checkpoint(*args.checkpoint)
    if args.mix_with:
        mix(model, load_gguf(args.mix_with), args.share)
    export(model, args.tokenizer, args.output, bfloat16=args.bfloat16)


if __name__ == "__main__":
    main()
