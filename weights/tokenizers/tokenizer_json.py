"""Byte-level BPE from a tokenizer.json, with the roles of tokens from the files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from weights.errors import UserError
from weights.files.mapped_file import read_json
from weights.tokenizers.byte_level import ByteLevelTokenizer, fim_tokens, spelled_bytes
from weights.tokenizers.tokenizer import SpecialTokens

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
# Ids reach as far as an embedding table can; an absurd one would make an absurd table of ours.
LARGEST_VOCABULARY = 1 << 22


def _refuse(path: Path, found: str, expected: str) -> UserError:
    return UserError(f"{path} {found}; expected {expected}: use the file of the model's repository")


def read_tokenizer_json(path: Path, embedding_rows: int | None) -> ByteLevelTokenizer:
    """The tokenizer in `path`, its vocabulary padded to `embedding_rows` with empty tokens.

    Raises UserError for another kind of tokenizer, a damaged file, or more tokens than rows.
    """
    content = read_json(path)
    _check_kind(path, content)
    backend = _backend(path)
    ids = backend.get_vocab(with_added_tokens=True)
    size = max(ids.values(), default=-1) + 1
    if size > (embedding_rows or LARGEST_VOCABULARY):
        raise _refuse(path, f"has token ids up to {size - 1}", f"at most {embedding_rows} tokens")
    _check_ids(path, ids, content.get("added_tokens"))
    table = [b""] * (embedding_rows or size)
    added = backend.get_added_tokens_decoder()
    control = {index: token.content for index, token in added.items() if token.special}
    for token, index in ids.items():
        if index not in control:
            table[index] = _token_bytes(path, token, index in added)
    return ByteLevelTokenizer(backend, table, control, _special(path, ids, control))


def _check_kind(path: Path, content: dict[str, Any]) -> None:
    model = content.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind != "BPE":
        raise _refuse(path, f"is of the kind {kind!r}", "'BPE'")
    if not any(step.get("type") == "ByteLevel" for step in _steps(content.get("pre_tokenizer"))):
        raise _refuse(path, "does not split text into bytes", "the pre-tokenizer ByteLevel")


def _check_ids(path: Path, ids: dict[str, int], declared: Any) -> None:
    """The library renumbers added tokens that leave a gap; then two tokens can share an id."""
    if len(set(ids.values())) != len(ids):
        raise _refuse(path, "gives one id to two tokens", "an id for each")
    for token in declared if isinstance(declared, list) else []:
        text, stated = token["content"], token["id"]  # the library has checked that they exist
        if ids.get(text) != stated:
            raise _refuse(path, f"gives the added token {text!r} the id {stated}", "ids without gaps")


def _steps(part: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, which is one or a sequence."""
    if not isinstance(part, dict):
        return []
    nested = part.get("pretokenizers")
    return [step for step in nested if isinstance(step, dict)] if isinstance(nested, list) else [part]


def _backend(path: Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises the bare class
        raise _refuse(path, f"is refused by the tokenizers library ({error})", "a sound file") from None
    backend.no_truncation()
    backend.no_padding()
    if backend.encode("", add_special_tokens=True).ids:
        raise _refuse(path, "adds tokens around every text", "a post-processor that adds none")
    return backend


def _token_bytes(path: Path, token: str, is_added: bool) -> bytes:
    if is_added:
        return token.encode("utf-8")
    try:
        return spelled_bytes(token)
    except KeyError:
        raise _refuse(path, f"holds the token {token!r}", "tokens in GPT-2's byte alphabet") from None


def _special(path: Path, ids: dict[str, int], control: dict[int, str]) -> SpecialTokens:
    roles = _optional(path.parent / "tokenizer_config.json")
    config = _optional(path.parent / "config.json")
    found = {}
    for role in ("eos", "bos", "pad", "unk"):
        text = _text(roles.get(f"{role}_token"))
        if role == "eos" and text not in (None, *ids):
            raise _refuse(path, f"has no token {text!r}", "the eos_token of tokenizer_config.json")
        named = ids.get(text) if text is not None else None
        found[role] = named if named is not None else _id(config.get(f"{role}_token_id"), ids)
    texts = {token: index for token, index in ids.items() if index in control}
    return SpecialTokens(
        eos=found["eos"] if found["eos"] is not None else texts.get(END_OF_TEXT),
        bos=found["bos"],
        pad=found["pad"],
        unknown=found["unk"],
        fim=fim_tokens({}, texts),
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _text(value: Any) -> str | None:
    """A token in tokenizer_config.json: its text, or an object with the text."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _id(value: Any, ids: dict[str, int]) -> int | None:
    """The id in config.json: a number, or a list of which the first counts."""
    first = value[0] if isinstance(value, list) and value else value
    return first if type(first) is int and first in ids.values() else None
