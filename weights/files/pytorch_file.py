"""Reads PyTorch state dicts (pytorch_model.bin), by memory map where the file is a zip archive.

Needs torch, an optional extra. Only tensors are unpickled: nothing in the file is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weights.errors import UserError
from weights.files.directory import PYTORCH_INDEX, add_tensors, all_parts
from weights.files.mapped_file import check_regular, read_json
from weights.files.paths import exists
from weights.tensor import Encoding, Tensor


def read_pytorch(path: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """Map a state dict, all its numbered parts, or the shards that an index names: tensors by the hub's names, files.

    Raises UserError when torch is missing, and for files that are none or hold more than tensors.
    """
    files = _shards(path) if path.name.endswith(PYTORCH_INDEX) else all_parts(path)
    tensors: dict[str, Tensor] = {}
    for file in files:
        add_tensors(path, tensors, {name: _tensor(file, name, value) for name, value in _load(file).items()})
    return tensors, files


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    shards = sorted({Path(str(shard)).name for shard in names.values()}) if isinstance(names, dict) else []
    if not shards:
        raise UserError(
            f"{index} has no weight_map; expected one that names the shard of each tensor: download it again"
        )
    missing = [shard for shard in shards if not exists(index.parent / shard)]
    if missing:
        raise UserError(
            f"{index} names {len(shards)} shards and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
            f"beside it; expected all of them: download {missing[0]} too"
        )
    return [index.parent / shard for shard in shards]


def _load(path: Path) -> dict[str, Any]:
    check_regular(path, "a PyTorch state dict")
    try:
        import torch
    except ImportError:
        where = path.parent if path.name.startswith("pytorch_model") else path
        raise UserError(
            f"{path} is a PyTorch file and torch is not installed; type `pip install torch` and this again, or "
            f"`replit convert {where} out.gguf` where torch is; without it, safetensors or GGUF is expected"
        ) from None
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"  # what torch wrote before 2020 cannot be mapped
    try:
        state = torch.load(path, map_location="cpu", mmap=is_archive, weights_only=True)
    except Exception as error:  # pickle, zip and torch each raise their own
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"{path} is no PyTorch state dict of plain tensors ({reason}); expected "
            "pytorch_model.bin as the hub holds it: download it again"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path} holds a {type(state).__name__}; expected a dict of tensors by name")
    return state


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    import torch

    encodings = {
        torch.float64: Encoding.FLOAT64,
        torch.float32: Encoding.FLOAT32,
        torch.float16: Encoding.FLOAT16,
        torch.bfloat16: Encoding.BFLOAT16,
    }
    kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
    if kind not in encodings:
        raise UserError(
            f"{path}: {name!r} is {kind}; expected a float32, float16 or bfloat16 tensor: use the "
            "model's own pytorch_model.bin"
        )
    size = value.nelement() * value.element_size()
    try:
        # A view that repeats elements may stand for any number of them.
        if size > value.untyped_storage().nbytes():
            raise RuntimeError("its elements repeat")
        # Saved tensors are contiguous, so this is a view of the file.
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse ones, ones without data
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"{path}: {name!r} is no plain tensor ({reason}); expected one whose elements the file holds: save it again"
        ) from None
    return Tensor(name, tuple(value.shape), encodings[kind], data)
