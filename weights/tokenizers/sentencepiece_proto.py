"""The part of SentencePiece's ModelProto that makes a Unigram tokenizer: read from bytes, written to bytes.

Protocol Buffers' wire format by hand, for the few fields needed, instead of a dependency on its library. Field numbers
are those of sentencepiece_model.proto; unknown fields are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

# Types of pieces, in SentencePiece as in ggml.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM = 1  # TrainerSpec.model_type; 2 is BPE

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
DEFAULT_UNKNOWN_TEXT = " \u2047 "


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place."""

    text: str
    score: float
    kind: int = NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """A vocabulary and how text is normalized before it is split."""

    pieces: tuple[Piece, ...]
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    unknown_text: str = DEFAULT_UNKNOWN_TEXT
    eos_id: int = -1
    bos_id: int = -1
    pad_id: int = -1
    charsmap: bytes = b""
    add_dummy_prefix: bool = False
    remove_extra_whitespaces: bool = False
    escape_whitespaces: bool = True
    whitespace_as_suffix: bool = False
    denormalizes: bool = False  # what is decoded is replaced by rules


Value = int | float | bytes


def parse(raw: bytes) -> SentencePieceModel:
    """Read a model file. Raises ValueError for what is not one."""
    model = SentencePieceModel(
        (), eos_id=2, bos_id=1, add_dummy_prefix=True, remove_extra_whitespaces=True
    )  # the format's defaults
    pieces: list[Piece] = []
    for number, value in _fields(raw):
        if number == _PIECES:
            pieces.append(_piece(_message(value)))
        elif number == _TRAINER:
            model = _with_trainer(model, _message(value))
        elif number == _NORMALIZER:
            model = _with_normalizer(model, _message(value))
        elif number == _DENORMALIZER:
            model = replace(model, denormalizes=bool(dict(_fields(_message(value))).get(2)))
    return replace(model, pieces=tuple(pieces))


def _message(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number stands where a message is expected")
    return value


def _piece(raw: bytes) -> Piece:
    fields = dict(_fields(raw))
    text, score, kind = fields.get(1, b""), fields.get(2, 0.0), fields.get(3, NORMAL)
    if not isinstance(score, float) or not isinstance(kind, int) or not NORMAL <= kind <= BYTE:
        raise ValueError("a piece has a damaged score or type")
    return Piece(_message(text).decode("utf-8"), score, kind)


def _with_trainer(model: SentencePieceModel, raw: bytes) -> SentencePieceModel:
    fields = dict(_fields(raw))

    def number(field: int, default: int) -> int:
        if field not in fields:
            return default
        value = fields[field]
        if not isinstance(value, int):
            raise ValueError(f"field {field} of the trainer's settings is not a number")
        return value - (1 << 64) if value >> 63 else value  # negative numbers are 64-bit

    return replace(
        model,
        model_type=number(3, UNIGRAM),
        whitespace_as_suffix=bool(number(24, 0)),
        byte_fallback=bool(number(35, 0)),
        bos_id=number(41, model.bos_id),
        eos_id=number(42, model.eos_id),
        pad_id=number(43, model.pad_id),
        unknown_text=_message(fields.get(44, model.unknown_text.encode())).decode("utf-8"),
    )


def _with_normalizer(model: SentencePieceModel, raw: bytes) -> SentencePieceModel:
    fields = dict(_fields(raw))
    return replace(
        model,
        charsmap=_message(fields.get(2, b"")),
        add_dummy_prefix=bool(fields.get(3, True)),
        remove_extra_whitespaces=bool(fields.get(4, True)),
        escape_whitespaces=bool(fields.get(5, True)),
    )


def _fields(raw: bytes) -> Iterator[tuple[int, Value]]:
    """Field numbers and values of one message. Raises ValueError where it is damaged."""
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        kind = key & 7
        value: Value
        if kind == _VARINT:
            value, position = _varint(raw, position)
        else:
            size = {_DOUBLE: 8, _FLOAT: 4}.get(kind, 0)
            if kind == _BYTES:
                size, position = _varint(raw, position)
            elif not size:
                raise ValueError(f"the wire type {kind} is unknown")
            value = raw[position : position + size]
            position += size
            if position > len(raw):
                raise ValueError("a field reaches beyond the end")
            if kind == _FLOAT:
                value = float(struct.unpack("<f", value)[0])
        yield key >> 3, value


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(raw):
            raise ValueError("a number reaches beyond the end")
        byte = raw[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError("a number has more than 64 bits")


def serialize(model: SentencePieceModel) -> bytes:
    """The model file that the sentencepiece library loads."""
    unknown = next((i for i, piece in enumerate(model.pieces) if piece.kind == UNKNOWN), 0)
    trainer = [
        _number(3, model.model_type),
        _number(4, len(model.pieces)),
        _number(24, model.whitespace_as_suffix),
        _number(35, model.byte_fallback),
        _number(40, unknown),
        _number(41, model.bos_id),
        _number(42, model.eos_id),
        _number(43, model.pad_id),
        _bytes(44, model.unknown_text.encode()),
    ]
    # The library looks special pieces up by text, and refuses a control piece that is missing.
    for field, index in ((45, unknown), (46, model.bos_id), (47, model.eos_id), (48, model.pad_id)):
        if 0 <= index < len(model.pieces):
            trainer.append(_bytes(field, model.pieces[index].text.encode()))
    normalizer = [
        _bytes(2, model.charsmap),
        _number(3, model.add_dummy_prefix),
        _number(4, model.remove_extra_whitespaces),
        _number(5, model.escape_whitespaces),
    ]
    pieces = (_bytes(_PIECES, _serialized_piece(piece)) for piece in model.pieces)
    return b"".join([*pieces, _nested(_TRAINER, trainer), _nested(_NORMALIZER, normalizer)])


def _serialized_piece(piece: Piece) -> bytes:
    score = bytes([2 << 3 | _FLOAT]) + struct.pack("<f", piece.score)
    return _bytes(1, piece.text.encode()) + score + _number(3, piece.kind)


def _nested(field: int, parts: Iterable[bytes]) -> bytes:
    return _bytes(field, b"".join(parts))


def _bytes(field: int, value: bytes) -> bytes:
    return _encoded(field << 3 | _BYTES) + _encoded(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return _encoded(field << 3 | _VARINT) + _encoded(int(value) % (1 << 64))


def _encoded(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])
