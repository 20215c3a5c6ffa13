"""Writes a model's tokenizer as GGUF's tokenizer.ggml keys, from another GGUF or tokenizer.json.

What is written is read back and compared with the source on a probing text, so a tokenizer that
those keys cannot express is refused instead of changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.tokenizers.byte_level import SUFFIX_FIRST_KEY, ByteLevelTokenizer
from weights.tokenizers.load import load_tokenizer
from weights.tokenizers.tokenizer import SpecialTokens, Tokenizer
from weights.tokenizers.unigram import UnigramTokenizer, gguf_keys

if TYPE_CHECKING:
    from gguf import GGUFWriter

_PREFIX = "tokenizer."
_PROBE = (
    "def f(x1234):\n\treturn  x * 3.14  # it's naïve, nai\u0308ve, we'll… 日本語 🙂\r\n\n    \t \n"
    "<|endoftext|> 'S 10000000 ___init__ {}();\\'\"   end"
)


def tokenizer_keys(checkpoint: Checkpoint, vocab_size: int, path: Path | None = None) -> dict[str, Any]:
    """The keys for the model's tokenizer or the one in `path`; the token list has `vocab_size` entries.

    Raises UserError where there is no tokenizer or GGUF cannot express it.
    """
    if path is None and "tokenizer.ggml.model" in checkpoint.metadata:
        load_tokenizer(checkpoint)  # refuses a damaged one now, not at the first run
        return {k: v for k, v in checkpoint.metadata.items() if k.startswith(_PREFIX)}
    tokenizer = load_tokenizer(checkpoint, path)
    if isinstance(tokenizer, UnigramTokenizer):
        return gguf_keys(tokenizer)
    if not isinstance(tokenizer, ByteLevelTokenizer):
        raise TypeError(type(tokenizer))
    return _from_json(path or checkpoint.directory, tokenizer, vocab_size)


def padded(keys: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """`keys`, if they are GGUF's, with unused tokens for the rows of a table that has grown."""
    from gguf import TokenType

    tokens = keys.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        return dict(keys)
    new = range(len(tokens), rows)
    types = keys.get("tokenizer.ggml.token_type", [int(TokenType.NORMAL)] * len(tokens))
    lists: dict[str, tuple[Any, list[Any]]] = {
        "tokens": (tokens, [f"[PAD{index}]" for index in new]),
        "token_type": (types, [int(TokenType.UNUSED)] * len(new)),
        "scores": (keys.get("tokenizer.ggml.scores"), [0.0] * len(new)),
    }
    grown = {f"tokenizer.ggml.{name}": [*old, *more] for name, (old, more) in lists.items() if isinstance(old, list)}
    return {**keys, **grown}


def _from_json(path: Path, tokenizer: ByteLevelTokenizer, vocab_size: int) -> dict[str, Any]:
    content = json.loads(tokenizer.to_json())
    for name, found in _unsayable(content):
        raise UserError(
            f"the tokenizer in {path} has {name} {found}, which GGUF has no key for; expected one without: keep the "
            "model in safetensors, or give another tokenizer.json"
        )
    keys = _vocabulary(content, vocab_size) | _special(tokenizer.special)
    if content.get("normalizer") is not None:
        # The ggml keys cannot say it; the GGUF specification has this one for the whole file.
        keys["tokenizer.huggingface.json"] = json.dumps(content, ensure_ascii=False)
    for split in _splits(content):
        keys["tokenizer.ggml.pre"] = split
        if _same(tokenizer, Checkpoint(path, "gguf", {}, keys)):
            return keys
    raise UserError(
        f"the tokenizer in {path} splits text in a way that GGUF has no name for; expected that of GPT-2 or of "
        "Refact: keep the model in safetensors, or give a directory with another tokenizer.json"
    )


