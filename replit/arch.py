"""The architecture for MAX's own entries: `max serve --custom-architectures DIR:replit.arch --devices cpu …`.

The graph, the compiled file, the weights and the tokenizer are this package's; MAX samples and serves. `replit --serve`
does not come this way (docs/architecture.md says why). MAX wants a directory with a config.json beside the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from max.driver import CPU, Buffer, Device
from max.dtype import DType
from max.graph import DeviceRef
from max.graph.weights import WeightsFormat
from max.nn.kv_cache import KVCacheParams
from max.nn.transformer import ReturnLogits
from max.pipelines.context import TextContext
from max.pipelines.kv_cache.memory_planner import PagedMemoryPlanner
from max.pipelines.lib import ModelInputs, ModelOutputs, PipelineModelWithKVCache, SupportedArchitecture, TextTokenizer
from max.pipelines.lib.interfaces.arch_config import ArchConfigWithStoredKVParams
from max.pipelines.lib.tokenizer import resolve_eos_token_ids
from max.pipelines.modeling.types import PipelineTask
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerFast

from replit.config import ReplitConfig, from_checkpoint
from replit.model import CompileOptions, Engine, bind_weights, compile_model
from replit.weight_memory import fits_in_memory, total_bytes, weight_types
from replit.weight_names import map_weights
from weights.checkpoint import Checkpoint, open_checkpoint
from weights.tensor import Encoding
from weights.tokenizer import load_tokenizer


class HubConfig(PretrainedConfig):
    """config.json as it stands: transformers' own class refuses the published one. Read again by replit/config.py."""

    model_type = "mpt"


AutoConfig.register("mpt", HubConfig, exist_ok=True)


def checkpoint_of(model_config: Any) -> Checkpoint:
    """The weights that a `MAXModelConfig` names, a local path."""
    paths = model_config.resolved_weight_paths()
    return open_checkpoint(paths[0] if len(paths) == 1 else Path(model_config.model_path))


@dataclass(kw_only=True)
class ReplitArchConfig(ArchConfigWithStoredKVParams):
    """What MAX plans memory with."""

    DEFAULT_ENCODING: ClassVar[str] = "float32"
    kv_params: KVCacheParams
    max_seq_len: int

    @property
    def devices(self) -> list[Device]:
        """Where the model runs."""
        return [CPU()]

    @classmethod
    def initialize(cls, pipeline_config: Any, model_config: Any = None, *, max_seq_len: int) -> ReplitArchConfig:
        """See `ArchConfig.initialize`."""
        model = model_config or pipeline_config.model
        params = cls.construct_kv_params(None, pipeline_config, [DeviceRef.CPU()], model.kv_cache, DType.float32)
        return cls(kv_params=params, max_seq_len=max_seq_len)

    @classmethod
    def construct_kv_params(
        cls,
        huggingface_config: Any,
        pipeline_config: Any,
        devices: list[DeviceRef],
        kv_cache_config: Any,
        cache_dtype: DType,
        *,
        allow_kv_head_replication: bool = False,
    ) -> Any:
        """The cache that the graph reads."""
        config = from_checkpoint(checkpoint_of(pipeline_config.model))
        return kv_cache_config.to_params(
            dtype=DType.float32,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            num_layers=config.n_layers,
            devices=devices,
            data_parallel_degree=1,
        )

    @classmethod
    def calculate_max_seq_len(cls, huggingface_config: Any, model_config: Any) -> int:
        """`--max-length`, at most what the model was trained for."""
        limit = from_checkpoint(checkpoint_of(model_config)).max_seq_len
        wanted = model_config.max_length or limit
        if wanted > limit:
            raise ValueError(f"--max-length is {wanted}; expected at most {limit}, this model's limit")
        return int(wanted)


@dataclass(kw_only=True)
class ReplitInputs(ModelInputs):
    """The graph's leading inputs; the cache's follow."""

    tokens: Buffer
    row_offsets: Buffer
    rows: Buffer

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """All inputs in order."""
        (cache,) = self.kv_cache_inputs
        return (
            self.tokens, self.row_offsets, self.rows, cache.kv_blocks, cache.cache_lengths, cache.lookup_table,
            cache.max_prompt_length, cache.max_cache_length, cache.page_stride, cache.attention_dispatch_metadata,
        )  # fmt: skip


class _Quiet:
    """MAX reports progress by itself."""

    def step(self, message: str, expectation: str = "") -> AbstractContextManager[None]:
        """Runs the body."""
        return nullcontext()

    def note(self, message: str) -> None:
        """Says nothing."""


