"""What makes an architecture of the family: its configuration, its weights' names, its graph and its GGUF keys.

Cache, attention, kernels, compiled files and everything above work on any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replit.decoder.config import DecoderConfig
from replit.runtime.target import Target
from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from max.graph import Graph

    from replit.runtime.weight_memory import WeightTypes


def add_gguf_dimensions(writer: GGUFWriter, config: DecoderConfig) -> None:
    """The GGUF keys that every architecture has."""
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_size)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)


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
