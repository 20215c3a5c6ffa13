"""Converts an opened model to a GGUF file: its keys for llama.cpp, its tokenizer, its tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replit.decoder.adapter import merged
from replit.decoder.architecture import Architecture
from replit.decoder.config import DecoderConfig
from replit.decoder.encodings import choose_encodings
from replit.decoder.weight_names import EMBEDDING, OUTPUT
from weights.convert import Inputs, ggml_name, write_gguf
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.files.paths import is_dir
from weights.model_name import ModelName, file_name, parse_name
from weights.tensor import Encoding, Tensor, stored_bytes
from weights.tokenizers.gguf_tokenizer import add_keys, padded, tokenizer_keys

if TYPE_CHECKING:
    from gguf import GGUFWriter

#: llama.cpp's names of whole-file types, where they differ from MOSTLY_ and the tensor type.
_FILE_TYPES = {Encoding.FLOAT32: "ALL_F32", Encoding.Q4_K: "MOSTLY_Q4_K_M"}

#: General keys that describe the source file and not the model.
_NOT_KEPT = ("architecture", "file_type", "quantization_version", "alignment", "size_label")


@dataclass(frozen=True)
class Conversion:
    """What a file in `encoding` will hold; `tensors` by canonical name, in the file's order."""

    architecture: Architecture
    config: DecoderConfig
    name: ModelName
    general: dict[str, Any]
    tokenizer: dict[str, Any]
    tensors: dict[str, Tensor]
    encoding: Encoding
    encodings: dict[str, Encoding]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data in the new file."""
        return sum(stored_bytes(t.shape, self.encodings[n]) for n, t in self.tensors.items())

    @property
    def file_name(self) -> str:
        """The name that GGUF's convention gives the file."""
        return file_name(self.name, self.parameters, self.encoding)


def plan(
    checkpoint: Checkpoint,
    name: str,
    encoding: Encoding,
    architecture: Architecture,
    tokenizer_path: Path | None = None,
    adapter: Path | None = None,
    gguf: bool = True,
) -> Conversion:
    """Check everything that can be checked before tensor data is read.

    `name` is what the source is called, for a source that does not say so itself; `adapter`, a directory, is merged;
    without `gguf` the tokenizer may be one that GGUF cannot express.
    Raises UserError for a model that is incomplete, of another architecture, or cannot be so encoded.
    """
    config = architecture.read_config(checkpoint)
    tensors = dict(architecture.map_weights(checkpoint, config))
    if adapter is not None:
        tensors = merged(adapter, tensors, architecture.hub_tensors(config))
        config = replace(config, vocab_size=tensors[EMBEDDING].shape[0], tied_embeddings=OUTPUT not in tensors)
        checkpoint = resized(checkpoint, config.vocab_size)
    general = _general(checkpoint)
    return Conversion(
        architecture,
        config,
        parse_name(str(general.get("general.name", name))),
        {"general.name": name} | general,
        tokenizer_keys(checkpoint, config.vocab_size, tokenizer_path) if gguf else {},
        tensors,
        encoding,
        choose_encodings(tensors, encoding),
    )


def resized(checkpoint: Checkpoint, rows: int) -> Checkpoint:
    """`checkpoint` as its tokenizer's reader sees it, with an embedding table of so many rows."""
    return replace(checkpoint, tensors={}, metadata=padded(checkpoint.metadata, rows) | {"vocab_size": rows})


def _general(checkpoint: Checkpoint) -> dict[str, Any]:
    dropped = {f"general.{key}" for key in _NOT_KEPT}
    items = checkpoint.metadata.items()
    return {k: v for k, v in items if k.startswith("general.") and k not in dropped}


def write(
    conversion: Conversion,
    path: Path,
    *,
    inputs: Inputs = lambda name: None,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda name: None,
) -> None:
    """Write the file; see `weights.convert.write_gguf`."""

    def describe(writer: GGUFWriter) -> None:
        _add_general(writer, conversion)
        conversion.architecture.add_gguf_config(writer, conversion.config)
        add_keys(writer, conversion.tokenizer)

    write_gguf(
        path,
        conversion.architecture.gguf_name,
        describe,
        conversion.tensors,
        conversion.encodings,
        inputs=inputs,
        overwrite=overwrite,
        report=report,
    )


def _add_general(writer: GGUFWriter, conversion: Conversion) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType, size_label

    name, encoding = conversion.name, conversion.encoding
    named = {
        "general.basename": name.base,
        "general.finetune": name.finetune,
        "general.version": name.version,
        "general.size_label": size_label(conversion.parameters, 0, 0, 0),
    }
    add_keys(writer, {k: v for k, v in named.items() if v} | conversion.general)
    kind = _FILE_TYPES.get(encoding, f"MOSTLY_{ggml_name(encoding)}")
    writer.add_file_type(LlamaFileType[kind])
    if encoding.is_quantized:
        writer.add_quantization_version(GGML_QUANT_VERSION)


def destination(conversion: Conversion, path: Path) -> Path:
    """The file to write: `path`, or the conventional name in it where it is a directory."""
    if is_dir(path):
        return path / conversion.file_name
    if not path.suffix:
        raise UserError(f"there is no directory {path}; expected one, or a file name: create it, or type {path}.gguf")
    return path
