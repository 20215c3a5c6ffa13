"""SentencePiece Unigram, replit-code-v1-3b's tokenizer: from spiece.model or from GGUF metadata ("llama", "t5").

The sentencepiece library does the splitting. The `tokenizers` library's Unigram is not exact here: with user-defined
pieces in its vocabulary it breaks ties differently, with the same pieces as added tokens it cuts the longest first.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.files.mapped_file import check_regular
from weights.tokenizers.byte_level import CONTROL_TEXTS, check_text
from weights.tokenizers.sentencepiece_proto import (
    BYTE,
    CONTROL,
    DEFAULT_UNKNOWN_TEXT,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
    parse,
    serialize,
)
from weights.tokenizers.tokenizer import SpecialTokens, Tokenizer

if TYPE_CHECKING:
    import sentencepiece

_LARGEST_FILE = 100 << 20
_SPACE = "\u2581"  # how pieces spell a space
_BYTE_TEXT = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_LARGEST_SCORE = (2 - 2.0**-23) * 2.0**127  # of float32, in which SentencePiece has them
_END_OF_TEXT = "<|endoftext|>"
_PREFIX = "tokenizer.ggml."
# A key of ours: what an unknown character is decoded as, where that is not SentencePiece's usual text.
_UNKNOWN_TEXT = _PREFIX + "unk_surface"


class UnigramTokenizer(Tokenizer):
    """A `sentencepiece` processor; nothing is added at the ends of a text."""

    def __init__(self, model: SentencePieceModel, rows: int, source: Path) -> None:
        """`rows` of the embedding table, at least as many as there are pieces."""
        kinds = [piece.kind for piece in model.pieces]
        control = {i: piece.text for i, piece in enumerate(model.pieces) if piece.kind == CONTROL}
        table = [_piece_bytes(i, piece, model.unknown_text) for i, piece in enumerate(model.pieces)]
        special = SpecialTokens(
            eos=_known(model.eos_id),
            bos=_known(model.bos_id),
            pad=_known(model.pad_id),
            unknown=kinds.index(UNKNOWN) if UNKNOWN in kinds else None,
        )
        super().__init__(table + [b""] * (rows - len(table)), control, special)
        self.model = model
        self._processor = _processor(model, source)
        self._marks = {p.text: i for i, p in enumerate(model.pieces) if p.kind in (CONTROL, UNKNOWN)}
        longest_first = sorted(self._marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if self._marks else None

    def encode(self, text: str, *, parse_special: bool = True) -> list[int]:
        """See `Tokenizer.encode`. A character outside the vocabulary is one unknown token, a run of them as well."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text holds the lone surrogate {text[error.start]!r} at position "
                f"{error.start}; expected Unicode text: give UTF-8"
            ) from None
        if not parse_special or self._pattern is None:
            return self._encode(text)
        ids, start = [], 0
        for match in self._pattern.finditer(text):
            ids += [*self._encode(text[start : match.start()]), self._marks[match[0]]]
            start = match.end()
        return ids + self._encode(text[start:])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        return ids


def _known(index: int) -> int | None:
    return index if index >= 0 else None


def _padding(index: int) -> str:
    """How converters spell a row of the embedding table without a piece."""
    return f"[PAD{index}]"


def _piece_bytes(index: int, piece: Piece, unknown_text: str) -> bytes:
    if piece.kind == CONTROL or (piece.kind == UNUSED and piece.text == _padding(index)):
        return b""
    if piece.kind == UNKNOWN:
        return unknown_text.encode()
    if piece.kind == BYTE:
        return bytes([int(piece.text[3:5], 16)])  # <0x0A>
    return piece.text.replace(_SPACE, " ").encode()


def _processor(model: SentencePieceModel, source: Path) -> sentencepiece.SentencePieceProcessor:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(serialize(model))
    except (RuntimeError, ValueError) as error:
        raise _refuse(source, f"is refused by the sentencepiece library ({error})", "a sound file") from None
    return processor


def _refuse(path: Path, found: str, expected: str) -> UserError:
    return UserError(f"{path} {found}; expected {expected}: use the file of the model's repository")


