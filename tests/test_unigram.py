"""SentencePiece's Unigram against its library, with a vocabulary that is trained here as replit-code-v1's was."""

from __future__ import annotations

import contextlib
import io
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from gguf import GGUFWriter
from tiny_model import write_model

from weights.convert import Encoding
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint, open_checkpoint
from weights.files.gguf_file import read_gguf
from weights.tokenizers.gguf_tokenizer import add_keys, tokenizer_keys
from weights.tokenizers.load import load_tokenizer
from weights.tokenizers.sentencepiece_proto import parse, serialize
from weights.tokenizers.unigram import UnigramTokenizer, gguf_keys, read_spiece

RUNS = ["\u2581" * n for n in range(32, 1, -1)] + ["\t" * n for n in range(8, 0, -1)]
USER_DEFINED = [*RUNS, "\n\n", "\n", "\r", "\v", "\f", *(f"<extra_id_{i}>" for i in range(10))]
SPECIAL = {
    "unk_id": 0, "eos_id": 1, "pad_id": 2, "bos_id": -1,
    "unk_piece": "<|unk|>", "eos_piece": "<|endoftext|>", "pad_piece": "<|pad|>",
}  # fmt: skip
PARTS = [
    "  ", "    ", "\n", "\n\n\n", "\t", "\t" * 9, " " * 33, "def ", "return", "self", "é", "e\u0301", "½", "\xa0",
    "漢字", "🙂", "\x00", "\x07", "\u200b", "\ufeff", "…", "Ａ²", "<extra_id_3>", "<|pad|>", "(", "x", "1", "23",
    "\r\n", "\v", "\u2581", "\u2581\u2581\u2581", "ﷺ",
]  # fmt: skip


def by_default(**changes: Any) -> bytes:
    """A model trained with the library's defaults, which leave padding out, and `changes`."""
    out = io.BytesIO()
    lines = ["def return self value of a function", "class stack self items append value", "import os sys and path"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 50),
        model_writer=out,
        hard_vocab_limit=False,
        minloglevel=9,
        num_threads=1,
        **{"vocab_size": 60} | changes,
    )
    return out.getvalue()


def train(kind: str = "unigram", size: int = 900) -> bytes:
    """A model of the tests' own source text."""
    texts = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in text.splitlines(True)]),
        model_writer=out,
        model_type=kind,
        vocab_size=size,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=USER_DEFINED,
        normalization_rule_name="nmt_nfkc",
        character_coverage=0.999,
        minloglevel=2,
        **SPECIAL,
    )
    return out.getvalue()


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unigram") / "spiece.model"
    path.write_bytes(train())
    return path


@pytest.fixture(scope="module")
def library(spiece: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(spiece))


@pytest.fixture(scope="module")
def tokenizer(spiece: Path) -> UnigramTokenizer:
    return read_spiece(spiece, None)


def random_texts(count: int) -> list[str]:
    choose = random.Random(5)

    def character() -> str:
        ranges = (range(128), range(0x3000), range(0x1F000, 0x20000))
        return chr(choose.choice(choose.choice(ranges)))

    return [
        "".join(choose.choice(PARTS) if choose.random() < 0.7 else character() for _ in range(choose.randrange(40)))
        for _ in range(count)
    ]


def gguf(keys: dict[str, Any]) -> Checkpoint:
    return Checkpoint(Path("model.gguf"), "gguf", {}, keys)


def keys_of(spiece: Path, form: str) -> dict[str, Any]:
    """The tokenizer as converters wrote it in either form."""
    keys = tokenizer_keys(Checkpoint(spiece.parent / "model.safetensors", "safetensors", {}, {}), 900)
    if form == "llama":
        kinds = keys["tokenizer.ggml.token_type"]
        keys["tokenizer.ggml.token_type"] = [1 if kind == 4 else kind for kind in kinds]
        keys["tokenizer.ggml.model"] = "llama"
        for key in ("precompiled_charsmap", "add_space_prefix", "remove_extra_whitespaces", "pre"):
            del keys[f"tokenizer.ggml.{key}"]
    return keys


def test_5000_random_strings_as_the_library_splits_them(
    tokenizer: UnigramTokenizer, library: sentencepiece.SentencePieceProcessor
) -> None:
    for text in random_texts(5000):
        ids = library.encode(text)
        assert tokenizer.encode(text, parse_special=False) == ids, text
        assert tokenizer.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("form", ["t5", "llama"])
