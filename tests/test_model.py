"""The compiled graph against independent decoders: NumPy's here, transformers' by recorded logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import reference
from models import RandomModel, as_tensor, compiled_from, random_ids, random_model, score
from replit.cpu.model import CpuModel
from replit.runtime.kv_cache import KEY_PANEL
from weights.quantization import to_float32
from weights.tensor import Encoding

GOLDEN = Path(__file__).parent / "golden"
# Logits of random models have a spread of about 1.
FLOAT32_BOUND = 1e-4
BFLOAT16_BOUND = 3e-2
DECODE_BOUND = 1e-5


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 127, 128, 129, 300, 700])
def test_grouped_query_logits_equal_the_numpy_decoder(
    grouped: RandomModel, grouped_model: CpuModel, length: int
) -> None:
    ids = random_ids(grouped, length)
    expected = reference.logits(grouped.config, grouped.weights, ids)
    np.testing.assert_allclose(score(grouped_model, ids), expected, atol=FLOAT32_BOUND, rtol=0)


def test_decode_with_the_cache_equals_prefill_of_the_longer_prompt(
    grouped: RandomModel, grouped_model: CpuModel
) -> None:
    ids = random_ids(grouped, 300)
    whole = score(grouped_model, ids)
    steps = [grouped_model.prefill(0, ids[:100])]
    steps += [grouped_model.decode([0], [token])[0] for token in ids[100:]]
    np.testing.assert_allclose(np.stack(steps), whole[99:], atol=DECODE_BOUND, rtol=0)


def test_prompts_longer_than_one_call_continue_in_the_cache(grouped: RandomModel, grouped_model: CpuModel) -> None:
    ids = random_ids(grouped, 1000)
    last = grouped_model.prefill(2, ids)
    expected = reference.logits(grouped.config, grouped.weights, ids)[-1]
    np.testing.assert_allclose(last, expected, atol=FLOAT32_BOUND, rtol=0)


def test_decode_does_not_depend_on_the_batch_bit_for_bit(grouped: RandomModel, grouped_model: CpuModel) -> None:
    prompts = [random_ids(grouped, n, seed=1) for n in (3, 600, 130, 64)]
    alone = []
    for prompt in prompts:
        grouped_model.prefill(1, prompt)
        alone.append(np.stack([grouped_model.decode([1], [t])[0] for t in (5, 9, 2)]))
    for slot, prompt in enumerate(prompts):
        grouped_model.prefill(slot, prompt)
    together = np.stack([grouped_model.decode(range(4), [t] * 4) for t in (5, 9, 2)], axis=1)
    np.testing.assert_array_equal(together, np.stack(alone))


@pytest.mark.parametrize("length", [1, 100, 128, 129, 300])
def test_a_copied_prefix_is_as_if_it_had_been_read(grouped_model: CpuModel, grouped: RandomModel, length: int) -> None:
    """Bit for bit, in another slot; and the slot that it came from goes on as before."""
    first, second = random_ids(grouped, 320, seed=4), random_ids(grouped, 40, seed=5)
    alone = grouped_model.prefill(1, first[:length] + second)
    expected = [alone, grouped_model.decode([1], [7])[0]]
    grouped_model.prefill(1, random_ids(grouped, 400, seed=6))  # something else was there before
    grouped_model.prefill(0, first)
    undisturbed = grouped_model.decode([0], [3])[0]
    grouped_model.prefill(0, first)
    grouped_model.copy_prefix(0, 1, length)
    copied = [grouped_model.extend([1], [second], [len(second) - 1])[0], grouped_model.decode([1], [7])[0]]
    np.testing.assert_array_equal(copied, expected)
    np.testing.assert_array_equal(grouped_model.decode([0], [3])[0], undisturbed)


def test_only_the_positions_of_a_prefix_are_copied(grouped_model: CpuModel, grouped: RandomModel) -> None:
    cache = grouped_model.cache
    grouped_model.prefill(0, random_ids(grouped, 300))
    for slot in (2, 3):
        cache.blocks[cache.page_table[slot]] = -1
    grouped_model.copy_prefix(0, 2, 200)
    pages = (cache.blocks[cache.page_table[2]] != -1).sum()
    copied = -(-200 // KEY_PANEL) * KEY_PANEL  # the last panel of keys whole
    assert pages == copied * cache.bytes_per_token(grouped.config, cache.encoding) // 4
    assert (cache.blocks[cache.page_table[3]] == -1).all()


def test_a_slot_goes_on_from_where_it_was_cut(grouped_model: CpuModel, grouped: RandomModel) -> None:
    ids = random_ids(grouped, 200, seed=8)
    grouped_model.prefill(1, ids[:150])
    expected = [grouped_model.decode([1], [token])[0] for token in (1, 2, 3)]
    grouped_model.prefill(0, ids)
    grouped_model.truncate(0, 150)
    np.testing.assert_array_equal([grouped_model.decode([0], [token])[0] for token in (1, 2, 3)], expected)


def test_no_more_is_copied_or_kept_than_a_slot_holds(grouped_model: CpuModel, grouped: RandomModel) -> None:
    grouped_model.prefill(0, random_ids(grouped, 20))
    with pytest.raises(ValueError, match="slot 0 holds 20 positions; expected at least 21"):
        grouped_model.copy_prefix(0, 1, 21)
    with pytest.raises(ValueError, match="slot 0 holds 20 positions; expected at least 21"):
        grouped_model.truncate(0, 21)


def test_slots_keep_their_sequences_apart(grouped: RandomModel, grouped_model: CpuModel) -> None:
    first, second = random_ids(grouped, 200, seed=2), random_ids(grouped, 150, seed=3)
    grouped_model.prefill(3, first)
    grouped_model.prefill(0, second)
    step = grouped_model.decode([3, 0], [1, 2])
    for row, ids in zip(step, (first + [1], second + [2]), strict=True):
        expected = reference.logits(grouped.config, grouped.weights, ids)[-1]
        np.testing.assert_allclose(row, expected, atol=FLOAT32_BOUND, rtol=0)


@pytest.mark.parametrize("n_heads", [4, 24])
def test_logits_and_greedy_tokens_equal_those_recorded_from_transformers(n_heads: int) -> None:
    """tests/record_golden.py made the recordings with transformers' MptForCausalLM, float32 on the CPU."""
    recorded = np.load(GOLDEN / f"mpt-{n_heads}-heads.npz")
    random = random_model(n_heads)
    model = random.compiled()
    for length in recorded["lengths"]:
        ids = random_ids(random, int(length))
        positions = recorded[f"positions-{length}"]
        np.testing.assert_allclose(
            score(model, ids)[positions], recorded[f"logits-{length}"], atol=FLOAT32_BOUND, rtol=0
        )
    assert greedy(model, random_ids(random, 20), 200) == recorded["greedy"].tolist()


