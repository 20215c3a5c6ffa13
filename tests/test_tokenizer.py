"""Tokenizers from GGUF, against the tokenizers library and llama.cpp."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from model_files import (
    CONTROL,
    MERGES,
    USER_DEFINED,
    ModelFile,
    write_gguf,
)
from tokenizer_samples import (
    IDS,
    ROOT,
    SAMPLES,
    TOKENS,
    TYPES,
    checkpoint_of,
    library_lines,
    random_code,
)
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from weights.errors import UserError
from weights.files.checkpoint import open_checkpoint
from weights.tokenizers.byte_level import byte_alphabet, from_gguf, spelled_bytes
from weights.tokenizers.load import load_tokenizer
from weights.tokenizers.tokenizer import FimTokens, Tokenizer

# GPT-2's pattern, spelled out: what a word is before anything is merged.
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def spelled(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [TOKENS[index] for index in tokenizer.encode(text, **options)]


def test_byte_alphabet_is_that_of_the_library() -> None:
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in SAMPLES[1:]:
        [(token, _)] = splitter.pre_tokenize_str(text)
        assert spelled_bytes(token) == text.encode()


def test_merges_apply_in_order() -> None:
    tokenizer = load_tokenizer(checkpoint_of())
    assert spelled(tokenizer, "def return a") == ["def", "Ġ", "return", "Ġa"]
    assert spelled(tokenizer, "se5 12") == ["se", "5", "Ġ", "12"]


def test_roles_of_tokens() -> None:
    tokenizer = load_tokenizer(checkpoint_of(padding_token_id=4, bos_token_id=0))
    assert tokenizer.vocab_size == len(TOKENS)
    assert tokenizer.eos_token_id == tokenizer.special.bos == 0
    assert tokenizer.special.pad == 4
    assert tokenizer.fim == FimTokens(prefix=1, suffix=3, middle=2, pad=4)
    assert tokenizer.control_token_ids == set(range(5))
    # As in llama.cpp, these spellings are control tokens whatever type a file gives them.
    plain = load_tokenizer(checkpoint_of(token_type=[4 if kind == 3 else kind for kind in TYPES]))
    assert plain.control_token_ids == set(range(5))
    assert plain.fim == tokenizer.fim
    assert load_tokenizer(checkpoint_of(eos_token_id=None)).eos_token_id == 0


def test_the_order_that_the_file_wants_for_its_gap() -> None:
    first = load_tokenizer(checkpoint_of(fim_suffix_first=True))
    assert first.fim == FimTokens(prefix=1, suffix=3, middle=2, pad=4, suffix_first=True)
    with pytest.raises(UserError, match="tokenizer.ggml.fim_suffix_first is 1; expected true or false"):
        load_tokenizer(checkpoint_of(fim_suffix_first=1))


def test_fim_ids_by_key_win_over_spellings() -> None:
    tokenizer = load_tokenizer(checkpoint_of(fim_pre_token_id=10, suffix_token_id=11, fim_mid_token_id=12))
    assert tokenizer.fim == FimTokens(prefix=10, suffix=11, middle=12, pad=4)


def test_control_tokens_in_text_only_where_asked_for() -> None:
    tokenizer = load_tokenizer(checkpoint_of())
    text = "a<|endoftext|>b<fim_middle>"
    assert tokenizer.encode(text) == [IDS["a"], 0, IDS["b"], 2]
    literal = tokenizer.encode(text, parse_special=False)
    assert not tokenizer.control_token_ids & set(literal)
    assert tokenizer.decode(literal) == text


def test_user_defined_tokens_are_always_found() -> None:
    tokenizer = load_tokenizer(checkpoint_of())
    for parse_special in (True, False):
        ids = tokenizer.encode("a" + " " * 7 + "b\n\n\n", parse_special=parse_special)
        spaces, newlines = (IDS[token] for token in USER_DEFINED)
        assert ids == [IDS["a"], spaces, IDS["Ġ"], IDS["Ġ"], IDS["b"], newlines, IDS["Ċ"]]


@pytest.mark.parametrize("pre", [None, "gpt-2", "default", "mpt", "replit"])
def test_text_is_split_by_gpt2s_pattern(pre: str | None) -> None:
    assert_splits(pre, [pre_tokenizers.Split(Regex(GPT2), "isolated")])


@pytest.mark.parametrize("pre", ["refact", "starcoder"])
def test_digits_stand_alone_in_the_starcoder_family(pre: str) -> None:
    splitters = [pre_tokenizers.Split(Regex(p), "isolated") for p in (r"\p{N}", GPT2)]
    assert_splits(pre, splitters)
    tokens = spelled(load_tokenizer(checkpoint_of(pre=pre)), "se 12")
    assert tokens == ["se", "Ġ", "1", "2"]


def assert_splits(pre: str | None, splitters: list[Any]) -> None:
    """The library with the pattern written out gives the same ids; no added tokens in either."""
    plain = TOKENS[: -len(USER_DEFINED)]
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    backend = Backend(models.BPE(vocab={token: IDS[token] for token in plain}, merges=merges))
    steps = [*splitters, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer = load_tokenizer(checkpoint_of(pre=pre, tokens=plain, token_type=None))
    for text in [*SAMPLES, *random_code(200)]:
        assert tokenizer.encode(text, parse_special=False) == backend.encode(text).ids, repr(text)


@settings(max_examples=300, deadline=None)
@given(text=st.text(), parse_special=st.booleans())
def test_decoding_gives_the_text_back(text: str, parse_special: bool) -> None:
    tokenizer = load_tokenizer(SHARED)
    # A control token spelled out becomes that token, which has no text; hypothesis finds spellings in our sources.
    assume(not (parse_special and any(TOKENS[index] in text for index in tokenizer.control_token_ids)))
    ids = tokenizer.encode(text, parse_special=parse_special)
    assert b"".join(tokenizer.token_bytes(index) for index in ids) == text.encode()
    assert tokenizer.decode(ids) == text


SHARED = checkpoint_of()


def test_white_space_that_an_old_converter_called_normal() -> None:
    types = [1 if kind == 4 else kind for kind in TYPES]
    old, new = load_tokenizer(checkpoint_of(token_type=types)), load_tokenizer(checkpoint_of())
    for text in [*SAMPLES, "a" + " " * 7 + "b\n\n\n"]:
        assert old.encode(text) == new.encode(text)
        assert old.decode(new.encode(text)) == new.decode(new.encode(text))


def test_decoding_of_part_of_a_character() -> None:
    tokenizer = load_tokenizer(checkpoint_of())
    ids = tokenizer.encode("🦙")
    assert len(ids) == 4
    assert [tokenizer.token_bytes(index) for index in ids] == [b"\xf0", b"\x9f", b"\xa6", b"\x99"]
    assert tokenizer.decode(ids[:3]) == "�"
    assert tokenizer.decode([*ids, 0, IDS["a"]]) == "🦙a"


@pytest.mark.parametrize("token_id", [-1, len(TOKENS), 1 << 40])
def test_ids_outside_the_vocabulary(token_id: int) -> None:
    tokenizer = load_tokenizer(checkpoint_of())
    with pytest.raises(UserError) as raised:
        tokenizer.decode([1, token_id])
    assert str(raised.value) == (
        f"token id {token_id} is not in the vocabulary; expected 0 to {len(TOKENS) - 1}: give ids of this model"
    )


def test_text_that_cannot_be_encoded() -> None:
    with pytest.raises(UserError, match=r"lone surrogate '.udc80' at position 1; expected Unicode"):
        load_tokenizer(checkpoint_of()).encode("a\udc80")


def test_a_byte_without_a_token_is_not_dropped() -> None:
    tokens = [f"unused{index}" if token == "~" else token for index, token in enumerate(TOKENS)]
    types = [5 if token.startswith("unused") else kind for token, kind in zip(tokens, TYPES, strict=True)]
    tokenizer = load_tokenizer(checkpoint_of(tokens=tokens, token_type=types))
    assert tokenizer.decode(tokenizer.encode("a-b")) == "a-b"
    with pytest.raises(UserError, match="no token for the byte 0x7e; expected text within"):
        tokenizer.encode("a~b")


def test_threads_share_a_tokenizer() -> None:
    tokenizer = load_tokenizer(checkpoint_of())
    text = "def f(): return '<|endoftext|>'" * 50
    expected = {flag: tokenizer.encode(text, parse_special=flag) for flag in (True, False)}
    wrong: list[bool] = []

    def work(flag: bool) -> None:
        for _ in range(50):
            if tokenizer.encode(text, parse_special=flag) != expected[flag]:
                wrong.append(flag)

    threads = [threading.Thread(target=work, args=(index % 2 == 0,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


BAD_KEYS = [
    ({"model": "bert"}, "the tokenizer is of the kind 'bert'; expected 'gpt2' (byte-level BPE)"),
    (
        {"pre": "llama-bpe"},
        "tokenizer.ggml.pre is 'llama-bpe'; expected one of gpt-2, default, mpt",
    ),
    ({"pre": ["mpt"]}, "tokenizer.ggml.pre is ['mpt']; expected one of"),
    ({"tokens": None}, "tokenizer.ggml.tokens is missing or not a list of strings; expected the"),
    ({"tokens": []}, "tokenizer.ggml.tokens is missing or not a list of strings; expected the"),
    ({"tokens": [1, 2]}, "tokenizer.ggml.tokens is missing or not a list of strings; expected"),
    ({"tokens": [*TOKENS[:-1], "a"]}, "tokenizer.ggml.tokens holds a token twice; expected dist"),
    ({"tokens": [*TOKENS[:-3], "数", *TOKENS[-2:]]}, "tokenizer.ggml.merges is refused ("),
    (
        {"tokens": [*TOKENS, "数"], "token_type": [*TYPES, 1]},
        "tokens holds '数'; expected tokens in",
    ),
    ({"merges": None}, "tokenizer.ggml.merges is missing or not a list of strings; expected the"),
    ({"merges": ["de"]}, "tokenizer.ggml.merges holds 'de'; expected two tokens with one space"),
    ({"merges": ["d e f"]}, "tokenizer.ggml.merges holds 'd e f'; expected two tokens with"),
    ({"merges": ["q q"]}, "BPE: Token `qq` out of vocabulary); expected merges of tokens"),
    ({"token_type": [1]}, f"tokenizer.ggml.token_type has 1 entries; expected {len(TOKENS)}, one"),
    ({"token_type": 3}, f"tokenizer.ggml.token_type is not a list; expected {len(TOKENS)}, one"),
    ({"token_type": [9] * len(TOKENS)}, "tokenizer.ggml.token_type holds 9; expected types 1 to 6"),
    ({"token_type": ["a"] * len(TOKENS)}, "tokenizer.ggml.token_type holds 'a'; expected types 1"),
    (
        {"eos_token_id": len(TOKENS)},
        f"tokenizer.ggml.eos_token_id is {len(TOKENS)}; expected an id",
    ),
    ({"eos_token_id": -1}, "tokenizer.ggml.eos_token_id is -1; expected an id below"),
    ({"eos_token_id": 1.0}, "tokenizer.ggml.eos_token_id is 1.0; expected an id below"),
    ({"fim_pre_token_id": 1 << 31}, "tokenizer.ggml.fim_pre_token_id is 2147483648; expected an"),
    ({"add_bos_token": True}, "tokenizer.ggml.add_bos_token is true; expected false, as in the"),
]


@pytest.mark.parametrize(("keys", "message"), BAD_KEYS)
def test_gguf_tokenizers_that_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_tokenizer(checkpoint_of(**keys))
    assert str(raised.value).startswith("m.gguf: ")
    assert message in str(raised.value)


def test_control_texts_are_in_the_vocabulary() -> None:
    """The helper that these tests stand on: the library finds every control token by itself."""
    tokenizer = from_gguf(checkpoint_of())
    assert [tokenizer.encode(text) for text in CONTROL] == [[index] for index in range(5)]


def assert_llama_cpp_agrees(path: Path, texts: list[str]) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="compares with llama.cpp's tokenizer")
    llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    tokenizer = load_tokenizer(open_checkpoint(path))
    assert llama.n_vocab() == tokenizer.vocab_size
    assert llama.token_eos() == tokenizer.eos_token_id
    for text in texts:
        for special in (False, True):
            theirs = llama.tokenize(text.encode(), add_bos=False, special=special)
            assert tokenizer.encode(text, parse_special=special) == theirs, repr(text)


def test_llama_cpp_agrees_on_the_embedded_model() -> None:
    lines = library_lines(2000)
    joined = ["".join(lines[start : start + 20]) for start in range(0, 2000, 20)]
    path = ROOT / "weights" / "embedded" / "nano.gguf"
    assert_llama_cpp_agrees(path, [*lines, *joined, *SAMPLES])


@pytest.mark.parametrize("pre", ["mpt", "gpt-2", "refact", "starcoder"])
def test_llama_cpp_agrees_on_every_variant(tmp_path: Path, pre: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile(pre=pre))
    assert_llama_cpp_agrees(path, [*random_code(300), *SAMPLES])
