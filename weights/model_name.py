"""The parts of a model's name, and GGUF's convention for naming a file after them.

The convention is <Base>-<Size>[-<Finetune>]-v<X.Y>-<Encoding>.gguf (ggml's docs/gguf.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from weights.convert import ggml_name
from weights.hub import encoding_in_name
from weights.tensor import Encoding

_SIZE = re.compile(r"\d+([._]\d+)?[bm]", re.IGNORECASE)
_VERSION = re.compile(r"v(\d+)(?:[._](\d+))?", re.IGNORECASE)


@dataclass(frozen=True)
class ModelName:
    """What a name says; the size is left to the parameter count."""

    base: str
    finetune: str | None = None
    version: str | None = None  # "v1.5"


def parse_name(name: str) -> ModelName:
    """Take apart a repository, directory or file name such as replit-code-v1_5-3b-bf16."""
    base: list[str] = []
    finetune: list[str] = []
    version = None
    parts = base
    for word in name.removesuffix(".gguf").split("/")[-1].split("-"):
        if match := _VERSION.fullmatch(word):
            version = f"v{match[1]}.{match[2] or 0}"
            parts = finetune
        elif _SIZE.fullmatch(word):
            parts = finetune
        elif encoding_in_name(word) is None and word:
            parts.append(word)
    return ModelName("-".join(base) or "model", "-".join(finetune) or None, version)


def file_name(name: ModelName, parameters: int, encoding: Encoding) -> str:
    """The conventional file name of a model with that many parameters, whatever stands in its name."""
    from gguf import naming_convention, size_label

    size = size_label(parameters, 0, 0, 0)
    label = ggml_name(encoding)
    finetune, version = (part and _clean(part, 60) for part in (name.finetune, name.version))
    stem = naming_convention(None, _clean(name.base, 100) or "model", finetune or None, version, size, label)
    return f"{stem}.gguf"


def _clean(part: str, limit: int) -> str:
    """What the name of a file can hold of it: what can be seen, no separators, up to `limit` bytes."""
    kept = "".join(character for character in part if character.isprintable() and character not in "/\\")
    return kept.strip(" .").encode()[:limit].decode("utf-8", "ignore")
