"""Records logits and greedy tokens of transformers' MptForCausalLM for tests/test_model.py.

Run by hand where torch and transformers are installed: python tests/record_golden.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch
from transformers import MptConfig, MptForCausalLM

from models import RandomModel, random_ids, random_model
from replit.weight_names import expected_shapes

LENGTHS = (1, 2, 65, 128, 129, 300, 700)
_BLOCK_NAMES = {
    "attn_norm": "norm_1", "attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj",
    "ffn_norm": "norm_2", "ffn_up": "ffn.up_proj", "ffn_down": "ffn.down_proj",
}  # fmt: skip


def transformers_model(random: RandomModel) -> MptForCausalLM:
    """transformers' decoder with the weights of `random`."""
    config = random.config
    model = MptForCausalLM(
        MptConfig(
            d_model=config.d_model,
            n_heads=config.n_heads,
            n_layers=config.n_layers,
            expansion_ratio=config.ffn_size // config.d_model,
            max_seq_len=config.max_seq_len,
            vocab_size=config.vocab_size,
        )
    )
    state = {hub_name(n): torch.from_numpy(random.weights[n]) for n in expected_shapes(config)}
    model.load_state_dict(state | {"lm_head.weight": state["transformer.wte.weight"]})
    return model.eval()


def hub_name(canonical: str) -> str:
    """The name of a weight in the hub's files."""
    parts = canonical.split(".")
    if parts[0] == "blk":
        return f"transformer.blocks.{parts[1]}.{_BLOCK_NAMES[parts[2]]}.weight"
    return {"token_embd": "transformer.wte.weight", "output_norm": "transformer.norm_f.weight"}[parts[0]]


def record(n_heads: int, path: Path) -> None:
    """Writes the logits of some positions for each length, and 200 greedy tokens."""
    random = random_model(n_heads)
    model = transformers_model(random)
    arrays: dict[str, np.ndarray] = {"lengths": np.array(LENGTHS)}
    with torch.no_grad():
        for length in LENGTHS:
            ids = torch.tensor([random_ids(random, length)])
            positions = sorted({0, length // 3, length // 2, length - 1})
            arrays[f"positions-{length}"] = np.array(positions)
            arrays[f"logits-{length}"] = model(ids).logits[0, positions].numpy()
        prompt = torch.tensor([random_ids(random, 20)])
        out = model.generate(prompt, do_sample=False, max_new_tokens=200, eos_token_id=None, pad_token_id=0)
        arrays["greedy"] = out[0, 20:].numpy()
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    for heads in (4, 24):
        record(heads, Path(__file__).parent / "golden" / f"mpt-{heads}-heads.npz")
