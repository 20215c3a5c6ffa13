"""Writes a small GGUF model whose greedy output is a script: each token has one successor.

A prompt that ends in one of the letters of SCRIPTS starts that letter's script. One letter's text makes the logits
NaN. For tests of text: form feeds, split characters, control tokens, stop strings, line ends.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

CONTROL = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>")
END = 0
# The prompt's last character -> the tokens that follow: texts, bytes, or ids of control tokens.
SCRIPTS: dict[str, list[str | bytes | int]] = {
    "A": ["\n", " \x0c", " x", " = 1", "\n ", " y", END],
    "B": [b"\xf0", b"\x9f", b"\x98", b"\x80", "!", END],
    "C": ["foo", 4, "bar", END],
    "D": ["baz", 5, "other.py", END],
    "E": ["end ", b"\xe4", b"\xb8", END],
    "F": ["fooo", "ST", END],
    "G": ["abSTOPcd", "zz", END],
    "H": ["\r", "x2", "yy\r\n", "zzz", END],
    "J": ["one", "\u2028", "two", "\n\n", "three", END],
    "L": ["ab", "c<", "|end", "oftext|>", "after", END],
    "M": ["before", "NAN"],
    "N": ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", END],
}
NAN_TEXT = "NAN"  # the token whose embedding makes the next logits NaN
_VOCABULARY, _WIDTH, _HEADS, _KV, _FFN = 384, 384, 6, 2, 1536


def _alphabet() -> dict[int, str]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


class _Tokens:
    def __init__(self) -> None:
        self.alphabet = _alphabet()
        self.spelled = [*CONTROL, *(self.alphabet[byte] for byte in range(256))]
        self.ids = {token: index for index, token in enumerate(self.spelled)}

    def id(self, text: str | bytes | int) -> int:
        if isinstance(text, int):
            return text
        spelled = "".join(self.alphabet[byte] for byte in (text if isinstance(text, bytes) else text.encode()))
        if spelled not in self.ids:
            self.ids[spelled] = len(self.spelled)
            self.spelled.append(spelled)
        return self.ids[spelled]


def write_scripted(path: Path) -> Path:
    """Writes the model to `path`."""
    tokens = _Tokens()
    following: dict[int, int] = {}
    for letter, script in SCRIPTS.items():
        current = tokens.id(letter)
        for text in script:
            following[current] = tokens.id(text)
            current = following[current]
    broken = tokens.id(NAN_TEXT)
    tokens.id(bytes([0, 1]))  # the one merge that the file needs
    assert len(tokens.spelled) <= _VOCABULARY
    tokens.spelled += [f"<unused{i}>" for i in range(len(tokens.spelled), _VOCABULARY)]

    embedding = np.eye(_VOCABULARY, _WIDTH, dtype=np.float32)
    embedding[broken] = 3e38  # finite, but its norm is not
    head = np.zeros((_VOCABULARY, _WIDTH), np.float32)
    for token in range(_VOCABULARY):
        head[following.get(token, END), token] += 1
    _write(path, tokens, {"token_embd.weight": embedding, "output.weight": head})
    return path


def _write(path: Path, tokens: _Tokens, given: dict[str, npt.NDArray[np.float32]]) -> None:
    writer = gguf.GGUFWriter(path, "mpt")
    writer.add_name("scripted")
    writer.add_context_length(512)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_FFN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV)
    writer.add_layer_norm_eps(1e-5)
    writer.add_max_alibi_bias(8.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("refact")
    writer.add_token_list(tokens.spelled)
    writer.add_token_types([3] * len(CONTROL) + [1] * (_VOCABULARY - len(CONTROL)))
    writer.add_token_merges([f"{tokens.alphabet[0]} {tokens.alphabet[1]}"])
    writer.add_bos_token_id(END)
    writer.add_eos_token_id(END)
    qkv = _WIDTH + 2 * _KV * _WIDTH // _HEADS
    shapes = {
        "attn_qkv": (qkv, _WIDTH),
        "attn_output": (_WIDTH, _WIDTH),
        "ffn_up": (_FFN, _WIDTH),
        "ffn_down": (_WIDTH, _FFN),
    }
    rest = {f"blk.0.{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    norms = {name: np.ones(_WIDTH, np.float32) for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")}
    for name, values in (given | rest | {f"{name}.weight": gain for name, gain in norms.items()}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
