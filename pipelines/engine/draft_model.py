"""Guesses from a small model: it reads the same text, through its own tokenizer, and goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.engine.sequence import Sequence as EngineSequence
from pipelines.engine.slots import common_length
from pipelines.prompts.prompt import before_cursor
from replit.runtime.slot_model import SlotModel
from weights.errors import UserError
from weights.tokenizers.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]

# Ids, and how probable each is together with those before it.
Guess = tuple[list[int], list[float]]

# Of a long text the end is read, at most half of what the small model holds: more is not worth the time, and it was not
# trained on more.
WINDOW = 512
# Characters before the cursor that are split again together with a guess, to find the seam.
_SEAM = 40
# Characters at the end of the text that are split anew when it has grown, and what is before them on their line.
_LAST_LINES = 200


@dataclass
class _Slot:
    """A slot of the small model's cache."""

    held: list[int] = field(default_factory=list)
    user: str | None = None


@dataclass
class _Reader:
    """How far a sequence's text was read."""

    slot: int
    start: int  # where the window begins, in ids of the draft's text
    text: str = ""  # with another vocabulary: the text so far
    decoded: int = 0  # generated ids that are in it
    split: list[int] = field(default_factory=list)  # with another vocabulary: the text's ids in the small one
    kept_text: int = 0  # characters that are not split again,
    kept: list[int] = field(default_factory=list)  # and their ids


