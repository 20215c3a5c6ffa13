"""Writes nano in the body of replit-code-v1_5-3b: what nano computes, at the price of the large model.

Features are repeated 12 times, which LayerNorm does not notice (its gains are divided by 12, for the products that
follow). nano's four heads become those of the 24 that have the same ALiBi slopes, twice as wide, the other half zero;
feed-forward rows that nano does not have are zero, and layers after its last add nothing. Greedy text in float32 is
nano's. Blocks of a quantized encoding hold the same values as nano's own blocks.

python -m benchmarks.widened_nano OUT.gguf --layers 8 --encoding q4_0 [--nano OLDER.gguf] [--vocabulary 32768]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.random_model import SHAPES
from pipelines.registry import ModelFiles, open_model
from replit.architecture import REPLIT
from replit.config import ReplitConfig
from replit.decoder.encodings import choose_encodings
from replit.decoder.gguf_export import Conversion, write
from replit.weight_names import expected_shapes
from weights.convert import TARGETS, encode_tensor
from weights.model_name import parse_name
from weights.quantization import to_float32
from weights.tensor import Encoding, Tensor
from weights.tokenizers.gguf_tokenizer import tokenizer_keys

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_WIDE = SHAPES["v1_5-3b"]
assert isinstance(_WIDE, ReplitConfig)
# nano's head and the wide model's of the same slope, 2 ** -2 to 2 ** -8, and the key heads that those attend to.
_HEADS = (3, 7, 11, 15)
_KEY_HEADS = {0: (1, 2), 1: (3, 5)}


class Widening:
    """nano's weights as those of a wide model, tensor by tensor."""

    def __init__(self, nano: ModelFiles, layers: int, vocabulary: int | None) -> None:
        assert isinstance(nano.config, ReplitConfig)
        assert isinstance(_WIDE, ReplitConfig)
        self.nano = nano
        self.vocabulary = vocabulary or nano.config.vocab_size
        if self.vocabulary < nano.config.vocab_size or layers < nano.config.n_layers:
            raise SystemExit(
                f"{layers} layers and {self.vocabulary} tokens; expected at least nano's {nano.config.n_layers} "
                f"and {nano.config.vocab_size}"
            )
        self.config = replace(
            _WIDE, n_layers=layers, vocab_size=self.vocabulary, layer_norm_eps=nano.config.layer_norm_eps
        )
        self.copies = self.config.d_model // nano.config.d_model

    def tensors(self, encoding: Encoding) -> dict[str, Tensor]:
        """Every weight of the wide model, encoded; layers beyond nano's share their memory with one of its."""
        shapes = expected_shapes(self.config)
        unfilled = {n: Tensor(n, shape, Encoding.FLOAT32, np.empty(0, np.uint8)) for n, shape in shapes.items()}
        encodings = choose_encodings(unfilled, encoding)
        made: dict[tuple[str, bool], Bytes] = {}
        found = {}
        for name, shape in shapes.items():
            source, silent = self._source(name)
            if (source, silent) not in made:
                made[source, silent] = self._encoded(source, shape, encodings[name], silent)
            found[name] = Tensor(name, shape, encodings[name], made[source, silent])
        return found

    def _source(self, name: str) -> tuple[str, bool]:
        """nano's tensor that this one is made of, and whether it is of a layer that adds nothing."""
        if not name.startswith("blk."):
            return name, False
        _, layer, rest = name.split(".", 2)
        own = int(layer) % self.nano.config.n_layers
        silent = int(layer) >= self.nano.config.n_layers and rest in ("attn_output.weight", "ffn_down.weight")
        return f"blk.{own}.{rest}", silent

    def _encoded(self, source: str, shape: tuple[int, ...], encoding: Encoding, silent: bool) -> Bytes:
        """The bytes of a wide tensor: its distinct rows are encoded, the others are copies of them."""
        values = to_float32(self.nano.tensors[source])
        kind = source.split(".")[-2]
        if values.ndim == 1:
            wide: Floats = np.tile(values, self.copies) / np.float32(self.copies)
            return wide.view(np.uint8).reshape(-1)
        if kind in ("attn_output", "ffn_down"):  # what adds to the features: each row as often as there are copies
            columns = self._spread(values.T, _HEADS).T if kind == "attn_output" else values
            rows = np.zeros((len(columns), shape[1]), np.float32)
            rows[:, : columns.shape[1]] = 0 if silent else columns
            return np.tile(encode(rows, encoding), (self.copies, 1)).reshape(-1)
        if kind == "attn_qkv":
            values = self._heads(values)
        elif kind == "token_embd":
            values = np.concatenate([values, np.repeat(self._improbable(values), shape[0] - len(values), axis=0)])
        # What reads the features: a block never crosses a copy, so that encoded rows are repeated like values.
        narrow = encode(values, encoding)
        rest = encode(np.zeros((1, values.shape[1]), np.float32), encoding)
        narrow = np.concatenate([narrow, np.repeat(rest, shape[0] - len(narrow), axis=0)])
        return np.tile(narrow, (1, self.copies)).reshape(-1)

    def _heads(self, qkv: Floats) -> Floats:
        """nano's fused projection in the wide model's heads; the queries make up for its smaller scale."""
        nano, wide = self.nano.config, self.config
        queries, keys, values = np.split(qkv, [nano.d_model, nano.d_model + nano.kv_dim])
        queries = queries * np.float32(nano.softmax_scale / wide.softmax_scale)
        parts = [self._spread(queries, _HEADS, wide.n_heads)]
        for part in (keys, values):
            spread = np.zeros((wide.n_kv_heads, wide.head_dim, nano.d_model), np.float32)
            for own, heads in _KEY_HEADS.items():
                for head in heads:
                    spread[head, : nano.head_dim] = part.reshape(nano.n_kv_heads, nano.head_dim, -1)[own]
            parts.append(spread.reshape(wide.kv_dim, -1))
        return np.concatenate(parts)

    def _spread(self, rows: Floats, heads: tuple[int, ...], count: int | None = None) -> Floats:
        """Rows of nano's heads as the first half of the rows of the wide model's `heads`."""
        nano, wide = self.nano.config, self.config
        spread = np.zeros((count or wide.n_heads, wide.head_dim, rows.shape[1]), np.float32)
        spread[list(heads), : nano.head_dim] = rows.reshape(nano.n_heads, nano.head_dim, -1)
        return spread.reshape(-1, rows.shape[1])

    def _improbable(self, table: Floats) -> Floats:
        """The row of the token that no text has and training has therefore made the least probable."""
        fim = self.nano.tokenizer.fim
        assert fim is not None
        assert fim.pad is not None
        return table[[fim.pad]]


