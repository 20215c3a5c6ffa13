"""Which files make a model of a given name: the only module that names an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import weights
from replit.config import ReplitConfig, from_checkpoint
from replit.weight_names import map_weights
from weights.checkpoint import Checkpoint, open_checkpoint
from weights.tensor import Encoding, Tensor
from weights.tokenizer import Tokenizer, load_tokenizer

EMBEDDED = {"nano": "nano.gguf"}


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk: what it computes, its weights by canonical name, and its tokenizer."""

    name: str
    checkpoint: Checkpoint
    config: ReplitConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer


def locate(model: str, weight_path: str | None, encoding: Encoding | None) -> Path:
    """The file or directory of a model, downloaded where that is needed.

    Raises UserError for an unknown name, a missing file and an unreachable hub.
    """
    if weight_path is None and model in EMBEDDED:
        return Path(weights.__file__).parent / "embedded" / EMBEDDED[model]
    from weights.hub import resolve

    return resolve(model, encoding=encoding, weight_path=weight_path)


def open_model(model: str, weight_path: str | None, encoding: Encoding | None) -> ModelFiles:
    """Opens a model's files and checks that they make one. Raises UserError where they do not."""
    path = locate(model, weight_path, encoding)
    checkpoint = open_checkpoint(path)
    config = from_checkpoint(checkpoint)
    tensors = map_weights(checkpoint, config)
    return ModelFiles(model, checkpoint, config, tensors, load_tokenizer(checkpoint))
