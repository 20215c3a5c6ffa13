"""What each matrix is multiplied with on given text: what rounding a weight costs in the layer's output.

A forward pass in NumPy float32, one layer after the other over all the text, so that one layer's weights are in memory.
Both architectures' blocks, told apart by their weights' names. Nothing here is fast enough to generate with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from replit.decoder.alibi import alibi_slopes
from replit.decoder.config import DecoderConfig
from replit.decoder.weight_names import EMBEDDING, OUTPUT, OUTPUT_NORM
from weights.errors import UserError
from weights.files.mapped_file import release_pages
from weights.quantization import dequantize, to_float32
from weights.quantization.feedback import ColumnInputs
from weights.tensor import Tensor

Array = npt.NDArray[np.float32]
#: Tokens of a window: later ones see as many before them as in use, and attention's scores stay small.
WINDOW = 512
#: Columns whose inputs are looked at together: a square of 16 MiB, inverted in 64-bit numbers.
STRETCH = 2048


class Calibration:
    """The inputs of each matrix on some texts, found when they are asked for: layer after layer, one in memory."""

    def __init__(
        self,
        config: DecoderConfig,
        tensors: Mapping[str, Tensor],
        windows: Sequence[Sequence[int]],
        report: Callable[[int], None] = lambda layer: None,
    ) -> None:
        """`windows` are token ids, each a text by itself; `report` is called after each layer."""
        self._config, self._tensors, self._report = config, tensors, report
        self._hidden = [_rows(tensors[EMBEDDING], ids) for ids in windows]
        self._layer = -1
        self._found: dict[str, ColumnInputs] = {}
        self.tokens = sum(map(len, windows))
        #: Sums of squares of every layer so far, as llama.cpp's importance matrices hold them.
        self.sums: dict[str, Array] = {}

    def inputs(self, name: str) -> ColumnInputs | None:
        """Of the weight of that canonical name; layers must come in order.

        None for norms, and for the embedding table and the output matrix, which are stored in 8 bits or more.
        """
        layer = re.match(r"blk\.(\d+)\.", name)
        while layer is not None and self._layer < int(layer[1]):
            self._next_layer()
        return self._found.get(name)

    def _next_layer(self) -> None:
        self._layer += 1
        prefix = f"blk.{self._layer}."
        stored = {name: tensor for name, tensor in self._tensors.items() if name.startswith(prefix)}
        weights = {name.removeprefix(prefix): to_float32(tensor) for name, tensor in stored.items()}
        products = {name: _empty(matrix.shape[1]) for name, matrix in weights.items() if matrix.ndim == 2}
        with np.errstate(over="ignore", invalid="ignore"):
            self._hidden = [_Block(self._config, weights, products).run(x) for x in self._hidden]
        for tensor in stored.values():
            release_pages(tensor.data)
        if not all(np.isfinite(block).all() for blocks in products.values() for block in blocks):
            raise UserError(
                f"layer {self._layer} makes NaN or infinity of the calibration's text; expected numbers in 32 bits: "
                "the model is damaged, download or convert it again"
            )
        self._found = {}
        for name, blocks in products.items():
            squares = np.concatenate([np.diagonal(block) for block in blocks])
            self.sums[prefix + name] = squares
            for block in blocks:
                block /= np.float32(self.tokens)
            self._found[prefix + name] = ColumnInputs(squares / np.float32(self.tokens), blocks)
        self._report(self._layer)


def compared(
    config: DecoderConfig, source: Mapping[str, Tensor], result: Mapping[str, Tensor], windows: Sequence[Sequence[int]]
) -> tuple[float, float]:
    """Of two sets of weights, all activations exact: the share of positions with the same most probable token, and the
    mean Kullback-Leibler divergence of the second's probabilities from the first's, in nats a token.
    """
    same, divergence, count = 0, 0.0, 0
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged model's divergence is NaN
        for expected, found in zip(_logits(config, source, windows), _logits(config, result, windows), strict=True):
            same += int((expected.argmax(1) == found.argmax(1)).sum())
            p, q = (_log_probabilities(rows) for rows in (expected, found))
            divergence += float((np.exp(p) * (p - q)).sum())
            count += len(p)
    return same / count, divergence / count


def _log_probabilities(logits: Array) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def _logits(config: DecoderConfig, tensors: Mapping[str, Tensor], windows: Sequence[Sequence[int]]) -> Iterator[Array]:
    """[T, vocabulary] of each window."""
    hidden = [_rows(tensors[EMBEDDING], ids) for ids in windows]
    for layer in range(config.n_layers):
        prefix = f"blk.{layer}."
        stored = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        block = _Block(config, {name.removeprefix(prefix): to_float32(t) for name, t in stored.items()}, {})
        hidden = [block.run(x) for x in hidden]
        for tensor in stored.values():
            release_pages(tensor.data)
    last = _Block(config, {OUTPUT_NORM: to_float32(tensors[OUTPUT_NORM])}, {})
    matrix = to_float32(tensors.get(OUTPUT, tensors[EMBEDDING]))
    for x in hidden:
        yield last.normed(x, OUTPUT_NORM) @ matrix.T * np.float32(config.logit_scale or 1)


def _empty(columns: int) -> list[Array]:
    """A square for each stretch of columns."""
    sizes = [min(STRETCH, columns - start) for start in range(0, columns, STRETCH)]
    return [np.zeros((size, size), np.float32) for size in sizes]


def _rows(table: Tensor, ids: Sequence[int]) -> Array:
    """The embeddings of `ids`, [T, E]; only their rows are expanded."""
    stored = table.data.reshape(table.shape[0], table.row_bytes)[np.asarray(ids)]
    return dequantize(stored.reshape(-1), table.encoding, (len(ids), table.shape[1]))


class _Block:
    """One layer; the products of what goes into its matrices are added up in `products`."""

    def __init__(
        self, config: DecoderConfig, weights: Mapping[str, Array], products: Mapping[str, Sequence[Array]]
    ) -> None:
        self._config, self._weights, self._products = config, weights, products

    def run(self, x: Array) -> Array:
        """[T, E] to [T, E]."""
        x = x + self._attention(self.normed(x, "attn_norm.weight"))
        h = self.normed(x, "ffn_norm.weight")
        up = self._product(h, "ffn_up.weight")
        if "ffn_gate.weight" in self._weights:
            gate = self._product(h, "ffn_gate.weight")
            inner = gate / (1 + np.exp(-gate)) * up
        else:
            inner = _gelu(up)
        return x + self._product(inner, "ffn_down.weight")

    def _product(self, x: Array, name: str) -> Array:
        for index, block in enumerate(self._products.get(name, ())):
            stretch = x[:, index * STRETCH : index * STRETCH + len(block)]
            block += stretch.T @ stretch
        result: Array = x @ self._weights[name].T
        return result

    def normed(self, x: Array, name: str) -> Array:
        """LayerNorm without bias."""
        x = x - x.mean(-1, keepdims=True)
        variance = np.square(x).mean(-1, keepdims=True)
        result: Array = x / np.sqrt(variance + np.float32(self._config.layer_norm_eps)) * self._weights[name]
        return result

    def _attention(self, x: Array) -> Array:
        config = self._config
        T, H, K, D = len(x), config.n_heads, config.n_kv_heads, config.head_dim
        q, k, v = self._queries_keys_values(x)
        heads = [np.repeat(part.reshape(T, K, D), H // K, axis=1).transpose(1, 0, 2) for part in (k, v)]
        scores = q.reshape(T, H, D).transpose(1, 0, 2) @ heads[0].transpose(0, 2, 1)  # [H, T, T]
        scores *= np.float32(config.softmax_scale)
        distance = np.arange(T, dtype=np.float32)[None, :] - np.arange(T, dtype=np.float32)[:, None]
        scores += np.asarray(alibi_slopes(H, config.alibi_bias_max), np.float32)[:, None, None] * distance
        scores[:, distance > 0] = -np.inf
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        out = (scores @ heads[1]).transpose(1, 0, 2).reshape(T, H * D)
        return self._product(out, "attn_output.weight")

    def _queries_keys_values(self, x: Array) -> Sequence[Array]:
        if "attn_q.weight" in self._weights:
            return [self._product(x, f"attn_{part}.weight") for part in "qkv"]
        config = self._config
        qkv = self._product(x, "attn_qkv.weight")
        clip = getattr(config, "clip_qkv", None)
        if clip is not None:
            qkv = qkv.clip(-clip, clip)
        return np.split(qkv, [config.d_model, config.d_model + config.kv_dim], axis=-1)


def _gelu(x: Array) -> Array:
    result: Array = x * np.float32(0.5) * (1 + _erf(x * np.float32(np.sqrt(0.5))))
    return result


def _erf(x: Array) -> Array:
    """The error function within 2e-7: Abramowitz and Stegun, 7.1.26 (NumPy has none)."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    result: Array = np.sign(x) * (1 - series * np.exp(-x * x))
    return result
