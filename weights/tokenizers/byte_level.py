"""Byte-level BPE, as GPT-2 introduced it: from GGUF metadata or from a tokenizer.json.

Merging and splitting is done by the `tokenizers` library, imported at the first use. Decoding is
our own table of bytes, so that streaming never waits for a library's idea of clean text.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.tokenizers.splits import NAMES, pre_tokenizer
from weights.tokenizers.tokenizer import FimTokens, SpecialTokens, Tokenizer

if TYPE_CHECKING:
    import tokenizers

# ggml's token types.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)

# Characters from which on encoding takes milliseconds.
_LONG_TEXT = 4096
END_OF_TEXT = "<|endoftext|>"
# Spellings of the fill-in-the-middle tokens where the file does not name them by id.
_FIM_TEXTS = {
    "prefix": ("<fim_prefix>", "<fim-prefix>", "<|fim_prefix|>", "<PRE>"),
    "suffix": ("<fim_suffix>", "<fim-suffix>", "<|fim_suffix|>", "<SUF>"),
    "middle": ("<fim_middle>", "<fim-middle>", "<|fim_middle|>", "<MID>"),
    "pad": ("<fim_pad>", "<fim-pad>", "<|fim_pad|>", "<PAD>"),
}
#: What llama.cpp takes for control tokens whatever type the file gives them: ends of texts, and the above.
CONTROL_TEXTS = frozenset(
    "<|endoftext|> <|end_of_text|> <|eot_id|> <|eom_id|> <|im_end|> <|end|> <|return|> <|call|> <|calls|> <|flush|> "
    "<end_of_turn> <end_of_utterance> </s> <eos> [EOS] <EOT> _<EOT> [EOT]".split()
).union(*_FIM_TEXTS.values())
# A key of ours: no converter writes the order that a model wants, and no reader minds one more.
SUFFIX_FIRST_KEY = "tokenizer.ggml.fim_suffix_first"
# GGUF's keys for them: llama.cpp's present one, and the one that its converters wrote before.
_FIM_KEYS = {
    "prefix": ("fim_pre_token_id", "prefix_token_id"),
    "suffix": ("fim_suf_token_id", "suffix_token_id"),
    "middle": ("fim_mid_token_id", "middle_token_id"),
    "pad": ("fim_pad_token_id",),
}


def check_text(path: Path, key: str, strings: list[str]) -> None:
    """Raise UserError for bytes that are no UTF-8, which readers pass on as lone surrogates."""
    try:
        "".join(strings).encode("utf-8")
    except UnicodeEncodeError:
        if "Ġ" not in strings and " " in strings:
            raise _raw_bytes(path) from None
        raise UserError(
            f"{path}: {key} holds bytes that are no UTF-8 text; expected a whole vocabulary: download it again"
        ) from None


def _raw_bytes(path: Path) -> UserError:
    return UserError(
        f"{path} is a GGUF file of 2023 whose tokens are raw bytes, which llama.cpp does not read either since its "
        "change of byte-level BPE; expected tokens in GPT-2's byte alphabet: use a newer file of the model (of "
        "replit-code-v1_5-3b replit-code-v1_5-3b-newbpe-q4_0.gguf), or convert the original again"
    )


class ByteLevelTokenizer(Tokenizer):
    """A `tokenizers` pipeline whose vocabulary is spelled in GPT-2's byte alphabet."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        token_bytes: list[bytes],
        control: dict[int, str],
        special: SpecialTokens,
    ) -> None:
        super().__init__(token_bytes, control, special)
        self._backend = backend
        self._missing_bytes = frozenset(range(256)) - {b[0] for b in token_bytes if len(b) == 1}

    def encode(self, text: str, *, parse_special: bool = True) -> list[int]:
        """See `Tokenizer.encode`. Raises UserError for a byte without a token."""
        self._check_bytes(text)
        backend = self._backend if parse_special else self._literal_backend
        if len(text) < _LONG_TEXT:
            short: list[int] = backend.encode(text, add_special_tokens=False).ids
            return short
        # The library lets other threads run while it works on a batch, not on a single text.
        long: list[int] = backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return long

    def to_json(self) -> str:
        """The pipeline as a tokenizer.json."""
        content: str = self._backend.to_str()
        return content

    @cached_property
    def _literal_backend(self) -> tokenizers.Tokenizer:
        """The same pipeline, with control tokens as ordinary text."""
        from tokenizers import Tokenizer as Backend

        backend = Backend.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def _check_bytes(self, text: str) -> None:
        """The library drops what it has no token for: a silent change of the prompt."""
        try:
            raw = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text holds the lone surrogate {text[error.start]!r} at position "
                f"{error.start}; expected Unicode text: give UTF-8"
            ) from None
        unknown = self._missing_bytes.intersection(raw) if self._missing_bytes else None
        if unknown:
            raise UserError(
                f"the vocabulary has no token for the byte 0x{min(unknown):02x}; expected text "
                "within the model's alphabet: leave that character out"
            )


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte: itself where it prints, else 256 and upwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


