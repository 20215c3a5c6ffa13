"""Text from a stream of token ids: whole characters only, and never a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from pipelines.text.beginning import Beginning
from weights.tokenizers.tokenizer import Tokenizer

# Characters of a stop string from which on its beginnings are not tried one by one.
_LONG = 64


class TextStream:
    """Turns token ids into pieces of text that can be shown at once.

    A piece is held back while it could be the start of a stop string or of a character whose bytes are split across
    tokens. Bytes that never become a character are shown as U+FFFD. A control token shows nothing, but a stop string
    may spell it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # By their first characters: of very many, few are looked for in a piece of text.
        self._stop: dict[str, list[str]] = {}
        for text in dict.fromkeys(stop):
            self._stop.setdefault(text[:1], []).append(text)
        self._held = ""
        self.stop_text: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text; `stop_text` is the one that did."""
        return self.stop_text is not None

    def push(self, token_id: int, skipped: int = 0) -> str:
        """The text that `token_id` completes, possibly none, without its first `skipped` bytes.

        Sets `stopped` at a stop string.
        """
        spelled = self._tokenizer.control_texts.get(token_id)
        if spelled is not None:
            return self._pass_control(spelled)
        return self._release(self._decoder.decode(self._tokenizer.token_bytes(token_id)[skipped:]))

    def finish(self) -> str:
        """What was held back, at the end of the ids."""
        if self.stopped:
            return ""
        text = self._release(self._decoder.decode(b"", final=True))
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _candidates(self, text: str) -> list[str]:
        """The stop strings whose first character is in the text."""
        return [stop for first in self._stop.keys() & set(text) for stop in self._stop[first]]

    def _pass_control(self, spelled: str) -> str:
        text = self._held + spelled
        found = [(at, stop) for stop in self._candidates(text) if 0 <= (at := text.find(stop)) <= len(self._held)]
        if not found:
            return ""
        at, self.stop_text = min(found)
        ready, self._held = self._held[:at], ""
        return ready

    def _release(self, text: str) -> str:
        if not self._stop:
            return text
        self._held += text
        found = [(at, stop) for stop in self._candidates(self._held) if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.stop_text = min(found)
            ready, self._held = self._held[:at], ""
            return ready
        keep = max((overlap(self._held, stop) for stop in self._candidates(self._held)), default=0)
        split = len(self._held) - keep
        ready, self._held = self._held[:split], self._held[split:]
        return ready


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    if len(text) < len(stop) and stop.startswith(text):
        return len(text)
    if min(len(text), len(stop)) > _LONG:
        beginning = Beginning(stop)
        for char in text[-len(stop) + 1 :]:
            beginning.feed(char)
        return beginning.length
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
