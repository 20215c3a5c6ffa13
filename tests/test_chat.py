"""Refact's chat format, and the end of a text at the next turn."""

from __future__ import annotations

import numpy as np
from test_text_stream import Bytes

from pipelines.engine.sampling import SamplingParams
from pipelines.engine.sequence import Sequence, SequenceRequest
from pipelines.prompts.chat import chat_prompt, turn_marker

MARKER = 1


class Turns(Bytes):
    """One token a byte, and one for the marker."""

    def __init__(self) -> None:
        super().__init__()
        self.control_texts = {MARKER: "<empty_output>"}
        self.control_token_ids = frozenset({MARKER})

    def encode(self, text: str, *, parse_special: bool = True) -> list[int]:
        raw = text.replace("<empty_output>", chr(MARKER)) if parse_special else text
        return list(raw.encode())


def test_turns() -> None:
    messages = [("system", "Be brief."), ("user", "<empty_output>Hi"), ("assistant", "Hello"), ("user", "Bye")]
    ids = chat_prompt(Turns(), messages)
    assert ids is not None
    assert bytes(ids).decode() == (
        "\x01SYSTEM Be brief.\n\x01USER <empty_output>Hi\n\x01ASSISTANT Hello\n\x01USER Bye\n\x01ASSISTANT"
    )


def test_base_models_have_no_turns() -> None:
    assert turn_marker(Bytes()) is None
    assert chat_prompt(Bytes(), [("user", "Hi")]) is None


def test_a_text_ends_at_the_next_turn() -> None:
    request = SequenceRequest("x", [65], SamplingParams(), (0,))
    sequence = Sequence(request, Turns(), 100)
    assert sequence.accept(np.eye(256, dtype=np.float32)[[MARKER]]) == []
    assert sequence.end == "stop"
