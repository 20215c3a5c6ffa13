"""Which guesses a model gets: `--draft auto|none|ngram|nano|PATH`."""

from __future__ import annotations

from pipelines.engine.draft_model import DraftModel
from pipelines.engine.drafter import Drafter
from pipelines.registry import ModelFiles, open_model
from replit.cpu.model import CpuModel
from replit.runtime.bind import bind_weights
from replit.runtime.compile import CompileOptions, Reporter, compile_model
from replit.runtime.weight_memory import total_bytes, weight_types
from weights.errors import UserError

# A small model pays where a pass of the large one takes many times as long as its own.
SMALLEST_RATIO = 8
# Sequences that a small model follows at once; with more, their own rows fill a pass.
_SEQUENCES = 8
_MAX_LENGTH = 2048


def open_drafter(
    choice: str, files: ModelFiles, weight_bytes: int, max_batch_size: int, on_gpu: bool, progress: Reporter
) -> Drafter | None:
    """The drafter of a model whose weights take `weight_bytes`, None for none.

    "auto" takes n-grams, and nano for models of at least SMALLEST_RATIO times its size; on a GPU nothing, since MAX's
    kernels round one row and several otherwise, so that texts could differ. Any other name is a small model's.
    Raises UserError where that cannot be loaded.
    """
    if choice == "none" or (choice == "auto" and on_gpu):
        return None
    if choice == "ngram" or on_gpu:
        return Drafter()
    try:
        draft = open_model("nano" if choice == "auto" else choice, None, None)
    except UserError as error:
        raise UserError(str(error).replace("--model", "--draft")) from None
    types = weight_types(draft.tensors, None)
    if choice == "auto" and total_bytes(types) * SMALLEST_RATIO > weight_bytes:
        return Drafter()
    compiled = compile_model(draft.config, types, CompileOptions(), progress, draft.architecture)
    bound = bind_weights(compiled, draft.tensors, types, mapped=False)
    length = min(_MAX_LENGTH, draft.config.max_seq_len)
    model = CpuModel(draft.config, bound, min(max_batch_size, _SEQUENCES), length)
    small = DraftModel(model, draft.tokenizer, files.tokenizer)
    return Drafter(small=small)
