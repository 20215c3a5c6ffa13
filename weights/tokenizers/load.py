"""The tokenizer that belongs to a checkpoint: which kind it is, and where it is kept."""

from __future__ import annotations

from pathlib import Path

from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.files.paths import exists, is_dir
from weights.tokenizers.tokenizer import Tokenizer

# Where a hub repository keeps its tokenizer: of tokenizers, of SentencePiece.
FILE_NAMES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json")


def load_tokenizer(checkpoint: Checkpoint, path: Path | None = None) -> Tokenizer:
    """The tokenizer in `path`, else in the GGUF file, else in tokenizer.json or spiece.model beside the weights.

    Raises UserError where there is none, or one that is unknown, damaged or of another vocabulary.
    """
    if path is None and "tokenizer.ggml.model" in checkpoint.metadata:
        return _from_gguf(checkpoint)
    if path is None:
        path = checkpoint.directory
    if is_dir(path):
        present = (path / name for name in FILE_NAMES if exists(path / name))
        path = next(present, path / FILE_NAMES[0])
    if not exists(path):
        raise UserError(
            f"there is no {path}, and {checkpoint.path.name} carries no tokenizer; expected "
            "either: download tokenizer.json into that directory, or give it with --tokenizer"
        )
    return _from_file(checkpoint, path)


def _from_gguf(checkpoint: Checkpoint) -> Tokenizer:
    from weights.tokenizers import byte_level, unigram

    kind = checkpoint.metadata["tokenizer.ggml.model"]
    if kind == "gpt2":
        return byte_level.from_gguf(checkpoint)
    if kind in ("llama", "t5"):
        return unigram.from_gguf(checkpoint)
    raise UserError(
        f"{checkpoint.path}: the tokenizer is of the kind {kind!r}; expected 'gpt2' (byte-level "
        "BPE), 'llama' or 't5' (SentencePiece's Unigram): use a model of the family"
    )


def _from_file(checkpoint: Checkpoint, path: Path) -> Tokenizer:
    rows = embedding_rows(checkpoint)
    if path.suffix == ".model":
        from weights.tokenizers.unigram import read_spiece

        return read_spiece(path, rows)
    from weights.tokenizers.tokenizer_json import read_tokenizer_json

    return read_tokenizer_json(path, rows)


def embedding_rows(checkpoint: Checkpoint) -> int | None:
    """Rows of the embedding table, as config.json states or as GGUF's own name shows it."""
    table = checkpoint.tensors.get("token_embd.weight")
    stated = checkpoint.metadata.get("vocab_size")
    if table is None and stated is None:  # candle's files say nothing
        table = next((t for n, t in checkpoint.tensors.items() if n.endswith("wte.weight")), None)
    if table is not None and table.shape:
        return table.shape[0]
    return stated if type(stated) is int and stated > 0 else None
