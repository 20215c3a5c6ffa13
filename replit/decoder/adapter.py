"""Low-rank adapters (LoRA) as the peft library saves them, merged into the weights that they change.

A matrix becomes W + scale * B A. Merged matrices are float32 in a temporary file that has no name, so that memory holds
no more than one of them.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replit.decoder.config_keys import LARGEST_NUMBER
from replit.decoder.weight_names import EMBEDDING, OUTPUT
from weights.errors import UserError
from weights.files.mapped_file import read_json
from weights.files.pytorch_file import read_pytorch
from weights.files.safetensors_file import read_safetensors
from weights.quantization import to_float32
from weights.tensor import Encoding, Tensor, stored_bytes

Array = npt.NDArray[np.float32]
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
# What changes the arithmetic of merging and is not computed here.
_NOT_IMPLEMENTED = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "alora_invocation_tokens", "megatron_config",
    "trainable_token_indices", "arrow_config", "kasa_config", "monteclora_config", "layer_replication",
)  # fmt: skip
# Initializations that take the adapter's first product off the model's matrices: it belongs to those that are left.
_CHANGES_MODEL = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LOW_RANK = re.compile(r"(?P<name>.*)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.default)?(?:\.weight)?")


@dataclass(frozen=True)
class _Pair:
    """The two factors of a change: `down` [rank, in] and `up` [out, rank]."""

    down: Array
    up: Array
    rows_are_tokens: bool  # of an embedding table, whose factors are transposed

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the change."""
        up, down = self.up.shape[0], self.down.shape[1]
        return (down, up) if self.rows_are_tokens else (up, down)

    def product(self, rows: slice) -> Array:
        """Rows of the change."""
        change: Array = (self.down.T @ self.up.T)[rows] if self.rows_are_tokens else self.up[rows] @ self.down
        return change


