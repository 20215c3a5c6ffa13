"""The dimensions and scalars of a Refact model, read from GGUF keys or from config.json.

It differs from MPT in its gated feed-forward layer, one key/value head, and an output matrix of its own. Its norm is
LayerNorm: the GGUF key for its epsilon says "rms" only because llama.cpp computes that instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from replit.decoder.config import DecoderConfig
from replit.decoder.config_keys import Keys
from replit.decoder.hub_names import EMBEDDINGS, OUTPUTS, first_tensor, is_tied
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

HUB_CLASSES = ("GPTRefactForCausalLM",)
MODEL_TYPE = "gpt_refact"
GGUF_NAME = "refact"
LAYER_NORM_EPS = 1e-5
# The reference computes it so, and llama.cpp as well, without a key.
ALIBI_BIAS_MAX = 8.0
# The width of the gated layer, where config.json leaves it out: two thirds of a plain one, in whole steps.
_FFN_STEP = 256


@dataclass(frozen=True, kw_only=True)
class RefactConfig(DecoderConfig):
    """A decoder of this architecture, whose logits are never scaled."""


def from_checkpoint(checkpoint: Checkpoint) -> RefactConfig:
    """Read the configuration that the files state.

    Raises UserError for another architecture, a missing or contradictory key, and a key that asks for arithmetic
    that is not implemented.
    """
    config = _from_gguf(checkpoint) if checkpoint.has_gguf_keys else _from_config_json(checkpoint)
    for whole, part, what in (
        (config.d_model, config.n_heads, "the embedding size {} into {} heads"),
        (config.n_heads, config.n_kv_heads, "{} heads among {} key/value heads"),
    ):
        if whole % part:
            raise UserError(
                f"{checkpoint.path}: cannot divide {what.format(whole, part)}; expected a whole "
                "number: the file's configuration is damaged, download it again"
            )
    if config.n_layers > len(checkpoint.tensors):
        raise UserError(
            f"{checkpoint.path}: the configuration says {config.n_layers} layers, the file has "
            f"{len(checkpoint.tensors)} tensors; expected several a layer: download it again"
        )
    return config


# Keys under "refact." that are read, or that say nothing about the arithmetic.
_GGUF_KEYS = {
    "embedding_length", "attention.head_count", "attention.head_count_kv", "block_count", "feed_forward_length",
    "vocab_size", "context_length", "attention.max_alibi_bias", "attention.layer_norm_rms_epsilon",
    "attention.key_length", "attention.value_length", "rope.dimension_count",
}  # fmt: skip


def _from_gguf(checkpoint: Checkpoint) -> RefactConfig:
    prefix = f"{GGUF_NAME}."
    stated = checkpoint.metadata.items()
    values = {k.removeprefix(prefix): v for k, v in stated if k.startswith(prefix)}
    keys = Keys(values, str(checkpoint.path), prefix)
    keys.refuse_others(_GGUF_KEYS)
    d_model, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    keys.must_be("attention.key_length", d_model // n_heads)
    keys.must_be("attention.value_length", d_model // n_heads)
    rows = _embedding(checkpoint).shape[0]
    tokens = checkpoint.metadata.get("tokenizer.ggml.tokens")
    keys.must_be("vocab_size", rows)
    if isinstance(tokens, list) and len(tokens) != rows:
        raise UserError(
            f"{checkpoint.path}: tokenizer.ggml.tokens says {len(tokens)} tokens, the embedding "
            f"table has {rows} rows; expected them to agree: convert the file again"
        )
    return RefactConfig(
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=keys.integer("attention.head_count_kv", 1),
        n_layers=keys.integer("block_count"),
        ffn_size=keys.integer("feed_forward_length"),
        vocab_size=rows,
        max_seq_len=keys.integer("context_length"),
        alibi_bias_max=keys.positive("attention.max_alibi_bias", ALIBI_BIAS_MAX),
        layer_norm_eps=keys.positive("attention.layer_norm_rms_epsilon"),
        softmax_scale=1 / sqrt(d_model / n_heads),
        tied_embeddings=is_tied(checkpoint),
    )


def _from_config_json(checkpoint: Checkpoint) -> RefactConfig:
    keys = Keys(checkpoint.metadata, f"config.json of {checkpoint.path}")
    # The reference gates with SiLU whatever "activation_function" says, which GPT-2's defaults fill in.
    keys.must_be("multi_query", True)
    keys.must_be("scale_attn_weights", True)
    keys.must_be("quantization_config")
    d_model, n_heads = keys.integer("n_embd"), keys.integer("n_head")
    return RefactConfig(
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=1,
        n_layers=keys.integer("n_layer"),
        ffn_size=ffn_size(keys.integer("n_inner", 4 * d_model)),
        vocab_size=keys.integer("vocab_size"),
        max_seq_len=keys.integer("n_positions"),
        alibi_bias_max=ALIBI_BIAS_MAX,
        layer_norm_eps=keys.positive("layer_norm_epsilon", LAYER_NORM_EPS),
        softmax_scale=1 / sqrt(d_model / n_heads),
        tied_embeddings=_checked_tied(checkpoint, keys),
    )


def ffn_size(inner: int) -> int:
    """Width of the gated layer for config.json's n_inner."""
    return -(-(2 * inner // 3) // _FFN_STEP) * _FFN_STEP


def _embedding(checkpoint: Checkpoint) -> Tensor:
    table = first_tensor(checkpoint, EMBEDDINGS)
    if table is None:
        raise UserError(
            f"{checkpoint.path}: there is no {' or '.join((EMBEDDINGS[-1], EMBEDDINGS[0]))}; expected the embedding "
            "table: download or convert the file again"
        )
    return table


def _checked_tied(checkpoint: Checkpoint, keys: Keys) -> bool:
    """What the tensors say, unless config.json says otherwise."""
    tied = is_tied(checkpoint)
    if tied and first_tensor(checkpoint, OUTPUTS) is None:
        keys.must_be("tie_word_embeddings", True)
    elif not tied:
        keys.must_be("tie_word_embeddings", False)
    return tied
