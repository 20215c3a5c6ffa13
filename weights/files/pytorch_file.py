"""Reads PyTorch state dicts (pytorch_model.bin) by memory map, for conversion only.

Needs torch, an optional extra. Only tensors are unpickled: nothing in the file is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.files.mapped_file import check_regular, read_json
from weights.tensor import Encoding, Tensor

INDEX = "pytorch_model.bin.index.json"
FILE = "pytorch_model.bin"


def find_pytorch(path: Path) -> Path | None:
    """The PyTorch weights that `path` is or, as a directory without safetensors, holds."""
    if path.is_dir():
        if any(path.glob("*.safetensors")) or any(path.glob("*.gguf")):
            return None
        return next((path / name for name in (INDEX, FILE) if (path / name).exists()), None)
    is_pytorch = path.name.endswith(INDEX) or path.suffix in (".bin", ".pt", ".pth")
    return path if is_pytorch else None


def open_pytorch(path: Path) -> Checkpoint:
    """Map a state dict or the shards that an index names; names are those of the hub.

    Raises UserError when torch is missing, and for files that are none or hold more than tensors.
    """
    if path.name.endswith(INDEX):
        shards = set(read_json(path).get("weight_map", {}).values())
        files = [path.parent / Path(shard).name for shard in sorted(shards)]
    else:
        files = [path]
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _load(file).items():
            tensors[name] = _tensor(file, name, tensor)
    config = path.parent / "config.json"
    # "safetensors" stands for the hub's tensor names and a config.json, which these share.
    return Checkpoint(path, "safetensors", tensors, read_json(config) if config.exists() else {})


def _load(path: Path) -> dict[str, Any]:
    check_regular(path, "a PyTorch state dict")
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} is a PyTorch file and torch is not installed; type `pip install torch`, or "
            "give the model as safetensors or GGUF"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # pickle, zip and torch each raise their own
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"{path} is no PyTorch state dict of plain tensors ({reason}); expected "
            "pytorch_model.bin as the hub holds it: download it again"
        ) from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}; expected a dict of tensors")
    return state


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    import torch

    encodings = {
        torch.float32: Encoding.FLOAT32,
        torch.float16: Encoding.FLOAT16,
        torch.bfloat16: Encoding.BFLOAT16,
    }
    kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
    if kind not in encodings or not value.dim():
        raise UserError(
            f"{path}: {name!r} is {kind}; expected a float32, float16 or bfloat16 tensor: use the "
            "model's own pytorch_model.bin"
        )
    # Saved tensors are contiguous, so this is a view of the file.
    data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return Tensor(name, tuple(value.shape), encodings[kind], data)