def spelled_bytes(token: str) -> bytes:
    """The bytes of a token that is spelled in the byte alphabet; KeyError for another character."""
    alphabet = byte_alphabet()
    return bytes([alphabet[character] for character in token])


def from_gguf(checkpoint: Checkpoint) -> ByteLevelTokenizer:
    """Build the tokenizer that the file's `tokenizer.ggml.*` keys describe."""
    keys = _GgufKeys(checkpoint)
    tokens, types = keys.tokens(), keys.types()
    control = {i: tokens[i] for i, kind in enumerate(types) if kind in (_CONTROL, _UNKNOWN)}
    backend = _backend(keys, tokens, types)
    table = [keys.token_bytes(token, kind) for token, kind in zip(tokens, types, strict=True)]
    return ByteLevelTokenizer(backend, table, control, keys.special(control, len(tokens)))


def _backend(keys: _GgufKeys, tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    from tokenizers import AddedToken, models
    from tokenizers import Tokenizer as Backend

    splitting = keys.splitting()
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise keys.error("tokenizer.ggml.tokens", "holds a token twice", "distinct tokens")
    try:
        backend = Backend(models.BPE(vocab=vocabulary, merges=keys.merges()))
    except Exception as error:  # the library raises the bare class
        raise keys.error("tokenizer.ggml.merges", f"is refused ({error})", "merges of tokens") from None
    whole = keys.metadata.get("tokenizer.huggingface.json")
    normalized: set[str] = set()
    if isinstance(whole, str):
        # GGUF's own keys know no normalization of the text (llama.cpp does none).
        try:
            stated = Backend.from_str(whole)
        except Exception as error:
            raise keys.error("tokenizer.huggingface.json", f"is refused ({error})", "a tokenizer.json") from None
        backend.normalizer = stated.normalizer
        normalized = {token.content for token in stated.get_added_tokens_decoder().values() if token.normalized}
    backend.pre_tokenizer = pre_tokenizer(splitting)
    # As in llama.cpp: user-defined tokens are always found in text, control ones where asked for.
    added = {_USER_DEFINED: False, _CONTROL: True, _UNKNOWN: True}
    backend.add_tokens(
        [
            AddedToken(token, special=added[kind], normalized=token in normalized)
            for token, kind in zip(tokens, types, strict=True)
            if kind in added
        ]
    )
    return backend


def _true_type(token: str, kind: int) -> int:
    """The type that converters should have written."""
    if token in CONTROL_TEXTS:
        return _CONTROL
    # White space has other letters in the byte alphabet: where it is spelled as itself it is
    # an added token, which older converters called a normal one.
    return _USER_DEFINED if kind == _NORMAL and token.isspace() else kind


class _GgufKeys:
    """Checked reads of `tokenizer.ggml.*`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.path = checkpoint.path
        self.metadata = checkpoint.metadata

    def error(self, key: str, found: str, expected: str) -> UserError:
        return UserError(f"{self.path}: {key} {found}; expected {expected}: convert the model again")

    def tokens(self) -> list[str]:
        key = "tokenizer.ggml.tokens"
        tokens = self._strings(key)
        check_text(self.path, key, tokens)
        if "Ġ" not in tokens and " " in tokens:
            raise _raw_bytes(self.path)
        return tokens

    def merges(self) -> list[tuple[str, str]]:
        key = "tokenizer.ggml.merges"
        pairs = [tuple(merge.split(" ")) for merge in self._strings(key)]
        for pair in pairs:
            if len(pair) != 2:
                raise self.error(key, f"holds {' '.join(pair)!r}", "two tokens with one space between")
        return pairs  # type: ignore[return-value]  # the loop has checked every length

    def _strings(self, key: str) -> list[str]:
        values = self.metadata.get(key)
        if not isinstance(values, list) or not values or not isinstance(values[0], str):
            raise self.error(key, "is missing or not a list of strings", "the vocabulary")
        return values

    def types(self) -> list[int]:
        key = "tokenizer.ggml.token_type"
        count = len(self.tokens())
        types = self.metadata.get(key, [_NORMAL] * count)
        if not isinstance(types, list) or len(types) != count:
            found = f"has {len(types)} entries" if isinstance(types, list) else "is not a list"
            raise self.error(key, found, f"{count}, one for each token")
        unknown = set(types) - set(range(_NORMAL, _BYTE + 1))
        if unknown:
            raise self.error(key, f"holds {min(unknown)!r}", "types 1 to 6")
        return [_true_type(token, kind) for token, kind in zip(self.tokens(), types, strict=True)]

    def splitting(self) -> str:
        """A missing variant is GPT-2's, as in files older than the key."""
        key = "tokenizer.ggml.pre"
        variant = self.metadata.get(key, "gpt-2")
        if not isinstance(variant, str) or variant not in NAMES:
            raise self.error(key, f"is {variant!r}", "one of " + ", ".join(NAMES))
        for flag in ("add_bos_token", "add_eos_token", "add_space_prefix"):
            if self.metadata.get(f"tokenizer.ggml.{flag}"):
                raise self.error(f"tokenizer.ggml.{flag}", "is true", "false, as in the whole family")
        return NAMES[variant]

    def token_bytes(self, token: str, kind: int) -> bytes:
        if kind in (_CONTROL, _UNKNOWN, _UNUSED):
            return b""
        if kind == _USER_DEFINED:
            return token.encode("utf-8")
        try:
            return spelled_bytes(token)
        except KeyError:
            raise self.error("tokenizer.ggml.tokens", f"holds {token!r}", "tokens in GPT-2's byte alphabet") from None

    def special(self, control: dict[int, str], count: int) -> SpecialTokens:
        return SpecialTokens(
            eos=self._eos(control, count),
            bos=self._id("bos_token_id", count),
            pad=self._id("padding_token_id", count),
            unknown=self._id("unknown_token_id", count),
            fim=self._fim(control, count),
        )

    def _eos(self, control: dict[int, str], count: int) -> int | None:
        stated = self._id("eos_token_id", count)
        usual = (index for index, text in control.items() if text == END_OF_TEXT)
        return next(usual, None) if stated is None else stated

    def _id(self, name: str, count: int) -> int | None:
        key = f"tokenizer.ggml.{name}"
        value = self.metadata.get(key)
        if value is not None and (type(value) is not int or not 0 <= value < count):
            raise self.error(key, f"is {value!r}", f"an id below {count}")
        return value

    def _fim(self, control: dict[int, str], count: int) -> FimTokens | None:
        ids = {part: self._fim_id(part, count) for part in _FIM_KEYS}
        texts = {text: index for index, text in control.items()}
        found = fim_tokens(ids, texts)
        first = self.metadata.get(SUFFIX_FIRST_KEY, False)
        if type(first) is not bool:
            raise self.error(SUFFIX_FIRST_KEY, f"is {first!r}", "true or false")
        return None if found is None else replace(found, suffix_first=first)

    def _fim_id(self, part: str, count: int) -> int | None:
        found = (self._id(name, count) for name in _FIM_KEYS[part])
        return next((token for token in found if token is not None), None)


def fim_tokens(ids: dict[str, int | None], texts: dict[str, int]) -> FimTokens | None:
    """The ids that a file names, else those of control tokens with a known spelling."""
    for part, spellings in _FIM_TEXTS.items():
        if ids.get(part) is None:
            ids[part] = next((texts[text] for text in spellings if text in texts), None)
    prefix, suffix, middle = ids["prefix"], ids["suffix"], ids["middle"]
    if prefix is None or suffix is None or middle is None:
        return None
    return FimTokens(prefix, suffix, middle, ids["pad"])