def encode(rows: Floats, encoding: Encoding) -> Bytes:
    """The bytes of `rows`, `[len(rows), bytes of a row]`."""
    data = np.ascontiguousarray(rows, np.float32).view(np.uint8).reshape(-1)
    return encode_tensor(Tensor("rows", rows.shape, Encoding.FLOAT32, data), encoding).reshape(len(rows), -1)


def filled_up(keys: dict[str, object], vocabulary: int) -> dict[str, object]:
    """A tokenizer's keys with unused tokens up to the size of the vocabulary."""
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    more = vocabulary - len(tokens)
    unused = 5  # gguf's TokenType.UNUSED
    return keys | {
        "tokenizer.ggml.tokens": tokens + [f"[UNUSED{index}]" for index in range(more)],
        "tokenizer.ggml.token_type": [int(kind) for kind in types] + [unused] * more,
    }


def widen(nano: ModelFiles, path: Path, layers: int, encoding: Encoding, vocabulary: int | None = None) -> None:
    """Writes the wide model of a nano; `vocabulary` None keeps nano's."""
    widening = Widening(nano, layers, vocabulary)
    keys = tokenizer_keys(nano.checkpoint, nano.config.vocab_size)
    tensors = widening.tensors(encoding)
    conversion = Conversion(
        REPLIT,
        widening.config,
        parse_name("nano-widened"),
        {"general.name": "nano-widened"},
        filled_up(keys, widening.vocabulary),
        tensors,
        encoding,
        {name: tensor.encoding for name, tensor in tensors.items()},
    )
    write(conversion, path, overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=8, help="32 for the large model's price (default 8)")
    parser.add_argument("--encoding", type=Encoding, choices=TARGETS, default=Encoding.BFLOAT16)
    parser.add_argument("--nano", help="a file of another nano than the embedded one")
    parser.add_argument("--vocabulary", type=int, help="32768 for the large model's; default: nano's")
    options = parser.parse_args()
    nano = open_model("nano", options.nano, None)
    widen(nano, options.out, options.layers, options.encoding, options.vocabulary)


if __name__ == "__main__":
    main()