def merged(path: Path, tensors: Mapping[str, Tensor], hub_tensors: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """`tensors`, canonical names, with the adapter in the directory `path` merged; `hub_tensors`: see Architecture.

    Whole tensors in it, of layers that were trained fully, replace those of the model. Raises UserError for an adapter
    of another model or kind.
    """
    config = read_json(path / "adapter_config.json")
    _check(path, config)
    pairs, whole = _read(path)
    result, used = dict(tensors), set()
    for hub, parts in hub_tensors.items():
        name = hub.removesuffix(".weight")
        if name in whole:
            used.add(name)
            result |= _replaced(path, result, parts, whole[name])
        if name in pairs:
            used.add(name)
            result |= _changed(path, result, parts, pairs[name], _scale(path, config, name, pairs[name]))
    if OUTPUT not in result and "lm_head" in whole:  # trained by itself, where the model had the embedding table
        used.add("lm_head")
        result |= _replaced(path, {OUTPUT: result[EMBEDDING]}, (OUTPUT,), whole["lm_head"])
    unknown = sorted({*pairs, *whole} - used)
    if unknown:
        raise UserError(
            f"{path} changes {unknown[0]!r}, which the model does not have; expected an adapter of this model: check "
            "base_model_name_or_path in its adapter_config.json"
        )
    tables = {name: result[name].shape[0] for name in (EMBEDDING, OUTPUT) if name in result}
    if len(set(tables.values())) > 1:
        raise UserError(
            f"{path} gives the model {tables[EMBEDDING]} rows in {EMBEDDING!r} and {tables[OUTPUT]} in {OUTPUT!r}; "
            "expected one for each token in both: save wte and lm_head with the adapter"
        )
    return result


def _check(path: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(
            f"{path} is an adapter of type {config.get('peft_type')!r}; expected 'LORA': merge it with peft"
        )
    for key in _NOT_IMPLEMENTED:
        if config.get(key):
            raise UserError(f"{path}: {key} is {config[key]!r}; expected plain LoRA: merge it with peft first")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGES_MODEL):
        raise UserError(
            f"{path}: init_lora_weights is {start!r}, which changes the model that it is added to; expected plain "
            "LoRA: merge it with peft, or save it with path_initial_model_for_weight_conversion"
        )
    if config.get("fan_in_fan_out"):
        raise UserError(
            f"{path}: fan_in_fan_out is true; expected linear layers, as this family has: merge it with peft"
        )


def _read(path: Path) -> tuple[dict[str, _Pair], dict[str, Tensor]]:
    """Low-rank changes and whole tensors, by the hub's name without ".weight"."""
    file = next((path / name for name in _FILES if (path / name).exists()), path / _FILES[0])
    stored = read_pytorch(file)[0] if file.suffix == ".bin" else read_safetensors(file)
    if not stored:
        raise UserError(f"{file} holds no tensors; expected the changes of a model: save the adapter again, unmerged")
    sides: dict[str, dict[str, Array]] = {}
    embeddings, whole = set(), {}
    for full, tensor in stored.items():
        name = full.removeprefix(_PREFIX)
        match = _LOW_RANK.fullmatch(name)
        if match is None:
            name = name.removesuffix(".weight").replace(".modules_to_save.default", "").replace(".modules_to_save", "")
            whole[name.removesuffix(".base_layer")] = tensor
            continue
        sides.setdefault(match["name"], {})[match["side"]] = to_float32(tensor)
        if match["embedding"]:
            embeddings.add(match["name"])
    pairs = {}
    for name, found in sides.items():
        two = found.keys() == {"A", "B"} and found["A"].ndim == found["B"].ndim == 2
        if not two or not found["A"].shape[0] == found["B"].shape[1] > 0:
            raise UserError(f"{file}: {name!r} has no two factors that fit; expected lora_A and lora_B: save it again")
        pairs[name] = _Pair(found["A"], found["B"], name in embeddings)
    return pairs, whole


def _scale(path: Path, config: Mapping[str, Any], name: str, pair: _Pair) -> float:
    alpha, patterns = config.get("lora_alpha", 8), config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{path}: alpha_pattern is {patterns!r}; expected names with numbers: save the adapter again")
    try:
        matching = (pattern for pattern in patterns if re.fullmatch(rf"(.*\.)?({pattern})", name))
        alpha = patterns.get(next(matching, None), alpha)
    except re.error as error:
        raise UserError(
            f"{path}: alpha_pattern has a name that is no regular expression ({error}); expected one: save it again"
        ) from None
    if type(alpha) not in (int, float) or not abs(alpha) <= LARGEST_NUMBER:
        raise UserError(f"{path}: the alpha of {name!r} is {alpha!r}; expected a number: save the adapter again")
    rank = pair.down.shape[0]
    return float(alpha) / (sqrt(rank) if config.get("use_rslora") else rank)


def _replaced(path: Path, tensors: Mapping[str, Tensor], parts: tuple[str, ...], whole: Tensor) -> dict[str, Tensor]:
    """The weights whose rows `whole` holds one after the other; a table of tokens may have others than before."""
    shapes = {name: tensors[name].shape for name in parts}
    if parts[0] in (EMBEDDING, OUTPUT):
        shapes = {parts[0]: (*whole.shape[:1], *shapes[parts[0]][1:])}
    expected = _joined(shapes)
    if whole.shape != expected:
        raise _other_shape(path, parts[0], whole.shape, expected)
    result, start = {}, 0
    for name, shape in shapes.items():
        stop = start + stored_bytes(shape, whole.encoding)
        result[name] = Tensor(whole.name, shape, whole.encoding, whole.data[start:stop])
        start = stop
    return result


def _joined(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of the tensor that holds the rows of them all."""
    first = next(iter(shapes.values()))
    return (sum(shape[0] for shape in shapes.values()), *first[1:])


def _other_shape(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> UserError:
    return UserError(
        f"{path} changes {name!r} by a tensor of {list(found)}; expected {list(expected)}: use an adapter of this model"
    )


def _changed(
    path: Path, tensors: Mapping[str, Tensor], parts: tuple[str, ...], pair: _Pair, scale: float
) -> dict[str, Tensor]:
    """The matrices whose rows one after the other the adapter takes for one."""
    expected = _joined({name: tensors[name].shape for name in parts})
    if pair.shape != expected:
        raise _other_shape(path, parts[0], pair.shape, expected)
    result, start = {}, 0
    for name in parts:
        rows = tensors[name].shape[0]
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused when it is written
            change = pair.product(slice(start, start + rows)) * np.float32(scale)
        result[name] = _in_file(name, to_float32(tensors[name]) + change)
        start += rows
    return result


def _in_file(name: str, values: Array) -> Tensor:
    with tempfile.TemporaryFile() as file:
        values.tofile(file)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Tensor(name, values.shape, Encoding.FLOAT32, np.frombuffer(mapped, np.uint8))
