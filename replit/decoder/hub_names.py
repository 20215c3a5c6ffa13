"""The hub's names of the two matrices that may be one, and of what stands before every name."""

from __future__ import annotations

from weights.files.checkpoint import Checkpoint
from weights.tensor import Tensor

#: What libraries that wrap a model put before its tensors' names; the last one is the model's own.
HUB_PREFIXES = ("", "model.", "module.", "_orig_mod.", "model.transformer.", "module.transformer.", "transformer.")
EMBEDDINGS = ("token_embd.weight", *(f"{prefix}wte.weight" for prefix in HUB_PREFIXES))
OUTPUTS = ("output.weight", "model.lm_head.weight", "module.lm_head.weight", "lm_head.weight")

_FEW = 1 << 12  # two tables that differ do so at once; the rest of the file stays unread


def first_tensor(checkpoint: Checkpoint, names: tuple[str, ...]) -> Tensor | None:
    """The tensor under the first of `names` that there is."""
    return next((checkpoint.tensors[name] for name in names if name in checkpoint.tensors), None)


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the embedding table is the output matrix: there is no other, or one that is a copy.

    One with other values is used, whatever `tie_word_embeddings` says: transformers 5 and llama.cpp do so too.
    """
    output, table = first_tensor(checkpoint, OUTPUTS), first_tensor(checkpoint, EMBEDDINGS)
    if output is None or table is None:
        return output is None
    if (output.shape, output.encoding) != (table.shape, table.encoding):
        return False
    return output.data[:_FEW].tobytes() == table.data[:_FEW].tobytes() and bool((output.data == table.data).all())
