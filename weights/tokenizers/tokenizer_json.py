"""Byte-level BPE from a tokenizer.json, or from GPT-2's vocab.json and merges.txt, and the roles of its tokens.

The roles are in tokenizer_config.json, special_tokens_map.json, generation_config.json and config.json beside it, in
this order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weights.errors import UserError
from weights.files.mapped_file import check_regular, read_json
from weights.files.paths import exists
from weights.tokenizers.byte_level import CONTROL_TEXTS, END_OF_TEXT, ByteLevelTokenizer, fim_tokens, spelled_bytes
from weights.tokenizers.tokenizer import SpecialTokens

if TYPE_CHECKING:
    import tokenizers

# Ids reach as far as an embedding table can; an absurd one would make an absurd table of ours.
LARGEST_VOCABULARY = 1 << 22


def _refuse(path: Path, found: str, expected: str) -> UserError:
    return UserError(f"{path} {found}; expected {expected}: use the file of the model's repository")


def read_tokenizer_json(path: Path, embedding_rows: int | None) -> ByteLevelTokenizer:
    """The tokenizer in `path`, its vocabulary padded to `embedding_rows` with empty tokens.

    Raises UserError for another kind of tokenizer, a damaged file, or more tokens than rows.
    """
    content = _from_vocabulary(path) if path.name == "vocab.json" else read_json(path)
    _check_kind(path, content)
    _mark_control(content.get("added_tokens"))
    backend = _backend(path, content)
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
    if not isinstance(model, dict):
        raise _refuse(path, "has no model", "one of the kind 'BPE'")
    kind = model.get("type", "BPE" if model.keys() >= {"vocab", "merges"} else None)  # older files do not say it
    if kind != "BPE":
        raise _refuse(path, f"is of the kind {kind!r}", "'BPE'")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _refuse(path, f"has {key} {model[key]!r}", "BPE of bytes without it")
    if not any(step.get("type") == "ByteLevel" for step in _steps(content.get("pre_tokenizer"))):
        raise _refuse(path, "does not split text into bytes", "the pre-tokenizer ByteLevel")


def _mark_control(declared: Any) -> None:
    """Makes control tokens of what llama.cpp takes for them in a GGUF file, however a tokenizer was given them.

    Fine-tunes get their markers of a gap by `add_tokens`, which makes ordinary ones.
    """
    for token in declared if isinstance(declared, list) else []:
        if isinstance(token, dict) and _text(token) in CONTROL_TEXTS:
            token["special"] = True


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


def _from_vocabulary(path: Path) -> dict[str, Any]:
    """A tokenizer.json for vocab.json, with merges.txt and the added tokens that the files beside it name."""
    merges_file = path.parent / "merges.txt"
    check_regular(merges_file, "the merges that belong to vocab.json")
    vocabulary = read_json(path)
    try:
        lines = merges_file.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise _refuse(merges_file, "is not UTF-8 text", "a merge a line") from None
    merges = [line for line in lines if line and not line.startswith("#version")]
    roles = path.parent / "tokenizer_config.json"
    for flag in ("add_bos_token", "add_prefix_space"):  # as transformers does for a vocab.json
        if _optional(roles).get(flag) is True:
            raise _refuse(roles, f"says {flag} is true", "false, as in the whole family")
    return {
        "added_tokens": _added_tokens(path.parent, vocabulary),
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }


def _added_tokens(directory: Path, vocabulary: dict[str, Any]) -> list[dict[str, Any]]:
    """Tokens that are found in text as a whole, by their ids; those that have a role are control tokens."""
    ids = _optional(directory / "added_tokens.json")
    special = {END_OF_TEXT} & vocabulary.keys()
    stated: dict[str, dict[str, Any]] = {}
    for token, flags in _declared(_optional(directory / "tokenizer_config.json")):
        ids[flags["content"]], stated[flags["content"]] = int(token), flags
        special |= {flags["content"]} if flags.get("special") else set()
    for value in _optional(directory / "special_tokens_map.json").values():
        special |= {text for item in (value if isinstance(value, list) else [value]) if (text := _text(item))}
    ids |= {token: vocabulary[token] for token in special if token in vocabulary}
    wanted = {index: token for token, index in ids.items() if type(index) is int}
    return [
        {"id": i, "content": token, "special": token in special}
        | {flag: stated.get(token, {}).get(flag) is True for flag in ("single_word", "lstrip", "rstrip", "normalized")}
        for i, token in sorted(wanted.items())
    ]


def _declared(roles: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The entries of tokenizer_config.json's added_tokens_decoder that are whole."""
    declared = roles.get("added_tokens_decoder")
    items = declared.items() if isinstance(declared, dict) else ()
    entries = [(i, v) for i, v in items if isinstance(v, dict) and isinstance(v.get("content"), str)]
    return [(i, v) for i, v in entries if i.isdecimal() and len(i) < 10]


def _backend(path: Path, content: dict[str, Any]) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_str(json.dumps(content))
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
    found = {role: _role(path, role, ids) for role in ("eos", "bos", "pad", "unk")}
    texts = {token: index for token, index in ids.items() if index in control}
    return SpecialTokens(
        eos=found["eos"] if found["eos"] is not None else texts.get(END_OF_TEXT),
        bos=found["bos"],
        pad=found["pad"],
        unknown=found["unk"],
        fim=fim_tokens({}, texts),
    )


def _role(path: Path, role: str, ids: dict[str, int]) -> int | None:
    """The token of a role: by its text in the tokenizer's files, else by its id in the model's."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        text = _text(_optional(path.parent / name).get(f"{role}_token"))
        if role == "eos" and text not in (None, *ids):
            raise _refuse(path, f"has no token {text!r}", f"the eos_token of {name}")
        if text in ids:
            return ids[text]
    for name in ("generation_config.json", "config.json"):
        index = _id(_optional(path.parent / name).get(f"{role}_token_id"), ids)
        if index is not None:
            return index
    return None


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if exists(path) else {}


def _text(value: Any) -> str | None:
    """A token in tokenizer_config.json: its text, or an object with the text."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _id(value: Any, ids: dict[str, int]) -> int | None:
    """The id in config.json: a number, or a list of which the first counts."""
    first = value[0] if isinstance(value, list) and value else value
    return first if type(first) is int and first in ids.values() else None
