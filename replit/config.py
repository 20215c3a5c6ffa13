"""The dimensions and scalars of a model, read from GGUF keys or from config.json.

Every key that the reference implementations (llm-foundry's MPTForCausalLM, transformers'
MptForCausalLM, llama.cpp's "mpt") compute with is implemented, checked, or refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from replit.decoder.config import DecoderConfig
from replit.decoder.config_keys import Keys
from replit.decoder.hub_names import EMBEDDINGS, OUTPUTS, first_tensor, is_tied
from replit.mosaic_config import modernized
from replit.shapes import config_of_shapes, is_described
from weights.errors import UserError
from weights.files.checkpoint import Checkpoint

# What both implementations use where the file names none.
LAYER_NORM_EPS = 1e-5
ALIBI_BIAS_MAX = 8.0

HUB_ARCHITECTURES = ("MPTForCausalLM", "MptForCausalLM")


@dataclass(frozen=True, kw_only=True)
class ReplitConfig(DecoderConfig):
    """A decoder of this architecture."""

    clip_qkv: float | None  # bound of queries, keys and values

    @property
    def qkv_dim(self) -> int:
        """Rows of the fused projection: queries, keys, values."""
        return self.d_model + 2 * self.kv_dim


def from_checkpoint(checkpoint: Checkpoint) -> ReplitConfig:
    """Read the configuration that the files state.

    Raises UserError for another architecture, a missing or contradictory key, and a key that asks
    for arithmetic that is not implemented.
    """
    if checkpoint.has_gguf_keys:
        config = _from_gguf(checkpoint)
    else:
        config = _from_config_json(checkpoint)
    _check_heads(config, str(checkpoint.path))
    _check_layers(config, checkpoint)
    return config


def _check_heads(config: ReplitConfig, source: str) -> None:
    for whole, part, what in (
        (config.d_model, config.n_heads, "the embedding size {} into {} heads"),
        (config.n_heads, config.n_kv_heads, "{} heads among {} key/value heads"),
    ):
        if whole % part:
            raise UserError(
                f"{source}: cannot divide {what.format(whole, part)}; expected a whole "
                "number: the file's configuration is damaged, download it again"
            )


def _check_layers(config: ReplitConfig, checkpoint: Checkpoint) -> None:
    """Tables of weights are as long as this number says, so it must not be absurd."""
    if config.n_layers > len(checkpoint.tensors):
        raise UserError(
            f"{checkpoint.path}: the configuration says {config.n_layers} layers, the file has "
            f"{len(checkpoint.tensors)} tensors; expected several a layer: download it again"
        )


def _from_gguf(checkpoint: Checkpoint) -> ReplitConfig:
    source = str(checkpoint.path)
    architecture = checkpoint.metadata.get("general.architecture")
    if architecture != "mpt":
        raise UserError(
            f"{source} holds the architecture {architecture!r}; expected 'mpt': give a GGUF file of a Replit Code model"
        )
    prefix = "mpt."
    keys = Keys(
        {k.removeprefix(prefix): v for k, v in checkpoint.metadata.items() if k.startswith(prefix)},
        source,
        prefix,
    )
    d_model = keys.integer("embedding_length")
    n_heads = keys.integer("attention.head_count")
    _refuse_gguf_keys(keys, d_model // n_heads)
    return ReplitConfig(
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=keys.integer("attention.head_count_kv", n_heads),
        n_layers=keys.integer("block_count"),
        ffn_size=keys.integer("feed_forward_length"),
        vocab_size=_gguf_vocab_size(checkpoint, keys),
        max_seq_len=keys.integer("context_length"),
        alibi_bias_max=keys.positive("attention.max_alibi_bias"),
        layer_norm_eps=keys.positive("attention.layer_norm_epsilon"),
        softmax_scale=keys.positive("attention.scale", 1 / sqrt(d_model / n_heads)),
        # llama.cpp reads 0 as "no clipping" and as "no scaling".
        clip_qkv=_clip(keys, "attention.clamp_kqv"),
        logit_scale=keys.optional_number("logit_scale") or None,
        tied_embeddings=is_tied(checkpoint),
    )


# Keys under "mpt." that are read above or say nothing about the arithmetic.
_GGUF_KEYS = {
    "embedding_length", "attention.head_count", "attention.head_count_kv", "block_count",
    "feed_forward_length", "vocab_size", "context_length", "attention.max_alibi_bias",
    "attention.layer_norm_epsilon", "attention.scale", "attention.clamp_kqv", "logit_scale",
    "rope.dimension_count",  # of rotary embeddings, which neither llama.cpp's nor our MPT has
}  # fmt: skip


def _refuse_gguf_keys(keys: Keys, head_dim: int) -> None:
    """The prefix makes a key the architecture's own, so an unknown one that asks for something is an error."""
    keys.must_be("attention.key_length", head_dim)
    keys.must_be("attention.value_length", head_dim)
    keys.must_be("attention.causal", True)
    keys.must_be("use_parallel_residual", False)
    keys.must_be("tensor_data_layout", "reference")
    checked = {"attention.key_length", "attention.value_length", "attention.causal",
               "use_parallel_residual", "tensor_data_layout"}  # fmt: skip
    keys.refuse_others(_GGUF_KEYS | checked)