def test_gguf_metadata_gives_the_same(form: str, spiece: Path, library: sentencepiece.SentencePieceProcessor) -> None:
    tokenizer = load_tokenizer(gguf(keys_of(spiece, form)))
    for text in random_texts(1000):
        assert tokenizer.encode(text, parse_special=False) == library.encode(text), text
    assert tokenizer.special.eos == 1


def test_nothing_is_lost_when_the_file_is_read_and_written(spiece: Path) -> None:
    model = parse(spiece.read_bytes())
    assert parse(serialize(model)) == model


def test_special_tokens_are_found_in_text_where_asked_for(tokenizer: UnigramTokenizer) -> None:
    text = "x<|endoftext|>x<|unk|>"
    x = tokenizer.encode("x")
    assert tokenizer.encode(text) == [*x, 1, *x, 0]
    assert 1 not in tokenizer.encode(text, parse_special=False)
    assert tokenizer.special.pad == 2
    assert tokenizer.token_bytes(1) == b""


def test_unknown_characters_become_single_tokens(tokenizer: UnigramTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a漢b\n漢")) == "a \u2047 b\n \u2047 "


def test_a_hub_directory_with_spiece_model(spiece: Path, tmp_path: Path) -> None:
    directory = write_model(tmp_path, Encoding.FLOAT32)
    (directory / "tokenizer.json").unlink()
    small = train(size=600)
    (directory / "spiece.model").write_bytes(small)
    tokenizer = load_tokenizer(open_checkpoint(directory))
    assert (tokenizer.vocab_size, tokenizer.token_bytes(639)) == (640, b"")
    assert isinstance(tokenizer, UnigramTokenizer)
    converted = load_tokenizer(gguf(gguf_keys(tokenizer)))
    assert [converted.token_bytes(i) for i in range(640)] == [tokenizer.token_bytes(i) for i in range(640)]
    (directory / "spiece.model").write_bytes(spiece.read_bytes())
    with pytest.raises(UserError, match="has 900 pieces; expected at most 640, the rows"):
        load_tokenizer(open_checkpoint(directory))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unk_surface": "<U>"},
        {"bos_id": -1},
        {"byte_fallback": True, "vocab_size": 330},
        {"normalization_rule_name": "identity"},
    ],
)
def test_the_librarys_defaults(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(by_default(**changes))
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    read = read_spiece(path, 400)
    assert (read.special.pad, read.special.eos, read.special.unknown) == (None, library.eos_id(), library.unk_id())
    assert read.special.bos == (None if library.bos_id() < 0 else library.bos_id())
    writer = GGUFWriter(tmp_path / "m.gguf", "mpt")
    add_keys(writer, gguf_keys(read))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    for tokenizer in (read, load_tokenizer(gguf(read_gguf(tmp_path / "m.gguf").metadata))):
        assert tokenizer.token_bytes(0).decode() == library.decode([0])
        for text in ("def value  return the function Q", " x", "", "a\n", "ﬁ e\u0301 ①"):
            assert tokenizer.encode(text) == library.encode(text)


@pytest.mark.parametrize("changes", [{"treat_whitespace_as_suffix": True}, {"escape_whitespaces": False}])
def test_other_spellings_of_spaces_are_refused(tmp_path: Path, changes: dict[str, bool]) -> None:
    """GGUF has no key for them."""
    path = tmp_path / "spiece.model"
    if "escape_whitespaces" in changes:  # no option of the trainer
        path.write_bytes(serialize(replace(parse(by_default()), escape_whitespaces=False)))
    else:
        path.write_bytes(by_default(**changes))
    with pytest.raises(
        UserError, match="spells spaces at the ends of words or as themselves; expected \u2581 before words"
    ):
        read_spiece(path, None)


def test_rules_for_decoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.tsv").write_text("61\t41\n")  # a to A
    (tmp_path / "spiece.model").write_bytes(by_default(denormalization_rule_tsv=str(tmp_path / "rules.tsv")))
    with pytest.raises(UserError, match="replaces what it decodes by rules"):
        read_spiece(tmp_path / "spiece.model", None)


def test_bpe_is_refused(spiece: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train("bpe"))
    with pytest.raises(UserError, match=r"is of SentencePiece's kind 2; expected 1 \(Unigram\)"):
        read_spiece(path, None)
    keys = keys_of(spiece, "llama")
    keys["tokenizer.ggml.scores"] = [float(-i) for i in range(900)]
    with pytest.raises(UserError, match=r"holds whole numbers as tokenizer scores \(SentencePiece's BPE\)"):
        load_tokenizer(gguf(keys))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "has no ordinary or no unknown piece"),
        (b"\x0a\x7f", "is damaged (a field reaches beyond the end)"),
        (b"\x0f", "is damaged (the wire type 7 is unknown)"),
        (b"\x0a\x80", "is damaged (a number reaches beyond the end)"),
        (b"\x08\x01", "is damaged (a number stands where a message is expected)"),
        (b"{}", "is damaged"),
    ],
)
def test_damaged_files_are_refused(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(raw)
    with pytest.raises(UserError) as error:
        read_spiece(path, None)
    assert message in str(error.value)


def test_any_damage_ends_in_an_error_or_a_tokenizer(spiece: Path, tmp_path: Path) -> None:
    raw = bytearray(spiece.read_bytes())
    path, choose = tmp_path / "spiece.model", random.Random(3)
    for _ in range(30):
        damaged = bytearray(raw)
        for _ in range(5):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        path.write_bytes(damaged[: choose.randrange(len(damaged) // 2, len(damaged))])
        with contextlib.suppress(UserError):  # anything else fails, and so does a crash
            read_spiece(path, None).encode("def f(x):\n    return x\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.scores": None}, "has no list tokenizer.ggml.scores"),
        ({"tokenizer.ggml.scores": [0.5]}, "has token lists of different lengths"),
        ({"tokenizer.ggml.eos_token_id": 900}, "names a special piece that it does not have"),
        ({"tokenizer.ggml.eos_token_id": "1"}, "says tokenizer.ggml.eos_token_id is '1'"),
        (
            {"tokenizer.ggml.scores": ["0.5"] * 900},
            "holds tokenizer scores that are no numbers; expected one in 32 bits",
        ),
        ({"tokenizer.ggml.scores": [math.nan] * 900}, "holds tokenizer scores that are no numbers"),
        ({"tokenizer.ggml.scores": [1e300] * 900}, "holds tokenizer scores that are no numbers"),
        ({"tokenizer.ggml.tokens": list(range(900))}, "holds tokens that are no texts"),
        (
            {"tokenizer.ggml.token_type": [2, *[6] * 3, *[1] * 896]},
            r"spells a byte as '<\|endoftext\|>'; expected <0x00>",
        ),
        (
            {"tokenizer.ggml.precompiled_charsmap": "abc"},
            "says tokenizer.ggml.precompiled_charsmap is no list of bytes",
        ),
        (
            {"tokenizer.ggml.precompiled_charsmap": [300]},
            "says tokenizer.ggml.precompiled_charsmap is no list of bytes",
        ),
        ({"tokenizer.ggml.precompiled_charsmap": [-1, 2, 3]}, "is refused by the sentencepiece library"),
        ({"tokenizer.ggml.unk_surface": 3}, "says tokenizer.ggml.unk_surface is 3; expected a text"),
        ({"tokenizer.ggml.add_bos_token": True}, "says tokenizer.ggml.add_bos_token is true; expected false"),
        ({"tokenizer.ggml.add_eos_token": True}, "says tokenizer.ggml.add_eos_token is true; expected false"),
    ],
)
def test_damaged_metadata_is_refused(change: dict[str, Any], message: str, spiece: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_tokenizer(gguf(keys_of(spiece, "t5") | change))


def test_bytes_with_a_sign_are_the_same_table(spiece: Path) -> None:
    keys = keys_of(spiece, "t5")
    signed = [byte - 256 if byte > 127 else byte for byte in keys["tokenizer.ggml.precompiled_charsmap"]]
    assert min(signed) < 0
    tokenizer = load_tokenizer(gguf(keys | {"tokenizer.ggml.precompiled_charsmap": signed}))
    assert tokenizer.encode("Ａ²½") == load_tokenizer(gguf(keys)).encode("Ａ²½")


def test_lone_surrogates_are_refused(tokenizer: UnigramTokenizer) -> None:
    with pytest.raises(UserError, match=r"the text holds the lone surrogate '\\ud800' at position 1"):
        tokenizer.encode("x\ud800")