class DraftModel:
    """A small model and the text of the sequences that it guesses for."""

    def __init__(self, model: SlotModel, tokenizer: Tokenizer, target: Tokenizer) -> None:
        """`tokenizer` is the small model's, `target` that of the sequences."""
        self._model, self._tokenizer, self._target = model, tokenizer, target
        self._window = min(WINDOW, model.max_length // 2)
        self.same_vocabulary = same_vocabulary(tokenizer, target)
        self._slots = [_Slot() for _ in range(model.slots)]
        self._readers: dict[str, _Reader] = {}

    def forget(self, sequence: EngineSequence) -> None:
        """Frees what was kept for a sequence that has ended."""
        reader = self._readers.pop(sequence.request.id, None)
        if reader is not None:
            self._slots[reader.slot].user = None

    def guess(self, sequence: EngineSequence, most: int, worth: Callable[[float], bool]) -> Guess:
        """At most `most` ids that probably follow, and how sure the small model is of each with those before it.

        It goes on while `worth(probability)` says so, which is asked before each token that is looked for.
        """
        reader = self._reader(sequence)
        if reader is None:
            return [], []
        ids = self._ids(sequence, reader)
        if not ids:
            return [], []  # nothing so far that it can read
        limit = min(most, self._model.max_length - len(ids) - 1)
        logits = self._read(reader.slot, ids)
        guessed: list[int] = []
        sure: list[float] = []
        probability = 1.0
        while len(guessed) < limit:
            token, share = _most_probable(logits)
            probability *= share
            if not worth(probability) or token in self._tokenizer.control_token_ids:  # asked first: it cost a pass
                break
            guessed.append(token)
            sure.append(probability)
            if len(guessed) < limit:
                logits = self._read(reader.slot, [*ids, *guessed])
        if self.same_vocabulary:
            return guessed, sure
        ids, sure = self._translate(reader, guessed, sure)
        return ids[:most], sure[:most]

    def _reader(self, sequence: EngineSequence) -> _Reader | None:
        name = sequence.request.id
        if name not in self._readers:
            free = [index for index, slot in enumerate(self._slots) if slot.user is None]
            if not free:
                return None
            prompt = sequence.request.prompt_ids
            text = "" if self.same_vocabulary else before_cursor(self._target, prompt)
            wanted = prompt if self.same_vocabulary else []
            slot = max(free, key=lambda index: common_length(self._slots[index].held, wanted[-self._window :]))
            self._slots[slot].user = name
            self._readers[name] = _Reader(slot, max(0, len(prompt) - self._window), text[-4 * self._window :])
        return self._readers[name]

    def _ids(self, sequence: EngineSequence, reader: _Reader) -> list[int]:
        """The text so far in the small model's ids, from the window's beginning on."""
        if self.same_vocabulary:
            prompt = sequence.request.prompt_ids
            length = len(prompt) + len(sequence.ids)
            if length - reader.start > self._model.max_length - self._window // 4:
                reader.start = length - self._window
            return self._known([*prompt, *sequence.ids][reader.start :])
        fresh = self._target.decode(sequence.ids[reader.decoded :])
        if "\ufffd" not in fresh:  # else half a character: the rest comes with the next token
            reader.text += fresh
            reader.decoded = len(sequence.ids)
            reader.split = self._split(reader)
        return reader.split

    def _known(self, ids: list[int]) -> list[int]:
        """Those after the last one that the small model has no row for: a large vocabulary may have more."""
        rows = self._model.config.vocab_size
        if max(ids, default=0) < rows:
            return ids
        return ids[1 + max(index for index, token in enumerate(ids) if token >= rows) :]

    def _split(self, reader: _Reader) -> list[int]:
        """Splits the text; only its last lines anew, since splitting does not look further."""
        ids = reader.kept + self._tokenizer.encode(reader.text[reader.kept_text :], parse_special=False)
        if len(ids) > self._model.max_length - self._window // 4:
            reader.text, reader.kept_text, reader.kept = self._tokenizer.decode(ids[-self._window :]), 0, []
            return self._split(reader)
        lines = reader.text[reader.kept_text : -_LAST_LINES].rpartition("\n")[0].rstrip()
        reader.kept += self._tokenizer.encode(lines, parse_special=False)
        reader.kept_text += len(lines)
        return ids

    def _read(self, slot: int, ids: Sequence[int]) -> Floats:
        """Logits `[vocab]` after `ids`, of which what the slot holds is not read again."""
        held = self._slots[slot].held
        length = min(common_length(held, ids), len(ids) - 1)
        del held[length:]
        self._model.truncate(slot, length)  # also what an interrupted pass has left there
        logits: Floats = np.zeros((1, 1), np.float32)
        while len(held) < len(ids):
            part = list(ids[len(held) : len(held) + self._model.prompt_chunk])
            logits = self._model.extend([slot], [part], [len(part) - 1])
            held += part
        last: Floats = logits[0]
        return last

    def _translate(self, reader: _Reader, guessed: list[int], sure: list[float]) -> Guess:
        """A guess in the target's ids, each as sure as the small model's token in which it ends."""
        raw = b"".join(map(self._tokenizer.token_bytes, guessed))
        text = raw.decode("utf-8", errors="ignore")
        if not text:
            return [], []
        ids = self._after_seam(reader.text[-_SEAM:], text)
        ends = np.cumsum([len(self._tokenizer.token_bytes(token)) for token in guessed])
        translated: list[float] = []
        position = 0
        for token in ids:
            position += len(self._target.token_bytes(token))
            translated.append(sure[min(int(np.searchsorted(ends, position)), len(sure) - 1)])
        return ids, translated

    def _after_seam(self, before: str, text: str) -> list[int]:
        """The ids of `text` as they follow `before`: as both are split together, where that cuts between them."""
        together = self._target.encode(before + text, parse_special=False)
        length = 0
        for index, token in enumerate(together):
            if length >= len(before.encode()):
                return (
                    together[index:]
                    if length == len(before.encode())
                    else self._target.encode(text, parse_special=False)
                )
            length += len(self._target.token_bytes(token))
        return self._target.encode(text, parse_special=False)


def _most_probable(logits: Floats) -> tuple[int, float]:
    """The most probable id and its probability."""
    best = int(np.argmax(logits))
    return best, float(1 / np.exp(logits - logits[best]).sum())


def same_vocabulary(draft: Tokenizer, target: Tokenizer) -> bool:
    """Whether every id of the small vocabulary means the same in the large one, which may have more."""
    if draft.vocab_size > target.vocab_size or type(draft) is not type(target):
        return False
    try:
        same = all(draft.token_bytes(i) == target.token_bytes(i) for i in range(draft.vocab_size))
    except UserError:
        return False
    sample = "def f(x):\n    return [x**2, 'é'] if x else None  # 100\n"
    return (
        same
        and dict(draft.control_texts).items() <= dict(target.control_texts).items()
        and (draft.encode(sample) == target.encode(sample))
    )