def read_spiece(path: Path, embedding_rows: int | None) -> UnigramTokenizer:
    """The tokenizer in a SentencePiece model file, padded to `embedding_rows` with empty tokens.

    Raises UserError for another kind of tokenizer, a damaged file, or more pieces than rows.
    """
    check_regular(path, "a SentencePiece model")
    if path.stat().st_size > _LARGEST_FILE:
        raise _refuse(path, f"is larger than {_LARGEST_FILE} bytes", "a SentencePiece model")
    try:
        model = parse(path.read_bytes())
    except ValueError as error:
        raise _refuse(path, f"is damaged ({error})", "a SentencePiece model") from None
    return _checked(path, model, embedding_rows)


def _checked(path: Path, model: SentencePieceModel, rows: int | None) -> UnigramTokenizer:
    if model.model_type != UNIGRAM:
        raise _refuse(path, f"is of SentencePiece's kind {model.model_type}", "1 (Unigram)")
    if model.whitespace_as_suffix or not model.escape_whitespaces:
        raise _refuse(path, "spells spaces at the ends of words or as themselves", f"{_SPACE} before words")
    if model.denormalizes:
        raise _refuse(path, "replaces what it decodes by rules (denormalizer_spec)", "pieces as their own text")
    kinds = {piece.kind for piece in model.pieces}
    if NORMAL not in kinds or UNKNOWN not in kinds:
        raise _refuse(path, "has no ordinary or no unknown piece", "a whole vocabulary")
    bad = next((p.text for p in model.pieces if p.kind == BYTE and not _BYTE_TEXT.fullmatch(p.text)), None)
    if bad is not None:
        raise _refuse(path, f"spells a byte as {bad!r}", "<0x00> to <0xFF>")
    count = len(model.pieces)
    if count > (rows or count):
        raise _refuse(path, f"has {count} pieces", f"at most {rows}, the rows of the embedding table")
    if not all(-1 <= index < count for index in (model.eos_id, model.bos_id, model.pad_id)):
        raise _refuse(path, "names a special piece that it does not have", f"ids below {count}")
    return UnigramTokenizer(model, rows or count, path)


def from_gguf(checkpoint: Checkpoint) -> UnigramTokenizer:
    """The tokenizer that `tokenizer.ggml.*` keys of the kinds "llama" and "t5" describe.

    Converters for "llama" left the normalization table out and called user-defined pieces normal ones. The table is
    then that of nmt_nfkc; a score of 0 tells the pieces, since a piece's own is the logarithm of a probability. "t5"
    without a table has none, as in llama.cpp.
    """
    keys = checkpoint.metadata
    pieces = _gguf_pieces(checkpoint)
    scores = {piece.score for piece in pieces if piece.kind == NORMAL}
    if scores and all(score.is_integer() for score in scores):
        raise _refuse(checkpoint.path, "holds whole numbers as tokenizer scores (SentencePiece's BPE)", "Unigram")
    for flag in ("add_bos_token", "add_eos_token"):
        if keys.get(_PREFIX + flag):
            raise _refuse(checkpoint.path, f"says {_PREFIX}{flag} is true", "false, as in the whole family")
    marks = {piece.text: i for i, piece in enumerate(pieces) if piece.kind == CONTROL}
    model = SentencePieceModel(
        pieces,
        eos_id=_special_id(checkpoint, "eos", marks.get(_END_OF_TEXT, -1)),
        bos_id=_special_id(checkpoint, "bos", -1),
        pad_id=_special_id(checkpoint, "padding", -1),
        byte_fallback=any(piece.kind == BYTE for piece in pieces),
        unknown_text=_unknown_text(checkpoint),
        charsmap=_charsmap(checkpoint),
        add_dummy_prefix=keys.get(_PREFIX + "add_space_prefix") is True,
        remove_extra_whitespaces=keys.get(_PREFIX + "remove_extra_whitespaces") is True,
    )
    return _checked(checkpoint.path, model, len(pieces))


