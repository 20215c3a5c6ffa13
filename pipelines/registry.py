"""Which files make a model of a given name: the only module that names an architecture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from pipelines.known_models import KNOWN
from refact.architecture import REFACT
from replit.architecture import REPLIT
from replit.decoder.architecture import Architecture
from replit.decoder.config import DecoderConfig
from replit.decoder.finite import check_finite
from weights.embedded_models import EMBEDDED
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint, open_checkpoint
from weights.files.mapped_file import release_pages
from weights.files.paths import exists
from weights.tensor import Encoding, Tensor
from weights.tokenizers.byte_level import SUFFIX_FIRST_KEY, ByteLevelTokenizer
from weights.tokenizers.load import load_tokenizer
from weights.tokenizers.tokenizer import Tokenizer
from weights.tokenizers.unigram import UnigramTokenizer
from weights.written import WRITTEN

ARCHITECTURES = (REPLIT, REFACT)


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk: what it computes, its weights by canonical name, and its tokenizer."""

    name: str
    checkpoint: Checkpoint
    architecture: Architecture
    config: DecoderConfig
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer

    @cached_property
    def sha256(self) -> str:
        """Of all that a text depends on in them: configuration, tokenizer, and weights, all of which are read."""
        whole = hashlib.sha256(f"{self.architecture.gguf_name} {asdict(self.config)} ".encode())
        whole.update(_told(self.tokenizer).encode("utf-8", "surrogateescape"))
        with ThreadPoolExecutor() as threads:  # hashing lets other threads run
            for name, digest in zip(self.tensors, threads.map(_tensor_sha256, self.tensors.values()), strict=True):
                tensor = self.tensors[name]
                whole.update(f"{name} {tensor.shape} {tensor.encoding} {digest}\n".encode())
        return whole.hexdigest()


def _told(tokenizer: Tokenizer) -> str:
    """Everything that a tokenizer's ids and texts depend on."""
    rules: object = None
    if isinstance(tokenizer, ByteLevelTokenizer):
        rules = tokenizer.to_json()
    elif isinstance(tokenizer, UnigramTokenizer):
        rules = tokenizer.model
    return f"{tokenizer.special} {dict(tokenizer.control_texts)} {tokenizer.vocab_size} {rules}"


def _tensor_sha256(tensor: Tensor) -> str:
    digest = hashlib.sha256(tensor.data.data).hexdigest()
    release_pages(tensor.data)
    return digest


def locate(model: str, weight_path: str | None, encoding: Encoding | None) -> Path:
    """The file or directory of a model, downloaded where that is needed.

    Raises UserError for an unknown name, a missing file and an unreachable hub.
    """
    if weight_path is None and model in EMBEDDED:
        return EMBEDDED[model]
    from weights.hub import resolve

    if weight_path is None and (wanted := _meant(model)) and not exists(model):
        raise UserError(f"there is no model {model!r}; expected: --model {wanted}")
    return resolve(model, encoding=encoding, weight_path=weight_path)


def _meant(model: str) -> str | None:
    """The known model of which `model` looks like a wrong spelling; None for any other name."""
    names = {known.name.lower(): known.name for known in KNOWN}
    names |= {name.lower().rpartition("/")[2]: known for name, known in names.items()}
    if model in names.values():
        return None
    if exact := names.get(model.lower()):
        return exact
    if "/" in model or model.endswith((".gguf", ".safetensors", ".json", ".bin")):
        return None  # a repository or a file that only its owner knows
    close = get_close_matches(model.lower(), names, 1, 0.75)
    return names[close[0]] if close else None


def open_model(
    model: str,
    weight_path: str | None,
    encoding: Encoding | None,
    config_path: str | None = None,
    tokenizer_path: str | None = None,
) -> ModelFiles:
    """Opens a model's files and checks that they make one. Raises UserError where they do not.

    `config_path` and `tokenizer_path`, files or directories, stand for what the weights' file or directory holds.
    """
    path = locate(model, weight_path, encoding)
    checkpoint = open_checkpoint(path, Path(config_path) if config_path else None)
    architecture = architecture_of(checkpoint)
    config = architecture.read_config(checkpoint)
    tensors = architecture.map_weights(checkpoint, config)
    check_finite(checkpoint.path, tensors)
    tokenizer = load_tokenizer(checkpoint, Path(tokenizer_path) if tokenizer_path else None)
    set_trained_order(tokenizer, architecture, checkpoint.metadata)
    return ModelFiles(weight_path or model, checkpoint, architecture, config, tensors, tokenizer)


def set_trained_order(tokenizer: Tokenizer, architecture: Architecture, metadata: Mapping[str, object]) -> None:
    """Which part of a fill-in-the-middle prompt comes first: as the file says, else as the architecture was trained."""
    fim = tokenizer.fim
    if fim is not None and architecture.suffix_first and SUFFIX_FIRST_KEY not in metadata:
        tokenizer.special = replace(tokenizer.special, fim=replace(fim, suffix_first=True))


def check_length(max_length: int, config: DecoderConfig, allow_longer: bool) -> str | None:
    """A note for a sequence beyond what the model was trained on. Raises UserError where that is not allowed."""
    limit = config.max_seq_len
    if max_length <= limit:
        return None
    if not allow_longer:
        raise UserError(
            f"--max-length is {max_length}; expected at most {limit}, this model's limit, or --allow-longer"
        )
    return f"ALiBi goes on beyond the {limit} tokens that the model was trained on, with texts that get worse"


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    """The architecture that a file names. One that none claims is refused by the reader of the first."""
    return next((known for known in ARCHITECTURES if known.claims(checkpoint)), ARCHITECTURES[0])


def architecture_named(name: str) -> Architecture:
    """The architecture that GGUF files and compiled ones call so. Raises UserError for an unknown name."""
    for known in ARCHITECTURES:
        if known.gguf_name == name:
            return known
    names = ", ".join(known.gguf_name for known in ARCHITECTURES)
    raise UserError(f"the architecture is {name!r}; expected one of {names}: use a model of the family")


def parse_encoding(name: str | None) -> Encoding | None:
    """The encoding of that name. Raises UserError for one that nothing is computed in."""
    if name is None:
        return None
    if str(name).lower() not in WRITTEN:
        raise UserError(f"--quantization-encoding is {name!r}; expected one of {', '.join(WRITTEN)}")
    return Encoding(name.lower())
