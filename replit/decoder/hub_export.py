"""Writes an opened model as the hub's directories are: model.safetensors, config.json and the tokenizer's files."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from replit.decoder.gguf_export import Conversion
from weights.errors import UserError, reason
from weights.files.checkpoint import Checkpoint
from weights.files.paths import exists, is_dir
from weights.files.safetensors_writer import write_safetensors
from weights.quantization import quantize, to_float32
from weights.tensor import Encoding, Tensor
from weights.tokenizers.byte_level import ByteLevelTokenizer
from weights.tokenizers.sentencepiece_proto import serialize
from weights.tokenizers.tokenizer import Tokenizer
from weights.tokenizers.unigram import UnigramTokenizer

#: What the hub's float files are in; the others are GGUF's.
ENCODINGS = (Encoding.FLOAT32, Encoding.BFLOAT16)
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
# Files beside a tokenizer that go along as they are: with any, and with the source's own.
_ROLES = ("tokenizer_config.json", "special_tokens_map.json")
_GENERATION = "generation_config.json"
_TOKENIZER_FILES = (
    "tokenizer.json", *_ROLES, "added_tokens.json", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model",
    _GENERATION,
)  # fmt: skip


def takes_directory(path: Path, overwrite: bool = False) -> bool:
    """Whether `path` can become a directory of the hub's: nothing is there, or (to overwrite) only such a one."""
    if not is_dir(path) or not overwrite:
        return not exists(path)
    try:
        entries = list(path.iterdir())
    except OSError:  # what is in there is not ours to see, nor to delete
        return False
    ours = {_WEIGHTS, _CONFIG, *_TOKENIZER_FILES}
    return path / _WEIGHTS in entries and all(entry.name in ours and entry.is_file() for entry in entries)


def write_directory(
    conversion: Conversion,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    path: Path,
    tokenizer_path: Path | None = None,
    *,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda name: None,
) -> None:
    """Write the directory `path`, which appears when it is whole; `tokenizer_path` if `tokenizer` is not the source's.

    Raises UserError if something is there (with `overwrite`, something else than such a directory), for a quantized
    encoding, and where there is no room.
    """
    path = path.resolve()  # "." has no name of its own
    _check(conversion, path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(".part", f".{path.name[:40]}.", path.parent, True) as temporary:
            folder = Path(temporary, "new")
            folder.mkdir()
            _write(conversion, checkpoint, folder, report)
            _write_tokenizer(folder, checkpoint, tokenizer, tokenizer_path)
            _put(folder, path, Path(temporary, "old"))
    except OSError as error:
        raise _unwritable(path, error) from None


def _check(conversion: Conversion, path: Path, overwrite: bool) -> None:
    if conversion.encoding not in ENCODINGS:
        raise UserError(
            f"a safetensors directory in {conversion.encoding} is no format that others read; expected float32 or "
            "bfloat16: choose one with --quantization-encoding, or give a name that ends in .gguf"
        )
    if not takes_directory(path, overwrite):
        raise UserError(
            f"{path} exists; expected a new name, or with --force a directory that holds nothing but {_WEIGHTS}, "
            f"{_CONFIG} and a tokenizer: give another name"
        )


def _put(folder: Path, path: Path, old: Path) -> None:
    """Move `folder` to `path`; what is there goes to `old`, and comes back if that fails."""
    try:
        if path.exists():
            path.rename(old)
        folder.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write {path} ({reason(error)}); expected room and permission there; nothing was left "
        "behind: make room or give another place"
    )


def _write(conversion: Conversion, checkpoint: Checkpoint, folder: Path, report: Callable[[str], None]) -> None:
    names = conversion.architecture.hub_tensors(conversion.config)
    tensors = {hub: [conversion.tensors[name] for name in parts] for hub, parts in names.items()}
    encodings = {hub: _encoding(parts[0], conversion.encoding) for hub, parts in tensors.items()}

    def written(hub: str) -> None:
        for name in names[hub]:
            report(name)

    write_safetensors(folder / _WEIGHTS, tensors, encodings, written)
    _write_json(folder / _CONFIG, _config(conversion, checkpoint))


def _encoding(tensor: Tensor, encoding: Encoding) -> Encoding:
    """A norm of GGUF is float32 and came from the model's type: it goes back where nothing is lost by it."""
    if len(tensor.shape) > 1 or encoding is not Encoding.BFLOAT16:
        return encoding
    values = to_float32(tensor)
    rounded = Tensor(tensor.name, tensor.shape, encoding, quantize(values, encoding).reshape(-1))
    return encoding if (to_float32(rounded) == values).all() else Encoding.FLOAT32


def _config(conversion: Conversion, checkpoint: Checkpoint) -> Mapping[str, Any]:
    """config.json as it came, or one that says the same as GGUF's keys."""
    kind = {"torch_dtype": str(conversion.encoding)}
    if not checkpoint.has_gguf_keys and checkpoint.metadata:
        # What newer libraries call torch_dtype goes before it.
        others = ("general.", "tokenizer.", "dtype")
        kept = {k: v for k, v in checkpoint.metadata.items() if not k.startswith(others)}
        config = conversion.config
        return kept | {"vocab_size": config.vocab_size, "tie_word_embeddings": config.tied_embeddings} | kind
    config = replace(conversion.config, layer_norm_eps=float(f"{conversion.config.layer_norm_eps:.6g}"))
    return conversion.architecture.hub_config(config) | kind


def _write_tokenizer(folder: Path, checkpoint: Checkpoint, tokenizer: Tokenizer, path: Path | None) -> None:
    for file in _beside(checkpoint, path):
        if file.exists():
            shutil.copyfile(file, folder / file.name)
    if isinstance(tokenizer, UnigramTokenizer) and not (folder / "spiece.model").exists():
        (folder / "spiece.model").write_bytes(serialize(tokenizer.model))
    elif isinstance(tokenizer, ByteLevelTokenizer) and not (folder / "tokenizer.json").exists():
        (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    if not (folder / "tokenizer_config.json").exists():
        _write_json(folder / "tokenizer_config.json", _roles(tokenizer))


def _beside(checkpoint: Checkpoint, path: Path | None) -> list[Path]:
    """What may lie beside the tokenizer in `path` or the source's own, and goes along."""
    if path is not None:
        directory = path if path.is_dir() else path.parent
        return [checkpoint.directory / _GENERATION, *(directory / name for name in _ROLES)]
    if "tokenizer.ggml.model" in checkpoint.metadata:
        return []
    return [checkpoint.directory / name for name in _TOKENIZER_FILES]


def _roles(tokenizer: Tokenizer) -> dict[str, Any]:
    ids = {"eos": tokenizer.special.eos, "bos": tokenizer.special.bos, "pad": tokenizer.special.pad}
    ids |= {"unk": tokenizer.special.unknown}
    texts = tokenizer.control_texts
    roles = {f"{role}_token": texts[index] for role, index in ids.items() if index is not None and index in texts}
    fast = isinstance(tokenizer, ByteLevelTokenizer)
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"} if fast else {}
    return kind | {"clean_up_tokenization_spaces": False} | roles


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
