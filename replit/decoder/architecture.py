"""What makes an architecture of the family: its configuration, its weights' names, its graph and its GGUF keys.

Cache, attention, kernels, compiled files and everything above work on any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from replit.runtime.target import Target
from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from max.graph import Graph

    from replit.runtime.weight_memory import WeightTypes


class DecoderConfig(Protocol):
    """What a decoder with ALiBi and a key-value cache is, whatever its layers compute. A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def d_model(self) -> int:
        """Elements of an embedding."""
        ...

    @property
    def n_heads(self) -> int:
        """Query heads."""
        ...

    @property
    def n_kv_heads(self) -> int:
        """Key/value heads."""
        ...

    @property
    def n_layers(self) -> int:
        """Blocks."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        ...

    @property
    def max_seq_len(self) -> int:
        """Longest sequence that the model was made for."""
        ...

    @property
    def alibi_bias_max(self) -> float:
        """See `replit.decoder.alibi.alibi_slopes`."""
        ...

    @property
    def layer_norm_eps(self) -> float:
        """Added to the variance."""
        ...

    @property
    def softmax_scale(self) -> float:
        """Factor of the products of queries and keys."""
        ...

    @property
    def logit_scale(self) -> float | None:
        """Factor of the logits."""
        ...

    @property
    def tied_embeddings(self) -> bool:
        """Whether the embedding table is the output matrix."""
        ...

    @property
    def head_dim(self) -> int:
        """Elements of one head."""
        ...

    @property
    def kv_dim(self) -> int:
        """Elements of all key heads together, and of all value heads."""
        ...


@dataclass(frozen=True)
class Architecture:
    """The functions that read, compute and write models of one architecture.

    The configuration that `read_config` returns is what the others take.
    """

    gguf_name: str
    hub_classes: tuple[str, ...]
    model_types: tuple[str, ...]
    read_config: Callable[[Checkpoint], DecoderConfig]
    map_weights: Callable[[Checkpoint, Any], Mapping[str, Tensor]]
    build_graph: Callable[[Any, WeightTypes, Target], Graph]
    graph_source: Path  # the file that builds it: what was compiled from another one is not used
    add_gguf_config: Callable[[GGUFWriter, Any], None]
    #: The hub's names, in its order, to the canonical ones of the tensors whose rows it holds one after the other.
    hub_tensors: Callable[[Any], Mapping[str, tuple[str, ...]]]
    hub_config: Callable[[Any], dict[str, Any]]  # a config.json
    suffix_first: bool = False  # in fill-in-the-middle, where a file does not say

    def claims(self, checkpoint: Checkpoint) -> bool:
        """Whether a file says that it is of this architecture."""
        if checkpoint.has_gguf_keys:
            return checkpoint.metadata.get("general.architecture") == self.gguf_name
        classes = checkpoint.metadata.get("architectures")
        if isinstance(classes, list):
            return any(name in self.hub_classes for name in classes)
        return checkpoint.metadata.get("model_type") in self.model_types
