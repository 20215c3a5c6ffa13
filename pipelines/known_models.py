"""The published models that this pipeline was made for, by their cards; and which of them are on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from weights.embedded_models import EMBEDDED

MEBI = 1 << 20


@dataclass(frozen=True)
class KnownModel:
    """What a card says. `parameters` counts all weights, `context` tokens; `repositories` hold the same weights."""

    name: str
    parameters: int
    licence: str
    context: int
    fill_in_the_middle: bool
    chat: bool
    repositories: tuple[str, ...] = ()
    human_eval: float | None = None  # pass@1 in percent, as published
    human_eval_source: str = ""

    @property
    def abilities(self) -> list[str]:
        """What it can do, in words."""
        more = {"fill-in-the-middle": self.fill_in_the_middle, "chat": self.chat}
        return ["completion", *(name for name, able in more.items() if able)]

    @property
    def bytes(self) -> int:
        """Size in bfloat16."""
        return 2 * self.parameters


KNOWN = (
    KnownModel("nano", 6_430_000, "Apache-2.0", 2048, True, False),
    KnownModel(
        "replit/replit-code-v1_5-3b",
        3_322_088_448,
        "Apache-2.0",
        4096,
        False,
        False,
        ("modularai/replit-code-1.5",),
        23.0,
        "MultiPL-E, card of stabilityai/stable-code-3b",
    ),
    KnownModel(
        "replit/replit-code-v1-3b",
        2_600_634_880,
        "CC-BY-SA-4.0",
        2048,
        False,
        False,
        (),
        21.9,
        "its card, temperature 0.2",
    ),
    KnownModel(
        "smallcloudai/Refact-1_6B-fim",
        1_585_842_176,
        "bigscience-openrail-m",
        4096,
        True,
        True,
        (),
        31.5,
        "its card, temperature 0.2",
    ),
)


def find(name: str) -> KnownModel | None:
    """The known model of that name or repository, whatever the case; also by the last part of it."""
    wanted = name.lower()
    for model in KNOWN:
        names = [known.lower() for known in (model.name, *model.repositories)]
        if wanted in names or wanted in [known.rpartition("/")[2] for known in names]:
            return model
    return None


def where(model: KnownModel) -> str | None:
    """Where the model's weights are on this machine, None if they are not here."""
    if (path := EMBEDDED.get(model.name)) is not None:
        return str(path) if path.exists() else None
    for repository in (model.name, *model.repositories):
        folder = hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
        for pattern in ("*.gguf", "*.safetensors", "pytorch_model*.bin"):
            found = sorted(path for path in folder.glob(f"*/{pattern}") if path.exists())
            if found:
                return str(found[0].parent)
    return None


def hub_cache() -> Path:
    """The directory that huggingface_hub keeps its downloads in, by its variables; without importing it."""
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()
