"""Where bfloat16 is fast: without instructions for it a CPU multiplies it many times slower than float32."""

from __future__ import annotations

import torch


def fast_dtype(device: str) -> torch.dtype:
    """What products are made of in training on a device: bfloat16, or float32 where bfloat16 has to be emulated."""
    if not device.startswith("cpu"):
        return torch.bfloat16
    known = torch.cpu.get_capabilities()
    return torch.bfloat16 if known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16") else torch.float32
