"""The dimensions and scalars that every decoder of the family has, whatever its layers compute."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """One model's arithmetic, whatever its layers compute; no dimension is written down anywhere else."""

    d_model: int  # elements of an embedding
    n_heads: int  # query heads
    n_kv_heads: int  # key/value heads
    n_layers: int  # blocks
    ffn_size: int  # elements between the two halves of a feed-forward layer
    vocab_size: int  # rows of the embedding table
    max_seq_len: int  # longest sequence that the model was made for
    alibi_bias_max: float  # see replit.decoder.alibi.alibi_slopes
    layer_norm_eps: float  # added to the variance
    softmax_scale: float  # factor of the products of queries and keys
    logit_scale: float | None = None  # factor of the logits
    tied_embeddings: bool  # whether the embedding table is the output matrix

    @property
    def head_dim(self) -> int:
        """Elements of one head."""
        return self.d_model // self.n_heads

    @property
    def kv_dim(self) -> int:
        """Elements of all key heads together, and of all value heads."""
        return self.n_kv_heads * self.head_dim
