"""Tokenizers from tokenizer.json, against the tokenizers library and transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_files import (
    ModelFile,
    write_gguf,
    write_hub_directory,
)
from tokenizer_samples import SAMPLES, TOKENS, checkpoint_of, random_code
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from weights.errors import UserError
from weights.files.checkpoint import Checkpoint, open_checkpoint
from weights.tokenizers.gguf_tokenizer import tokenizer_keys
from weights.tokenizers.load import load_tokenizer

Change = Callable[[dict[str, Any]], Any]


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


def test_added_tokens_are_found_as_the_normalizer_leaves_them(tmp_path: Path, trained: Backend) -> None:
    backend = Backend.from_str(trained.to_str())
    backend.normalizer = normalizers.Lowercase()
    backend.add_tokens([AddedToken("<TOOL>", normalized=True), AddedToken("<Raw>", normalized=False)])
    hub = hub_directory(tmp_path, backend, 404)
    from_hub, from_gguf = (
        load_tokenizer(hub),
        load_tokenizer(Checkpoint(Path("m"), "gguf", {}, tokenizer_keys(hub, 404))),
    )
    for text in ("<TOOL>", "<tool>x", "<raw>", "a<Raw>", "<RAW>"):
        assert from_gguf.encode(text) == from_hub.encode(text) == backend.encode(text).ids


def test_a_model_without_its_kind_is_bpe_by_what_it_holds(tmp_path: Path, trained: Backend) -> None:
    checkpoint = hub_directory(tmp_path, trained, 402)
    path = checkpoint.directory / "tokenizer.json"
    content = json.loads(path.read_text())
    del content["model"]["type"]
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(checkpoint)
    for text in SAMPLES:
        assert tokenizer.encode(text) == trained.encode(text, add_special_tokens=False).ids


def test_markers_of_a_gap_that_were_added_as_ordinary_tokens(tmp_path: Path, trained: Backend) -> None:
    """By `add_tokens`, as fine-tunes do it; llama.cpp takes their texts for control tokens."""
    backend = Backend.from_str(trained.to_str())
    backend.add_tokens(["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<tool>"])
    hub = hub_directory(tmp_path, backend, 406)
    from_hub, from_gguf = (
        load_tokenizer(hub),
        load_tokenizer(Checkpoint(Path("m"), "gguf", {}, tokenizer_keys(hub, 406))),
    )
    for tokenizer in (from_hub, from_gguf):
        assert tokenizer.fim is not None
        assert (tokenizer.fim.prefix, tokenizer.fim.suffix, tokenizer.fim.middle) == (402, 403, 404)
        assert tokenizer.control_token_ids == {0, 1, 402, 403, 404}
        assert tokenizer.encode("a<fim_prefix><tool>") == backend.encode("a<fim_prefix><tool>").ids
        assert 402 not in tokenizer.encode("<fim_prefix>", parse_special=False)


def ignoring_merges(content: dict[str, Any]) -> None:
    content["model"]["ignore_merges"] = True


def with_flag(flag: str) -> Change:
    return lambda content: content["added_tokens"][0].update({flag: True})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (ignoring_merges, "ignore_merges on"),
        *((with_flag(flag), f"{flag} on for the token '<|endof") for flag in ("single_word", "lstrip", "rstrip")),
    ],
)
def test_what_gguf_has_no_key_for_is_refused_by_name(
    tmp_path: Path, trained: Backend, change: Change, found: str
) -> None:
    """All of them give other ids than the same tokens without."""
    checkpoint = hub_directory(tmp_path, trained, 402)
    assert len(tokenizer_keys(checkpoint, 402)["tokenizer.ggml.tokens"]) == 402
    path = checkpoint.directory / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    load_tokenizer(checkpoint)  # it runs from there
    with pytest.raises(UserError) as raised:
        tokenizer_keys(checkpoint, 402)
    assert f"has {found}" in str(raised.value)
    assert "which GGUF has no key for; expected one without" in str(raised.value)


def test_transformers_encodes_alike(tmp_path: Path, trained: Backend) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    checkpoint = hub_directory(tmp_path, trained, 402, eos_token="<|endoftext|>")
    tokenizer = load_tokenizer(checkpoint)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(checkpoint.directory / "tokenizer.json"))
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
    with pytest.raises(UserError, match=r"there is no .*tokenizer.json, and model.safetensors carr"):
        load_tokenizer(checkpoint)


def spelled_otherwise(content: dict[str, Any]) -> None:
    """One byte's token under another name."""
    vocab = content["model"]["vocab"]
    vocab["数"] = vocab.pop("~")


BAD_JSON: list[tuple[Change, str]] = [
    (lambda c: c.pop("model"), "has no model; expected one of the kind 'BPE'"),
    (lambda c: (c["model"].pop("type"), c["model"].pop("merges")), "is of the kind None; expected 'BPE'"),
    (lambda c: c["model"].update(dropout=0.5), "has dropout 0.5; expected BPE of bytes without it"),
    (lambda c: c["model"].update(end_of_word_suffix="</w>"), "has end_of_word_suffix '</w>'; expected BPE of bytes"),
    (lambda c: c["model"].update(continuing_subword_prefix="#"), "has continuing_subword_prefix '#'; expected BPE of"),
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
    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
}


@pytest.mark.parametrize(("change", "message"), BAD_JSON)
def test_tokenizer_json_that_is_refused(tmp_path: Path, trained: Backend, change: Change, message: str) -> None:
    checkpoint = hub_directory(tmp_path, trained, 600)
    path = checkpoint.directory / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as raised:
        load_tokenizer(checkpoint)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
