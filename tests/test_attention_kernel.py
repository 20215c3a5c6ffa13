"""The attention kernel against float64 NumPy: head layouts, page boundaries, ragged batches, long caches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import Graph, TensorType, ops

from replit.config import ReplitConfig
from replit.cpu.layers import CPU as HOST
from replit.cpu.layers import attention
from replit.decoder.alibi import alibi_slopes
from replit.runtime.kv_cache import CacheInputs, cache_input_types
from replit.runtime.target import CPU as CPU_TARGET

PAGE, LAYERS, LAYER = 128, 2, 1
Floats = npt.NDArray[np.float32]


class Heads(NamedTuple):
    """Query heads, key/value heads, head size."""

    h: int
    k: int
    d: int


# replit-code-v1.5; v1 (head size 80); Refact (one key/value head); an odd group
LAYOUTS = [Heads(24, 8, 128), Heads(4, 4, 80), Heads(32, 1, 64), Heads(10, 2, 16)]
# each with a cache in float32, the first in bfloat16 too
CACHES = [*((heads, DType.float32) for heads in LAYOUTS), (LAYOUTS[0], DType.bfloat16)]
# (tokens in the cache, new tokens) of each sequence
BATCHES = [
    [(0, 1)],
    [(0, 2)],
    [(127, 1)],
    [(128, 1)],
    [(1023, 1), (1024, 1), (2100, 1)],  # around the end of a decode chunk
    [(0, 5), (10, 1), (100, 200)],
    [(640, 1), (0, 70), (3, 1), (129, 64)],
]


def config_of(heads: Heads) -> ReplitConfig:
    model = heads.h * heads.d
    return ReplitConfig(
        d_model=model, n_heads=heads.h, n_kv_heads=heads.k, n_layers=LAYERS, ffn_size=4 * model, vocab_size=10,
        max_seq_len=4096, alibi_bias_max=8.0, layer_norm_eps=1e-5, softmax_scale=heads.d**-0.5, clip_qkv=None,
        logit_scale=None, tied_embeddings=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def kernel() -> Any:
    """One graph of all layouts and caches: for each, qkv, row offsets and the inputs of a cache."""
    types: list[Any] = []
    for i, (heads, dtype) in enumerate(CACHES):
        width = (heads.h + 2 * heads.k) * heads.d
        types += [
            TensorType(DType.float32, [f"t{i}", width], HOST),
            TensorType(DType.uint32, [f"o{i}"], HOST),
            *cache_input_types(config_of(heads), HOST, dtype),
        ]
    with Graph("attention", input_types=types, custom_extensions=[CPU_TARGET.kernels]) as graph:
        size = len(types) // len(CACHES)
        outputs = []
        for i, (heads, _) in enumerate(CACHES):
            qkv, offsets, *cache = graph.inputs[i * size : (i + 1) * size]
            slopes = ops.constant(alibi_slopes(heads.h, 8.0), DType.float32, HOST)
            layer = ops.constant(LAYER, DType.uint32, HOST)
            outputs.append(
                attention(config_of(heads), qkv.tensor, offsets.tensor, CacheInputs.of(cache), slopes, layer)
            )
        graph.output(*outputs)
    session = InferenceSession(devices=[CPU()])
    return session.init(session.compile(graph))


def rounded(values: Floats) -> Floats:
    """The nearest bfloat16, ties to even."""
    bits = values.view(np.uint32)
    near = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return near.view(np.float32)


class Case:
    """Random queries, keys and values of a batch, laid out as the kernel takes them."""

    def __init__(self, heads: Heads, batch: list[tuple[int, int]], padded: bool, heads_first: bool = True) -> None:
        h, k, d = heads
        generator = np.random.default_rng([h, len(batch), batch[0][0]])
        self.heads, self.batch, self.heads_first = heads, batch, heads_first
        self.sequences = [
            [
                generator.standard_normal((cached + new, n, d)).astype(np.float32) * scale
                for n, scale in ((h, 2), (k, 2), (k, 1))
            ]
            for cached, new in batch
        ]
        pages = max(-(-sum(lengths) // PAGE) for lengths in batch)
        self.table = generator.permutation(len(batch) * pages).reshape(len(batch), pages)
        page_floats = 2 * LAYERS * PAGE * k * d
        self.stride = page_floats + (96 if padded else 0)
        self.memory = np.full(len(batch) * pages * self.stride, np.nan, np.float32)
        self._fill_cache()
        self.new = np.array([new for _, new in batch])

    def _fill_cache(self) -> None:
        _, k, d = self.heads
        pages = self.table.size
        grid = self.memory.reshape(pages, self.stride)[:, : 2 * LAYERS * PAGE * k * d]
        if self.heads_first:  # our kernel's order in a page
            blocks = grid.reshape(pages, 2, LAYERS, k, PAGE, d).swapaxes(3, 4)
        else:  # MAX's
            blocks = grid.reshape(pages, 2, LAYERS, PAGE, k, d)
        for row, (cached, _), (_, keys, values) in zip(self.table, self.batch, self.sequences, strict=True):
            for position in range(cached):
                page, slot = row[position // PAGE], position % PAGE
                blocks[page, 1, LAYER, slot] = values[position]
                if self.heads_first:  # panels of 16 keys
                    panels = grid[page].reshape(2, LAYERS, k, PAGE // 16, d, 16)
                    panels[0, LAYER, :, slot // 16, :, slot % 16] = keys[position]
                else:
                    blocks[page, 0, LAYER, slot] = keys[position]

    def inputs(self) -> list[Any]:
        """The kernel's inputs. A padded cache is bound as a packed view with its stride beside it, as MAX does."""
        _, k, d = self.heads
        pages = self.table.size
        view = self.memory[: pages * 2 * LAYERS * PAGE * k * d].reshape(pages, 2, LAYERS, PAGE, k, d)
        packed = self.stride == 2 * LAYERS * PAGE * k * d
        rows = [
            np.concatenate([part[-new:].reshape(new, -1) for part in sequence], axis=1)
            for sequence, new in zip(self.sequences, self.new, strict=True)
        ]
        return [
            np.concatenate(rows),
            np.concatenate([[0], self.new.cumsum()]).astype(np.uint32),
            Buffer.from_numpy(view),
            np.array([cached for cached, _ in self.batch], np.uint32),
            self.table.astype(np.uint32),
            np.array([self.new.max()], np.uint32),
            np.array([max(cached for cached, _ in self.batch)], np.uint32),
            np.array([-1 if packed else self.stride], np.int64),
            np.zeros(4, np.int64),
        ]

    def expected(self) -> Floats:
        """The definition, one head after the other, in float64."""
        h, k, d = self.heads
        slopes = alibi_slopes(h, 8.0).astype(np.float64)
        outputs = []
        for (q, keys, values), new in zip(self.sequences, self.new, strict=True):
            distance = np.arange(len(keys)) - np.arange(len(keys) - new, len(keys))[:, None]
            for head in range(h):
                scores = q[-new:, head].astype(np.float64) @ keys[:, head // (h // k)].T * d**-0.5
                scores = np.where(distance <= 0, scores + slopes[head] * distance, -np.inf)
                weights = np.exp(scores - scores.max(1, keepdims=True))
                weights /= weights.sum(1, keepdims=True)
                outputs.append((weights @ values[:, head // (h // k)]).reshape(new, 1, d))
        sizes = np.repeat(self.new, h)
        rows = [np.concatenate(outputs[i : i + h], axis=1) for i in range(0, len(sizes), h)]
        return np.concatenate(rows).reshape(-1, h * d).astype(np.float32)


def run(kernel: Any, cases: list[Case]) -> list[Floats]:
    """What each case attends to; the last one's cache in bfloat16."""
    inputs = [case.inputs() for case in cases]
    blocks = cases[-1].memory.reshape(inputs[-1][2].shape)
    halves = (np.where(np.isnan(blocks), 0, rounded(blocks)).view(np.uint32) >> 16).astype(np.uint16)
    inputs[-1][2] = Buffer.from_numpy(halves).view(DType.bfloat16, halves.shape)
    return [output.to_numpy() for output in kernel.execute(*[value for values in inputs for value in values])]


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["packed", "padded"])
def test_attention_equals_its_definition(kernel: Any, batch: list[tuple[int, int]], padded: bool) -> None:
    cases = [Case(heads, batch, padded) for heads in LAYOUTS]
    outputs = run(kernel, [*cases, Case(LAYOUTS[0], batch, padded=False)])
    for case, output in zip(cases, outputs, strict=False):
        np.testing.assert_allclose(output, case.expected(), atol=2e-5, rtol=0, err_msg=str(case.heads))


@pytest.mark.parametrize("batch", BATCHES[3:], ids=str)
def test_a_bfloat16_cache_holds_rounded_keys_and_values(kernel: Any, batch: list[tuple[int, int]]) -> None:
    """New ones too: what a prompt sees of itself is what later tokens see of it."""
    exact = Case(LAYOUTS[0], batch, padded=False)
    for sequence in exact.sequences:
        sequence[1:] = [rounded(part) for part in sequence[1:]]
    # the kernel gets the new ones as they were
    cases = [Case(heads, batch, padded=False) for heads, _ in CACHES]
    np.testing.assert_allclose(run(kernel, cases)[-1], exact.expected(), atol=2e-5, rtol=0)


def test_cache_inputs_are_those_of_max() -> None:
    """Our list of types stands for MAX's, which the server hands to the same graph."""
    from max.nn.kv_cache import MHAKVCacheParams

    config = config_of(LAYOUTS[0])
    params = MHAKVCacheParams(
        dtype=DType.float32,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        num_layers=LAYERS,
        page_size=PAGE,
        devices=[HOST],
    )
    ours, theirs = cache_input_types(config, HOST), params.flattened_kv_inputs()
    assert [type(t) for t in ours] == [type(t) for t in theirs]
    for mine, max_type in zip(ours, theirs, strict=True):
        assert (mine.dtype, mine.device, mine.rank) == (max_type.dtype, max_type.device, max_type.rank)
        assert [d for d in map(str, mine.shape) if d.isdigit()] == [d for d in map(str, max_type.shape) if d.isdigit()]