def _unsayable(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What changes ids and would be lost: an option of the model, or of an added token with that token."""
    if content["model"].get("ignore_merges"):
        yield "ignore_merges", "on"
    for added in content.get("added_tokens", []):
        for flag in ("single_word", "lstrip", "rstrip"):
            if added.get(flag):
                yield flag, f"on for the token {added['content']!r}"


def _splits(content: dict[str, Any]) -> tuple[str, str]:
    """llama.cpp's names of the ways to split text that this family uses, the likelier one first."""
    return ("refact", "mpt") if "Digits" in str(content["pre_tokenizer"]) else ("mpt", "refact")


def _same(tokenizer: Tokenizer, converted: Checkpoint) -> bool:
    written = load_tokenizer(converted)
    return written.encode(_PROBE) == tokenizer.encode(_PROBE)


def _vocabulary(content: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """Tokens in the order of their ids, rows of the table without a token filled up, and merges."""
    from gguf import TokenType

    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    types = [int(TokenType.UNUSED)] * vocab_size
    for token, index in content["model"]["vocab"].items():
        tokens[index], types[index] = token, int(TokenType.NORMAL)
    for added in content.get("added_tokens", []):
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], int(kind)
    merges = content["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in merges],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }


def _special(special: SpecialTokens) -> dict[str, int | bool]:
    fim = special.fim
    ids: dict[str, int | None] = {
        "eos": special.eos,
        "bos": special.bos,
        "padding": special.pad,
        "unknown": special.unknown,
    }
    if fim is not None:
        ids |= {"fim_pre": fim.prefix, "fim_suf": fim.suffix, "fim_mid": fim.middle}
        ids |= {"fim_pad": fim.pad}
    keys: dict[str, int | bool] = {f"tokenizer.ggml.{r}_token_id": i for r, i in ids.items() if i is not None}
    return keys | ({SUFFIX_FIRST_KEY: True} if fim is not None and fim.suffix_first else {})


def with_fim(keys: dict[str, Any], tokens: Sequence[str], suffix_first: bool | None) -> dict[str, Any]:
    """`keys` with other fill-in-the-middle tokens and order.

    `tokens` are prefix, suffix, middle and maybe padding, each as text or as an id; none leaves those of `keys`.
    `suffix_first` None leaves the order. Raises UserError for a token that is not in the vocabulary.
    """
    result = dict(keys)
    vocabulary = keys.get("tokenizer.ggml.tokens", [])
    if tokens and len(tokens) not in (3, 4):
        raise UserError(f"--fim names {len(tokens)} tokens; expected PREFIX,SUFFIX,MIDDLE or PREFIX,SUFFIX,MIDDLE,PAD")
    for role, token in zip(("pre", "suf", "mid", "pad"), tokens, strict=False):
        is_id = token.isdecimal() and len(token) < 10
        index = int(token) if is_id else next((i for i, t in enumerate(vocabulary) if t == token), -1)
        if not 0 <= index < len(vocabulary):
            raise UserError(
                f"--fim names the token {token!r}, which the vocabulary of {len(vocabulary)} does not have; expected "
                "one that it has, or an id: see `replit inspect`"
            )
        result[f"tokenizer.ggml.fim_{role}_token_id"] = index
    if suffix_first is not None:
        result[SUFFIX_FIRST_KEY] = suffix_first
    return result


def add_keys(writer: GGUFWriter, keys: dict[str, Any]) -> None:
    """Add key-values of plain Python types, with the types that llama.cpp expects, or wider ones where needed."""
    from gguf import GGUFValueType

    for key, value in keys.items():
        if not isinstance(value, list):
            kind = _value_type([value], ("UINT32", "INT32", "UINT64", "INT64"))
            writer.add_key_value(key, value, GGUFValueType[kind])
        elif value:
            # SentencePiece's normalization table is the one list of bytes.
            bytes_first = ("UINT8", "INT8") if key == "tokenizer.ggml.precompiled_charsmap" else ()
            kind = _value_type(value, (*bytes_first, "INT32", "UINT32", "INT64", "UINT64"))
            writer.add_key_value(key, value, GGUFValueType.ARRAY, GGUFValueType[kind])


def _value_type(values: list[Any], integers: tuple[str, ...]) -> str:
    """GGUF's name of the first type that holds all `values`, which are of one kind, without a loss."""
    kind = type(values[0])
    if kind in (bool, str):
        return "BOOL" if kind is bool else "STRING"
    if kind is float:
        wide = np.array(values)
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float32)
        return "FLOAT32" if np.array_equal(narrow, wide, equal_nan=True) else "FLOAT64"
    low, high = min(values), max(values)
    for name in integers:
        signed, bits = name.startswith("I"), int(name.lstrip("UINT"))
        end = 1 << (bits - signed)
        if (-end if signed else 0) <= low and high < end:
            return name
    raise ValueError(f"whole numbers from {low} to {high} have no type in GGUF")
