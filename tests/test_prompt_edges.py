"""Gaps and chats at their ends, with a vocabulary of bytes; and headers of files that are nearly right."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from test_healing import Words
from test_text_stream import Bytes

from pipelines.prompts.chat import TURN_MARKER, chat_prompt
from pipelines.prompts.gap import Gap, continued_prompt, gap_prompt
from weights.errors import UserError
from weights.files.gguf_file import read_gguf
from weights.files.safetensors_file import read_safetensors
from weights.tokenizers.tokenizer import FimTokens, SpecialTokens


def words(**special: object) -> Words:
    found = Words()
    found.special = SpecialTokens(**special)  # type: ignore[arg-type]
    return found


def test_what_a_model_without_gaps_reads() -> None:
    assert continued_prompt(words(eos=0), Gap("", ""), 100, 5).ids == [0]
    with pytest.raises(UserError, match="the prompt is empty"):
        continued_prompt(words(), Gap("", ""), 100, 5)
    long = continued_prompt(words(), Gap("x = 1\n" * 100, ")"), 100, 5)
    assert (long.truncated, long.after, long.continued) == (True, ")", True)
    assert not continued_prompt(words(), Gap("x", ""), 100, 5).truncated
    gap = Gap("x = retu", "")
    assert [continued_prompt(words(), gap, 100, wanted, heal=True).healing for wanted in (0, 5)] == [b"", b"retu"]


def test_what_a_model_with_gaps_reads() -> None:
    tokenizer = words(fim=FimTokens(1, 2, 3))
    gap = Gap("a\r\n", "\r\nb\r\n", middle="x = retu", context="c\r\n")
    prompt = gap_prompt(tokenizer, gap, 200, 5, heal=True)
    assert prompt.ids == [*b"c\n\x01a\n\x02\nb\n\x03x = "]
    assert (prompt.before, prompt.after, prompt.crlf, prompt.healing) == ("a\nx = retu", "\nb\n", True, b"retu")
    assert prompt.tokens == len(prompt.ids) + 4
    assert gap_prompt(tokenizer, gap, 200, 0, heal=True).healing == b""
    assert gap_prompt(tokenizer, Gap("x = retu", ""), 200, 5, heal=True).ids == [*b"\x01x = \x02\x03"]
    assert gap_prompt(tokenizer, Gap("a", "\r\nb\r\n"), 200, 5).crlf  # the whole file's line ends
    assert gap_prompt(tokenizer, Gap("x = 1\n" * 100, ""), 200, 5).truncated
    assert gap_prompt(tokenizer, Gap("", "x = 1\n" * 100), 200, 5).truncated


class Chat(Bytes):
    """Byte 1 begins a turn."""

    def __init__(self) -> None:
        super().__init__()
        self.control_token_ids = frozenset({1})

    def encode(self, text: str, *, parse_special: bool = True) -> list[int]:
        return [*text.encode()] if not parse_special else [*text.replace(TURN_MARKER, "\x01").encode()]


def test_roles_of_a_chat() -> None:
    messages = [("developer", "a"), ("system", "b"), ("tool", TURN_MARKER), ("assistant", "c")]
    expected = f"\x01SYSTEM a\n\x01SYSTEM b\n\x01USER {TURN_MARKER}\n\x01ASSISTANT c\n\x01ASSISTANT"
    assert chat_prompt(Chat(), messages) == [*expected.encode()]
    assert chat_prompt(Bytes(), messages) is None


def test_headers_that_are_nearly_right(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "mpt")
    writer.add_uint32("general.alignment", 48)
    writer.add_tensor("x", np.zeros(12, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="general.alignment is 48, not a power of two"):
        read_gguf(tmp_path / "a.gguf")
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(UserError, match=r"tensor 'x' has the data_offsets \[0, 4, 4\]"):
        read_safetensors(tmp_path / "a.safetensors")
