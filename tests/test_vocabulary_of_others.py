"""Vocabularies as other programs store them: patterns and control tokens against llama.cpp, GPT-2's two files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from model_files import ModelFile, vocabulary, write_gguf, write_hub_directory
from tokenizer_samples import SAMPLES, checkpoint_of, random_code
from tokenizers import ByteLevelBPETokenizer

from pipelines.registry import locate
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint, open_checkpoint
from weights.tokenizers.byte_level import byte_alphabet
from weights.tokenizers.load import load_tokenizer
from weights.tokenizers.splits import NAMES
from weights.tokenizers.tokenizer import Tokenizer

# Digits, letters of other scripts, signs with letters, runs of blanks and line breaks: what the patterns differ in.
TEXTS = [
    *SAMPLES[1:6],
    "x=12345 and 3.1415926e-10 1 22 333 4444",
    "#define FOO(a,b) \\\n\t((a)->b[i++])\r\n\r\n  // don't, WE'LL\n",
    "if x:\n    return {'a': [1,2,3]}\n\n\n\n        pass   \n ",
    "日本語のテキスト、Ελληνικά, ١٢٣٤ ½ ²",
    "@decorator(.name) $var %s &ref __init__ ...  ?:;",
]
# llama.cpp has no "replit" (a name of MAX's), and its "default" is another pattern, which no model was trained with.
OURS_ONLY = {"replit", "default"}


def nano_vocabulary(tmp_path: Path, **keys: Any) -> Path:
    """nano's tokenizer alone, with some keys changed, as llama.cpp opens it with vocab_only."""
    metadata = {k: v for k, v in open_checkpoint(locate("nano", None, None)).metadata.items() if "tokenizer." in k}
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "mpt")
    for key, value in ModelFile().metadata().items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"mpt.{key}", value)
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            kind = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}[type(value)]
            kind(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return tmp_path / "vocabulary.gguf"


def ours(path: Path) -> Tokenizer:
    return load_tokenizer(Checkpoint(path, "gguf", {}, open_checkpoint(path).metadata))


@pytest.mark.parametrize("pre", sorted(set(NAMES) - OURS_ONLY))
def test_every_pattern_is_llama_cpps(tmp_path: Path, pre: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="compares with llama.cpp's tokenizer")
    path = nano_vocabulary(tmp_path, pre=pre)
    theirs = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    tokenizer = ours(path)
    for text in [*TEXTS, *random_code(100)]:
        assert tokenizer.encode(text) == theirs.tokenize(text.encode(), add_bos=False, special=True), repr(text)


@pytest.mark.parametrize("special", [True, False])
def test_control_tokens_of_a_wrong_type_are_llama_cpps(tmp_path: Path, special: bool) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="compares with llama.cpp's tokenizer")
    types = [1] * len(open_checkpoint(locate("nano", None, None)).metadata["tokenizer.ggml.tokens"])
    unnamed = dict.fromkeys(f"fim_{part}_token_id" for part in ("pre", "suf", "mid", "pad"))
    path = nano_vocabulary(tmp_path, token_type=types, **unnamed)
    theirs = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in ("<fim_prefix>a = <fim_suffix>\n<fim_middle>", "a<|endoftext|>b", "x<|endoftext|>\n<|endoftext|>"):
        expected = theirs.tokenize(text.encode(), add_bos=False, special=special)
        assert ours(path).encode(text, parse_special=special) == expected


# What llama.cpp 0.3.36's tokenizer gave for these, by the pattern's kind.
RECORDED = Path(__file__).parent / "data" / "splits.json"


@pytest.mark.parametrize("pre", ["olmo", "starcoder", "stablelm2", "dbrx"])
def test_patterns_as_recorded_from_llama_cpp(tmp_path: Path, pre: str) -> None:
    recorded = json.loads(RECORDED.read_text())[pre]
    tokenizer = ours(nano_vocabulary(tmp_path, pre=pre))
    for text, spelled in recorded.items():
        assert [tokenizer.token_bytes(i).decode("utf-8", "replace") for i in tokenizer.encode(text)] == spelled


def test_an_unknown_pattern_is_refused() -> None:
    with pytest.raises(UserError, match=r"tokenizer.ggml.pre is 'llama-bpe'; expected one of gpt-2, default, mpt"):
        load_tokenizer(checkpoint_of(pre="llama-bpe"))


def raw_tokens() -> list[bytes]:
    """The vocabulary as converters wrote it until October 2023: bytes, not their spellings."""
    alphabet = byte_alphabet()
    return [
        bytes(alphabet[c] for c in token) if set(token) <= alphabet.keys() else token.encode()
        for token in vocabulary()[0]
    ]


def test_raw_bytes_for_tokens_say_what_to_take_instead(tmp_path: Path) -> None:
    path = tmp_path / "old.gguf"
    writer = gguf.GGUFWriter(path, "mpt")
    model = ModelFile()
    for key, value in model.metadata().items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"mpt.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(raw_tokens())
    for name, array in model.tensors().items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = open_checkpoint(path)  # so that it can be inspected
    with pytest.raises(UserError) as raised:
        load_tokenizer(checkpoint)
    assert "tokens are raw bytes" in str(raised.value)
    assert "replit-code-v1_5-3b-newbpe-q4_0.gguf" in str(raised.value)


