"""The models that ship with this package, by name."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = {"nano": Path(__file__).parent / "embedded" / "nano.gguf"}