class ReplitPipelineModel(PipelineModelWithKVCache[TextContext]):
    """The compiled graph behind MAX's `TextGenerationPipeline`."""

    model_config_cls = ReplitArchConfig

    def __init__(self, pipeline_config: Any, session: Any, *arguments: Any, **more: Any) -> None:
        super().__init__(pipeline_config, session, *arguments, **more)
        checkpoint = checkpoint_of(pipeline_config.model)
        config: ReplitConfig = from_checkpoint(checkpoint)
        tensors = map_weights(checkpoint, config)
        encoding = pipeline_config.model.quantization_encoding
        types = weight_types(tensors, Encoding(encoding) if encoding else None)
        Engine.adopt(session)
        compiled = compile_model(config, types, CompileOptions(), _Quiet())
        self.model = bind_weights(compiled, tensors, types, mapped=not fits_in_memory(total_bytes(types)))

    def _prepare_initial_token_inputs(
        self,
        replica_batches: Sequence[Sequence[TextContext]],
        kv_cache_inputs: Any = None,
        return_n_logits: int = 1,
    ) -> ReplitInputs:
        batch = [context for replica in replica_batches for context in replica]
        offsets = np.zeros(len(batch) + 1, np.uint32)
        np.cumsum([context.tokens.active_length for context in batch], out=offsets[1:])
        last = offsets[1:].astype(np.int64) - 1
        rows = np.arange(offsets[-1], dtype=np.int64) if self.return_logits == ReturnLogits.ALL else last
        return ReplitInputs(
            tokens=Buffer.from_numpy(np.concatenate([context.tokens.active for context in batch])),
            row_offsets=Buffer.from_numpy(offsets),
            rows=Buffer.from_numpy(rows),
            kv_cache_inputs=kv_cache_inputs,
        )

    def execute(self, model_inputs: ModelInputs) -> ModelOutputs:
        """One pass over a batch."""
        CPU().synchronize()  # MAX's copies of the page table are not ordered with an execution on the CPU
        logits = self.model.execute(*model_inputs.buffers)[0]
        if self.return_logits != ReturnLogits.ALL:
            return ModelOutputs(logits=logits, next_token_logits=logits)
        last = model_inputs.row_offsets.to_numpy()[1:].astype(np.int64) - 1
        last_rows = Buffer.from_numpy(np.ascontiguousarray(logits.to_numpy()[last]))
        return ModelOutputs(logits=logits, next_token_logits=last_rows, logit_offsets=model_inputs.row_offsets)


class ReplitTokenizer(TextTokenizer):
    """Our vocabulary in the wrapper that MAX expects: from the GGUF file or tokenizer.json, as for the command line."""

    def __init__(self, model_path: str, pipeline_config: Any, *, max_length: int | None = None, **unused: Any) -> None:
        tokenizer = load_tokenizer(checkpoint_of(pipeline_config.model))
        backend = Tokenizer.from_str(tokenizer._backend.to_str())  # type: ignore[attr-defined]
        backend.decoder = ByteLevel()  # ours decodes by a table of bytes
        eos = None if tokenizer.eos_token_id is None else backend.id_to_token(tokenizer.eos_token_id)
        self.model_path = model_path
        self.delegate = PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token=eos, clean_up_tokenization_spaces=False
        )
        # A base model completes the messages' texts, as replit --serve does.
        self.delegate.chat_template = (
            "{% for m in messages %}{{ m['content'] }}{{ '\\n' if not loop.last }}{% endfor %}"
        )
        self._custom_template_provided = False
        self._chat_template = None
        self.max_length = max_length or from_checkpoint(checkpoint_of(pipeline_config.model)).max_seq_len
        self._chat_encoder_failed = False
        self._enable_llama_whitespace_fix = False
        self._eos_token_ids = resolve_eos_token_ids(tokenizer.eos_token_id, pipeline_config)


ARCHITECTURES = [
    SupportedArchitecture(
        name=name,
        task=PipelineTask.TEXT_GENERATION,
        example_repo_ids=["replit/replit-code-v1_5-3b", "replit/replit-code-v1-3b"],
        default_weights_format=WeightsFormat.safetensors,
        default_encoding="float32",
        supported_encodings={"float32", "q4_0", "q4_k", "q6_k"},
        pipeline_model=ReplitPipelineModel,
        tokenizer=ReplitTokenizer,
        context_type=TextContext,
        config=ReplitArchConfig,
        memory_planner=PagedMemoryPlanner,
    )
    for name in ("MPTForCausalLM", "MptForCausalLM")
]