def _gguf_vocab_size(checkpoint: Checkpoint, keys: Keys) -> int:
    """Rows of the embedding table, which the token list and the key must agree with."""
    embedding = first_tensor(checkpoint, EMBEDDINGS)
    if embedding is None:
        raise UserError(
            f"{checkpoint.path}: tensor 'token_embd.weight' is missing; expected the embedding "
            "table: download or convert the file again"
        )
    rows = embedding.shape[0]
    tokens = checkpoint.metadata.get("tokenizer.ggml.tokens")
    stated = keys.integer("vocab_size", rows)
    for count, what in ((stated, "mpt.vocab_size"), (tokens, "tokenizer.ggml.tokens")):
        count = len(count) if isinstance(count, list) else count
        if count not in (None, rows):
            raise UserError(
                f"{checkpoint.path}: {what} says {count} tokens, the embedding table has {rows} "
                "rows; expected them to agree: convert the file again"
            )
    return rows


def _clip(keys: Keys, key: str) -> float | None:
    clip = keys.optional_number(key)
    if clip is not None and clip < 0:
        raise keys.error(key, "a positive number or none")
    return clip or None


def _from_config_json(checkpoint: Checkpoint) -> ReplitConfig:
    stated = checkpoint.metadata if is_described(checkpoint.metadata) else config_of_shapes(checkpoint)
    keys = Keys(modernized(stated), f"config.json of {checkpoint.path}")
    _check_architecture(keys)
    attention, ffn = keys.section("attn_config"), keys.section("ffn_config")
    _refuse_config_keys(keys, attention, ffn)
    d_model = keys.integer("d_model")
    n_heads = keys.integer("n_heads")
    return ReplitConfig(
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=_kv_heads(attention, n_heads),
        n_layers=keys.integer("n_layers"),
        ffn_size=_ffn_size(keys, ffn, d_model),
        vocab_size=keys.integer("vocab_size"),
        max_seq_len=keys.integer("max_seq_len"),
        alibi_bias_max=attention.positive("alibi_bias_max", ALIBI_BIAS_MAX),
        layer_norm_eps=keys.positive("layer_norm_epsilon", keys.positive("norm_eps", LAYER_NORM_EPS)),
        softmax_scale=attention.positive("softmax_scale", 1 / sqrt(d_model / n_heads)),
        clip_qkv=_clip(attention, "clip_qkv"),
        logit_scale=_logit_scale(keys, d_model),
        tied_embeddings=_tied(keys, checkpoint),
    )


def _check_architecture(keys: Keys) -> None:
    names = keys.values.get("architectures")
    if names is None and keys.values.get("model_type") == "mpt":
        return
    if not isinstance(names, list) or not any(name in HUB_ARCHITECTURES for name in names):
        raise keys.error("architectures", " or ".join(HUB_ARCHITECTURES))


