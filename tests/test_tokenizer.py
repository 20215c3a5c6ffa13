"""Tokenizers from GGUF and from tokenizer.json, against the tokenizers library and transformers."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import (
    CONTROL,
    MERGES,
    USER_DEFINED,
    ModelFile,
    vocabulary,
    write_gguf,
    write_hub_directory,
)
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from weights.byte_level import byte_alphabet, from_gguf, spelled_bytes
from weights.checkpoint import Checkpoint, open_checkpoint
from weights.errors import UserError
from weights.tokenizer import FimTokens, Tokenizer, load_tokenizer

ROOT = Path(__file__).parent.parent
TOKENS, TYPES = vocabulary()
IDS = {token: index for index, token in enumerate(TOKENS)}

# GPT-2's pattern, spelled out: what a word is before anything is merged.
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

SAMPLES = [
    "",
    "def add(a, b):\n    return a + b\n",
    "  \t leading and trailing \n\n\n",
    "x = 'déjà vu'  # naïve — “quotes” …",
    "数字 12 и 3.14e-10, ½ ² ٣",
    "🦙🧑‍💻 \u200b\u00a0\ufeff",
    "it's we'll I'M DON'T 's",
    "0123456789 v1_5 1234567",
    "\r\n\x00\x01\x7f\x80\uffff\U0010ffff",
    "<|endoftext|><fim_prefix>a<fim_suffix> b<fim_middle>",
    " " * 33 + "x" + " " * 7,
]


def checkpoint_of(**keys: Any) -> Checkpoint:
    """A checkpoint with only a tokenizer in it; a key of None is left out."""
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "replit",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": 0,
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    kept = {key: value for key, value in metadata.items() if value is not None}
    return Checkpoint(Path("m.gguf"), "gguf", {}, kept)


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
    plain = load_tokenizer(checkpoint_of(token_type=[max(kind, 4) for kind in TYPES]))
    assert plain.fim is None


def test_fim_ids_by_key_win_over_spellings() -> None:
    tokenizer = load_tokenizer(
        checkpoint_of(fim_pre_token_id=10, suffix_token_id=11, fim_mid_token_id=12)
    )
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
        assert tokenizer.encode(text) == backend.encode(text).ids, repr(text)


def random_code(count: int) -> list[str]:
    """Lines of this project, cut and joined at random."""
    lines = [
        line
        for file in sorted((ROOT / "weights").glob("*.py"))
        for line in file.read_text().splitlines(keepends=True)
    ]
    source = random.Random(0)
    return ["".join(source.sample(lines, 3))[source.randrange(9) :] for _ in range(count)]


@settings(max_examples=300, deadline=None)
@given(text=st.text(), parse_special=st.booleans())
def test_decoding_gives_the_text_back(text: str, parse_special: bool) -> None:
    tokenizer = load_tokenizer(SHARED)
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
        f"token id {token_id} is not in the vocabulary; expected 0 to {len(TOKENS) - 1}: give ids "
        "of this model"
    )


def test_text_that_cannot_be_encoded() -> None:
    with pytest.raises(UserError, match=r"lone surrogate '.udc80' at position 1; expected Unicode"):
        load_tokenizer(checkpoint_of()).encode("a\udc80")


def test_a_byte_without_a_token_is_not_dropped() -> None:
    tokens = [f"unused{index}" if token == "~" else token for index, token in enumerate(TOKENS)]
    types = [
        5 if token.startswith("unused") else kind for token, kind in zip(tokens, TYPES, strict=True)
    ]
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


@pytest.fixture(scope="module")
def trained() -> Backend:
    """A tokenizer as the hub has them: trained here, with added tokens of both kinds."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(random_code(300), trainer)
    backend.add_tokens(["    ", "        "])
    return backend


def hub_directory(tmp_path: Path, backend: Backend, rows: int, **roles: Any) -> Checkpoint:
    directory = write_hub_directory(tmp_path / "m", ModelFile(), vocab_size=rows)
    backend.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(roles))
    return open_checkpoint(directory)


def test_tokenizer_json_encodes_as_the_library(tmp_path: Path, trained: Backend) -> None:
    checkpoint = hub_directory(tmp_path, trained, 410, eos_token="<|endoftext|>")
    tokenizer = load_tokenizer(checkpoint)
    for text in [*SAMPLES, *random_code(200)]:
        ids = tokenizer.encode(text)
        assert ids == trained.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(tokenizer.encode(text, parse_special=False)) == text
    assert tokenizer.vocab_size == 410
    assert tokenizer.eos_token_id == 0
    assert tokenizer.control_token_ids == {0, 1}
    assert tokenizer.token_bytes(409) == b""  # a row of the table without a token
    assert tokenizer.decode([401]) == "        "


