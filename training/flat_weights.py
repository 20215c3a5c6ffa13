"""A model's weights as one vector in a few files: a lent machine gives back small files only.

FOLDER/shape.json has the configuration and where training stood; FOLDER/weights-N.npy the float16 parameters in the
order of `Nano.parameters()`. float16 keeps three bits more of a weight than bfloat16; none is outside its range.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from training.model import ModelConfig, Nano

PART_BYTES = 15_000_000


def save(folder: Path, config: ModelConfig, parameters: list[Tensor], progress: dict[str, object]) -> None:
    """Writes the files; each appears whole or not at all."""
    flat = torch.cat([p.detach().reshape(-1) for p in parameters]).to(torch.float16).cpu().numpy()
    parts = -(-flat.nbytes // PART_BYTES)
    for i, part in enumerate(np.array_split(flat, parts)):
        temporary = folder / f"weights-{i}.tmp"
        with temporary.open("wb") as file:
            np.save(file, part)
        temporary.rename(folder / f"weights-{i}.npy")
    text = json.dumps({"model_config": asdict(config), "parts": parts, **progress})
    (folder / "shape.tmp").write_text(text + "\n")
    (folder / "shape.tmp").rename(folder / "shape.json")


def load(folder: Path) -> Nano:
    """The model of a folder that `save` wrote, in float32. Raises ValueError if parts are missing or do not fit."""
    shape = json.loads((folder / "shape.json").read_text())
    model = Nano(ModelConfig(**shape["model_config"]))
    flat = np.concatenate([np.load(folder / f"weights-{i}.npy") for i in range(shape["parts"])])
    wanted = sum(p.numel() for p in model.parameters())
    if len(flat) != wanted:
        raise ValueError(f"{folder} holds {len(flat)} weights; expected {wanted}: copy all its parts again")
    vector_to_parameters(torch.from_numpy(flat.astype(np.float32)), model.parameters())
    return model