def _refuse_config_keys(keys: Keys, attention: Keys, ffn: Keys) -> None:
    """The keys that change the references' arithmetic and that the graph does not compute.

    Not here: dropout, initialisation and `attn_impl` change nothing at inference; `no_bias` and
    `learned_pos_emb` show in the tensors, where a surplus one is an error.
    """
    keys.must_be("norm_type", "low_precision_layernorm", "layernorm")
    keys.must_be("final_logit_softcapping")
    keys.must_be("block_overrides")
    keys.must_be("quantization_config")
    _check_alibi(keys, attention)
    for key in ("prefix_lm", "qk_ln", "qk_gn", "rope", "nope"):
        attention.must_be(key, False)
    attention.must_be("attn_type", "multihead_attention", "multiquery_attention", "grouped_query_attention")
    attention.must_be("sliding_window_size", -1)
    attention.must_be("attn_logit_softcapping")
    attention.must_be("fused_qkv", True)
    attention.must_be("kv_dim")
    attention.must_be("attn_uses_sequence_id", False)
    attention.refuse_others(_ATTENTION_KEYS)
    ffn.must_be("ffn_type", "mptmlp")
    ffn.must_be("ffn_act_fn", {"name": "gelu"}, {"name": "gelu", "approximate": "none"})
    ffn.refuse_others({"ffn_type", "ffn_act_fn", "ffn_hidden_size", "fc_type"})


# Keys of attn_config that are read or checked, or that change nothing: dropout, the kernel that computes it, what
# belongs to rotary embeddings (which are refused if they are on), and what transformers adds to every configuration.
_ATTENTION_KEYS = {
    "attn_type", "kv_n_heads", "alibi", "alibi_bias_max", "softmax_scale", "clip_qkv", "prefix_lm", "qk_ln", "qk_gn",
    "rope", "nope", "sliding_window_size", "attn_logit_softcapping", "fused_qkv", "kv_dim", "attn_uses_sequence_id",
    "attn_pdrop", "attn_impl", "rope_theta", "rope_impl", "rope_dail_config", "rope_hf_config", "model_type",
    "fc_type", "verbose", "name", "dtype", "torch_dtype", "transformers_version", "architectures", "return_dict",
    "output_attentions", "output_hidden_states", "problem_type", "_name_or_path", "id2label", "label2id",
    "_attn_implementation_autoset", "chunk_size_feed_forward", "is_encoder_decoder",
    "use_return_dict", "attn_implementation", "use_cache",
    "temperature", "top_k", "top_p", "typical_p", "max_length", "min_length", "num_beams", "num_beam_groups",
    "num_return_sequences", "repetition_penalty", "length_penalty", "diversity_penalty", "tf_legacy_loss",
    "use_bfloat16", "tie_encoder_decoder", "tie_word_embeddings", "torchscript", "remove_invalid_values",
}  # fmt: skip


def _check_alibi(keys: Keys, attention: Keys) -> None:
    """Without the key llm-foundry uses position embeddings, transformers ALiBi all the same."""
    attention.must_be("alibi", True)
    by_transformers = "MptForCausalLM" in (keys.values.get("architectures") or [])
    if attention.values.get("alibi") is None and not by_transformers:
        raise attention.error("alibi", "true, the only position encoding implemented")


def _kv_heads(attention: Keys, n_heads: int) -> int:
    kind = attention.values.get("attn_type", "multihead_attention")
    if kind == "grouped_query_attention":
        return attention.integer("kv_n_heads")
    return attention.integer("kv_n_heads", 1 if kind == "multiquery_attention" else n_heads)


def _ffn_size(keys: Keys, ffn: Keys, d_model: int) -> int:
    """`ffn_hidden_size` where llm-foundry's newer form names it, else a ratio of the model size."""
    ratio = keys.positive("expansion_ratio", 4.0)
    return ffn.integer("ffn_hidden_size", int(d_model * ratio))


def _logit_scale(keys: Keys, d_model: int) -> float | None:
    if keys.values.get("logit_scale") == "inv_sqrt_d_model":
        return 1 / sqrt(d_model)
    return keys.optional_number("logit_scale")


def _tied(keys: Keys, checkpoint: Checkpoint) -> bool:
    """What the tensors say; without an output matrix config.json must not ask for one."""
    stated = keys.values.get("tie_word_embeddings")
    if stated is not None and not isinstance(stated, bool):
        raise keys.error("tie_word_embeddings", "true or false")
    return is_tied(checkpoint) and (stated is not False or first_tensor(checkpoint, OUTPUTS) is not None)