def test_tokenizer_json_and_gguf_agree(tmp_path: Path, trained: Backend) -> None:
    """The same vocabulary through both formats."""
    content = json.loads(trained.to_str())
    ids = trained.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.__getitem__)
    kinds = {token["content"]: 3 if token["special"] else 4 for token in content["added_tokens"]}
    gguf = load_tokenizer(
        checkpoint_of(
            tokens=tokens,
            token_type=[kinds.get(token, 1) for token in tokens],
            merges=[" ".join(merge) for merge in content["model"]["merges"]],
        )
    )
    hub = load_tokenizer(hub_directory(tmp_path, trained, len(tokens)))
    for text in [*SAMPLES, *random_code(300)]:
        assert gguf.encode(text) == hub.encode(text)
    assert [gguf.token_bytes(i) for i in range(402)] == [hub.token_bytes(i) for i in range(402)]


def test_transformers_encodes_alike(tmp_path: Path, trained: Backend) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    checkpoint = hub_directory(tmp_path, trained, 402, eos_token="<|endoftext|>")
    tokenizer = load_tokenizer(checkpoint)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(checkpoint.directory / "tokenizer.json")
    )
    for text in [*SAMPLES, *random_code(100)]:
        assert tokenizer.encode(text) == theirs(text)["input_ids"]


def test_roles_in_the_files_beside(tmp_path: Path, trained: Backend) -> None:
    def eos(roles: dict[str, Any], **config: Any) -> int | None:
        checkpoint = hub_directory(tmp_path, trained, 402, **roles)
        path = checkpoint.directory / "config.json"
        path.write_text(json.dumps({**checkpoint.metadata, **config}))
        return load_tokenizer(checkpoint).eos_token_id

    assert eos({"eos_token": {"content": "<|padding|>"}}) == 1
    assert eos({}, eos_token_id=1) == 1
    assert eos({}, eos_token_id=[1, 0]) == 1
    assert eos({}) == 0  # by its usual spelling
    with pytest.raises(UserError, match=r"has no token '</s>'; expected the eos_token of"):
        eos({"eos_token": "</s>"})


def test_a_tokenizer_given_by_path(tmp_path: Path, trained: Backend) -> None:
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", ModelFile()))
    assert load_tokenizer(checkpoint).vocab_size == len(TOKENS)
    trained.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"has token ids up to 401; expected at most 274 tokens"):
        load_tokenizer(checkpoint, tmp_path)


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_hub_directory(tmp_path / "m", ModelFile()))
    with pytest.raises(
        UserError, match=r"there is no .*tokenizer.json, and model.safetensors carr"
    ):
        load_tokenizer(checkpoint)


Change = Callable[[dict[str, Any]], Any]


def spelled_otherwise(content: dict[str, Any]) -> None:
    """One byte's token under another name."""
    vocab = content["model"]["vocab"]
    vocab["数"] = vocab.pop("~")


BAD_JSON: list[tuple[Change, str]] = [
    (lambda c: c.pop("model"), "is of the kind None; expected 'BPE'"),
    (lambda c: c["model"].update(type="Unigram"), "is of the kind 'Unigram'; expected 'BPE'"),
    (
        lambda c: c.update(pre_tokenizer=None),
        "does not split text into bytes; expected the pre-tok",
    ),
    (lambda c: c["model"].update(merges=[["q", "qqq"]]), "is refused by the tokenizers library"),
    (lambda c: c["model"]["vocab"].update(a=-1), "is refused by the tokenizers library"),
    (
        lambda c: c["model"]["vocab"].update({"数": 402}),
        "gives one id to two tokens; expected an id",
    ),
    (lambda c: c["model"]["vocab"].update({"zz": 500}), "the added token ' ' the id 400; expected"),
    (spelled_otherwise, "holds the token '数'; expected tokens in"),
    (lambda c: c["model"]["vocab"].update(zz=1 << 31), "has token ids up to 2147483648; expected"),
    (lambda c: c.update(post_processor=BOS), "adds tokens around every text; expected a post-proc"),
]
BOS = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {
        "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
    },
}


@pytest.mark.parametrize(("change", "message"), BAD_JSON)
def test_tokenizer_json_that_is_refused(
    tmp_path: Path, trained: Backend, change: Change, message: str
) -> None:
    checkpoint = hub_directory(tmp_path, trained, 600)
    path = checkpoint.directory / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as raised:
        load_tokenizer(checkpoint)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_control_texts_are_in_the_vocabulary() -> None:
    """The helper that these tests stand on: the library finds every control token by itself."""
    tokenizer = from_gguf(checkpoint_of())
    assert [tokenizer.encode(text) for text in CONTROL] == [[index] for index in range(5)]


def library_lines(count: int) -> list[str]:
    """Random lines of Python's own library, their indentation and end included."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    lines = [
        line
        for file in files
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    ]
    return random.Random(1).sample(lines, count)


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