def test_one_damaged_token_is_damage(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", ModelFile())
    path.write_bytes(path.read_bytes().replace(b"return", b"retur\xff", 1))
    with pytest.raises(
        UserError, match=r"tokenizer.ggml.tokens holds bytes that are no UTF-8 text; .*download it again"
    ):
        load_tokenizer(open_checkpoint(path))


def gpt2_files(directory: Path, **files: Any) -> Checkpoint:
    """vocab.json and merges.txt as the tokenizers library writes them, and files beside."""
    write_hub_directory(directory, ModelFile())
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(random_code(200), vocab_size=270, special_tokens=["<|endoftext|>", "<fim_prefix>"])
    trained.save_model(str(directory))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return open_checkpoint(directory)


def test_gpt2s_two_files_encode_as_the_library(tmp_path: Path) -> None:
    checkpoint = gpt2_files(tmp_path / "m")
    tokenizer = load_tokenizer(checkpoint)
    theirs = ByteLevelBPETokenizer(str(tmp_path / "m" / "vocab.json"), str(tmp_path / "m" / "merges.txt"))
    for text in [*SAMPLES[1:9], *random_code(100)]:
        assert tokenizer.encode(text, parse_special=False) == theirs.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text, parse_special=False)) == text
    assert tokenizer.eos_token_id == 0
    assert tokenizer.encode("a<|endoftext|>")[-1] == 0


def test_roles_from_the_map_of_special_tokens(tmp_path: Path) -> None:
    markers = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<empty_output>"]
    added = {text: 270 + i for i, text in enumerate(markers[1:])}
    special = {"eos_token": {"content": "<|endoftext|>"}, "additional_special_tokens": markers}
    tokenizer = load_tokenizer(gpt2_files(tmp_path / "m", special_tokens_map=special, added_tokens=added))
    assert (tokenizer.fim.prefix, tokenizer.fim.suffix, tokenizer.fim.middle) == (1, 270, 271)
    assert tokenizer.encode("<empty_output>") == [272]
    assert 272 in tokenizer.control_token_ids


def test_how_added_tokens_are_found_is_kept(tmp_path: Path) -> None:
    """As transformers does; a number that no table can have is no id."""
    declared = {
        "270": {"content": "<tool>", "lstrip": True, "rstrip": True},
        "271": {"content": "word", "single_word": True},
        "9" * 5000: {"content": "<far>"},
    }
    tokenizer = load_tokenizer(gpt2_files(tmp_path / "m", tokenizer_config={"added_tokens_decoder": declared}))
    [a], [b] = tokenizer.encode("a"), tokenizer.encode("b")
    assert tokenizer.encode("a  <tool> b") == [a, 270, b]
    assert tokenizer.encode("word") == [271]
    assert 271 not in tokenizer.encode("words")


def test_the_end_of_text_of_generation_config(tmp_path: Path) -> None:
    checkpoint = gpt2_files(tmp_path / "m", generation_config={"eos_token_id": [7, 0]}, config={"eos_token_id": 9})
    assert load_tokenizer(checkpoint).eos_token_id == 7
    with pytest.raises(UserError, match=r"has no token '</s>'; expected the eos_token of special_tokens_map.json"):
        load_tokenizer(gpt2_files(tmp_path / "n", special_tokens_map={"eos_token": "</s>"}))


@pytest.mark.parametrize("flag", ["add_bos_token", "add_prefix_space"])
def test_what_is_put_before_a_text_is_refused(tmp_path: Path, flag: str) -> None:
    load_tokenizer(gpt2_files(tmp_path / "m", tokenizer_config={flag: False}))
    with pytest.raises(UserError, match=f"tokenizer_config.json says {flag} is true; expected false"):
        load_tokenizer(gpt2_files(tmp_path / "m", tokenizer_config={flag: True}))


def test_editors_that_begin_files_with_a_byte_order_mark(tmp_path: Path) -> None:
    plain = load_tokenizer(gpt2_files(tmp_path / "m", tokenizer_config={"eos_token": "<|endoftext|>"}))
    for path in (tmp_path / "m").iterdir():
        if path.suffix in (".json", ".txt"):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    marked = load_tokenizer(open_checkpoint(tmp_path / "m"))
    assert [marked.encode(text) for text in SAMPLES[1:9]] == [plain.encode(text) for text in SAMPLES[1:9]]
    assert marked.eos_token_id == plain.eos_token_id == 0


def test_vocab_json_without_merges(tmp_path: Path) -> None:
    checkpoint = gpt2_files(tmp_path / "m")
    (tmp_path / "m" / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges.txt \(No such file.*expected the merges that belong to vocab.json"):
        load_tokenizer(checkpoint)