def test_bfloat16_weights_stay_within_their_bound() -> None:
    random = random_model(4)
    model = random.compiled(Encoding.BFLOAT16)
    ids = random_ids(random, 300)
    expected = reference.logits(random.config, random.rounded(), ids)
    np.testing.assert_allclose(score(model, ids), expected, atol=BFLOAT16_BOUND, rtol=0)
    # Activations are rounded alike in every path, or a prefix found in a cache would change the text.
    model.prefill(0, ids[:1])
    steps = [model.decode([0], [token])[0] for token in ids[1:41]]
    np.testing.assert_allclose(np.stack(steps), score(model, ids[:41])[1:], atol=DECODE_BOUND, rtol=0)


def test_clipping_and_logit_scale_are_computed() -> None:
    from dataclasses import replace

    random = random_model(4, head_dim=32, vocab=53)
    changed = RandomModel(replace(random.config, clip_qkv=0.5, logit_scale=0.25), random.weights)
    ids = random_ids(random, 40)
    expected = reference.logits(changed.config, changed.weights, ids)
    plain = reference.logits(random.config, random.weights, ids)
    assert np.abs(expected - plain * 0.25).max() > 0.01  # the clipping matters here
    np.testing.assert_allclose(score(changed.compiled(), ids), expected, atol=FLOAT32_BOUND, rtol=0)


def greedy(model: CpuModel, ids: list[int], count: int) -> list[int]:
    """The most probable continuation."""
    tokens = [int(model.prefill(0, ids).argmax())]
    while len(tokens) < count:
        tokens.append(int(model.decode([0], tokens[-1:])[0].argmax()))
    return tokens


def test_layers_of_different_encodings() -> None:
    """Each run of layers that are stored alike is one operation; llama.cpp's mixtures change from layer to layer."""
    random = random_model(4)
    tensors = {
        name: as_tensor(name, array, Encoding.Q8_0 if name.startswith("blk.1.") else Encoding.BFLOAT16)
        for name, array in random.weights.items()
    }
    model = compiled_from(random.config, tensors)
    ids = random_ids(random, 150)
    weights = {name: to_float32(tensor) for name, tensor in tensors.items()}
    expected = reference.logits(random.config, weights, ids)
    np.testing.assert_allclose(score(model, ids), expected, atol=2 * BFLOAT16_BOUND, rtol=0)
    model.prefill(0, ids[:140])
    steps = np.stack([model.decode([0], [token])[0] for token in ids[140:]])
    np.testing.assert_allclose(steps, expected[140:], atol=2 * BFLOAT16_BOUND, rtol=0)