def _gguf_pieces(checkpoint: Checkpoint) -> tuple[Piece, ...]:
    texts, scores, kinds = (_list(checkpoint, key) for key in ("tokens", "scores", "token_type"))
    if not len(texts) == len(scores) == len(kinds):
        raise _refuse(checkpoint.path, "has token lists of different lengths", "one entry for each token")
    if not set(kinds) <= set(range(NORMAL, BYTE + 1)):
        raise _refuse(checkpoint.path, "holds unknown token types", "types 1 to 6")
    if not all(type(score) in (int, float) and abs(score) <= _LARGEST_SCORE for score in scores):
        raise _refuse(checkpoint.path, "holds tokenizer scores that are no numbers", "one in 32 bits for each token")
    if not all(isinstance(text, str) for text in texts):
        raise _refuse(checkpoint.path, "holds tokens that are no texts", "a whole vocabulary")
    check_text(checkpoint.path, _PREFIX + "tokens", texts)
    kinds = [
        CONTROL if text in CONTROL_TEXTS and kind == NORMAL else kind for text, kind in zip(texts, kinds, strict=True)
    ]
    mend = checkpoint.metadata[_PREFIX + "model"] == "llama"
    return tuple(
        Piece(text, float(score), USER_DEFINED if mend and kind == NORMAL and score == 0 else kind)
        for text, score, kind in zip(texts, scores, kinds, strict=True)
    )


def _list(checkpoint: Checkpoint, key: str) -> list[Any]:
    values = checkpoint.metadata.get(_PREFIX + key)
    if not isinstance(values, list):
        raise _refuse(checkpoint.path, f"has no list {_PREFIX}{key}", "a whole vocabulary")
    return values


def _special_id(checkpoint: Checkpoint, role: str, default: int) -> int:
    key = f"{_PREFIX}{role}_token_id"
    value = checkpoint.metadata.get(key, default)
    if type(value) is not int:
        raise _refuse(checkpoint.path, f"says {key} is {value!r}", "a token id")
    return value


def _charsmap(checkpoint: Checkpoint) -> bytes:
    """The normalization table, from bytes with a sign or without, as llama.cpp takes them."""
    key = _PREFIX + "precompiled_charsmap"
    values = checkpoint.metadata.get(key)
    if values is None:
        return _nmt_nfkc() if checkpoint.metadata[_PREFIX + "model"] == "llama" else b""
    if not isinstance(values, list) or not all(type(value) is int and -128 <= value < 256 for value in values):
        raise _refuse(checkpoint.path, f"says {key} is no list of bytes", "SentencePiece's normalization table")
    return bytes(value & 255 for value in values)


def _unknown_text(checkpoint: Checkpoint) -> str:
    text = checkpoint.metadata.get(_UNKNOWN_TEXT, DEFAULT_UNKNOWN_TEXT)
    if not isinstance(text, str):
        raise _refuse(checkpoint.path, f"says {_UNKNOWN_TEXT} is {text!r}", "a text")
    return text


@cache
def _nmt_nfkc() -> bytes:
    """SentencePiece's own normalization table of that name."""
    from sentencepiece import SentencePieceNormalizer

    normalizer = SentencePieceNormalizer(rule_name="nmt_nfkc")
    return parse(normalizer.serialized_model_proto()).charsmap


def gguf_keys(tokenizer: UnigramTokenizer) -> dict[str, Any]:
    """The tokenizer as GGUF metadata of the kind "t5", which says everything that splitting depends on."""
    model, rows = tokenizer.model, tokenizer.vocab_size
    padding = [Piece(_padding(i), 0.0, UNUSED) for i in range(len(model.pieces), rows)]
    pieces = [*model.pieces, *padding]
    ids = {
        "eos": tokenizer.special.eos,
        "bos": tokenizer.special.bos,
        "padding": tokenizer.special.pad,
        "unknown": tokenizer.special.unknown,
    }
    unknown = {} if model.unknown_text == DEFAULT_UNKNOWN_TEXT else {_UNKNOWN_TEXT: model.unknown_text}
    return {
        _PREFIX + "model": "t5",
        _PREFIX + "pre": "default",
        _PREFIX + "tokens": [piece.text for piece in pieces],
        _PREFIX + "scores": [piece.score for piece in pieces],
        _PREFIX + "token_type": [piece.kind for piece in pieces],
        _PREFIX + "precompiled_charsmap": list(model.charsmap),
        _PREFIX + "add_space_prefix": model.add_dummy_prefix,
        _PREFIX + "remove_extra_whitespaces": model.remove_extra_whitespaces,
        _PREFIX + "add_bos_token": False,
        _PREFIX + "add_eos_token": False,
        **unknown,
    } | {f"{_PREFIX}{role}_token_id": i for role, i in ids.items() if i is not None}
