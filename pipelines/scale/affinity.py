"""Which requests should meet: those whose prompts the same replica has read the beginning of.

A replica finds in its cache what a prompt begins with. Text that starts a file or a task begins as it began before. An
editor's window on a file loses its first line with every new one, and is cut where its content says
(pipelines/prompts/cut.py); two windows are alike where their lowest hash of two lines in a row is, mostly in both.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from hashlib import blake2b
from itertools import pairwise
from typing import Any, TypeVar
from zlib import crc32

from pipelines.prompts.cut import starts_a_file

# Of a text that starts a file: characters that tell it from others.
_BEGINNING = 256
# Characters beyond which a text is not looked at, and those of a single line's beginning.
_FAR, _SHORT = 1 << 16, 32
# Where the text before the cursor stands in the APIs that are spoken here, in their order.
_TEXTS = ("input_prefix", "prompt", "messages")

Name = TypeVar("Name", bound=str)


def affinity_key(body: bytes) -> int | None:
    """A number that requests share which begin alike; None where nothing is to be read."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    text = next((text for name in _TEXTS if (text := _text(found.get(name)))), "")
    return text_key(text) if text else None


def text_key(text: str) -> int:
    """The number of a prompt's text. The line that is being typed has no part in it where there are others."""
    data = text[:_FAR].encode(errors="replace")
    lines = [line.strip() for line in data.split(b"\n")[:-1] if line.strip()]
    if not lines:
        return crc32(data[:_SHORT])
    if len(lines) == 1 or starts_a_file(data):
        return crc32(data[:_BEGINNING].rpartition(b"\n")[0] or data[:_SHORT])
    return min(crc32(b"\n".join(pair)) for pair in pairwise(lines))


def _text(value: Any) -> str:
    """The text of a prompt or of messages, whatever shape an API gives it."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _text(value.get("content") or value.get("text") or value.get("prompt_string"))
    if isinstance(value, list):
        if value and all(isinstance(part, int) for part in value):
            return " ".join(map(str, value[:_BEGINNING]))
        return "\n".join(filter(None, map(_text, value[:8])))
    return ""


def by_affinity(key: int, names: Collection[Name]) -> list[Name]:
    """The names in the order in which a key prefers them: another name more or less changes only its own place."""
    return sorted(names, key=lambda name: blake2b(f"{key} {name}".encode(), digest_size=8).digest())
