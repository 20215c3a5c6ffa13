"""Which encoding each weight gets when a model is converted or quantized at loading, and which it is computed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from replit.decoder.weight_names import EMBEDDING, OUTPUT
from weights.convert import TARGETS
from weights.errors import UserError
from weights.quantization.recode import EXACT
from weights.tensor import Encoding, Tensor

#: Rounding keys and values costs most: with these in q6_k, q4_k loses a third of what it would
#: otherwise, for 4 to 7 % more bytes (docs/models.md). llama.cpp's mixtures raise them too.
_KEYS_AND_VALUES = ("attn_qkv.weight", "attn_k.weight", "attn_v.weight")

#: What the kernels multiply with where a file holds something else: the smallest that loses next to nothing. Exact are
#: those of weights/quantization/recode.py; the others are rounded to 8 bits, by less than 0.6 % of their size.
COMPUTED_IN: dict[Encoding, Encoding] = {
    Encoding.FLOAT64: Encoding.FLOAT32,
    Encoding.FLOAT16: Encoding.FLOAT32,
    Encoding.Q3_K: Encoding.Q6_K,
} | {
    encoding: Encoding.Q8_0
    for encoding in Encoding
    if encoding.is_quantized and encoding not in (*TARGETS, Encoding.Q3_K)
}


def substitutions(tensors: Mapping[str, Tensor], used: Mapping[str, Encoding]) -> list[str]:
    """A line for each encoding of matrices that is computed in another one: what is lost by it."""
    pairs = Counter((tensor.encoding, used[name]) for name, tensor in tensors.items() if len(tensor.shape) > 1)
    return [
        f"{count} tensors are stored in {stored} and computed in {target}, {_loss(stored, target)}"
        for (stored, target), count in pairs.items()
        if COMPUTED_IN.get(stored) is target and stored.is_quantized
    ]


def _loss(stored: Encoding, target: Encoding) -> str:
    if (stored, target) in EXACT:
        return "which holds the same values"
    return "which rounds each value by about 0.5 % of their size at most"


def choose_encodings(tensors: Mapping[str, Tensor], encoding: Encoding) -> dict[str, Encoding]:
    """The encoding of each tensor, by canonical name, of a model in `encoding`.

    Norms stay float32: they are tiny and scale everything. The matrix that makes the logits,
    often the embedding table too, has at least 8 bits: its errors reach the output unmixed. What
    is stored in `encoding` stays as it is. Raises UserError for rows that blocks do not divide.
    """
    logits = OUTPUT if OUTPUT in tensors else EMBEDDING
    chosen = {}
    for name, tensor in tensors.items():
        chosen[name] = _choose(name, tensor, encoding, logits)
        _check_columns(name, tensor, chosen[name])
    return chosen


def _choose(name: str, tensor: Tensor, encoding: Encoding, logits: str) -> Encoding:
    if len(tensor.shape) == 1:
        return Encoding.FLOAT32
    if tensor.encoding is encoding or not encoding.is_quantized:
        return encoding
    if name == logits:
        return Encoding.Q8_0
    if encoding is Encoding.Q4_K and name.endswith(_KEYS_AND_VALUES):
        return Encoding.Q6_K
    return encoding


def _check_columns(name: str, tensor: Tensor, encoding: Encoding) -> None:
    columns = tensor.shape[-1]
    if columns % encoding.block_size:
        fitting = (target for target in TARGETS if columns % target.block_size == 0)
        raise UserError(
            f"tensor {name!r} has rows of {columns} values; {encoding} needs a multiple of "
            f"{encoding.block_size}: choose {', '.join(fitting)}"
        )
